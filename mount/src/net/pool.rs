//! The streams of one content: [`STREAM_POOL_SIZE`] of them, chunk *i* on stream *i* modulo that.
//!
//! The first may be opened before anything is asked for, so that the owner keeps the file open. The others are opened
//! together, as many of them as the content has chunks for, by the first fetch. A stream that dies later is opened
//! again, alone, by the next fetch that needs it; if all are dead, they are opened together again.
//!
//! Small files that nobody has open and nobody waits for need no stream of their own: one is shared by all of them.

use super::client::{CancelSignal, Lost};
use super::lanes::Lanes;
use super::line::LineEnd;
use super::pool_stream::{Command, Event, Expected, Group, ReadStream};
use bytes::Bytes;
use farshore_engine::chunk::{CHUNK_SIZE, FRAMES_PER_CHUNK, STREAM_POOL_SIZE, stream_of};
use farshore_engine::{ContentId, FetchError, Wanted};
use farshore_proto::v1::farshore_client::FarshoreClient;
use farshore_proto::{Asked, AskedHashes, Fetch, Hash, MAX_WAITING_REQUESTS, Open, ReadRequest, Whole};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

/// How many streams are open at once: the owner takes 1,024 on one connection, one of which follows its tree, and one is for
/// small files.
const MAX_STREAMS_OPEN: usize = 960;

/// Files of at least so many bytes (8 MiB) are worth more connections.
const LARGE_BYTES: u64 = 16 * CHUNK_SIZE;

/// Over what streams travel.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) client: &'a FarshoreClient<Channel>,
    pub(super) line: &'a LineEnd,
    pub(super) lanes: &'a Lanes,
}

/// The streams of a link.
#[derive(Default)]
pub(super) struct Pools {
    pools: BTreeMap<ContentId, Pool>,
    /// The one for small files that nobody has open.
    small: Option<Slot>,
    /// Counts uses, to know which pool was used last.
    uses: u64,
}

impl Pools {
    /// The stream that chunk number `chunk` travels on. Opens what has to be opened; does not wait for it.
    pub(super) fn stream(&mut self, way: Way<'_>, wanted: &Wanted, chunk: u64) -> StreamHandle {
        if wanted.size_bytes >= LARGE_BYTES {
            way.lanes.want();
        }
        self.pool(wanted.content, STREAM_POOL_SIZE as usize).stream(way, wanted, chunk)
    }

    /// The stream for small files of which no stream is open, if this is one. Opens it if need be.
    pub(super) fn stream_for_whole(&mut self, way: Way<'_>, wanted: &Wanted) -> Option<StreamHandle> {
        if !(1..=CHUNK_SIZE).contains(&wanted.size_bytes) || self.pools.contains_key(&wanted.content) {
            return None;
        }
        match &self.small {
            Some(slot) if slot.stream.is_alive() => {}
            Some(_) | None => {
                self.small = Some(Slot::begin(way, 0, None, Group::default()));
            }
        }
        self.small.as_ref().map(|slot| slot.stream.clone())
    }

    /// Opens the first stream of a content, if none is open.
    pub(super) fn open(&mut self, way: Way<'_>, wanted: &Wanted) {
        self.pool(wanted.content, 1).open(way, wanted);
    }

    /// The pool of a content, made at first use, with room for it to have so many streams.
    fn pool(&mut self, content: ContentId, streams: usize) -> &mut Pool {
        if self.pools.get(&content).is_none_or(|pool| pool.streams() < streams) {
            self.make_room(content, streams);
        }
        self.uses += 1;
        let pool = self.pools.entry(content).or_default();
        pool.last_use = self.uses;
        pool
    }

    /// Closes streams of contents that have been idle for longest: first those that only bring bytes, and then those by
    /// which the owner keeps a file open.
    fn make_room(&mut self, needed_by: ContentId, streams: usize) {
        while self.pools.values().map(Pool::streams).sum::<usize>() + streams > MAX_STREAMS_OPEN {
            let others = self.pools.iter_mut().filter(|(content, pool)| **content != needed_by && pool.is_idle());
            // `false` comes first.
            let Some((content, pool)) = others.min_by_key(|(_, pool)| (pool.streams() <= 1, pool.last_use)) else {
                return;
            };
            if pool.streams() > 1 {
                pool.shrink();
            } else {
                let content = *content;
                self.pools.remove(&content);
            }
        }
    }

    /// Closes the streams of a content.
    pub(super) fn close(&mut self, content: ContentId) {
        self.pools.remove(&content);
    }
}

