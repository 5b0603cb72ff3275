//! The place of a store: its directories, the right to use them, and what is known of what lies there.

use super::chores::Chores;
use super::descriptors::Descriptors;
use super::dir::{Dir, full};
use super::journal::Noting;
use super::lock::{LOCK, LockError, lock};
use super::names::{self, Kind};
use super::room::{Room, reserve_bytes};
use super::stored::DiskStored;
use super::trouble::Trouble;
use super::{APPLYING, PRIVATE, Stored, closed};
use crate::ranked::{Rank, Ranked, RankedGuard};
use crate::store::foreign;
use crate::store::ledger::Ledger;
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range};
use farshore_engine::path::RelPath;
use farshore_engine::sidecar::{MAX_SIDECAR_BYTES, Sidecar, SidecarError, decode_v1};
use farshore_engine::{ContentIdentity, ContentKey, Held};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// Files of contents that are open at once.
const OPEN_FILES: usize = 256;

/// The mark of a clean stop.
pub(super) const CLEAN: &str = "clean";

/// The right to change the disk.
pub(super) type Open<'a> = RwLockReadGuard<'a, bool>;

/// The place of a store.
#[derive(Debug)]
pub(super) struct Home {
    dir: OwnedFd,
    pub(super) private: Dir,
    pub(super) partial: Dir,
    pub(super) descriptors: Descriptors,
    pub(super) room: Room,
    numbers: AtomicU64,
    /// Whether the store was closed. Read while the disk is changed, written by who closes.
    gate: RwLock<bool>,
    /// Writing contents of one chunk: little for each, and all in one directory.
    pub(super) small_writes: Chores,
    /// Whether there may be sidecars without their bytes.
    are_sidecars_left: AtomicBool,
    /// One at a time saves.
    pub(super) saving: Ranked<()>,
    /// What is noted of what is remembered.
    pub(super) noting: Ranked<Noting>,
    /// Whoever had the store before has closed it.
    pub(super) was_closed: bool,
    shelf: Ranked<Shelf>,
    /// Held until all else is done.
    lock: OwnedFd,
}

/// What is known of the contents.
#[derive(Debug, Default)]
struct Shelf {
    /// Contents that somebody has open, or is about to.
    in_use: BTreeMap<ContentKey, Weak<DiskStored>>,
    /// What is not saved of contents that were let go of.
    unsaved: BTreeMap<ContentKey, Ledger>,
    /// Contents that were there after a stop that was not clean, and that nobody has opened since.
    doubtful: BTreeSet<ContentKey>,
    /// Nothing is saved any more.
    is_abandoned: bool,
}

