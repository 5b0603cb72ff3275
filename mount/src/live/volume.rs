//! The folder that is mounted: how its files are reached, and what is read off them.

use super::away::{Absent, Away, Found};
use super::files::OpenFile;
use super::inodes::{Inodes, Place, ROOT, Reach};
use super::listing::OpenDir;
use super::mapped::Mapped;
use super::news::Teller;
use crate::folder::FolderError;
use crate::folder::beneath::{Beneath, InodeId};
use crate::folder::order::Order;
use crate::fuse::{Notifier, Owner, StatFs};
use farshore_engine::{Attr, Observation};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

/// The most anchors that are kept, if the system allows so many open files.
const MOST_ANCHORS: u64 = 65_536;

/// How often a file is looked for that was renamed while it was looked for.
const SEARCHES: usize = 3;

/// What every call has in the end: what it asked for, or the disk's own error.
pub(super) type Outcome<T> = Result<T, Errno>;

/// A folder on disk, as a live file system.
pub struct Live {
    pub(super) inodes: Inodes,
    pub(super) files: Handles<OpenFile>,
    pub(super) dirs: Handles<OpenDir>,
    /// Of `files`, those that may be written through a memory map behind our back.
    pub(super) mapped: Mapped,
    pub(super) teller: Arc<Teller>,
    /// Takes what the kernel must not believe any more, once there is a mount.
    pub(super) notifier: OnceLock<Notifier>,
    /// Whether files can be given to other users.
    pub(super) is_root: bool,
    /// What peers have and the folder has not, if anybody is asked for that.
    pub(super) away: Option<Arc<dyn Away>>,
    /// Held while a directory gets another path.
    pub(super) moving: RwLock<()>,
}

/// What has a number, and what it looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) look: Look,
    /// When it was last changed, if that is not what the disk says.
    pub(super) changed: Option<(i64, i64)>,
    /// Whose it is, if it is away.
    pub(super) owner: Owner,
}

