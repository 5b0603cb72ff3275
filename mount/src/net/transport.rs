//! The one place where a connection comes from: TCP with TLS in life, a simulated network in the simulator.
//!
//! [`Transport::connect`] is called by the client and [`Transport::listen`] by the server, once each. Everything
//! after that is the same code, whatever the transport.

use farshore_engine::PeerId;
use futures_util::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection whose other end has proved who it is.
pub struct Conn {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// Who is at the other end.
    pub peer: PeerId,
}

/// Makes connections.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `address` and makes sure that `expect` answers there.
    ///
    /// # Errors
    /// Nobody answers, or somebody else. [`io::ErrorKind::PermissionDenied`] if another device proved itself.
    fn connect<'a>(&'a self, address: &'a str, expect: PeerId) -> BoxFuture<'a, io::Result<Conn>>;

    /// Begins to listen at `address`.
    ///
    /// # Errors
    /// The address is in use, or not ours.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes connections.
pub trait Listener: Send + 'static {
    /// The next caller, who has proved nothing yet. Waits for one. Cancel safe.
    ///
    /// # Errors
    /// Taking one failed (too many open files, say); the next may succeed.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Caller>>;

    /// Where it listens, with the port that it really got.
    fn address(&self) -> String;
}

/// A caller: becomes a connection once it has proved who it is. May take as long as the caller likes, or fail: run it
/// beside others and with a time limit.
pub type Caller = BoxFuture<'static, io::Result<Conn>>;