/// Why nothing can be made of what lies under a key.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// There is no sidecar.
    #[error("there is no sidecar")]
    Missing,
    /// There is nothing but a sidecar.
    #[error("its bytes are gone")]
    NoBytes,
    /// It breaks a rule.
    #[error("its sidecar is refused: {0}")]
    Refused(#[from] SidecarError),
    /// It has the name of another one.
    #[error("its sidecar is that of {0}")]
    Misnamed(ContentKey),
    /// More bytes than any sidecar has.
    #[error("its sidecar is refused: it has {0} bytes, and the largest there can be has {MAX_SIDECAR_BYTES}")]
    TooLong(u64),
    /// It may be of use to whoever knows what to expect.
    #[error("its sidecar is in version 1 of the format, which does not say of which content it is")]
    Nameless,
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What lies under a key.
pub(super) struct Loaded {
    pub(super) ledger: Ledger,
    /// When it was used last.
    pub(super) used_at: Timespec,
}

/// What was written down of a content.
struct Written {
    /// The bytes of the sidecar that was saved; `None` if none ever was.
    saved: Option<Vec<u8>>,
    /// What was written between two saves.
    soon: Option<Sidecar>,
    /// When the content was used last.
    used_at: Timespec,
}

impl Home {
    pub(super) fn open(dir: &Path, trouble: &Trouble) -> Result<Home, LockError> {
        let io_error = LockError::Io;
        std::fs::create_dir_all(dir).map_err(io_error)?;
        let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, dir_flags, Mode::empty()).map_err(|error| io_error(error.into()))?;
        let private = Dir::open_in(&dir, PRIVATE, trouble).map_err(io_error)?;
        let lock = lock(&private)?;
        let partial = Dir::open_in(&private, "partial", trouble).map_err(io_error)?;
        let mut home = Home {
            dir,
            private,
            partial,
            descriptors: Descriptors::new(OPEN_FILES),
            room: Room::default(),
            numbers: AtomicU64::new(0),
            gate: RwLock::new(false),
            small_writes: Chores::default(),
            are_sidecars_left: AtomicBool::new(false),
            saving: Ranked::new(Rank::Saving, ()),
            noting: Ranked::new(Rank::Journal, Noting::default()),
            was_closed: false,
            shelf: Ranked::new(Rank::Shelf, Shelf::default()),
            lock,
        };
        home.begin().map_err(io_error)?;
        Ok(home)
    }

    /// Takes the mark of a clean stop away before anything is changed, and removes what nobody can go on with.
    fn begin(&mut self) -> io::Result<()> {
        let is_clean = self.private.names()?.iter().any(|name| name.as_bytes() == CLEAN.as_bytes());
        if is_clean {
            self.private.remove(CLEAN)?;
            self.private.sync_names()?;
        }
        self.was_closed = is_clean;
        self.clear_applying()?;
        let (mut partials, mut sidecars, mut soons) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for name in self.partial.names()? {
            let Ok(name) = name.to_str() else { continue };
            match Kind::of(name) {
                // It was given away, and is not ours to write to any more.
                Some(Kind::Partial(key)) if self.partial.links(name)? > 1 => self.remove(key)?,
                Some(Kind::Partial(key)) => _ = partials.insert(key),
                Some(Kind::Sidecar(key)) => _ = sidecars.insert(key),
                Some(Kind::Soon(key)) if !is_clean => _ = soons.insert(key),
                Some(Kind::Soon(_) | Kind::Leftover) => self.partial.remove(name)?,
                None => {}
            }
        }
        for key in soons {
            match self.read_soon(key, None) {
                Some(_) => _ = sidecars.insert(key),
                None => self.partial.remove(&names::soon(key))?,
            }
        }
        // A sidecar without its bytes, and bytes of which nothing says which they are.
        for key in partials.symmetric_difference(&sidecars) {
            self.remove(*key)?;
        }
        if !is_clean {
            self.shelf().doubtful = &partials & &sidecars;
        }
        Ok(())
    }

    /// Removes what was about to get a name in the folder when an earlier process ended, or had lost it.
    fn clear_applying(&self) -> io::Result<()> {
        if !self.private.dirs()?.iter().any(|name| name.as_bytes() == APPLYING.as_bytes()) {
            return Ok(());
        }
        let applying = Dir::open_in(&self.private, APPLYING, &Trouble::none())?;
        for name in applying.names()? {
            rustix::fs::unlinkat(&applying, name, AtFlags::empty()).map_err(full)?;
        }
        for name in applying.dirs()? {
            rustix::fs::unlinkat(&applying, name, AtFlags::REMOVEDIR).map_err(full)?;
        }
        Ok(())
    }

    /// Says whether the disk has room for more.
    pub(super) fn check_room(&self) -> io::Result<()> {
        let space = self.partial.space()?;
        let (free, reserve) = (space.free_bytes, reserve_bytes(space));
        if free > reserve {
            return Ok(());
        }
        let text = format!("its disk is nearly full: {free} bytes are free, and {reserve} are left for others");
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    /// The right to change the disk until the guard is dropped.
    pub(super) fn enter(&self) -> io::Result<Open<'_>> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate { Err(closed()) } else { Ok(gate) }
    }

    /// Waits until nobody changes the disk, and lets nobody in while the guard is held; for good if it is set.
    pub(super) fn shut(&self) -> RwLockWriteGuard<'_, bool> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a key for a content that is about to be opened; `None` if somebody else has it.
    pub(super) fn reserve(self: &Arc<Self>, key: ContentKey) -> Option<Reserved> {
        match self.shelf().in_use.entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => None,
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Weak::new());
                Some(Reserved { home: Arc::clone(self), key })
            }
        }
    }

    /// The content that was given, if it is one of this store.
    pub(super) fn own<'a>(&self, stored: &'a dyn Stored) -> io::Result<&'a DiskStored> {
        let stored = (stored as &dyn Any).downcast_ref::<DiskStored>().ok_or_else(foreign)?;
        if stored.is_in(self) { Ok(stored) } else { Err(foreign()) }
    }

    /// The contents that are open under a key.
    pub(super) fn open_contents(&self) -> Vec<Arc<DiskStored>> {
        self.shelf().in_use.values().filter_map(Weak::upgrade).collect()
    }

    /// Keys under which something is left to be said before the store is closed, and nobody has them open.
    pub(super) fn unsettled(&self) -> Vec<ContentKey> {
        let shelf = self.shelf();
        shelf.unsaved.keys().chain(&shelf.doubtful).copied().collect()
    }

    /// What is known of a content that was let go of goes to whoever opens it next.
    pub(super) fn put_unsaved(&self, key: ContentKey, ledger: Ledger) {
        let mut shelf = self.shelf();
        if !shelf.is_abandoned {
            shelf.unsaved.insert(key, ledger);
        }
    }

    /// From now on nothing is kept of what is let go of.
    pub(super) fn abandon(&self) {
        let mut shelf = self.shelf();
        shelf.is_abandoned = true;
        shelf.unsaved.clear();
    }

    /// What lies under a key, which the caller has reserved. After that, it is the caller's to save.
    pub(super) fn load(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> Result<Loaded, LoadError> {
        let unsaved = self.shelf().unsaved.remove(&key);
        if let Some(ledger) = unsaved {
            let used_at = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            return Ok(Loaded { ledger, used_at });
        }
        let is_doubtful = self.is_doubtful(key);
        let Written { saved, soon, used_at } = self.written(key, expected)?;
        let mut ledger = match (&saved, &soon) {
            (Some(saved), _) => to_ledger(saved, key, expected, is_doubtful)?,
            (None, Some(soon)) => Ledger::new(soon.identity(), soon.path()),
            (None, None) => return Err(LoadError::Missing),
        };
        if let Some(soon) = soon {
            ledger.add_soon(&soon);
        }
        self.shelf().doubtful.remove(&key);
        Ok(Loaded { ledger, used_at })
    }

    fn is_doubtful(&self, key: ContentKey) -> bool {
        self.shelf().doubtful.contains(&key)
    }

    /// What was written down of a content. A second sidecar counts only after a stop that was not clean: later, somebody
    /// who has the content knows better.
    fn written(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> Result<Written, LoadError> {
        let soon = if self.is_doubtful(key) { self.read_soon(key, expected) } else { None };
        match (self.read_sidecar(&names::sidecar(key)), soon) {
            (Err(LoadError::Missing), Some((soon, used_at))) => Ok(Written { saved: None, soon: Some(soon), used_at }),
            (saved, soon) => {
                let (saved, used_at) = saved?;
                Ok(Written { saved: Some(saved), soon: soon.map(|(soon, _)| soon), used_at })
            }
        }
    }

    /// The second sidecar of a content, and when it was written. One that is damaged, or cannot be read, is none: what it
    /// lists was never saved.
    fn read_soon(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> Option<(Sidecar, Timespec)> {
        let read = self.read_sidecar(&names::soon(key));
        match read.and_then(|(bytes, used_at)| Ok((decode(&bytes, key, expected)?, used_at))) {
            Ok(soon) => Some(soon),
            Err(LoadError::Missing) => None,
            Err(error) => {
                tracing::debug!("what was written down of {key} between two saves is of no use: {error}");
                None
            }
        }
    }

    /// The bytes of a sidecar, and when it was last used.
    fn read_sidecar(&self, name: &str) -> Result<(Vec<u8>, Timespec), LoadError> {
        let file = match self.partial.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LoadError::Missing),
            file => file?,
        };
        let meta = file.metadata()?;
        // Before room is made for it.
        if meta.len() > MAX_SIDECAR_BYTES {
            return Err(LoadError::TooLong(meta.len()));
        }
        let mut bytes = vec![0; usize::try_from(meta.len()).map_err(io::Error::other)?];
        self.partial.read_exact(&file, &mut bytes, 0)?;
        Ok((bytes, Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() }))
    }

    /// Everything that can be gone on with. What is damaged is told and removed.
    pub(super) fn held(self: &Arc<Self>) -> Vec<Held> {
        let keys = self.keys().unwrap_or_else(|error| {
            tracing::warn!("what the store holds cannot be listed: {error}");
            BTreeSet::new()
        });
        keys.into_iter().filter_map(|key| self.held_under(key)).collect()
    }

    /// The keys of all sidecars, in order.
    pub(super) fn keys(&self) -> io::Result<BTreeSet<ContentKey>> {
        let names = self.partial.names()?;
        let kinds = names.iter().filter_map(|name| Kind::of(name.to_str().ok()?));
        Ok(kinds
            .filter_map(|kind| match kind {
                Kind::Sidecar(key) | Kind::Soon(key) => Some(key),
                Kind::Partial(_) | Kind::Leftover => None,
            })
            .collect())
    }

    fn held_under(self: &Arc<Self>, key: ContentKey) -> Option<Held> {
        let found = self.written(key, None).and_then(|Written { saved, soon, used_at }| {
            let sidecar = match saved.map(|bytes| decode(&bytes, key, None)) {
                Some(Err(LoadError::Refused(SidecarError::OlderFormat { found: 1, .. }))) => None,
                Some(decoded) => Some(decoded?),
                None => None,
            };
            let last_used = (used_at.tv_sec.max(0) as u64).saturating_mul(1_000_000_000);
            let last_used = last_used.saturating_add(used_at.tv_nsec.max(0) as u64);
            let (path, stored_bytes) = match sidecar.as_ref().or(soon.as_ref()) {
                Some(sidecar) => {
                    let mut chunks = sidecar.bitmap().clone();
                    soon.iter().flat_map(|soon| soon.bitmap().present()).for_each(|chunk| chunks.set(chunk));
                    let len = |chunk| chunk_range(chunk, sidecar.identity().size_bytes);
                    let lens = chunks.present().map(len).map(|range| range.end - range.start);
                    (sidecar.path().clone(), lens.sum())
                }
                // It does not say where the file was, and what it claims cannot be checked yet: the room that it takes.
                None => {
                    let meta = self.partial.open(&names::partial(key))?.metadata()?;
                    (nameless(key)?, meta.len().min(meta.blocks().saturating_mul(512)))
                }
            };
            Ok(Held { key, path, stored_bytes, last_used })
        });
        match found {
            Ok(held) => Some(held),
            Err(LoadError::Missing) => None,
            Err(error) => {
                // Somebody who has it open knows better.
                let _reserved = self.reserve(key)?;
                self.give_up(key, &error);
                None
            }
        }
    }

    /// Tells why nothing can be made of what lies under a key, and removes it if it is damaged: then it is fetched again.
    pub(super) fn give_up(&self, key: ContentKey, error: &LoadError) {
        match error {
            LoadError::Missing | LoadError::Nameless => {}
            LoadError::Io(error) => tracing::warn!("what is stored under {key} cannot be read: {error}"),
            LoadError::NoBytes | LoadError::Refused(_) | LoadError::Misnamed(_) | LoadError::TooLong(_) => {
                tracing::warn!("what is stored under {key} is of no use and is fetched again: {error}");
                if let Err(error) = self.remove(key) {
                    tracing::warn!("what is stored under {key} cannot be removed: {error}");
                }
            }
        }
    }

    /// Removes what lies under a key: what says that it is there first.
    pub(super) fn remove(&self, key: ContentKey) -> io::Result<()> {
        self.forget(key);
        self.remove_sidecars(key)?;
        self.partial.remove(&names::partial(key))
    }

    fn forget(&self, key: ContentKey) {
        let mut shelf = self.shelf();
        shelf.unsaved.remove(&key);
        shelf.doubtful.remove(&key);
    }

    /// Makes the file for the bytes of a content of which nothing is to be there. Removes what was held of it.
    pub(super) fn create_anew(&self, key: ContentKey) -> io::Result<File> {
        let name = names::partial(key);
        // A sidecar goes before its bytes do: where there are none, there is nothing to be removed.
        if !self.are_sidecars_left.load(Ordering::Acquire) {
            match self.partial.create_new(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    self.forget(key);
                    return created;
                }
            }
        }
        self.remove(key)?;
        self.partial.create(&name)
    }

    /// A sidecar could not be removed, although its bytes are elsewhere now.
    pub(super) fn note_sidecars_left(&self) {
        self.are_sidecars_left.store(true, Ordering::Release);
    }

    /// Removes what says what lies under a key.
    pub(super) fn remove_sidecars(&self, key: ContentKey) -> io::Result<()> {
        self.partial.remove(&names::soon(key))?;
        self.partial.remove(&names::sidecar(key))
    }

    /// Notes that what lies under a key is in use.
    pub(super) fn touch(&self, key: ContentKey) {
        let accessed = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: accessed, last_modification: now };
        match self.partial.set_times(&names::sidecar(key), &times) {
            Ok(()) => {}
            // It was never saved.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!("the time of use of {key} cannot be set: {error}"),
        }
    }

    /// Whether anything is written down of which the mark of a clean stop says that it is all.
    fn is_remembered(&self) -> bool {
        let is_of_store = |name: &CString| [CLEAN, LOCK].iter().any(|own| name.as_bytes() == own.as_bytes());
        self.private.names().is_ok_and(|names| !names.iter().all(is_of_store))
    }

    fn shelf(&self) -> RankedGuard<'_, Shelf> {
        self.shelf.lock()
    }
}