/// The streams of one content. Dropping it closes them.
#[derive(Default)]
struct Pool {
    last_use: u64,
    /// Whether all streams that the content has use for have been opened, rather than the first alone.
    is_whole: bool,
    slots: [Option<Slot>; STREAM_POOL_SIZE as usize],
    /// How many more connections there were when they were opened.
    lanes: usize,
    /// Streams that are replaced by others on those, and still bring something.
    replaced: Vec<Slot>,
}

/// A stream and the task that runs it.
struct Slot {
    stream: StreamHandle,
    task: AbortHandle,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pool {
    fn is_idle(&self) -> bool {
        self.slots.iter().flatten().chain(&self.replaced).all(Slot::is_idle)
    }

    fn streams(&self) -> usize {
        self.slots.iter().flatten().count() + self.replaced.len()
    }

    /// Closes all streams but one that is alive, if there is one.
    fn shrink(&mut self) {
        let alive = self.slots.iter_mut().find_map(|slot| slot.take_if(|slot| slot.stream.is_alive()));
        self.slots = [alive, None, None, None];
        self.replaced.clear();
        self.is_whole = false;
    }

    fn is_dead(&self) -> bool {
        !self.slots.iter().flatten().any(|slot| slot.stream.is_alive())
    }

    /// Opens the first stream, if none is open.
    fn open(&mut self, way: Way<'_>, wanted: &Wanted) {
        if self.is_dead() {
            self.slots = Default::default();
            self.slots[0] = Some(Slot::open(way, 0, wanted, Group::default()));
            self.is_whole = false;
        }
    }

    fn stream(&mut self, way: Way<'_>, wanted: &Wanted, chunk: u64) -> StreamHandle {
        if self.is_dead() {
            self.slots = Default::default();
            self.is_whole = false;
        }
        self.use_lanes(way.lanes.count());
        if !std::mem::replace(&mut self.is_whole, true) {
            let group = Group::default();
            // A file of one chunk has no use for four streams.
            let useful = wanted.size_bytes.div_ceil(CHUNK_SIZE).min(STREAM_POOL_SIZE.into()) as usize;
            for (number, slot) in self.slots[..useful].iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
                *slot = Some(Slot::open(way, number, wanted, group.clone()));
            }
        }
        let number = stream_of(chunk) as usize;
        let slot = &mut self.slots[number];
        match slot {
            Some(slot) if slot.stream.is_alive() => slot.stream.clone(),
            Some(_) | None => slot.insert(Slot::open(way, number, wanted, Group::default())).stream.clone(),
        }
    }

    /// There are more connections than when the streams were opened: all but the first are opened anew, and what they were asked
    /// for by then still comes.
    fn use_lanes(&mut self, lanes: usize) {
        self.replaced.retain(|slot| !slot.is_idle());
        if std::mem::replace(&mut self.lanes, lanes) < lanes {
            self.replaced.extend(self.slots[1..].iter_mut().filter_map(Option::take));
            self.is_whole = false;
        }
    }
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.stream.room.available_permits() == MAX_WAITING_REQUESTS || !self.stream.is_alive()
    }

    /// Opens stream number `number` of a content.
    fn open(way: Way<'_>, number: usize, wanted: &Wanted, group: Group) -> Slot {
        Slot::begin(way, number, Some(open_of(wanted)), group)
    }

    fn begin(way: Way<'_>, number: usize, about: Option<Open>, group: Group) -> Slot {
        let client = way.lanes.of_stream(number).unwrap_or_else(|| way.client.clone());
        // Of the first connection, whichever it is on: only with that the peer is lost.
        let line = way.line.clone();
        // Bounded by `room`: a request sends two commands at most.
        let (commands, received) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MAX_WAITING_REQUESTS));
        let refused = Arc::default();
        let stream = ReadStream::new(about, received, room.clone(), line.clone(), Arc::clone(&refused));
        let task = tokio::spawn(stream.run(client, group)).abort_handle();
        Slot { stream: StreamHandle { commands, room, line, refused, last: Arc::default() }, task }
    }
}

/// Which bytes an owner is to open.
fn open_of(wanted: &Wanted) -> Open {
    Open { path: wanted.path.clone(), stamp: wanted.stamp, size_bytes: wanted.size_bytes }
}

/// How a fetch reaches its stream.
#[derive(Clone)]
pub(super) struct StreamHandle {
    commands: mpsc::UnboundedSender<Command>,
    /// One permit for each request that the peer has not ended.
    room: Arc<Semaphore>,
    line: LineEnd,
    /// Why the peer did not open the file, if that ended the stream.
    refused: Arc<OnceLock<FetchError>>,
    /// The number of the last request. Locked while the request is handed over, so that numbers arrive in order.
    last: Arc<Mutex<u64>>,
}

