//! One read stream of a peer: requests wait in two queues, the urgent before the others, and are answered one at a
//! time from one read of the file each. Who asks for the hashes of many chunks waits in its queue again between two.
//!
//! Everything happens when the network asks for the next reply. So a peer that does not take its replies costs one
//! chunk and one queue, both bounded, and its requests wait in the flow-control window.

use super::LINE_END_GRACE;
use super::server::{Visitor, refusal};
use super::server_calls::blame;
use super::server_leases::Held;
use crate::folder::ServeError;
use bytes::Bytes;
use farshore_engine::PeerFault;
use farshore_engine::chunk::{FRAME_SIZE, chunk_range};
use farshore_proto::verify::{hash_of, seal};
use farshore_proto::{Fetch, Hash, Hashes, MAX_WAITING_REQUESTS, ReadReply, ReadRequest, Refusal, v1};
use futures_util::FutureExt;
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tonic::{Status, Streaming};

/// The replies to what comes in on a stream that is open.
pub(super) fn replies(
    inbound: Streaming<v1::ReadRequest>,
    lease: Held,
    size_bytes: u64,
    visitor: Arc<Visitor>,
) -> impl Stream<Item = Result<v1::ReadReply, Status>> + Send + 'static {
    let reading = Reading {
        inbound: Some(inbound),
        lease: Some(lease),
        size_bytes,
        visitor,
        last_request: 0,
        urgent: VecDeque::new(),
        others: VecDeque::new(),
        cancelled: VecDeque::new(),
        current: None,
    };
    stream::try_unfold(reading, |mut reading| async move {
        let reply = reading.next().await?;
        Ok(reply.map(|reply| (reply.encode(), reading)))
    })
}

struct Reading {
    /// `None` once the peer has nothing more to ask.
    inbound: Option<Streaming<v1::ReadRequest>>,
    /// Taken at the end only.
    lease: Option<Held>,
    size_bytes: u64,
    visitor: Arc<Visitor>,
    /// The number of the newest request.
    last_request: u64,
    urgent: VecDeque<Task>,
    others: VecDeque<Task>,
    /// Cancelled, but not ended yet.
    cancelled: VecDeque<u64>,
    current: Option<Current>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let (Some(lease), Some(_)) = (self.lease.take(), &self.inbound) else { return };
        // Only a runtime that is going down cannot run it; then nothing is kept.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end_lease(lease, self.visitor.clone()));
        }
    }
}

/// The stream has ended, and its reader did not say that it has no more to ask: either it has closed the stream, or the
/// connection is going down, which shows a little later.
async fn end_lease(lease: Held, visitor: Arc<Visitor>) {
    let lost = timeout(LINE_END_GRACE, visitor.line.closed()).await.is_ok();
    if lost && visitor.is_inside() {
        lease.keep().await;
    }
}

/// A request that waits.
enum Task {
    Fetch(Fetch),
    /// With the hashes of those chunks that were read.
    Hash(Hash, Vec<u64>),
}

impl Task {
    fn request(&self) -> u64 {
        match self {
            Task::Fetch(Fetch { request, .. }) | Task::Hash(Hash { request, .. }, _) => *request,
        }
    }

    fn is_urgent(&self) -> bool {
        match self {
            Task::Fetch(Fetch { urgent, .. }) | Task::Hash(Hash { urgent, .. }, _) => *urgent,
        }
    }
}

/// The request that is being answered.
struct Current {
    request: u64,
    next_frame: u32,
    /// What has not been sent yet.
    data: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl Current {
    fn next_reply(&mut self) -> Option<ReadReply> {
        if self.data.is_empty() {
            return None;
        }
        let len = usize::try_from(FRAME_SIZE).map_or(self.data.len(), |frame| frame.min(self.data.len()));
        let frame = seal(self.request, self.next_frame, self.data.split_to(len));
        self.next_frame += 1;
        Some(ReadReply::Frame(frame))
    }
}

impl Reading {
    /// The next reply; `None` once everything is answered and nothing more can come.
    async fn next(&mut self) -> Result<Option<ReadReply>, Status> {
        loop {
            self.take_what_is_here()?;
            if let Some(request) = self.cancelled.pop_front() {
                return Ok(Some(ReadReply::Done { request }));
            }
            if let Some(mut current) = self.current.take() {
                let Some(reply) = current.next_reply() else {
                    return Ok(Some(ReadReply::Done { request: current.request }));
                };
                self.current = Some(current);
                return Ok(Some(reply));
            }
            if let Some(task) = self.urgent.pop_front().or_else(|| self.others.pop_front()) {
                let reply = match task {
                    Task::Fetch(fetch) => self.begin(fetch).await?,
                    Task::Hash(hash, hashes) => self.hash_one(hash, hashes).await?,
                };
                if let Some(reply) = reply {
                    return Ok(Some(reply));
                }
                continue;
            }
            let Some(inbound) = &mut self.inbound else {
                return Ok(None);
            };
            let message = inbound.message().await?;
            self.take(message)?;
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
            ReadRequest::Open(_) | ReadRequest::Whole(_) => Err(self.blame(PeerFault::Missing("fetch"))),
            ReadRequest::Fetch(fetch) => self.enqueue(Task::Fetch(fetch)),
            ReadRequest::Hash(hash) => self.enqueue(Task::Hash(hash, Vec::new())),
            ReadRequest::Cancel { request } => {
                self.cancel(request);
                Ok(())
            }
        }
    }

