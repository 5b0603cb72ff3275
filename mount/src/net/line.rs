//! One connection's bytes, with two additions: it can be hung up from outside, and its end is noticed.
//!
//! HTTP/2 keeps the bytes inside a task of its own and tells nobody when that task ends. So the end of a connection,
//! whatever its reason, is the moment at which the task lets go of the bytes.

use super::transport::Io;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// The bytes of one connection, and what is known of its other end.
pub(super) struct Line<Info> {
    io: Box<dyn Io>,
    /// Ends when the line is to be hung up; `None` once it has ended.
    hang_up: Option<BoxFuture<'static, ()>>,
    info: Info,
    /// Dropped with the line, which wakes all who hold a [`LineEnd`].
    _alive: watch::Sender<()>,
}

impl<Info> Line<Info> {
    /// A line that fails as soon as `hang_up` has ended. What is known of its other end may know of the line's end.
    pub(super) fn new(
        io: Box<dyn Io>,
        info: impl FnOnce(LineEnd) -> Info,
        hang_up: BoxFuture<'static, ()>,
    ) -> (Line<Info>, LineEnd) {
        let (alive, end) = watch::channel(());
        let end = LineEnd(end);
        (Line { io, hang_up: Some(hang_up), info: info(end.clone()), _alive: alive }, end)
    }

    /// What is known of the other end.
    pub(super) fn info(&self) -> &Info {
        &self.info
    }

    fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(hang_up) = &mut self.hang_up {
            if hang_up.poll_unpin(cx).is_pending() {
                return Ok(());
            }
            self.hang_up = None;
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "hung up on this side"))
    }
}

impl<Info: Unpin> AsyncRead for Line<Info> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_hung_up(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Info: Unpin> AsyncWrite for Line<Info> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_hung_up(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_hung_up(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_hung_up(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_hung_up(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Knows whether a line still is.
#[derive(Clone)]
pub(super) struct LineEnd(watch::Receiver<()>);

impl LineEnd {
    /// Whether the line has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until the line has ended.
    pub(super) async fn closed(&self) {
        let mut line = self.0.clone();
        // Nothing is ever sent: this ends when the sender is gone.
        while line.changed().await.is_ok() {}
    }
}

/// Waits until `flag` is raised, or can never be raised because its owner is gone.
pub(super) async fn raised(mut flag: watch::Receiver<bool>) {
    // The borrowed value is let go at once: it is a lock.
    drop(flag.wait_for(|raised| *raised).await);
}