impl StreamHandle {
    fn is_alive(&self) -> bool {
        !self.commands.is_closed()
    }

    /// See [`super::Link::fetch`].
    pub(super) async fn fetch(
        &self,
        asked: Asked,
        urgent: bool,
        cancel: CancelSignal,
        on_frame: impl FnMut(u32, Bytes) + Send,
    ) -> Result<(), FetchError> {
        if asked.missing().is_empty() {
            return Ok(());
        }
        // All frames and the end: the stream never has to wait for us.
        let (events, received) = mpsc::channel(FRAMES_PER_CHUNK as usize + 1);
        let permit = self.permit(&cancel).await?;
        let request = self.submit(|request| {
            let fetch = Fetch { request, chunk: asked.chunk(), frames: asked.missing(), urgent };
            let (message, expected) = (ReadRequest::Fetch(fetch), Expected::Frames(asked));
            Command::Ask { request, message, expected, events, permit }
        })?;
        self.listen(request, received, cancel, on_frame).await.map(drop)
    }

    /// All of a small file, over a stream that is not its own.
    pub(super) async fn whole(
        &self,
        wanted: &Wanted,
        asked: Asked,
        cancel: CancelSignal,
        on_frame: impl FnMut(u32, Bytes) + Send,
    ) -> Result<(), FetchError> {
        let (events, received) = mpsc::channel(FRAMES_PER_CHUNK as usize + 1);
        let permit = self.permit(&cancel).await?;
        let request = self.submit(|request| {
            let message = ReadRequest::Whole(Whole { request, file: open_of(wanted) });
            Command::Ask { request, message, expected: Expected::Frames(asked), events, permit }
        })?;
        self.listen(request, received, cancel, on_frame).await.map(drop)
    }

    /// The hashes of up to 64 chunks that the file has; see [`super::Link::hashes`].
    pub(super) async fn hashes(
        &self,
        chunks: Range<u64>,
        urgent: bool,
        cancel: CancelSignal,
    ) -> Result<Vec<u64>, FetchError> {
        let (events, received) = mpsc::channel(1);
        let permit = self.permit(&cancel).await?;
        let request = self.submit(|request| {
            let expected = Expected::Hashes(AskedHashes::new(chunks.clone()));
            Command::Ask {
                request,
                message: ReadRequest::Hash(Hash { request, chunks, urgent }),
                expected,
                events,
                permit,
            }
        })?;
        self.listen(request, received, cancel, |_, _| {}).await
    }

    /// Waits for room for one more request.
    async fn permit(&self, cancel: &CancelSignal) -> Result<OwnedSemaphorePermit, FetchError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(FetchError::Cancelled),
            permit = self.room.clone().acquire_owned() => permit.map_err(|_| self.lost()),
        }
    }

    /// Hears what comes for a request until it has ended. The hashes are those that it asked for, none for frames.
    async fn listen(
        &self,
        request: u64,
        mut received: mpsc::Receiver<Event>,
        cancel: CancelSignal,
        mut on_frame: impl FnMut(u32, Bytes) + Send,
    ) -> Result<Vec<u64>, FetchError> {
        let _cancel_on_drop = CancelOnDrop { commands: &self.commands, request };
        loop {
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(FetchError::Cancelled),
                event = received.recv() => event,
            };
            match event {
                Some(Event::Frame(frame, data)) => on_frame(frame, data),
                Some(Event::Hashes(hashes)) => return Ok(hashes),
                Some(Event::Ended(result)) => return result.map(|()| Vec::new()),
                None => return Err(self.lost()),
            }
        }
    }

    fn submit(&self, command: impl FnOnce(u64) -> Command) -> Result<u64, FetchError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        self.commands.send(command(*last)).map_err(|_| self.lost())?;
        Ok(*last)
    }

    /// Why a request that came too late for the stream has no answer.
    fn lost(&self) -> FetchError {
        self.refused.get().copied().unwrap_or_else(|| Lost::stream(&self.line).into())
    }
}

/// Tells the stream that nobody waits any more. It ignores that for a request that has ended.
struct CancelOnDrop<'a> {
    commands: &'a mpsc::UnboundedSender<Command>,
    request: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        // A stream that is gone has nothing to cancel.
        let _gone = self.commands.send(Command::Cancel { request: self.request });
    }
}
