//! The side that calls: one [`Link`] is one connection to one peer, from the greeting to its end.
//!
//! A link never reconnects. When its connection is lost it says so once ([`Link::closed`]), everything that waits on
//! it ends, and somebody else decides whether to dial again.

use super::lanes::Lanes;
use super::line::{Line, LineEnd, raised};
use super::pool::{Pools, Way};
use super::transport::{Conn, Role, Transport};
use super::{CALL_LIMIT, CONNECT_LIMIT, HTTP2_FRAME_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, LINE_END_GRACE};
use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::{ContentId, DialError, FetchError, PeerFault, PeerId, Position, TreeUpdate, Wanted};
use farshore_proto::hello::encode_watch;
use farshore_proto::v1::farshore_client::FarshoreClient;
use farshore_proto::{
    Asked, Hello, MAX_HASH_CHUNKS, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, MAX_WATCH_SILENCE_SECONDS, Members, Welcome,
    fault_of, parse_batch, parse_members, v1,
};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// How far a peer may run ahead of what we have taken: bandwidth times round trip on one stream, in bytes.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// How many closed streams are remembered, so that what still comes on them can be told from nonsense.
const MAX_CLOSED_STREAMS: usize = 1024;

/// The next address is tried when the one before has not answered for this long.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// How long saying goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// A connection on which we call, and that was greeted. Dropping it hangs up.
pub struct Link {
    peer: PeerId,
    reached_at: Option<String>,
    welcome: Welcome,
    client: FarshoreClient<Channel>,
    hang_up: watch::Sender<bool>,
    line: LineEnd,
    /// How long the peer took to answer the greeting.
    round_trip: Duration,
    lanes: Lanes,
    pools: Mutex<Pools>,
    /// Where the streams run, whoever opens them.
    runtime: Handle,
}

impl Link {
    /// Connects to `peer` at one of its `addresses` and greets it. Each address is tried a quarter of a second after the
    /// one before, if none has answered by then.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] if the peer answers at none of them, otherwise what it answered.
    pub async fn dial(
        transport: &dyn Transport,
        addresses: &[String],
        peer: PeerId,
        hello: &Hello,
    ) -> Result<Link, DialError> {
        let attempts = addresses.iter().zip(0..).map(|(address, turn)| async move {
            sleep(ADDRESS_HEAD_START * turn).await;
            (address, timeout(CONNECT_LIMIT, transport.connect(address, peer, Role::Client)).await)
        });
        let mut attempts: FuturesUnordered<_> = attempts.collect();
        while let Some((address, attempt)) = attempts.next().await {
            let conn = match attempt {
                Ok(Ok(conn)) if conn.peer == peer => conn,
                Ok(Ok(_)) => {
                    tracing::debug!("another device than {peer:?} answers at {address}");
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::debug!("cannot connect to {peer:?} at {address}: {error}");
                    continue;
                }
                Err(_) => {
                    tracing::debug!("cannot connect to {peer:?} at {address}: no answer within {CONNECT_LIMIT:?}");
                    continue;
                }
            };
            match Link::over(conn, hello).await {
                Err(DialError::Unreachable) => tracing::debug!("{peer:?} was reached at {address} in vain"),
                greeted => return greeted.map(|link| Link { reached_at: Some(address.clone()), ..link }),
            }
        }
        Err(DialError::Unreachable)
    }

    /// Greets the peer at the other end of a connection that is there.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] if it does not answer, otherwise what it answered.
    pub async fn over(conn: Conn, hello: &Hello) -> Result<Link, DialError> {
        let peer = conn.peer;
        timeout(CONNECT_LIMIT, Link::greet(conn, hello)).await.unwrap_or_else(|_| {
            tracing::debug!("{peer:?} does not answer the greeting within {CONNECT_LIMIT:?}");
            Err(DialError::Unreachable)
        })
    }

