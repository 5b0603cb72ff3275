//! Files that peers have and the folder has not yet: they are shown beside what is there, and come when they are needed.

use super::inodes::{Place, ROOT};
use super::volume::{Live, Look, Outcome, Seen};
use super::waiting::Held;
use crate::folder::beneath::stat_in;
use crate::fuse::{Invalidation, Readable};
use crate::store::PRIVATE;
use farshore_engine::path::{Name, RelPath};
use farshore_engine::{Attr, Errno, Handle, Ino, Xattrs};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::Stat;
use rustix::io::Errno as SystemErrno;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

/// What a read that may wait leads to.
pub type Read = Result<Box<dyn Readable>, Errno>;

/// Runs when something has come of a request.
pub type Then<T> = Box<dyn FnOnce(T) + Send>;

/// What peers have and the folder has not. The node is one; tests bring their own.
///
/// Only files are ever away for longer than a moment. What the mount does to them it tells as observations, like what
/// it does in the folder.
pub trait Away: Send + Sync + 'static {
    /// The file at a path, if it is away.
    fn at(&self, path: &RelPath) -> Option<Attr>;

    /// The files in a directory that are away, in the order of their names.
    fn within(&self, dir: &RelPath) -> Vec<(Name, Attr)>;

    /// The extended attributes of the file at a path, if it is away; otherwise none.
    fn xattrs(&self, path: &RelPath) -> Xattrs;

    /// Whether any file in a directory is away.
    fn is_any_within(&self, dir: &RelPath) -> bool {
        !self.within(dir).is_empty()
    }

    /// Whether what is away at a path is just being put into the folder. It is not removed or renamed then: it comes first.
    fn is_coming(&self, path: &RelPath) -> bool;

    /// Opens a file for reading. The handle goes on working when the file has come, and when it has lost its name.
    ///
    /// # Errors
    /// It is not there any more, or cannot be opened.
    fn open(&self, ino: Ino) -> Result<Handle, Errno>;

    /// Reads `len` bytes from `offset` on. `then` runs exactly once: on this thread if they are here, otherwise on whichever
    /// thread brings them. It is not called under a lock, but it must not wait.
    fn read(&self, handle: Handle, offset: u64, len: u32, then: Then<Read>);

    /// Closes what was opened.
    fn release(&self, handle: Handle);

    /// Sees to it that the file at a path is in the folder, whole. `then` runs exactly once, on a thread that may wait.
    fn bring(&self, path: &RelPath, then: Then<Result<(), Errno>>);

    /// From now on, `heard` is told of each path at which something has changed. It runs on a thread that may wait, and one
    /// call ends before the next begins.
    fn listen(&self, heard: Box<dyn Fn(&RelPath) + Send>);
}

/// A file that is away, open for reading. Closed when it is dropped.
pub(super) struct AwayHandle {
    away: Arc<dyn Away>,
    handle: Handle,
}

impl AwayHandle {
    pub(super) fn read(&self, offset: u64, len: u32, then: Then<Read>) {
        self.away.read(self.handle, offset, len, then);
    }
}

impl Drop for AwayHandle {
    fn drop(&mut self) {
        self.away.release(self.handle);
    }
}

/// Where a file is that the kernel knows.
pub(super) enum Found {
    /// In the folder.
    Here(Arc<OwnedFd>),
    /// Away.
    Away(Absent),
}

/// A file that is away.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    /// Where, unless it has no name any more.
    pub(super) at: Option<(Place, RelPath)>,
    pub(super) attr: Attr,
}

impl Absent {
    /// Where it is.
    ///
    /// # Errors
    /// `ESTALE` if it has no name any more: it cannot come, and nobody can be told of it.
    pub(super) fn named(&self) -> Outcome<(&Place, &RelPath)> {
        self.at.as_ref().map(|(place, path)| (place, path)).ok_or(SystemErrno::STALE)
    }

    /// It has to be in the folder for what is to be done.
    pub(super) fn is_needed(&self) -> Held {
        self.named().map_or_else(Held::Failed, |(_, path)| Held::ForFile(path.clone()))
    }
}

impl Live {
    /// The directory of a name, and nothing if the name is one that is not shown: there is the store's own, in it.
    pub(super) fn directory(&self, parent: u64, name: &[u8]) -> Outcome<Arc<OwnedFd>> {
        if self.is_private(parent, name) { Err(SystemErrno::PERM) } else { self.anchor(parent) }
    }

