//! The side that is called: takes connections, lets in who may come in, and answers.
//!
//! A connection passes three doors. The transport proves who calls. The first call must be a greeting that the
//! [`Host`] accepts; until then every other call gets the same answer, which says nothing. Then each message passes
//! its parser. Who does not get through the first two in time is hung up on, and only so many may be on their way.
//!
//! A caller may also offer to be called (see [`Callbacks`]). That needs no greeting of its own, but that of another
//! connection of the same device.

use super::callbacks::Callbacks;
use super::line::{Line, LineEnd, raised};
use super::server_calls::Calls;
pub use super::server_guests::Guests;
use super::server_leases::Leases;
use super::server_lobby::{Lobby, Place, ShownOut};
use super::transport::{Caller, Conn, Listener, Role};
use super::{HTTP2_FRAME_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use crate::folder::{self, ServeError, ServedBytes};
use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::Stamp;
use farshore_engine::{Errno, PeerFault, PeerId, TreeUpdate, WatchCursor};
use farshore_proto::v1::farshore_server::FarshoreServer;
use farshore_proto::{Hello, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, Members, Open, Refusal};
use futures_util::future::{BoxFuture, Either, Ready, ready};
use futures_util::{FutureExt, stream};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::server::Connected;

/// What the server needs from the node.
pub trait Host: Send + Sync + 'static {
    /// Decides whether `peer`, who proved to be that, is let in. The answer is our epoch, never zero.
    fn greet(&self, peer: PeerId, hello: Hello) -> BoxFuture<'static, Result<u64, ()>>;

    /// What comes after `cursor` in our tree, and where that leads. Waits for news, but answers within its own
    /// deadline, with no updates if there are none.
    fn watch(
        &self,
        peer: PeerId,
        cursor: WatchCursor,
    ) -> BoxFuture<'static, Result<(Vec<TreeUpdate>, WatchCursor), Errno>>;

    /// Opens a file of ours for `peer`, in the version that `stamp` names.
    fn open(
        &self,
        peer: PeerId,
        path: RelPath,
        stamp: Stamp,
    ) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>>;

    /// Reads small files of ours for `peer` as a whole, each in the version that its stamp names, and answers for each in
    /// this order.
    fn read_whole(&self, peer: PeerId, files: Vec<Open>) -> BoxFuture<'static, Vec<Result<Bytes, ServeError>>> {
        let open = |file: Open| (self.open(peer, file.path, file.stamp), file.size_bytes);
        let opening: Vec<_> = files.into_iter().map(open).collect();
        async move {
            let mut read = Vec::new();
            for (opening, size_bytes) in opening {
                read.push(folder::read_opening(opening, size_bytes).await);
            }
            read
        }
        .boxed()
    }

    /// Who has our share in a folder of its own, as it changes; `None` if this host introduces nobody.
    fn members(&self) -> Option<watch::Receiver<Members>> {
        None
    }

    /// Where connections go over which callers can be called; `None` if this host calls nobody.
    fn callbacks(&self) -> Option<Arc<Callbacks>> {
        None
    }

    /// A caller that had been let in has broken a rule, was hung up on, and is kept out for a while. Must not wait.
    fn broke_rule(&self, peer: PeerId, fault: PeerFault);
}

/// How long a caller may take to prove who it is, and then to greet, each.
const PROVE_LIMIT: Duration = Duration::from_secs(10);

/// How many callers may be on their way in at once; more than that, and the oldest are hung up on.
const MAX_UNGREETED: usize = 64;

/// How long to wait when no caller can be taken, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long streams may take to end when the server shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Streams of one connection: one to follow the tree, one to hear of the members, one for small files, and four for each other
/// file that is being read.
const MAX_STREAMS: u32 = 1024;

/// Chunks of one connection that are read ahead of the network at once, whatever the number of streams.
const MAX_CHUNKS_IN_MEMORY: usize = 64;