impl Drop for Home {
    /// Leaves nothing behind where nothing is held. The lock's file goes while it is held, so that who waits for
    /// it never locks a file that is gone without noticing.
    fn drop(&mut self) {
        let absent = |removed: Result<(), Errno>| match removed {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        };
        let removed = absent(rustix::fs::unlinkat(&self.private, "partial", AtFlags::REMOVEDIR))
            .and_then(|()| absent(rustix::fs::unlinkat(&self.private, APPLYING, AtFlags::REMOVEDIR)))
            .and_then(|()| {
                if self.is_remembered() {
                    Ok(())
                } else {
                    absent(rustix::fs::unlinkat(&self.private, CLEAN, AtFlags::empty()))
                }
            })
            .and_then(|()| rustix::fs::unlinkat(&self.private, LOCK, AtFlags::empty()))
            .and_then(|()| rustix::fs::unlinkat(&self.dir, PRIVATE, AtFlags::REMOVEDIR));
        match removed.map_err(full) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {}
            Err(error) => tracing::warn!(%error, "the store's private directory cannot be removed"),
        }
        // Closing the file would not be enough if this process was just being forked: the child has it open as well.
        if let Err(error) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::debug!(%error, "the store cannot be unlocked before its lock is closed");
        }
    }
}

/// A key that is the holder's until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    home: Arc<Home>,
    key: ContentKey,
}

