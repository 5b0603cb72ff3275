//! Noticing what happens in a folder.
//!
//! The kernel's notices only say where to look. What is told comes from a fresh look, so that it does not matter
//! which notices were lost, late or about a name that means something else by now. The one thing that cannot be seen
//! by looking is a rename; it is told only if what stands under the new name is known to be what stood under the old.
//!
//! One thread does it all. A directory is watched before it is read, through the same descriptor, so that nothing
//! falls between. If the kernel drops notices, the whole folder is read again. If the kernel cannot watch as many
//! directories as there are, the folder is read again from time to time.
//!
//! What the kernel does not tell of is not noticed by itself: writes through a memory map, changes made by other
//! machines to a network file system, file systems mounted inside the folder, changes under names outside of it.
//! [`Recheck`] is for who stumbles over one of those.

mod inotify;
mod links;
mod pending;
mod watched;
mod worker;

use self::inotify::{Bell, Inotify};
use self::worker::{Watching, Worker};
use super::beneath::{Beneath, InodeId};
use super::order::Order;
use super::{FolderError, FolderEvent};
use farshore_engine::path::RelPath;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Paths that may wait for [`Recheck`]; what is beyond is dropped, and asked for again by whoever needs it.
const RECHECKS: usize = 4_096;

/// When is told of a file that a program has open and writes to. When it is closed it is told in any case, and so it is before
/// anything that was done after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileWritten {
    /// Once it was not written to for a second; if it is written without rest, every five seconds.
    #[default]
    Held,
    /// Again and again while it is written, every 200 ms.
    Pushed,
}

/// Watches a folder until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Asks for a look at a path of which the kernel told nothing. Cheap to clone; outlives its [`Watcher`] harmlessly.
#[derive(Debug, Clone)]
pub struct Recheck(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bell: Bell,
    /// Nothing is looked at and told but in this order.
    order: Arc<Order>,
    stop: AtomicBool,
    rechecks: Mutex<Vec<RelPath>>,
    /// Paths of which nothing counts that was told before.
    forgotten: Mutex<Vec<RelPath>>,
    /// Paths of which has to be told what is there, with the inode number of the directory that is known there.
    wanted: Mutex<Vec<(RelPath, Option<u64>)>>,
}

impl Watcher {
    /// Begins to watch the folder `root`. Everything is told to `sink`, in order, from a thread of the watcher's own:
    /// first what is there, then [`FolderEvent::Ready`], then what changes. The folder itself is not told, only what
    /// is in it. While `sink` does not return nothing else is told, and the watcher cannot be dropped.
    ///
    /// # Errors
    /// The folder cannot be opened, is not a directory, or not a single directory can be watched any more.
    pub fn start(root: &Path, sink: impl Fn(FolderEvent) + Send + 'static) -> Result<Watcher, FolderError> {
        Watcher::start_beside(root, None, WhileWritten::default(), sink)
    }

    /// The same, for a folder in which what has the name `private` is not looked at, nor what it holds: it is as if it were
    /// not there.
    ///
    /// # Errors
    /// As [`Watcher::start`].
    pub fn start_beside(
        root: &Path,
        private: Option<&'static str>,
        while_written: WhileWritten,
        sink: impl Fn(FolderEvent) + Send + 'static,
    ) -> Result<Watcher, FolderError> {
        let failed = |error: Errno| FolderError::Open { path: root.to_owned(), source: error.into() };
        // The path stays the same if the process goes to another directory.
        let root_path =
            std::path::absolute(root).map_err(|source| FolderError::Open { path: root.to_owned(), source })?;
        let beneath = Beneath::open(&root_path).map_err(failed)?;
        let root_id = InodeId::of(&beneath.stat(&RelPath::ROOT).map_err(failed)?);
        let inotify = Inotify::new().map_err(|error| match error {
            Errno::MFILE => FolderError::InstanceLimit,
            error => failed(error),
        })?;
        inotify.watch(beneath.root(), true).map_err(|error| unwatched(root.to_owned(), error))?;
        let bell = Bell::new().map_err(failed)?;
        let shared = Arc::new(Shared {
            bell,
            order: Arc::default(),
            stop: AtomicBool::new(false),
            rechecks: Mutex::default(),
            forgotten: Mutex::default(),
            wanted: Mutex::default(),
        });
        let folder = Watching { root_path, root_id, beneath: Arc::new(beneath), private, while_written };
        let worker = Worker::new(Box::new(sink), Arc::clone(&shared), folder, inotify);
        let thread = std::thread::Builder::new().name("folder-watch".into()).spawn(|| worker.run());
        let thread = thread.map_err(|source| FolderError::Open { path: root.to_owned(), source })?;
        Ok(Watcher { shared, thread: Some(thread) })
    }

    /// A handle to ask for looks with.
    #[must_use]
    pub fn recheck(&self) -> Recheck {
        Recheck(Arc::clone(&self.shared))
    }

    /// For whoever else looks at the folder and tells the same listener.
    pub(crate) fn order(&self) -> Arc<Order> {
        Arc::clone(&self.shared.order)
    }
}

impl Drop for Watcher {
    /// Stops. When it returns, `sink` has been called for the last time (unless it is `sink` itself that drops).
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in `sink` was reported when it happened.
            let _: std::thread::Result<()> = thread.join();
        }
    }
}

impl Recheck {
    /// Looks at `path` soon, and tells what is there.
    pub fn look_at(&self, path: &RelPath) {
        let mut rechecks = self.0.rechecks.lock().unwrap_or_else(PoisonError::into_inner);
        if rechecks.len() < RECHECKS && !path.is_root() {
            rechecks.push(path.clone());
        }
        drop(rechecks);
        self.0.bell.ring();
    }

    /// Looks at `path`, which may be the root, as soon as it has been quiet there, and tells what is there, also if that is
    /// nothing. If it is another directory than the one with the inode number `known`, everything in it is told as well.
    pub fn look_and_tell(&self, path: &RelPath, known: Option<u64>) {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), known));
        self.0.bell.ring();
    }

    /// The same as [`Recheck::look_at`], and if a directory is there, everything in it is told again, though it was told before.
    pub fn look_anew_at(&self, path: &RelPath) {
        self.0.forgotten.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        self.0.bell.ring();
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn take_rechecks(&self) -> Vec<RelPath> {
        std::mem::take(&mut *self.rechecks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_wanted(&self) -> Vec<(RelPath, Option<u64>)> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_forgotten(&self) -> Vec<RelPath> {
        std::mem::take(&mut *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a directory is not watched.
fn unwatched(path: PathBuf, error: Errno) -> FolderError {
    match error {
        Errno::NOSPC => FolderError::WatchLimit { path },
        error => FolderError::Watch { path, source: error.into() },
    }
}

#[cfg(test)]
mod tests;
