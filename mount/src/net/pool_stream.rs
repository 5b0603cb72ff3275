//! One read stream, run by one task: requests go out as they come, replies are verified and handed to who asked.
//!
//! The first requests travel right behind the opening, so that the first byte of a file costs one round trip.
//! A request that was cancelled is remembered until the peer has ended it: what still comes for it is dropped, and
//! what comes for any other number is a fault.

use super::CALL_LIMIT;
use super::client::Lost;
use super::line::{LineEnd, raised};
use bytes::Bytes;
use farshore_engine::{FetchError, PeerFault};
use farshore_proto::v1::farshore_client::FarshoreClient;
use farshore_proto::{Asked, AskedHashes, MAX_WAITING_REQUESTS, Open, ReadReply, ReadRequest, Refusal, v1};
use futures_util::stream;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

/// A stream that brings nothing for this long while it owes something is given up. The engine gives up sooner; this is
/// for a stream whose requests were all cancelled and never ended.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// What a fetch tells its stream.
pub(super) enum Command {
    /// Ask for something.
    Ask {
        /// More than any before.
        request: u64,
        /// With that number.
        message: ReadRequest,
        expected: Expected,
        /// Has room for all that can be sent.
        events: mpsc::Sender<Event>,
        permit: OwnedSemaphorePermit,
    },
    /// Nobody waits for it any more.
    Cancel { request: u64 },
}

/// What a stream tells a fetch.
pub(super) enum Event {
    /// A verified frame.
    Frame(u32, Bytes),
    /// All hashes that were asked for; nothing else comes.
    Hashes(Vec<u64>),
    /// Nothing else comes.
    Ended(Result<(), FetchError>),
}

/// Streams that are opened together: if one cannot be, none is kept.
#[derive(Clone)]
pub(super) struct Group(Arc<watch::Sender<bool>>);

impl Default for Group {
    fn default() -> Group {
        Group(Arc::new(watch::Sender::new(false)))
    }
}

impl Group {
    fn fail(&self) {
        self.0.send_replace(true);
    }

    async fn failed(&self) {
        raised(self.0.subscribe()).await;
    }
}

/// The state of a stream.
pub(super) struct ReadStream {
    commands: mpsc::UnboundedReceiver<Command>,
    requests: mpsc::Sender<v1::ReadRequest>,
    /// Taken when the call begins.
    outbound: Option<mpsc::Receiver<v1::ReadRequest>>,
    pending: BTreeMap<u64, Pending>,
    room: Arc<Semaphore>,
    line: LineEnd,
    /// Why the peer ended it, for whoever comes too late to hear that.
    refused: Arc<OnceLock<FetchError>>,
}

/// A request that the peer has not ended.
struct Pending {
    asked: Expected,
    /// Who waits; `None` if nobody does any more.
    events: Option<mpsc::Sender<Event>>,
    _permit: OwnedSemaphorePermit,
}

/// What is still to come for a request.
pub(super) enum Expected {
    Frames(Asked),
    Hashes(AskedHashes),
}

impl Drop for ReadStream {
    fn drop(&mut self) {
        // Whoever waits for room would wait for ever.
        self.room.close();
    }
}

impl ReadStream {
    /// A stream that is about one file, or, if that is `None`, one for small files.
    pub(super) fn new(
        about: Option<Open>,
        commands: mpsc::UnboundedReceiver<Command>,
        room: Arc<Semaphore>,
        line: LineEnd,
        refused: Arc<OnceLock<FetchError>>,
    ) -> ReadStream {
        // The opening, and for each request itself and its cancellation.
        let (requests, outbound) = mpsc::channel(1 + 2 * MAX_WAITING_REQUESTS);
        let mut stream =
            ReadStream { commands, requests, outbound: Some(outbound), pending: BTreeMap::new(), room, line, refused };
        if let Some(open) = about {
            stream.send(&ReadRequest::Open(open));
        }
        stream
    }

