//! One stream of a peer on which it asks for small files as a whole: they are read many at a time, and answered in the
//! order in which they were read.
//!
//! A small file costs little but the way to the disk and back. So what waits is taken together, as much as makes one
//! chunk; and some of that is read at once, because a disk that was not asked before has them here and there.

use super::server::{Host, Visitor, refusal};
use super::server_calls::blame;
use crate::folder::ServeError;
use bytes::Bytes;
use farshore_engine::PeerFault;
use farshore_engine::chunk::{CHUNK_SIZE, FRAME_SIZE};
use farshore_proto::verify::seal;
use farshore_proto::{MAX_WAITING_REQUESTS, Open, ReadReply, ReadRequest, Whole, v1};
use futures_util::FutureExt;
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

/// The most files that are read by one task.
const FILES_AT_ONCE: usize = 16;

/// How many tasks read.
const READERS: usize = 4;

/// The replies to what comes in on a stream that began with `first`.
pub(super) fn replies(
    first: Whole,
    inbound: Streaming<v1::ReadRequest>,
    host: Arc<dyn Host>,
    visitor: Arc<Visitor>,
) -> impl Stream<Item = Result<v1::ReadReply, Status>> + Send + 'static {
    let wholes = Wholes {
        inbound: Some(inbound),
        host,
        visitor,
        last_request: first.request,
        waiting: VecDeque::from([first]),
        reading: JoinSet::new(),
        replies: VecDeque::new(),
    };
    stream::try_unfold(wholes, |mut wholes| async move {
        let reply = wholes.next().await?;
        Ok(reply.map(|reply| (reply.encode(), wholes)))
    })
}

struct Wholes {
    /// `None` once the peer has nothing more to ask.
    inbound: Option<Streaming<v1::ReadRequest>>,
    host: Arc<dyn Host>,
    visitor: Arc<Visitor>,
    /// The number of the newest request.
    last_request: u64,
    waiting: VecDeque<Whole>,
    reading: JoinSet<Vec<Read>>,
    /// What is to be sent.
    replies: VecDeque<Sending>,
}

/// A file that was read for a request, or why it cannot be had.
struct Read {
    request: u64,
    result: Result<Bytes, ServeError>,
    /// For the place in memory of all that were read together.
    place: Option<Arc<OwnedSemaphorePermit>>,
}

/// A reply, and the place in memory of what it sends.
struct Sending {
    reply: ReadReply,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Wholes {
    /// The next reply; `None` once everything is answered and nothing more can come.
    async fn next(&mut self) -> Result<Option<ReadReply>, Status> {
        loop {
            self.take_what_is_here()?;
            self.begin_reading();
            if let Some(Sending { reply, .. }) = self.replies.pop_front() {
                return Ok(Some(reply));
            }
            tokio::select! {
                biased;
                Some(read) = self.reading.join_next() => match read {
                    Ok(read) => read.into_iter().for_each(|read| self.answer(read)),
                    // Only a runtime that is going down ends it.
                    Err(_) => return Err(Status::unavailable("shutting down")),
                },
                message = next_message(&mut self.inbound), if self.inbound.is_some() => self.take(message?)?,
                else => return Ok(None),
            }
        }
    }

    /// Takes requests as long as there are any without waiting, but not for ever.
    fn take_what_is_here(&mut self) -> Result<(), Status> {
        for _ in 0..MAX_WAITING_REQUESTS {
            let Some(message) = self.inbound.as_mut().and_then(|inbound| inbound.message().now_or_never()) else {
                break;
            };
            self.take(message?)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Option<v1::ReadRequest>) -> Result<(), Status> {
        let Some(message) = message else {
            self.inbound = None;
            return Ok(());
        };
        match ReadRequest::parse(message).map_err(|fault| self.blame(fault))? {
            ReadRequest::Whole(whole) => self.enqueue(whole),
            ReadRequest::Cancel { request } => {
                self.cancel(request);
                Ok(())
            }
            ReadRequest::Open(_) | ReadRequest::Fetch(_) | ReadRequest::Hash(_) => {
                Err(self.blame(PeerFault::Missing("whole")))
            }
        }
    }

    fn enqueue(&mut self, whole: Whole) -> Result<(), Status> {
        if whole.request <= self.last_request {
            return Err(self.blame(PeerFault::OutOfRange("request")));
        }
        if self.waiting.len() >= MAX_WAITING_REQUESTS {
            return Err(self.blame(PeerFault::TooMany(MAX_WAITING_REQUESTS)));
        }
        self.last_request = whole.request;
        self.waiting.push_back(whole);
        Ok(())
    }

    /// Forgets a request. One that is being read is answered, and one that was is none of our business.
    fn cancel(&mut self, request: u64) {
        if let Some(index) = self.waiting.iter().position(|whole| whole.request == request) {
            self.waiting.remove(index);
            self.send(ReadReply::Done { request }, None);
        }
    }

    fn begin_reading(&mut self) {
        while self.reading.len() < READERS && !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = |whole: &&Whole| {
                bytes += whole.file.size_bytes;
                bytes <= CHUNK_SIZE
            };
            let count = self.waiting.iter().take(FILES_AT_ONCE).take_while(fits).count();
            let (requests, files) = self.waiting.drain(..count).map(|whole| (whole.request, whole.file)).unzip();
            self.reading.spawn(read(requests, files, self.host.clone(), self.visitor.clone()));
        }
    }

    fn answer(&mut self, read: Read) {
        let Read { request, result, place } = read;
        match result {
            Ok(mut data) => {
                for frame in 0.. {
                    if data.is_empty() {
                        break;
                    }
                    let len = usize::try_from(FRAME_SIZE).map_or(data.len(), |len| len.min(data.len()));
                    self.send(ReadReply::Frame(seal(request, frame, data.split_to(len))), place.clone());
                }
                self.send(ReadReply::Done { request }, None);
            }
            Err(error) => {
                let reason = refusal(error);
                self.send(ReadReply::Refused { request, reason }, None);
            }
        }
    }

    fn send(&mut self, reply: ReadReply, place: Option<Arc<OwnedSemaphorePermit>>) {
        self.replies.push_back(Sending { reply, _place: place });
    }

    fn blame(&self, fault: PeerFault) -> Status {
        blame(self.visitor.peer, fault)
    }
}

/// The next message; never, if there can be none.
async fn next_message(inbound: &mut Option<Streaming<v1::ReadRequest>>) -> Result<Option<v1::ReadRequest>, Status> {
    match inbound {
        Some(inbound) => inbound.message().await,
        None => std::future::pending().await,
    }
}

/// Reads files one after the other.
async fn read(requests: Vec<u64>, files: Vec<Open>, host: Arc<dyn Host>, visitor: Arc<Visitor>) -> Vec<Read> {
    // Never closed.
    let place = visitor.chunks.clone().acquire_owned().await.ok().map(Arc::new);
    let results = host.read_whole(visitor.peer, files).await;
    let read = requests.into_iter().zip(results);
    read.map(|(request, result)| Read { request, result, place: place.clone() }).collect()
}