    /// Says hello on a new connection.
    async fn greet(conn: Conn, hello: &Hello) -> Result<Link, DialError> {
        let peer = conn.peer;
        let (hang_up, hung_up) = watch::channel(false);
        let (line, end) = Line::new(conn.io, |_| (), raised(hung_up).boxed());
        let channel = channel_over(line).await.map_err(|error| {
            tracing::debug!("{peer:?} does not speak HTTP/2: {error}");
            DialError::Unreachable
        })?;
        let mut client = FarshoreClient::new(channel)
            .max_decoding_message_size(MAX_REPLY_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES);
        let asked_at = Instant::now();
        let reply = client.hello(hello.encode()).await.map_err(|status| {
            tracing::debug!("{peer:?} answers the greeting with {}: {:?}", status.code(), status.message());
            refusal(&status)
        })?;
        let round_trip = asked_at.elapsed();
        let welcome = Welcome::parse(reply.get_ref()).map_err(|fault| {
            tracing::warn!("{peer:?} broke a rule in its greeting: {fault}");
            DialError::Incompatible
        })?;
        let runtime = Handle::current();
        let (lanes, pools) = (Lanes::default(), Mutex::default());
        Ok(Link { peer, reached_at: None, welcome, client, hang_up, line: end, round_trip, lanes, pools, runtime })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The address at which the peer was reached; `None` if it was not we who dialled.
    #[must_use]
    pub fn reached_at(&self) -> Option<&str> {
        self.reached_at.as_deref()
    }

    /// Lets large files come over several connections if the peer is far away, each greeted with `hello`. Never returns;
    /// dropping it hangs up on all but the first.
    pub async fn widen(&self, transport: &dyn Transport, hello: &Hello) {
        match &self.reached_at {
            Some(address) => self.lanes.keep(transport, (self.peer, address), hello, self.round_trip).await,
            // Who has dialled us says how many connections there are.
            None => std::future::pending().await,
        }
    }

    pub(super) fn client(&self) -> FarshoreClient<Channel> {
        self.client.clone()
    }

    /// The epoch of the peer, the version that is spoken, and whether it wants to call us.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome
    }

    /// Begins to follow the peer's tree from `position` on.
    ///
    /// # Errors
    /// Why it cannot be followed over this link.
    pub async fn watch(&self, position: Position) -> Result<Watch, WatchEnd> {
        let mut client = self.client.clone();
        let line = self.line.clone();
        match timeout(CALL_LIMIT, client.watch(encode_watch(position))).await {
            Ok(Ok(response)) => Ok(Watch { inbound: response.into_inner(), line }),
            Ok(Err(status)) => Err(Lost::why(&status, &line).await.into()),
            Err(_) => Err(Lost::stream(&line).into()),
        }
    }

    /// Begins to hear who the members of the peer's share are, `us` being one of them.
    ///
    /// # Errors
    /// Why that cannot be heard over this link.
    pub async fn members(&self, us: PeerId) -> Result<Introductions, WatchEnd> {
        let mut client = self.client.clone();
        let line = self.line.clone();
        match timeout(CALL_LIMIT, client.members(v1::MembersRequest {})).await {
            Ok(Ok(response)) => Ok(Introductions { inbound: response.into_inner(), line, by: self.peer, us }),
            Ok(Err(status)) => Err(Lost::why(&status, &line).await.into()),
            Err(_) => Err(Lost::stream(&line).into()),
        }
    }

    /// Brings `frames` of chunk number `chunk`, and hands each to `on_frame` as it comes, in order, verified. Requests
    /// do not wait for each other. Frames that the file does not have are not asked for.
    ///
    /// # Errors
    /// Why not all frames came. Those that were handed over are good all the same.
    pub async fn fetch(
        &self,
        wanted: &Wanted,
        chunk: u64,
        frames: Range<u32>,
        urgent: bool,
        cancel: CancelSignal,
        on_frame: impl FnMut(u32, Bytes) + Send,
    ) -> Result<(), FetchError> {
        let asked = Asked::new(chunk, frames, wanted.size_bytes);
        // What somebody waits for does not go behind many others.
        if !urgent && asked.is_whole_file() {
            let shared = self.with_pools(&cancel, |pools| pools.stream_for_whole(self.way(), wanted))?;
            if let Some(stream) = shared {
                return stream.whole(wanted, asked, cancel, on_frame).await;
            }
        }
        let stream = self.with_pools(&cancel, |pools| pools.stream(self.way(), wanted, chunk))?;
        stream.fetch(asked, urgent, cancel, on_frame).await
    }