    /// Lives until the stream has ended, and then ends all that wait on it.
    pub(super) async fn run(mut self, client: FarshoreClient<Channel>, group: Group) {
        let error = match self.open(client, &group).await {
            Ok(inbound) => self.converse(inbound, &group).await,
            Err(error) => {
                group.fail();
                error
            }
        };
        // What was asked a moment ago, too.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        for pending in std::mem::take(&mut self.pending).into_values() {
            pending.tell(Event::Ended(Err(error)));
        }
    }

    /// Makes the call. Requests are taken meanwhile.
    async fn open(
        &mut self,
        mut client: FarshoreClient<Channel>,
        group: &Group,
    ) -> Result<Streaming<v1::ReadReply>, FetchError> {
        let Some(mut outbound) = self.outbound.take() else {
            return Err(FetchError::StreamLost);
        };
        let call = client.read(stream::poll_fn(move |cx| outbound.poll_recv(cx)));
        let mut call = std::pin::pin!(timeout(CALL_LIMIT, call));
        loop {
            tokio::select! {
                biased;
                () = group.failed() => return Err(self.lost()),
                Some(command) = self.commands.recv() => self.obey(command),
                opened = &mut call => return match opened {
                    Ok(Ok(response)) => Ok(response.into_inner()),
                    Ok(Err(status)) => Err(Lost::why(&status, &self.line).await.into()),
                    Err(_) => Err(self.lost()),
                },
            }
        }
    }

    /// Requests out, replies in, until something ends the stream.
    async fn converse(&mut self, mut inbound: Streaming<v1::ReadReply>, group: &Group) -> FetchError {
        loop {
            tokio::select! {
                biased;
                () = group.failed() => return self.lost(),
                Some(command) = self.commands.recv() => self.obey(command),
                reply = inbound.message() => match reply {
                    Ok(Some(reply)) => {
                        if let Err(error) = self.take(reply) {
                            return error;
                        }
                    }
                    Ok(None) => return self.lost(),
                    Err(status) => return Lost::why(&status, &self.line).await.into(),
                },
                () = sleep(STALL_LIMIT), if !self.pending.is_empty() => return self.lost(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ask { request, message, expected, events, permit } => {
                let pending = Pending { asked: expected, events: Some(events), _permit: permit };
                self.pending.insert(request, pending);
                self.send(&message);
            }
            Command::Cancel { request } => {
                if self.pending.get_mut(&request).is_some_and(|pending| pending.events.take().is_some()) {
                    self.send(&ReadRequest::Cancel { request });
                }
            }
        }
    }

    /// Takes a reply. An error ends the stream.
    fn take(&mut self, reply: v1::ReadReply) -> Result<(), FetchError> {
        match ReadReply::parse(reply).map_err(FetchError::Fault)? {
            ReadReply::Frame(frame) => {
                let request = frame.request;
                let pending = self.pending.get_mut(&request).ok_or(FetchError::Fault(PeerFault::Unasked))?;
                let Expected::Frames(asked) = &mut pending.asked else {
                    return Err(FetchError::Fault(PeerFault::Unasked));
                };
                let Some(events) = &pending.events else {
                    return Ok(());
                };
                match asked.accept(frame) {
                    Ok((index, data)) => tell(events, Event::Frame(index, data)),
                    Err(fault) => {
                        tell(events, Event::Ended(Err(FetchError::Fault(fault))));
                        pending.events = None;
                        self.send(&ReadRequest::Cancel { request });
                    }
                }
            }
            ReadReply::Done { request } => {
                let pending = self.finish(request)?;
                let result = match &pending.asked {
                    Expected::Frames(asked) => asked.finish(),
                    // It ends by its hashes, unless it was cancelled; then nobody hears this.
                    Expected::Hashes(_) => Err(PeerFault::TooLittle),
                };
                pending.tell(Event::Ended(result.map_err(FetchError::Fault)));
            }
            ReadReply::Hashes(hashes) => {
                let request = hashes.request;
                let Some(Pending { asked: Expected::Hashes(asked), .. }) = self.pending.get(&request) else {
                    return Err(FetchError::Fault(PeerFault::Unasked));
                };
                let event = match asked.accept(hashes) {
                    Ok(hashes) => Event::Hashes(hashes),
                    Err(fault) => Event::Ended(Err(FetchError::Fault(fault))),
                };
                self.finish(request)?.tell(event);
            }
            ReadReply::Refused { request, reason } => {
                self.finish(request)?.tell(Event::Ended(Err(refused(reason))));
            }
            ReadReply::OpenRefused { reason } => return Err(*self.refused.get_or_init(|| refused(reason))),
        }
        Ok(())
    }

    fn finish(&mut self, request: u64) -> Result<Pending, FetchError> {
        self.pending.remove(&request).ok_or(FetchError::Fault(PeerFault::Unasked))
    }

    fn send(&mut self, request: &ReadRequest) {
        // There is room for all that can be outstanding. If the call has ended, its replies say so.
        let _ended = self.requests.try_send(request.encode());
    }

    fn lost(&self) -> FetchError {
        Lost::stream(&self.line).into()
    }
}

impl Pending {
    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            tell(events, event);
        }
    }
}

fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // There is room for all frames and the end, or for the hashes. Who stopped listening has cancelled, or is about to.
    let _gone = events.try_send(event);
}

fn refused(reason: Refusal) -> FetchError {
    match reason {
        Refusal::Stale => FetchError::Stale,
        Refusal::Gone => FetchError::Gone,
        Refusal::Io => FetchError::OwnerIo,
        Refusal::NotYet => FetchError::NotYet,
    }
}
