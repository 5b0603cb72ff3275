//! A store on disk: one file per content, in a private place, and beside each its sidecar.
//!
//! ```text
//! <dir>/.farshore/lock                     held by the process that uses the store; its text is that process's number
//! <dir>/.farshore/clean                    there while no process uses the store, if the last one ended well
//! <dir>/.farshore/pins                     the paths that are pinned
//! <dir>/.farshore/tree                     what was known of the tree of the share: docs/TREE.md
//! <dir>/.farshore/memory                   what is remembered of the share that is kept in <dir>: docs/TREE.md
//! <dir>/.farshore/journal-<n>              what of that has changed since
//! <dir>/.farshore/applying/<n>             what is about to get a name in the folder, or has just lost it
//! <dir>/.farshore/partial/<key>            the bytes of one content, with holes where none have come yet
//! <dir>/.farshore/partial/<key>.kdbitmap   what is known of them: docs/SIDECAR.md
//! <dir>/.farshore/partial/<key>.kdbitmap.soon   the same between two saves, made durable by nobody
//! ```
//!
//! A file that is not complete never stands under a name of its own, so it cannot be taken for a whole one.

mod chores;
mod descriptors;
mod dir;
mod home;
mod journal;
mod known;
mod lock;
mod names;
mod pins;
mod room;
mod saving;
mod soon;
mod stored;
mod tree;
mod trouble;
mod verify;

pub use verify::{Verdict, VerifiedFile};

use self::chores::Chores;
pub(super) use self::dir::full;
use self::home::Home;
use self::lock::LockError;
use self::stored::{DiskStored, Purpose};
use self::trouble::Trouble;
use super::{Found, KnownTree, Space, Store, Stored, closed};
use farshore_engine::path::RelPath;
use farshore_engine::{Changes, ContentIdentity, ContentKey, Held, Memory};
use farshore_proto::{ShareId, TreeFile, TreeId};
use futures_util::future::BoxFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The private directory of a store.
pub const PRIVATE: &str = ".farshore";

/// Where in the private directory of a folder lies what is about to get a name in it, or has just lost it. What the next
/// start finds there it removes.
pub const APPLYING: &str = "applying";

/// The mode bits that a kept file gets: not set-uid and set-gid, which would lend the rights of whoever fetched it to
/// whatever the peer sent.
pub const KEPT_MODE_BITS: u16 = 0o1777;

/// A store on disk. Contents that are still in use when it is dropped stay usable. If it is dropped without having been
/// closed, that counts as a stop that was not clean.
#[derive(Debug)]
pub struct DiskStore {
    home: Arc<Home>,
    chores: Chores,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the store {} is in use{}; end that process, or use another directory", .dir.display(), process(*.pid))]
    InUse {
        /// The store.
        dir: PathBuf,
        /// The number of that process, if it said.
        pid: Option<u32>,
    },
    /// Its disk is full.
    #[error("the disk of the store {} is full: {source}; make room there, or use another directory", .dir.display())]
    Full {
        /// The store.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It may not be written.
    #[error("the store {} cannot be written: {source}; make it writable, or use another directory", .dir.display())]
    ReadOnly {
        /// The store.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be made or read.
    #[error("cannot open the store {}: {source}", .dir.display())]
    Io {
        /// The store.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl OpenError {
    fn new(dir: &Path, source: io::Error) -> OpenError {
        let (dir, kind) = (dir.to_owned(), source.kind());
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return OpenError::Full { dir, source };
        }
        if matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
            return OpenError::ReadOnly { dir, source };
        }
        OpenError::Io { dir, source }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| " by another process".to_owned(), |pid| format!(" by process {pid}"))
}

impl DiskStore {
    /// Opens the store in `dir`, which is made if it is not there. Removes what an earlier process left there that nobody
    /// can go on with.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be made or written.
    pub fn open(dir: &Path) -> Result<DiskStore, OpenError> {
        DiskStore::open_with(dir, &Trouble::none())
    }

    /// Whether the store in `dir` knows the tree of a share, so that a mount can begin without its owner.
    #[must_use]
    pub fn knows_tree(dir: &Path) -> bool {
        tree::is_in(dir)
    }

    /// Whether `dir` holds a store, or what a store remembers of a share: [`PRIVATE`] in it is not the user's then.
    #[must_use]
    pub fn lies_in(dir: &Path) -> bool {
        [lock::LOCK, journal::MEMORY].iter().any(|name| dir.join(PRIVATE).join(name).is_file())
    }

