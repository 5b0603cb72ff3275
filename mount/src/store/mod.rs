//! Where fetched bytes are kept: on disk, in memory, or in the simulator. One suite of tests holds for all.

use bytes::Bytes;
use farshore_engine::ContentId;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;

/// Keeps contents.
pub trait Store: Send + Sync + 'static {
    /// Makes room for a content of `size_bytes`, which is at least one. Nothing of it is there yet.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::StorageFull`] if it is full.
    fn create(&self, content: ContentId, size_bytes: u64) -> io::Result<Arc<dyn Stored>>;
}

/// One content: some of its bytes. Dropping the last reference removes it, unless it was kept by other means.
pub trait Stored: Send + Sync + 'static {
    /// Writes `frames`, one after the other, at `offset`. When it has ended well, [`Stored::read`] finds them.
    fn write(self: Arc<Self>, offset: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>>;

    /// Fills `into` with the bytes at `offset`, all of which were written before.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::UnexpectedEof`] if there are fewer bytes: never a short answer.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Makes a complete content an ordinary file at `target`, with this mode and modification time, durable when it
    /// returns. Never overwrites.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something is there; otherwise what the disk says.
    fn keep(
        self: Arc<Self>,
        target: std::path::PathBuf,
        mode: u16,
        modified: farshore_engine::record::FileTime,
    ) -> BoxFuture<'static, io::Result<()>>;
}
mod tmp;
pub use tmp::*;