    pub(super) fn is_private(&self, parent: u64, name: &[u8]) -> bool {
        parent == ROOT && self.away.is_some() && name == PRIVATE.as_bytes()
    }

    /// What has a name in the folder, or else the file that is away there.
    ///
    /// # Errors
    /// `ENOENT` only if neither is.
    pub(super) fn look(&self, directory: &OwnedFd, place: &Place) -> Outcome<Look> {
        match stat_in(directory.as_fd(), &*place.name) {
            Err(SystemErrno::NOENT) => {}
            seen => return seen.map(Look::Here),
        }
        if self.away.is_none() {
            return Err(SystemErrno::NOENT);
        }
        if let Some((_, attr)) = self.away_at(place) {
            return Ok(Look::Away(attr));
        }
        // It may just have come.
        stat_in(directory.as_fd(), &*place.name).map(Look::Here)
    }

    /// The file that is away under a name. Only for names under which the folder has nothing.
    pub(super) fn away_at(&self, place: &Place) -> Option<(RelPath, Attr)> {
        let away = self.away.as_ref()?;
        let _still = self.names_stay();
        let path = self.inodes.path(place)?;
        let attr = away.at(&path)?;
        Some((path, attr))
    }

    /// What is away is to be changed where it is, and nothing is done in the folder.
    ///
    /// # Errors
    /// It is just coming: then it is changed there.
    pub(super) fn must_stay_away(&self, path: &RelPath) -> Result<(), Held> {
        let is_coming = self.away.as_ref().is_some_and(|away| away.is_coming(path));
        if is_coming { Err(Held::ForFile(path.clone())) } else { Ok(()) }
    }

    /// Whether any file is away in what has this name, if that is a directory.
    pub(super) fn holds_away(&self, place: &Place) -> bool {
        let Some(away) = &self.away else { return false };
        let _still = self.names_stay();
        self.inodes.path(place).is_some_and(|path| away.is_any_within(&path))
    }

    /// The files that are away in a directory, in the order of their names.
    pub(super) fn away_in(&self, number: u64) -> Vec<(Name, Attr)> {
        let Some(away) = &self.away else { return Vec::new() };
        let _still = self.names_stay();
        self.inodes.path_of_dir(number).map_or_else(Vec::new, |path| away.within(&path))
    }

    /// As long as this is held, no directory has one path here and another one for who knows what is away.
    fn names_stay(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel is about to hear what has this name.
    pub(super) fn met(&self, place: Place, look: Look) -> Seen {
        let number = match &look {
            Look::Here(stat) => {
                let number = self.inodes.met(place, stat);
                if self.away.is_some() && self.inodes.is_pinned(number) {
                    // Whoever had it open while it was away has kept nothing here. If it is gone already, it was away to them.
                    let _ = self.anchor(number);
                }
                number
            }
            Look::Away(attr) => self.inodes.met_away(place, attr),
        };
        self.seen(number, look)
    }

    /// What a file looks like that is away.
    pub(super) fn seen_away(&self, number: u64, absent: &Absent) -> Seen {
        let links = absent.attr.links * u32::from(absent.at.is_some());
        self.seen(number, Look::Away(Attr { links, ..absent.attr }))
    }

    /// Takes what is in the folder for what was away by the same name, if it looks like that. It takes room now.
    pub(super) fn came(&self, number: u64, stat: &Stat) -> bool {
        let is_it = self.inodes.came_unchanged(number, stat);
        if is_it {
            self.send(Invalidation::Inode { ino: Ino(number), data: false });
        }
        is_it
    }

    pub(super) fn open_away(&self, attr: &Attr) -> Outcome<AwayHandle> {
        // Only who is away is asked for.
        let away = self.away.as_ref().ok_or(SystemErrno::STALE)?;
        match away.open(attr.ino) {
            Ok(handle) => Ok(AwayHandle { away: Arc::clone(away), handle }),
            // What the kernel knows is not so any more: it looks, and asks again.
            Err(Errno::NoEntry | Errno::Stale) => Err(SystemErrno::STALE),
            Err(error) => Err(system_errno(error)),
        }
    }
}

/// The number for an error of the engine.
pub(super) fn system_errno(error: Errno) -> SystemErrno {
    SystemErrno::from_raw_os_error(crate::fuse::errno(error).code())
}
