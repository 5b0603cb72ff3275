//! A transport in memory, with connections that can be cut or fall silent.

use farshore::net::transport::{Caller, Conn, Listener, Role, Transport};
use farshore_engine::PeerId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, watch};
use tonic::transport::server::Connected;

/// The device that calls in these tests.
pub(crate) const READER: PeerId = PeerId([1; 32]);

/// The device that is called.
pub(crate) const OWNER: PeerId = PeerId([2; 32]);

/// How a network behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// What is sent gets lost, and nobody is told.
    Silent,
    /// Every connection is reset.
    Cut,
}

/// Who listens at an address.
struct Listening {
    who: PeerId,
    callers: mpsc::UnboundedSender<Caller>,
}

/// A network in memory. All its ends share one weather, but for the connections on which the dialler is the server.
#[derive(Clone)]
pub(crate) struct Memory {
    me: PeerId,
    listeners: Arc<Mutex<BTreeMap<String, Listening>>>,
    weather: Arc<watch::Sender<Weather>>,
    reverse_weather: Arc<watch::Sender<Weather>>,
    /// Connections of that kind that were made.
    reverse: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        let [weather, reverse_weather] = [(); 2].map(|()| Arc::new(watch::Sender::new(Weather::Fair)));
        Memory { me: READER, listeners: Arc::default(), weather, reverse_weather, reverse: Arc::default() }
    }

    /// The same network, as another device sees it.
    pub(crate) fn of(&self, me: PeerId) -> Memory {
        Memory { me, ..self.clone() }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
        self.set_reverse(weather);
    }

    /// Only for connections on which the dialler is the server.
    pub(crate) fn set_reverse(&self, weather: Weather) {
        self.reverse_weather.send_replace(weather);
    }

    /// How many connections were made on which the dialler is the server.
    pub(crate) fn reverse(&self) -> usize {
        self.reverse.load(Ordering::Acquire)
    }

    /// The end of a new connection to whoever listens at `address`.
    pub(crate) fn call(&self, address: &str) -> io::Result<Wire> {
        self.dial(address, Role::Client)
    }

    /// The same, to be `role` on it.
    pub(crate) fn dial(&self, address: &str, role: Role) -> io::Result<Wire> {
        let (here, there) = duplex(1 << 20);
        let conn = Conn { io: Box::new(self.wire(there, role)), peer: self.me, role: role.of_other_end() };
        self.knock(address, async { Ok(conn) }.boxed())?;
        self.reverse.fetch_add(usize::from(role == Role::Server), Ordering::AcqRel);
        Ok(self.wire(here, role))
    }

    /// A caller that proves itself as `caller` does.
    pub(crate) fn knock(&self, address: &str, caller: Caller) -> io::Result<()> {
        let listeners = self.listeners.lock().unwrap();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        listeners.get(address).ok_or_else(refused)?.callers.send(caller).map_err(|_| refused())
    }

    /// Who proves itself at `address`, if anybody does.
    fn who_is_at(&self, address: &str) -> PeerId {
        self.listeners.lock().unwrap().get(address).map_or(OWNER, |listening| listening.who)
    }

    fn wire(&self, io: DuplexStream, dialler: Role) -> Wire {
        let mut weather = match dialler {
            Role::Client => self.weather.subscribe(),
            Role::Server => self.reverse_weather.subscribe(),
        };
        let state = weather.clone();
        let cut = async move { drop(weather.wait_for(|weather| *weather == Weather::Cut).await) };
        Wire { io, state, cut: Some(cut.boxed()) }
    }
}

impl Transport for Memory {
    fn connect<'a>(&'a self, address: &'a str, _: PeerId, role: Role) -> BoxFuture<'a, io::Result<Conn>> {
        async move {
            match address {
                "hang" => std::future::pending().await,
                "impostor" => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
                _ => Ok(Conn { io: Box::new(self.dial(address, role)?), peer: self.who_is_at(address), role }),
            }
        }
        .boxed()
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let (callers, taken) = mpsc::unbounded_channel();
        // Most tests have one network, and one owner in it.
        let who = if address == "owner" { OWNER } else { self.me };
        self.listeners.lock().unwrap().insert(address.into(), Listening { who, callers });
        let listener: Box<dyn Listener> = Box::new(MemoryListener { taken, address: address.into() });
        async { Ok(listener) }.boxed()
    }
}

struct MemoryListener {
    taken: mpsc::UnboundedReceiver<Caller>,
    address: String,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
        self.taken.recv().map(|caller| caller.ok_or_else(|| io::Error::other("no network"))).boxed()
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// One end of a connection.
pub(crate) struct Wire {
    io: DuplexStream,
    state: watch::Receiver<Weather>,
    cut: Option<BoxFuture<'static, ()>>,
}

impl Wire {
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut {
            if cut.poll_unpin(cx).is_pending() {
                return Ok(());
            }
            self.cut = None;
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    fn is_silent(&self) -> bool {
        *self.state.borrow() == Weather::Silent
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        if self.is_silent() { Poll::Pending } else { Pin::new(&mut self.io).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        if self.is_silent() { Poll::Ready(Ok(buf.len())) } else { Pin::new(&mut self.io).poll_write(cx, buf) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_shutdown(cx) }
    }
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// What `future` gives, or a failed test: nothing here takes ten minutes.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("it hangs")
}