/// What something looks like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// As the disk says.
    Here(Stat),
    /// As peers say.
    Away(Attr),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Live {
    /// Opens the folder `root`, which nobody watches. What is done on the mount, with the files of the folder and with those
    /// that are `away`, is told to `hear`.
    ///
    /// # Errors
    /// [`FolderError::Open`]: it is not there, not a directory, or may not be read.
    pub fn over(
        root: &Path,
        away: Arc<dyn Away>,
        hear: impl Fn(Vec<Observation>) + Send + Sync + 'static,
    ) -> Result<Arc<Live>, FolderError> {
        Live::open(root, Arc::default(), Some(away), hear)
    }

    /// Opens the folder `root`. What is seen in it after a change is told to `hear`, in the order that is kept by `order`.
    /// What is `away` is shown as if it was in the folder.
    ///
    /// # Errors
    /// [`FolderError::Open`]: it is not there, not a directory, or may not be read.
    pub(crate) fn open(
        root: &Path,
        order: Arc<Order>,
        away: Option<Arc<dyn Away>>,
        hear: impl Fn(Vec<Observation>) + Send + Sync + 'static,
    ) -> Result<Arc<Live>, FolderError> {
        let failed = |error: Errno| FolderError::Open { path: root.to_owned(), source: error.into() };
        let beneath = Beneath::open(root).map_err(failed)?;
        let anchor = beneath.parent(&farshore_engine::path::RelPath::ROOT).map_err(failed)?;
        let stat = rustix::fs::fstat(&anchor).map_err(failed)?;
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(MOST_ANCHORS);
        // The other files that are open need room too.
        let budget = (allowed / 4).min(MOST_ANCHORS) as usize;
        let live = Arc::new(Live {
            inodes: Inodes::new(anchor, &stat, budget, Owner::current()),
            files: Handles::default(),
            dirs: Handles::default(),
            mapped: Mapped::default(),
            teller: Arc::new(Teller::new(beneath, order, hear)),
            notifier: OnceLock::new(),
            is_root: rustix::process::geteuid().is_root(),
            away,
            moving: RwLock::default(),
        });
        if let Some(away) = &live.away {
            let weak: Weak<Live> = Arc::downgrade(&live);
            away.listen(Box::new(move |path| {
                if let Some(live) = weak.upgrade() {
                    live.heard_of_away(path);
                }
            }));
        }
        Ok(live)
    }

    /// How full the folder's disk is.
    pub(super) fn statfs(&self) -> Outcome<StatFs> {
        let disk = rustix::fs::fstatvfs(&*self.anchor(ROOT)?)?;
        Ok(StatFs {
            block_bytes: u32::try_from(disk.f_frsize).map_err(|_| Errno::OVERFLOW)?.max(1),
            blocks: disk.f_blocks,
            blocks_free: disk.f_bfree,
            blocks_available: disk.f_bavail,
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }

    /// Opens what a number stands for, without the right to read or write it.
    ///
    /// # Errors
    /// `ESTALE` if it is not to be found any more, or is away.
    pub(super) fn anchor(&self, number: u64) -> Outcome<Arc<OwnedFd>> {
        match self.find(number)? {
            Found::Here(anchor) => Ok(anchor),
            Found::Away(_) => Err(Errno::STALE),
        }
    }

    /// Finds what a number stands for, and opens it without the right to read or write it if it is in the folder.
    ///
    /// # Errors
    /// `ESTALE` if it is not to be found any more.
    pub(super) fn find(&self, number: u64) -> Outcome<Found> {
        for _ in 0..SEARCHES {
            let (id, places) = match self.inodes.reach(number).ok_or(Errno::STALE)? {
                Reach::Anchor(anchor) => return Ok(Found::Here(anchor)),
                Reach::Names(id, places) => (id, places),
                Reach::Away(attr, places) => match self.find_away(number, attr, places)? {
                    Some(found) => return Ok(found),
                    None => continue,
                },
            };
            for place in places.iter().rev() {
                if let Ok(anchor) = self.find_in(place, id) {
                    return Ok(Found::Here(self.inodes.keep(number, anchor)));
                }
            }
        }
        // Whoever has it open goes on with what it was.
        match self.inodes.reach(number) {
            Some(Reach::Away(attr, _)) if self.inodes.is_pinned(number) => Ok(Found::Away(Absent { at: None, attr })),
            _ => Err(Errno::STALE),
        }
    }

    /// Finds what was away: it may have come. `None` if there is something else by its name, or nothing.
    fn find_away(&self, number: u64, attr: Attr, places: Vec<Place>) -> Outcome<Option<Found>> {
        let Some(place) = places.into_iter().next_back() else {
            return Ok(Some(Found::Away(Absent { at: None, attr })));
        };
        match open_in(self.anchor(place.parent)?, &place.name) {
            Ok(anchor) => {
                let is_it = self.came(number, &rustix::fs::fstat(&anchor)?);
                Ok(is_it.then(|| Found::Here(self.inodes.keep(number, anchor))))
            }
            Err(Errno::NOENT) => Ok(match self.away_at(&place) {
                Some((path, now)) if now.ino == attr.ino => {
                    Some(Found::Away(Absent { at: Some((place, path)), attr: now }))
                }
                Some(_) | None => None,
            }),
            Err(error) => Err(error),
        }
    }

    fn find_in(&self, place: &Place, id: InodeId) -> Outcome<OwnedFd> {
        let found = open_in(self.anchor(place.parent)?, &place.name)?;
        let is_it = InodeId::of(&rustix::fs::fstat(&found)?) == id;
        if is_it { Ok(found) } else { Err(Errno::STALE) }
    }

    /// What has a name, which the kernel is about to hear.
    pub(super) fn lookup(&self, parent: u64, name: &[u8]) -> Outcome<Seen> {
        if self.is_private(parent, name) {
            return Err(Errno::NOENT);
        }
        let (directory, place) = (self.anchor(parent)?, Place::new(parent, name));
        let look = self.look(&directory, &place)?;
        Ok(self.met(place, look))
    }

    pub(super) fn seen(&self, number: u64, look: Look) -> Seen {
        let changed = match &look {
            Look::Here(stat) if self.away.is_some() => self.inodes.unchanged_since(number, stat),
            Look::Here(_) | Look::Away(_) => None,
        };
        Seen { number, look, changed, owner: self.inodes.owner() }
    }
}

/// Opens a name in a directory without the right to read or write what has it. A symbolic link is not followed.
pub(super) fn open_in(directory: impl AsFd, name: &[u8]) -> Outcome<OwnedFd> {
    rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The path that leads to what is open as `anchor`, and to nothing else, for calls that take no descriptor of this kind.
pub(super) fn path_to(anchor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", anchor.as_raw_fd())
}

/// Things that are open, each with a number that is never used again.
pub(super) struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    last: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { open: RwLock::default(), last: AtomicU64::new(0) }
    }
}

impl<T> Handles<T> {
    pub(super) fn add(&self, item: T) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(item));
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Outcome<Arc<T>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned().ok_or(Errno::BADF)
    }

    pub(super) fn remove(&self, handle: u64) -> Outcome<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle).ok_or(Errno::BADF)
    }
}
