//! The simulated network as a [`Transport`]: turmoil's TCP, with the exchange of two device ids in place of a proof. What
//! the end that has dialled is on the connection, it says in a byte before that.

use farshore::net::transport::{Caller, Conn, Listener, Role, Transport};
use farshore_engine::PeerId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::{TcpListener, TcpStream};

/// Smaller writes cost no time on a narrow link. They are the ones whose length can differ from run to run: an HTTP
/// header holds the date.
const FREE_BYTES: usize = 1024;

/// The most that is written at once on a narrow link.
const PACED_BYTES: usize = 64 * 1024;

/// How wide links are, and a planted bug. All connections share it.
#[derive(Debug, Default)]
pub struct Line {
    /// Bytes that a connection carries in a millisecond, in each direction; zero for no limit.
    bytes_per_ms: AtomicU64,
    /// Corrupt one byte of what is written from here on, behind the back of everybody.
    corrupts: AtomicBool,
}

impl Line {
    /// From now on each connection carries so many bytes in a millisecond, in each direction; zero for no limit.
    pub fn set_bytes_per_ms(&self, bytes: u64) {
        self.bytes_per_ms.store(bytes, Ordering::Relaxed);
    }

    /// Plants a bug: one byte in the middle of every large write is changed from now on.
    pub fn corrupt(&self) {
        self.corrupts.store(true, Ordering::Relaxed);
    }
}

/// Connections from one device.
pub struct SimTransport {
    me: PeerId,
    line: Arc<Line>,
}

impl SimTransport {
    /// Connections from the device `me`.
    #[must_use]
    pub fn new(me: PeerId, line: Arc<Line>) -> SimTransport {
        SimTransport { me, line }
    }
}

/// How an end that has dialled says that it is the client, and that it is the server.
const CALLS: u8 = b'C';
const IS_CALLED: u8 = b'S';

/// The dialling end: tells what and who we are, and hears who they are. All messages have the same length in every run.
async fn introduce(mut stream: TcpStream, me: PeerId, role: Role, line: Arc<Line>) -> io::Result<Conn> {
    let mut ours = [0; 33];
    ours[0] = match role {
        Role::Client => CALLS,
        Role::Server => IS_CALLED,
    };
    ours[1..].copy_from_slice(&me.0);
    stream.write_all(&ours).await?;
    let mut theirs = [0; 32];
    stream.read_exact(&mut theirs).await?;
    Ok(Conn { io: Box::new(Paced { stream, line, pause: None }), peer: PeerId(theirs), role })
}

/// The other end of [`introduce`].
async fn receive(mut stream: TcpStream, me: PeerId, line: Arc<Line>) -> io::Result<Conn> {
    stream.write_all(&me.0).await?;
    let dialler = match stream.read_u8().await? {
        CALLS => Role::Client,
        IS_CALLED => Role::Server,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let mut theirs = [0; 32];
    stream.read_exact(&mut theirs).await?;
    let io = Box::new(Paced { stream, line, pause: None });
    Ok(Conn { io, peer: PeerId(theirs), role: dialler.of_other_end() })
}

impl Transport for SimTransport {
    fn connect<'a>(&'a self, address: &'a str, expect: PeerId, role: Role) -> BoxFuture<'a, io::Result<Conn>> {
        async move {
            let stream = TcpStream::connect(address).await?;
            let conn = introduce(stream, self.me, role, self.line.clone()).await?;
            match conn.peer == expect {
                true => Ok(conn),
                false => Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
        .boxed()
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            let listener = SimListener { listener, me: self.me, line: self.line.clone(), address: address.into() };
            Ok(Box::new(listener) as Box<dyn Listener>)
        }
        .boxed()
    }
}

struct SimListener {
    listener: TcpListener,
    me: PeerId,
    line: Arc<Line>,
    address: String,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>> {
        async move {
            let (stream, _) = self.listener.accept().await?;
            Ok(receive(stream, self.me, self.line.clone()).boxed())
        }
        .boxed()
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// A connection that is as wide as the line.
struct Paced {
    stream: TcpStream,
    line: Arc<Line>,
    /// Until what was written is on its way.
    pause: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let rate = self.line.bytes_per_ms.load(Ordering::Relaxed);
        let is_large = buf.len() >= FREE_BYTES;
        let paced = rate > 0 && is_large;
        let mut bytes = Cow::Borrowed(if paced { &buf[..buf.len().min(PACED_BYTES)] } else { buf });
        if is_large && self.line.corrupts.load(Ordering::Relaxed) {
            let middle = bytes.len() / 2;
            bytes.to_mut()[middle] ^= 0x10;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes))?;
        if paced {
            let millis = (written as u64).div_ceil(rate);
            self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(millis))));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