    /// The XXH3 of each of `chunks`, in order, as the owner says; how many requests that takes is decided here. Chunks
    /// that the file does not have are not asked for.
    ///
    /// # Errors
    /// Why they cannot be had; nothing is told of those that came.
    pub async fn hashes(
        &self,
        wanted: &Wanted,
        chunks: Range<u64>,
        urgent: bool,
        cancel: CancelSignal,
    ) -> Result<Vec<u64>, FetchError> {
        let end = chunks.end.min(wanted.size_bytes.div_ceil(CHUNK_SIZE));
        let mut hashes = Vec::new();
        let mut first = chunks.start;
        while first < end {
            let part = first..end.min(first.saturating_add(MAX_HASH_CHUNKS));
            let stream = self.with_pools(&cancel, |pools| pools.stream(self.way(), wanted, first))?;
            first = part.end;
            hashes.extend(stream.hashes(part, urgent, cancel.clone()).await?);
        }
        Ok(hashes)
    }

    fn way(&self) -> Way<'_> {
        Way { client: &self.client, line: &self.line, lanes: &self.lanes }
    }

    /// Takes a stream for something that is not cancelled yet.
    fn with_pools<T>(&self, cancel: &CancelSignal, take: impl FnOnce(&mut Pools) -> T) -> Result<T, FetchError> {
        if self.line.is_closed() {
            return Err(FetchError::LinkLost);
        }
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: whoever closes the streams of a content has cancelled its requests before, and none of
        // them may open the streams again.
        if cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        Ok(take(&mut pools))
    }

    /// Opens a stream for a content, if none is open: from then on the owner keeps its bytes readable for us, until
    /// [`Link::close_content`]. Does not wait for it; if the owner refuses, the next fetch hears why.
    pub fn open_content(&self, wanted: &Wanted) {
        let _entered = self.runtime.enter();
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).open(self.way(), wanted);
    }

    /// Closes the streams of a content, and with them the owner's lease on it. Fetches that are still under way end
    /// with [`FetchError::StreamLost`].
    pub fn close_content(&self, content: ContentId) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).close(content);
    }

    /// Waits until the connection is gone, for whatever reason: the peer or the network closed it, it fell silent, or
    /// [`Link::hang_up`] was called.
    pub async fn closed(&self) {
        self.line.closed().await;
    }

    /// Ends the connection at once. What waits on it ends with [`FetchError::LinkLost`].
    pub fn hang_up(&self) {
        self.hang_up.send_replace(true);
    }

    /// Tells the peer that this is on purpose, then hangs up. Takes a second at most.
    pub async fn say_goodbye(&self) {
        let mut client = self.client.clone();
        // Whether it heard us makes no difference.
        let _heard = timeout(GOODBYE_LIMIT, client.goodbye(v1::GoodbyeRequest {})).await;
        self.hang_up();
    }
}