/// Requests are small; a large window would only let a peer fill our memory.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// The one call that is answered before a greeting.
const HELLO_PATH: &str = "/farshore.v1.Farshore/Hello";

/// Serves `host` to all who call at `listener`, until `shutdown` ends. Then streams end, and connections are closed
/// within two seconds.
pub async fn serve(listener: Box<dyn Listener>, host: Arc<dyn Host>, shutdown: impl Future<Output = ()>) {
    serve_with(listener, host, Arc::default(), shutdown).await;
}

/// The same, with guests and leases that somebody else can look at. The leases end with the server.
pub async fn serve_with(
    listener: Box<dyn Listener>,
    host: Arc<dyn Host>,
    guests: Arc<Guests>,
    shutdown: impl Future<Output = ()>,
) {
    let leases = guests.leases().clone();
    let _ending = EndLeases(leases.clone());
    // Two flags, raised one after the other; also when this function is dropped and the flags with it.
    let (stop, stopped) = watch::channel(false);
    let (cut, cut_off) = watch::channel(false);
    let (ready, mut taken) = mpsc::channel::<Line<Arc<Visitor>>>(16);
    let incoming = stream::poll_fn(move |cx| taken.poll_recv(cx).map(|line| line.map(Ok::<_, io::Error>)));
    let entrance = Entrance { ready, guests, host: host.clone(), cut_off };
    let mut callers = JoinSet::new();
    let calls = FarshoreServer::new(Calls::new(host, leases, stopped.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_REPLY_BYTES);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        // Who opens many files and changes its mind closes as many streams at once.
        .http2_max_pending_accept_reset_streams(Some(MAX_STREAMS as usize))
        .serve_with_incoming_shutdown(Gate { calls }, incoming, raised(stopped));
    let mut server = std::pin::pin!(server);
    tokio::select! {
        biased;
        () = shutdown => {}
        () = accept(listener, entrance, &mut callers) => {}
        ended = &mut server => {
            if let Err(error) = ended {
                tracing::error!("the server has ended by itself: {error}");
            }
            return;
        }
    }
    stop.send_replace(true);
    if timeout(SHUTDOWN_GRACE, &mut server).await.is_err() {
        cut.send_replace(true);
        let _stuck = timeout(SHUTDOWN_GRACE, server).await;
    }
}

/// Ends the leases when it is dropped, however the server ends.
struct EndLeases(Arc<Leases>);

impl Drop for EndLeases {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Takes callers for ever, and has each prove who it is.
async fn accept(mut listener: Box<dyn Listener>, entrance: Entrance, callers: &mut JoinSet<()>) {
    let lobby = Lobby::new(MAX_UNGREETED);
    loop {
        match listener.accept().await {
            Ok(caller) => {
                callers.spawn(prove(caller, lobby.enter(), entrance.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot take a connection at {}: {error}; trying again", listener.address());
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while callers.try_join_next().is_some() {}
    }
}

async fn prove(caller: Caller, (place, shown_out): (Place, ShownOut), entrance: Entrance) {
    let proved = tokio::select! {
        biased;
        proved = timeout(PROVE_LIMIT, caller) => proved,
        () = shown_out.clone().wait() => return,
    };
    match proved {
        Ok(Ok(conn)) => match conn.role {
            Role::Server => entrance.receive(conn, place, shown_out).await,
            Role::Client => {
                drop(place);
                entrance.keep(conn).await;
            }
        },
        Ok(Err(error)) => tracing::debug!("a caller did not prove who it is: {error}"),
        Err(_) => tracing::debug!("a caller did not prove who it is within {PROVE_LIMIT:?}"),
    }
}

/// Where those go who have proved who they are.
#[derive(Clone)]
struct Entrance {
    ready: mpsc::Sender<Line<Arc<Visitor>>>,
    guests: Arc<Guests>,
    host: Arc<dyn Host>,
    cut_off: watch::Receiver<bool>,
}

impl Entrance {
    /// Hands on one who calls.
    async fn receive(self, conn: Conn, place: Place, shown_out: ShownOut) {
        let line = Visitor::receive(conn, place, shown_out, self.cut_off);
        self.guests.enter(line.info());
        if self.guests.is_kept_out(line.info().peer) {
            return tracing::debug!("{:?} is not let in yet: it has broken a rule", line.info().peer);
        }
        // An error means that the server is shutting down.
        drop(self.ready.send(line).await);
    }

    /// Keeps the connection of one who wants to be called, for as long as it is a guest.
    async fn keep(self, conn: Conn) {
        let peer = conn.peer;
        let Some(stay) = self.guests.stay_of(peer) else {
            return tracing::debug!("{peer:?} offers to be called, but was not let in; hanging up");
        };
        let Some(callbacks) = self.host.callbacks() else {
            // It was told so when it was let in.
            self.guests.keep_out(peer);
            return self.host.broke_rule(peer, PeerFault::MayOnlyRead);
        };
        let cut_off = self.cut_off;
        let over = async {
            tokio::select! {
                biased;
                () = raised(cut_off) => {}
                () = stay.over() => {}
            }
        };
        callbacks.keep(conn, over, || stay.is_dismissed()).await;
    }
}

/// Who is at the other end of a connection, and how far it has come.
pub(in crate::net) struct Visitor {
    pub(super) peer: PeerId,
    /// One permit for each chunk of this connection that is in memory.
    pub(super) chunks: Arc<Semaphore>,
    /// When the connection ends.
    pub(super) line: LineEnd,
    /// Set if it has said that it only looks on.
    looks_on: OnceLock<()>,
    /// Dropped when it asks for the members anew.
    hears_members: Mutex<Option<oneshot::Sender<()>>>,
    phase: watch::Sender<Phase>,
}

/// How far a visitor has come.
enum Phase {
    /// It has not greeted yet, and takes one of the places for such visitors.
    Outside { place: Place },
    /// Its greeting is being considered.
    Greeting { _place: Place },
    /// It was let in.
    Inside,
    /// It was not let in, or left. Nothing that it says counts any more.
    Away,
    /// It was shown the door: its line is cut at once.
    Dismissed,
}

/// The right of a visitor to be here.
pub(super) struct Stay {
    phase: watch::Receiver<Phase>,
    line: LineEnd,
}

impl Stay {
    /// Whether the visitor was shown the door.
    pub(super) fn is_dismissed(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Dismissed)
    }

    /// Ends when the visitor is not inside any more, for whatever reason, the end of its line being one.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut phase, line) = (self.phase.clone(), self.line.clone());
        async move {
            tokio::select! {
                biased;
                () = phase.wait_for(|phase| !matches!(phase, Phase::Inside)).map(drop) => {}
                () = line.closed() => {}
            }
        }
    }
}

/// Why a peer does not get a file.
pub(super) fn refusal(error: ServeError) -> Refusal {
    match error {
        ServeError::NotYet => Refusal::NotYet,
        ServeError::Gone => Refusal::Gone,
        ServeError::Stale => Refusal::Stale,
        ServeError::Io => Refusal::Io,
    }
}

impl Visitor {
    pub(super) fn receive(
        conn: Conn,
        place: Place,
        shown_out: ShownOut,
        cut_off: watch::Receiver<bool>,
    ) -> Line<Arc<Visitor>> {
        let (phase, seen) = watch::channel(Phase::Outside { place });
        let chunks = Arc::new(Semaphore::new(MAX_CHUNKS_IN_MEMORY));
        let (looks_on, hears_members) = (OnceLock::new(), Mutex::default());
        let visitor = |line| Arc::new(Visitor { peer: conn.peer, chunks, line, looks_on, hears_members, phase });
        let hang_up = async move {
            tokio::select! {
                biased;
                () = raised(cut_off) => {}
                () = overstayed(seen, shown_out) => {}
            }
        };
        Line::new(conn.io, visitor, hang_up.boxed()).0
    }

    /// Whether it was let in and has not left.
    pub(super) fn is_inside(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Inside)
    }

    /// Its right to be here, for as long as it is inside.
    pub(super) fn stay(&self) -> Stay {
        Stay { phase: self.phase.subscribe(), line: self.line.clone() }
    }

    /// Takes the one chance to greet. False if it was taken before.
    pub(super) fn begin_greeting(&self) -> bool {
        self.phase.send_if_modified(|phase| match std::mem::replace(phase, Phase::Away) {
            Phase::Outside { place } => {
                *phase = Phase::Greeting { _place: place };
                true
            }
            other @ (Phase::Greeting { .. } | Phase::Inside | Phase::Away | Phase::Dismissed) => {
                *phase = other;
                false
            }
        })
    }

    /// Lets the visitor in, or not. One that was dismissed meanwhile stays outside: the decision to let it in may be
    /// older than that.
    pub(super) fn end_greeting(&self, is_accepted: bool) {
        self.advance(if is_accepted { Phase::Inside } else { Phase::Away });
    }

    /// It has not got the share in a folder of its own, although its device may have.
    pub(super) fn note_looks_on(&self) {
        self.looks_on.get_or_init(|| ());
    }

    pub(super) fn looks_on(&self) -> bool {
        self.looks_on.get().is_some()
    }

    /// It hears of the members now, and no longer where it did before. Ends when it asks for them anew.
    pub(super) fn hear_members(&self) -> impl Future<Output = ()> + Send + use<> {
        let (hearing, ended) = oneshot::channel();
        *self.hears_members.lock().unwrap_or_else(PoisonError::into_inner) = Some(hearing);
        // Nothing is ever sent.
        ended.map(drop)
    }

    /// Shows the visitor out: what it has under way goes on until the line is cut, nothing new begins.
    pub(super) fn leave(&self) {
        self.advance(Phase::Away);
    }

    /// Cuts the line at once, with all that is under way on it. Returns whether the visitor had been let in.
    pub(super) fn dismiss(&self) -> bool {
        matches!(self.phase.send_replace(Phase::Dismissed), Phase::Inside)
    }

    fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, Phase::Dismissed);
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }
}

/// Ends when a visitor has been on the line for long enough without being let in, when its place is needed before
/// that, or after it has left.
async fn overstayed(mut phase: watch::Receiver<Phase>, shown_out: ShownOut) {
    // Each borrowed value is let go at once: it is a lock.
    let settled = phase.wait_for(|phase| matches!(phase, Phase::Inside | Phase::Away | Phase::Dismissed)).map(drop);
    tokio::select! {
        // Who is let in gives back the place, so this comes first.
        biased;
        () = settled => {}
        () = shown_out.wait() => return,
        () = sleep(PROVE_LIMIT) => return,
    }
    drop(phase.wait_for(|phase| matches!(phase, Phase::Away | Phase::Dismissed)).await);
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| matches!(phase, Phase::Dismissed)) => {}
        // Time for the last answer to get through.
        () = sleep(SHUTDOWN_GRACE) => {}
    }
}

impl Connected for Line<Arc<Visitor>> {
    type ConnectInfo = Arc<Visitor>;

    fn connect_info(&self) -> Arc<Visitor> {
        self.info().clone()
    }
}

/// The one answer to all who are not let in.
pub(super) fn denied() -> Status {
    Status::permission_denied("not allowed")
}

/// Stands before the calls, so that none of them can forget to ask whether the visitor was let in.
#[derive(Clone)]
struct Gate<S> {
    calls: S,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let inside = request.extensions().get::<Arc<Visitor>>().is_some_and(|visitor| visitor.is_inside());
        if inside || request.uri().path() == HELLO_PATH {
            Either::Right(self.calls.call(request))
        } else {
            Either::Left(ready(Ok(denied().into_http())))
        }
    }
}
