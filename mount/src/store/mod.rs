//! Where fetched bytes are kept: on disk, in memory, or in the simulator. One suite of tests holds for all.

pub mod disk;
pub mod memory;
mod publish;
#[cfg(test)]
mod suite;

pub use disk::{DiskStore, KEPT_MODE_BITS, PRIVATE};
pub use memory::MemoryStore;

use bytes::Bytes;
use farshore_engine::ContentId;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;

/// Keeps contents.
pub trait Store: Send + Sync + 'static {
    /// Makes room for a content of `size_bytes`. Nothing of it is there yet.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::StorageFull`] if it is full.
    fn create(&self, content: ContentId, size_bytes: u64) -> io::Result<Arc<dyn Stored>>;
}

/// One content: some of its bytes. Dropping the last reference removes it, unless it was kept by other means.
pub trait Stored: Send + Sync + 'static {
    /// Writes `frames`, one after the other, at `offset`. When it has ended well, [`Stored::read`] finds them.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::StorageFull`] if it is full, [`io::ErrorKind::InvalidInput`] if the content
    /// ends before the frames do. Which of the bytes are there then is not defined; writing them again is fine.
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
    /// [`io::ErrorKind::AlreadyExists`] if something is there; otherwise what the disk says. The content is as before
    /// then, and it may be tried again.
    fn keep(
        self: Arc<Self>,
        target: std::path::PathBuf,
        mode: u16,
        modified: farshore_engine::record::FileTime,
    ) -> BoxFuture<'static, io::Result<()>>;
}

/// Whether frames fit into their content.
fn check_frames(offset: u64, frames: &[Bytes], size_bytes: u64) -> io::Result<()> {
    let len: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    match offset.checked_add(len) {
        Some(end) if end <= size_bytes => Ok(()),
        Some(_) | None => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a write goes beyond the end of the content"))
        }
    }
}

/// Whether bytes that are read lie in their content.
fn check_read(offset: u64, len: usize, size_bytes: u64) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size_bytes => Ok(()),
        Some(_) | None => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a read goes beyond the end of the content"))
        }
    }
}