impl Reserved {
    pub(super) fn key(&self) -> ContentKey {
        self.key
    }

    /// Says who has it open.
    pub(super) fn announce(&self, stored: &Arc<DiskStored>) {
        self.home.shelf().in_use.insert(self.key, Arc::downgrade(stored));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.home.shelf().in_use.remove(&self.key);
    }
}

/// What the sidecar that was saved says.
fn to_ledger(
    sidecar: &[u8],
    key: ContentKey,
    expected: Option<&ContentIdentity>,
    is_doubtful: bool,
) -> Result<Ledger, LoadError> {
    match (decode(sidecar, key, expected), expected) {
        (Err(LoadError::Refused(SidecarError::OlderFormat { found: 1, .. })), Some(identity)) => {
            let claimed = decode_v1(sidecar, identity.size_bytes)?;
            check_chunk_bytes(claimed.chunk_size_bytes())?;
            Ok(Ledger::from_claim(identity, &nameless(key)?, &claimed))
        }
        (Err(LoadError::Refused(SidecarError::OlderFormat { found: 1, .. })), None) => Err(LoadError::Nameless),
        (decoded, _) => Ok(Ledger::from_sidecar(&decoded?, is_doubtful)),
    }
}

/// Reads a sidecar that is named after `key`.
fn decode(bytes: &[u8], key: ContentKey, expected: Option<&ContentIdentity>) -> Result<Sidecar, LoadError> {
    let sidecar = match expected {
        Some(expected) => Sidecar::decode_for(bytes, expected, CHUNK_SIZE)?,
        None => Sidecar::decode(bytes)?,
    };
    check_chunk_bytes(sidecar.bitmap().chunk_size_bytes())?;
    match sidecar.identity().key() {
        found if found == key => Ok(sidecar),
        found => Err(LoadError::Misnamed(found)),
    }
}

fn check_chunk_bytes(found: u64) -> Result<(), SidecarError> {
    match found {
        CHUNK_SIZE => Ok(()),
        found => Err(SidecarError::WrongChunkSize { expected: CHUNK_SIZE, found }),
    }
}

/// Where the file was of which nobody says where it was.
fn nameless(key: ContentKey) -> io::Result<RelPath> {
    RelPath::parse(key.to_string().as_bytes()).map_err(io::Error::other)
}
