//! The one place where a connection comes from: TCP with TLS in life, a simulated network in the simulator.
//!
//! [`Transport::connect`] is called by whoever dials and [`Transport::listen`] by the server. Everything after that is
//! the same code, whatever the transport, and also whichever end of a connection has dialled ([`Role`]).

use farshore_engine::PeerId;
use futures_util::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What this end of a connection is on it. The other end is the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It calls. Usually that is the end that has dialled.
    Client,
    /// It answers. An end that has dialled does so on a second connection, so that it can be called although it cannot be
    /// reached.
    Server,
}

impl Role {
    /// What the other end is.
    #[must_use]
    pub fn of_other_end(self) -> Role {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
}

/// A connection whose other end has proved who it is.
pub struct Conn {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// Who is at the other end.
    pub peer: PeerId,
    /// What we are on it.
    pub role: Role,
}

/// Makes connections.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `address` to be `role` on that connection, and makes sure that `expect` answers there.
    ///
    /// # Errors
    /// Nobody answers, or somebody else. [`io::ErrorKind::PermissionDenied`] if another device proved itself.
    fn connect<'a>(&'a self, address: &'a str, expect: PeerId, role: Role) -> BoxFuture<'a, io::Result<Conn>>;

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