    fn enqueue(&mut self, task: Task) -> Result<(), Status> {
        if task.request() <= self.last_request {
            return Err(self.blame(PeerFault::OutOfRange("request")));
        }
        if self.urgent.len() + self.others.len() + self.cancelled.len() >= MAX_WAITING_REQUESTS {
            return Err(self.blame(PeerFault::TooMany(MAX_WAITING_REQUESTS)));
        }
        self.last_request = task.request();
        self.queue_of(&task).push_back(task);
        Ok(())
    }

    fn queue_of(&mut self, task: &Task) -> &mut VecDeque<Task> {
        if task.is_urgent() { &mut self.urgent } else { &mut self.others }
    }

    /// Forgets a request. One that has ended already is none of our business.
    fn cancel(&mut self, request: u64) {
        for queue in [&mut self.urgent, &mut self.others] {
            if let Some(index) = queue.iter().position(|task| task.request() == request) {
                queue.remove(index);
                self.cancelled.push_back(request);
                return;
            }
        }
        if let Some(current) = self.current.take_if(|current| current.request == request) {
            self.cancelled.push_back(current.request);
        }
    }

    /// Reads what is asked for. Answers only if that cannot be had.
    async fn begin(&mut self, fetch: Fetch) -> Result<Option<ReadReply>, Status> {
        let range = fetch.range(self.size_bytes).map_err(|fault| self.blame(fault))?;
        let Fetch { request, frames, chunk: _, urgent: _ } = fetch;
        Ok(match self.read(range).await? {
            Ok((data, permit)) => {
                self.current = Some(Current { request, next_frame: frames.start, data, _permit: permit });
                None
            }
            Err(reason) => Some(ReadReply::Refused { request, reason }),
        })
    }

    /// Reads one of the chunks whose hashes are asked for. Answers when it was the last one, or cannot be read.
    async fn hash_one(&mut self, hash: Hash, mut hashes: Vec<u64>) -> Result<Option<ReadReply>, Status> {
        hash.check(self.size_bytes).map_err(|fault| self.blame(fault))?;
        let chunk = hash.chunks.start + hashes.len() as u64;
        let Hash { request, .. } = hash;
        match self.read(chunk_range(chunk, self.size_bytes)).await? {
            Ok((data, _permit)) => hashes.push(hash_of(&data)),
            Err(reason) => return Ok(Some(ReadReply::Refused { request, reason })),
        }
        if chunk + 1 == hash.chunks.end {
            return Ok(Some(ReadReply::Hashes(Hashes { request, first_chunk: hash.chunks.start, xxh3: hashes })));
        }
        let task = Task::Hash(hash, hashes);
        self.queue_of(&task).push_back(task);
        Ok(None)
    }

    /// Reads a part of the file, or says why it cannot be had. The permit is for its place in memory.
    async fn read(&self, range: Range<u64>) -> Result<Result<(Bytes, OwnedSemaphorePermit), Refusal>, Status> {
        // Never closed.
        let Ok(permit) = self.visitor.chunks.clone().acquire_owned().await else {
            return Err(Status::unavailable("shutting down"));
        };
        let len_bytes = range.end - range.start;
        let read = match self.lease.as_ref().and_then(Held::bytes) {
            Some(bytes) => bytes.read(range).await,
            None => Err(ServeError::Io),
        };
        Ok(match read {
            // The peer's word on the size led here; only the file's counts.
            Ok(data) if data.len() as u64 != len_bytes => Err(Refusal::Stale),
            Ok(data) => Ok((data, permit)),
            Err(error) => Err(refusal(error)),
        })
    }

    fn blame(&self, fault: PeerFault) -> Status {
        blame(self.visitor.peer, fault)
    }
}