    fn open_with(dir: &Path, trouble: &Trouble) -> Result<DiskStore, OpenError> {
        let home = Home::open(dir, trouble).map_err(|error| match error {
            LockError::Held(pid) => OpenError::InUse { dir: dir.to_owned(), pid },
            LockError::Io(source) => OpenError::new(dir, source),
        })?;
        if let Err(error) = home.check_room() {
            tracing::warn!("nothing more is fetched into the store {}: {error}", dir.display());
        }
        Ok(DiskStore { home: Arc::new(home), chores: Chores::default() })
    }
}

impl Store for DiskStore {
    fn held(&self) -> Vec<Held> {
        self.home.held()
    }

    fn create(&self, identity: &ContentIdentity, path: &RelPath) -> io::Result<Arc<dyn Stored>> {
        let _open = self.home.enter()?;
        Ok(DiskStored::create(&self.home, identity, path))
    }

    fn resume(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> BoxFuture<'static, io::Result<Found>> {
        let (home, expected) = (Arc::clone(&self.home), expected.copied());
        Box::pin(blocking(move || {
            let _open = home.enter()?;
            let opened = DiskStored::resume(&home, key, expected.as_ref(), Purpose::Use)?;
            let Some(stored) = opened else { return Ok(None) };
            Ok(stored.resumed().map(|resumed| (stored as Arc<dyn Stored>, resumed)))
        }))
    }

    fn save(&self, contents: Vec<Arc<dyn Stored>>) -> BoxFuture<'static, io::Result<()>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || {
            let _open = home.enter()?;
            let ours: Vec<&DiskStored> =
                contents.iter().map(|stored| home.own(&**stored)).collect::<io::Result<_>>()?;
            saving::save(&home, &ours)
        }))
    }

    fn touch(&self, key: ContentKey) {
        self.home.touch(key);
    }

    fn evict(&self, key: ContentKey) {
        // After the end nothing is changed.
        let Ok(_open) = self.home.enter() else { return };
        let Some(_reserved) = self.home.reserve(key) else { return };
        if let Err(error) = self.home.remove(key) {
            tracing::warn!("what is stored under {key} cannot be removed: {error}");
        }
    }

    fn pins(&self) -> Vec<RelPath> {
        pins::load(&self.home).unwrap_or_else(|error| {
            tracing::warn!("what was pinned cannot be read, pin it again: {error}");
            Vec::new()
        })
    }

    fn save_pins(&self, pins: &[RelPath]) -> io::Result<()> {
        pins::save(&self.home, pins)
    }

    fn later(&self, chore: Box<dyn FnOnce() + Send>) {
        self.chores.add(chore);
    }

    fn tree(&self, id: TreeId) -> Option<TreeFile> {
        tree::load(&self.home, id).unwrap_or_else(|error| {
            tracing::warn!(
                "what was known of the share's tree is of no use, and its owner has to list it anew: {error}"
            );
            None
        })
    }

    fn save_tree(&self, tree: KnownTree) -> BoxFuture<'static, io::Result<()>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || tree::save(&home, &tree.into_file())))
    }

    fn memory(&self, share: ShareId) -> Option<Memory> {
        journal::load(&self.home, share)
    }

    fn is_copied(&self, share: ShareId) -> bool {
        journal::is_copied(&self.home, share)
    }

    fn note(&self, share: ShareId, changes: Changes) -> BoxFuture<'static, io::Result<bool>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || journal::note(&home, share, &changes)))
    }

    fn sync_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<bool>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || journal::sync(&home, share)))
    }

    fn begin_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<u64>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || journal::begin(&home, share)))
    }

    fn save_memory(&self, share: ShareId, journal: u64, memory: Memory) -> BoxFuture<'static, io::Result<()>> {
        let home = Arc::clone(&self.home);
        Box::pin(blocking(move || journal::save(&home, share, journal, &memory)))
    }

    fn close(&self) -> BoxFuture<'static, io::Result<()>> {
        let (home, chores) = (Arc::clone(&self.home), self.chores.clone());
        Box::pin(blocking(move || {
            chores.finish();
            saving::close(&home)
        }))
    }

    fn space(&self) -> io::Result<Space> {
        self.home.partial.space()
    }
}

impl Drop for DiskStore {
    /// What was let go of and not saved is lost, as after a crash; contents that are open say no more what they know.
    fn drop(&mut self) {
        self.home.abandon();
    }
}

/// Runs disk work where it may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
