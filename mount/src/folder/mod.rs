//! The folder that is shared: reading it, noticing its changes, serving its files.

use bytes::Bytes;
use farshore_engine::ServedFile;
use futures_util::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;

/// A folder whose files can be served to peers.
pub trait Folder: Send + Sync + 'static {
    /// Opens a file for serving, if it still is what the engine says of it.
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>>;
}

/// An open file that is being served. Keeps its bytes readable while it lives, also when the file loses its name.
pub trait ServedBytes: Send + Sync + 'static {
    /// The bytes of `range`, which lies inside the file and is at most one chunk long. They are those of the version
    /// that was opened, or an error.
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>>;
}

/// Why a file of ours cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It is not there (any more), or not an ordinary file, or not inside the folder.
    #[error("the file is not there any more")]
    Gone,
    /// It has changed since the engine heard of it; the engine will hear of it.
    #[error("the file has changed")]
    Stale,
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io,
}