/// A channel that lives and dies with `line`.
async fn channel_over(line: Line<()>) -> Result<Channel, tonic::transport::Error> {
    // Asked for a second connection when the first is gone, which there is not.
    let mut only = Some(line);
    let connector = tower::service_fn(move |_| {
        let line = only.take().map(TokioIo::new);
        async move { line.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // The name is never resolved: who is at the other end was proved by the transport.
    Endpoint::from_static("http://farshore")
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        // What is still on its way on streams that were closed is no offence of the peer's.
        .http2_max_concurrent_reset_streams(MAX_CLOSED_STREAMS)
        .connect_with_connector(connector)
        .await
}

/// What a refused greeting means.
fn refusal(status: &Status) -> DialError {
    if fault_of(status).is_some() {
        return DialError::Incompatible;
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other codes mean that there was no answer")]
    match status.code() {
        Code::PermissionDenied => DialError::Denied,
        Code::FailedPrecondition | Code::Unimplemented => DialError::Incompatible,
        _ => DialError::Unreachable,
    }
}

/// A peer's tree as it comes in.
pub struct Watch {
    inbound: Streaming<v1::TreeBatch>,
    line: LineEnd,
}

impl Watch {
    /// The next updates. None at all mean that the peer has nothing more to tell for now, which whoever begins to follow it
    /// has to know. Waits for them. Cancel safe.
    ///
    /// # Errors
    /// Why nothing will come any more.
    pub async fn next(&mut self) -> Result<Vec<TreeUpdate>, WatchEnd> {
        let silence = Duration::from_secs(MAX_WATCH_SILENCE_SECONDS);
        let batch = match timeout(silence, self.inbound.message()).await {
            Ok(Ok(Some(batch))) => batch,
            Ok(Ok(None)) | Err(_) => return Err(Lost::stream(&self.line).into()),
            Ok(Err(status)) => return Err(Lost::why(&status, &self.line).await.into()),
        };
        parse_batch(batch).map_err(WatchEnd::Fault)
    }
}

/// Who the members of a share are, as its owner says.
pub struct Introductions {
    inbound: Streaming<v1::MemberList>,
    line: LineEnd,
    by: PeerId,
    us: PeerId,
}

impl Introductions {
    /// All members but us and the owner: as it is now, and then when it has changed. Waits for that. Cancel safe.
    ///
    /// # Errors
    /// Why nothing will come any more.
    pub async fn next(&mut self) -> Result<Members, WatchEnd> {
        match self.inbound.message().await {
            Ok(Some(list)) => parse_members(list, self.by, self.us).map_err(WatchEnd::Fault),
            Ok(None) => Err(Lost::stream(&self.line).into()),
            Err(status) => Err(Lost::why(&status, &self.line).await.into()),
        }
    }
}

/// Why a [`Watch`], or [`Introductions`], have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// The connection is gone.
    LinkLost,
    /// The peer ended it, or fell silent; the connection may be well.
    StreamLost,
    /// The peer broke a rule.
    Fault(PeerFault),
}

/// Why a stream has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lost {
    /// With its connection.
    Link,
    /// Alone.
    Stream,
    /// By us: the peer broke a rule.
    Fault(PeerFault),
}

impl Lost {
    /// A stream that simply ended, or was given up.
    pub(super) fn stream(line: &LineEnd) -> Lost {
        if line.is_closed() { Lost::Link } else { Lost::Stream }
    }

    /// What `status`, with which a call or a stream ended, means.
    pub(super) async fn why(status: &Status, line: &LineEnd) -> Lost {
        if let Some(fault) = fault_of(status) {
            return Lost::Fault(fault);
        }
        // A status that the peer sent has no source; one that was made up on this side does.
        if std::error::Error::source(status).is_some() {
            let _open = timeout(LINE_END_GRACE, line.closed()).await;
        }
        Lost::stream(line)
    }
}

impl From<Lost> for FetchError {
    fn from(lost: Lost) -> FetchError {
        match lost {
            Lost::Link => FetchError::LinkLost,
            Lost::Stream => FetchError::StreamLost,
            Lost::Fault(fault) => FetchError::Fault(fault),
        }
    }
}

impl From<Lost> for WatchEnd {
    fn from(lost: Lost) -> WatchEnd {
        match lost {
            Lost::Link => WatchEnd::LinkLost,
            Lost::Stream => WatchEnd::StreamLost,
            Lost::Fault(fault) => WatchEnd::Fault(fault),
        }
    }
}

/// Cancels what holds the [`CancelSignal`]. Dropping it cancels nothing.
pub struct Canceller(watch::Sender<bool>);

impl Canceller {
    /// Cancels, now and for good.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

/// Says when something is not needed any more.
#[derive(Clone)]
pub struct CancelSignal(watch::Receiver<bool>);

impl CancelSignal {
    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is cancelled; for ever if it never is.
    pub async fn cancelled(&self) {
        if self.0.clone().wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending().await
        }
    }
}

/// A signal, and what gives it.
#[must_use]
pub fn cancel_pair() -> (Canceller, CancelSignal) {
    let (canceller, signal) = watch::channel(false);
    (Canceller(canceller), CancelSignal(signal))
}
