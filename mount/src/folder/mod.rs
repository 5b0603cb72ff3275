//! The folder that is shared: reading it, noticing its changes, serving its files.

pub(crate) mod apply;
pub(crate) mod beneath;
pub mod disk;
pub(crate) mod lacking;
pub(crate) mod look;
pub(crate) mod order;
mod scan;
pub mod watch;

pub use apply::Contents;
pub use disk::DiskFolder;
pub use look::{SkipReason, Skipped};
pub use watch::{Recheck, Watcher, WhileWritten};

use bytes::Bytes;
use farshore_engine::path::RelPath;
use farshore_engine::record::Facts;
use farshore_engine::{Apply, ApplyError, Errno, Observation, ServedFile};
use futures_util::future::BoxFuture;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A folder whose files can be served to peers.
pub trait Folder: Send + Sync + 'static {
    /// Opens a file for serving, if it still is what the engine says of it.
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>>;

    /// Reads files as a whole, each if it still is what the engine says of it, and answers for each in this order. Each
    /// is at most one chunk long.
    fn read_whole(&self, files: Vec<ServedFile>) -> BoxFuture<'static, Vec<Result<Bytes, ServeError>>> {
        let open = |served: ServedFile| (served.size_bytes, self.open(served));
        let opening: Vec<_> = files.into_iter().map(open).collect();
        Box::pin(async move {
            let mut read = Vec::new();
            for (size_bytes, opening) in opening {
                read.push(read_opening(opening, size_bytes).await);
            }
            read
        })
    }

    /// Opens a file for programs on this machine, who read it through a mount of the folder. Waits for the disk only.
    ///
    /// # Errors
    /// What a program is to see. A folder that is not on disk has no such files.
    fn open_local(&self, path: &RelPath) -> Result<File, Errno> {
        let _ = path;
        Err(Errno::Io)
    }

    /// Does operations, in this order, as [`farshore_engine::Effect::Apply`] wants it. `contents` are those that are to be
    /// published. A folder that cannot be changed refuses all of them.
    fn apply(&self, ops: Vec<Apply>, contents: Contents) -> BoxFuture<'static, Vec<Result<Facts, ApplyError>>> {
        drop(contents);
        Box::pin(std::future::ready(vec![Err(ApplyError::Io); ops.len()]))
    }

    /// Looks at `path` soon, and has told what is there, also if that is nothing. If a directory is there and it is not the
    /// one with the inode number `known`, all that it holds is told as well. Does not wait.
    fn look_at(&self, path: &RelPath, known: Option<u64>) {
        let _ = (path, known);
    }
}

/// All of a file of `size_bytes` that is being opened.
pub(crate) async fn read_opening(
    opening: BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>>,
    size_bytes: u64,
) -> Result<Bytes, ServeError> {
    let bytes = opening.await?.read(0..size_bytes).await?;
    if bytes.len() as u64 == size_bytes { Ok(bytes) } else { Err(ServeError::Stale) }
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
    /// Others have it, and our folder has not, yet.
    #[error("the file is not here yet")]
    NotYet,
}

/// What a [`Watcher`] tells of a folder.
#[derive(Debug)]
pub enum FolderEvent {
    /// This is there, or is not there any more. 1 to 1,024 at once. Applied in order, they lead to what the folder
    /// holds; its own attributes are told when they are asked for.
    Observed(Vec<Observation>),
    /// Something is there that is not shared. Told once, and again only if it went away in between.
    Skipped(Skipped),
    /// Everything that was there at the beginning has been told.
    Ready,
    /// Not everything can be watched. The folder is read anew from time to time instead, so that changes are noticed
    /// late (5 seconds, or longer if reading takes long). Told once.
    Unwatched(FolderError),
    /// The folder was removed, renamed or replaced, or its file system unmounted. Nothing follows.
    Vanished,
}

/// Takes what a [`Watcher`] tells.
type Sink = Box<dyn Fn(FolderEvent) + Send>;

/// Why a folder cannot be shared or watched.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be opened.
    #[error("cannot open the folder {}: {source}", .path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The kernel watches as many directories as it may.
    #[error(
        "cannot watch {}: this user watches as many directories as the system allows; \
         allow more with: sysctl fs.inotify.max_user_watches=1048576", .path.display()
    )]
    WatchLimit {
        /// The first directory that is not watched.
        path: PathBuf,
    },
    /// The kernel has as many watchers as it may.
    #[error(
        "cannot watch the folder: this user has as many watching programs as the system allows; \
         allow more with: sysctl fs.inotify.max_user_instances=1024"
    )]
    InstanceLimit,
    /// A directory cannot be watched for another reason.
    #[error("cannot watch {}: {source}", .path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
