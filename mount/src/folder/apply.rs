//! Doing in the folder what peers did in theirs, and never over anything that was done here meanwhile.
//!
//! An operation is done if what it is about is what the engine last saw there. That is looked at right before, and, where the
//! kernel offers a way, right after as well: what has lost its name is moved aside first, looked at once more, and only
//! then removed. If it turns out to be something else, it gets its name back, and the operation counts as refused.
//!
//! A program that has a file open goes on with that one, also if it loses its name, as with any program that replaces files.

mod aside;
mod opened;
mod troubles;

use self::aside::{Aside, Item};
use self::opened::Opened;
use self::troubles::Troubles;
use super::beneath::{Beneath, InodeId, is_gone, stat_in};
use super::lacking::Lacking;
use super::look::{facts, modified};
use crate::store::{KEPT_MODE_BITS, PRIVATE, Stored, publish};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{Apply, ApplyError, ContentId, Xattrs};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{fs, io};

/// The contents that are to be published.
pub type Contents = BTreeMap<ContentId, Arc<dyn Stored>>;

/// If more files than this are published at once, everything on the file system is made durable in one call.
const ONE_BY_ONE: usize = 8;

/// How many bytes of two files are compared at once.
const COMPARED_BYTES: usize = 256 * 1024;

/// The bits of a mode that peers know and set. Those that lend rights to whoever executes a file, or to what is made in a
/// directory, are each device's own.
pub(crate) const SHARED_MODE_BITS: u16 = KEPT_MODE_BITS;

/// What a directory's owner needs to change what is in it.
const OWNER_BITS: u16 = 0o700;

/// Does operations in one folder.
#[derive(Debug)]
pub(super) struct Applier {
    beneath: Arc<Beneath>,
    lacking: Lacking,
    aside: Aside,
    troubles: Troubles,
}

/// Why an operation was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// There is something else than was expected.
    Changed,
    /// It holds the same bytes as what took its name.
    Same,
    /// What the disk says.
    Disk(Errno),
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        match error {
            Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR => Refusal::Changed,
            // Another file system is mounted in the folder: that stays so, however often it is looked at.
            Errno::XDEV => Refusal::Disk(error),
            error if is_gone(error) => Refusal::Changed,
            error => Refusal::Disk(error),
        }
    }
}

impl Refusal {
    /// Of opening what is beneath the folder: what leads out of it is not there.
    fn of_opening(error: Errno) -> Refusal {
        if is_gone(error) { Refusal::Changed } else { error.into() }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        let kind = error.kind();
        if kind == io::ErrorKind::AlreadyExists {
            return Refusal::Changed;
        }
        // Also where the text says which disk.
        let is_full = matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let disk = if is_full { Some(Errno::NOSPC) } else { Errno::from_io_error(&error) };
        Refusal::Disk(disk.unwrap_or(Errno::IO))
    }
}

type Outcome<T> = Result<T, Refusal>;

/// Where something is, by its name in an open directory.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a Name,
}

impl Place<'_> {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }

    fn stat(&self) -> Result<Stat, Errno> {
        stat_in(self.directory.as_fd(), self.name())
    }

    /// Whether a socket, a pipe or a device stands there.
    fn is_taken_by_what_is_not_shared(&self) -> bool {
        let is_shared = |kind| matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink);
        self.stat().is_ok_and(|stat| !is_shared(FileType::from_raw_mode(stat.st_mode)))
    }

    /// What is there, if it is what is expected: the same file, unchanged, or the same directory.
    fn expect(&self, expected: Facts) -> Outcome<Stat> {
        let stat = self.stat()?;
        let is_it = facts(&stat) == expected || is_dir(&stat) && facts(&stat).inode == expected.inode;
        if is_it { Ok(stat) } else { Err(Refusal::Changed) }
    }

    /// The same for what something else is to take the place of: a directory is not replaced, with all that it may hold.
    fn expect_replaceable(&self, expected: Facts) -> Outcome<Stat> {
        Some(self.expect(expected)?).filter(|stat| !is_dir(stat)).ok_or(Refusal::Changed)
    }
}

impl Applier {
    pub(super) fn new(beneath: Arc<Beneath>, lacking: Lacking) -> Applier {
        Applier { beneath, lacking, aside: Aside::default(), troubles: Troubles::default() }
    }

    /// Prepares what takes long: the files that are to be published, all of their bytes durable, where nobody sees them.
    pub(super) fn prepare<'a>(&'a self, ops: Vec<Apply>, contents: &Contents) -> Vec<Prepared<'a>> {
        let mut prepared: Vec<Prepared<'a>> = ops.into_iter().map(|op| self.prepare_one(op, contents)).collect();
        let files = || prepared.iter().filter_map(Prepared::file);
        let synced = match files().count() {
            0 => Ok(()),
            1..=ONE_BY_ONE => files().try_for_each(|(item, _)| item.sync()),
            _ => rustix::io::retry_on_intr(|| rustix::fs::syncfs(self.beneath.root())),
        };
        if let Err(error) = synced {
            for prepared in prepared.iter_mut().filter(|prepared| prepared.file().is_some()) {
                prepared.ready = Err(error.into());
            }
        }
        prepared
    }

    fn prepare_one<'a>(&'a self, op: Apply, contents: &Contents) -> Prepared<'a> {
        // The engine says that it is here; if it is not, it is fetched again after a restart.
        let stored = |id| contents.get(id).cloned().ok_or(Refusal::Disk(Errno::NOENT));
        let ready = match &op {
            Apply::Publish { path, content: Some(id), .. } => stored(id).and_then(|stored| {
                // What cannot be put there need not be copied.
                self.place(path)?;
                let item = self.aside.item(&self.beneath)?;
                stored.lend(item.directory(), item.name())?;
                Ok(Ready::File((item.made(), stored)))
            }),
            Apply::KeepCopy { path, unless: Some(id), .. } => stored(id).and_then(|stored| {
                let is_same = holds(&self.beneath.file(path).map_err(Refusal::of_opening)?.into(), &*stored)?;
                Ok(if is_same { Ready::Same } else { Ready::Nothing })
            }),
            Apply::Publish { content: None, .. }
            | Apply::KeepCopy { unless: None, .. }
            | Apply::MakeDir { .. }
            | Apply::MakeSymlink { .. }
            | Apply::Remove { .. }
            | Apply::Rename { .. }
            | Apply::SetAttributes { .. } => Ok(Ready::Nothing),
        };
        Prepared { op, ready }
    }

    /// Does operations, one after the other. The facts are those of what each has made; if a program has changed that at
    /// once, they are older than what is there, so that it is noticed.
    pub(super) fn apply(&self, prepared: Vec<Prepared<'_>>) -> Vec<Result<Facts, ApplyError>> {
        let mut times = BTreeMap::new();
        let done = prepared.into_iter().map(|prepared| {
            for directory in prepared.op.paths().filter_map(parent) {
                if let Entry::Vacant(unknown) = times.entry(directory)
                    && let Ok(stat) = self.beneath.stat(unknown.key())
                {
                    unknown.insert(modified(&stat));
                }
            }
            let wanted = prepared.wanted_time();
            let done = self.apply_noted(prepared);
            if let (Some((path, modified)), Ok(_)) = (wanted, done) {
                times.insert(path, modified);
            }
            done
        });
        let done = done.collect();
        times.iter().for_each(|(path, modified)| self.restore_time(path, *modified));
        done
    }

    /// What was done in a directory gave it another time than it had, or was given.
    fn restore_time(&self, path: &RelPath, modified: FileTime) {
        let directory = self.beneath.directory(path);
        let restored = directory.map_err(Refusal::from).and_then(|directory| {
            self.set_attributes_of(&directory, Attributes { mode: None, modified, xattrs: None })
        });
        if let Err(refusal) = restored {
            // Then it is seen, and told to all.
            tracing::debug!(%path, ?refusal, "a directory keeps the time of what was done in it");
        }
    }

    fn apply_noted(&self, prepared: Prepared<'_>) -> Result<Facts, ApplyError> {
        let Prepared { op, ready } = prepared;
        let path = op.target().clone();
        let _opened: Vec<Opened> = op.paths().filter_map(|path| Opened::above(&self.beneath, path)).collect();
        let done = ready.and_then(|ready| self.apply_one(op, ready));
        self.troubles.note(&path, &done);
        done.map_err(|refusal| match refusal {
            Refusal::Changed => ApplyError::Changed,
            Refusal::Same => ApplyError::Same,
            Refusal::Disk(Errno::NOSPC | Errno::DQUOT) => ApplyError::NoSpace,
            Refusal::Disk(_) => ApplyError::Io,
        })
    }

    fn apply_one(&self, op: Apply, ready: Ready<'_>) -> Outcome<Facts> {
        match op {
            Apply::MakeDir { path, mode, modified, xattrs } => {
                let place = self.place(&path)?;
                let item = self.aside.item(&self.beneath)?;
                rustix::fs::mkdirat(item.directory(), item.name(), Mode::RWXU)?;
                // Where its owner may not write, a directory cannot be moved.
                let first = Attributes { mode: Some(mode | OWNER_BITS), modified, xattrs: Some(xattrs) };
                let made = self.put(item.made(), first, &place, None)?;
                if mode & OWNER_BITS == OWNER_BITS {
                    return Ok(settled(&place, &made));
                }
                self.set_attributes(&place, &made, Attributes { mode: Some(mode), modified, xattrs: None })
            }
            Apply::MakeSymlink { path, target, modified, expect } => {
                let place = self.place(&path)?;
                let item = self.aside.item(&self.beneath)?;
                rustix::fs::symlinkat(&*target, item.directory(), item.name())?;
                let made = self.put(item.made(), Attributes { mode: None, modified, xattrs: None }, &place, expect)?;
                Ok(settled(&place, &made))
            }
            Apply::Publish { path, mode, modified, xattrs, expect, .. } => {
                let place = self.place(&path)?;
                let attributes = Attributes { mode: Some(mode), modified, xattrs: Some(xattrs) };
                let Ready::File((item, stored)) = ready else {
                    let item = self.aside.item(&self.beneath)?;
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    rustix::fs::openat(item.directory(), item.name(), flags, Mode::RUSR | Mode::WUSR)?;
                    let made = self.put(item.made(), attributes, &place, expect)?;
                    return Ok(settled(&place, &made));
                };
                let made = self.put(item, attributes, &place, expect)?;
                if let Err(error) = stored.give_away() {
                    tracing::warn!(%path, "a file that is in the folder now cannot be removed from the store: {error}");
                }
                // Not before: that it has a name less is a change, too.
                Ok(settled(&place, &made))
            }
            Apply::Remove { path, expect } => {
                let place = self.place(&path)?;
                let before = place.expect(expect)?;
                self.remove(&place, &before)?;
                Ok(expect)
            }
            Apply::Rename { from, to, mode, modified, xattrs, expect, over } => {
                let (from, to) = (self.place(&from)?, self.place(&to)?);
                let before = from.expect(expect)?;
                let over = over.map(|over| to.expect_replaceable(over)).transpose()?;
                self.rename(&from, &before, &to, over.as_ref())?;
                self.set_attributes(&to, &before, Attributes { mode: Some(mode), modified, xattrs: Some(xattrs) })
            }
            Apply::KeepCopy { path, to, expect, unless: _ } => {
                let (from, to) = (self.place(&path)?, self.place(&to)?);
                let before = from.expect(expect)?;
                if matches!(ready, Ready::Same) {
                    return Err(Refusal::Same);
                }
                self.rename(&from, &before, &to, None)?;
                Ok(settled(&to, &before))
            }
            Apply::SetAttributes { path, mode, modified, xattrs, expect } => {
                let attributes = Attributes { mode: Some(mode), modified, xattrs };
                if path.is_root() {
                    return self.set_attributes_of(&self.beneath.parent(&path)?, attributes).map(|stat| facts(&stat));
                }
                let place = self.place(&path)?;
                let before = match expect {
                    Some(expect) => place.expect(expect)?,
                    None => Some(place.stat()?).filter(is_dir).ok_or(Refusal::Changed)?,
                };
                self.set_attributes(&place, &before, attributes)
            }
        }
    }

    fn place<'a>(&self, path: &'a RelPath) -> Outcome<Place<'a>> {
        // The root is there, whatever a peer says of it; the private place is nobody's.
        let (parents, name) = path.split_last().ok_or(Refusal::Disk(Errno::INVAL))?;
        let top = parents.first().unwrap_or(name);
        if top.as_bytes() == PRIVATE.as_bytes() {
            return Err(Refusal::Disk(Errno::PERM));
        }
        Ok(Place { directory: self.beneath.parent(path).map_err(Refusal::of_opening)?, name })
    }

    /// Gives what was made its attributes, and then its name, which `expect` has now, or nothing. Says what it was before
    /// it had the name.
    fn put(&self, item: Item<'_>, wanted: Attributes, place: &Place<'_>, expect: Option<Facts>) -> Outcome<Stat> {
        let before = expect.map(|expect| place.expect_replaceable(expect)).transpose()?;
        let made = self.set_attributes_of(&item.open()?, wanted)?;
        meanwhile();
        match &before {
            None => match item.give_name(place) {
                // Nobody is ever told of that: it would be looked at again and again.
                Err(Refusal::Changed) if place.is_taken_by_what_is_not_shared() => {
                    return Err(Refusal::Disk(Errno::EXIST));
                }
                given => given?,
            },
            Some(before) => self.replace(item, &made, place, before)?,
        }
        meanwhile();
        Ok(made)
    }

    /// Puts `item` where `before` was.
    fn replace(&self, item: Item<'_>, made: &Stat, place: &Place<'_>, before: &Stat) -> Outcome<()> {
        match item.exchange(place) {
            Ok(()) => {}
            Err(error) if lacks_flags(error) => {
                let old = self.set_aside(place, before)?;
                return match item.give_name(place) {
                    Ok(()) => Ok(old.remove()?),
                    Err(refusal) => {
                        old.give_back(place);
                        Err(refusal)
                    }
                };
            }
            Err(error) => return Err(error.into()),
        }
        meanwhile();
        if item.stat().is_ok_and(|out| is_same(&out, before)) {
            return Ok(item.remove()?);
        }
        // A program was faster. What came out gets its name back, and what is ours goes.
        match item.exchange(place) {
            Ok(()) if item.stat().is_ok_and(|out| InodeId::of(&out) == InodeId::of(made)) => item.remove()?,
            // Not even that was left alone.
            _ => item.give_back(place),
        }
        Err(Refusal::Changed)
    }

    /// Takes the name away from what was seen as `before`, and keeps it out of sight.
    fn set_aside(&self, place: &Place<'_>, before: &Stat) -> Outcome<Item<'_>> {
        let item = self.aside.item(&self.beneath)?;
        meanwhile();
        rustix::fs::renameat(&place.directory, place.name(), item.directory(), item.name())?;
        let item = item.made();
        match item.stat() {
            Ok(out) if is_same(&out, before) => Ok(item),
            _ => {
                item.give_back(place);
                Err(Refusal::Changed)
            }
        }
    }

    fn remove(&self, place: &Place<'_>, before: &Stat) -> Outcome<()> {
        if !is_dir(before) {
            return Ok(self.set_aside(place, before)?.remove()?);
        }
        meanwhile();
        match rustix::fs::unlinkat(&place.directory, place.name(), AtFlags::REMOVEDIR) {
            // What is not shared (a socket, say) nobody is ever told of: it is tried again from time to time.
            Err(Errno::NOTEMPTY | Errno::EXIST) if holds_nothing_shared(place) => Err(Refusal::Disk(Errno::NOTEMPTY)),
            removed => Ok(removed?),
        }
    }

    fn rename(&self, from: &Place<'_>, before: &Stat, to: &Place<'_>, over: Option<&Stat>) -> Outcome<()> {
        let is_it = |place: &Place<'_>, before: &Stat| place.stat().is_ok_and(|stat| is_same(&stat, before));
        meanwhile();
        let Some(over) = over else {
            publish(from.directory.as_fd(), from.name(), to.directory.as_fd(), to.name())?;
            meanwhile();
            if is_it(to, before) {
                return Ok(());
            }
            let back = publish(to.directory.as_fd(), to.name(), from.directory.as_fd(), from.name());
            if let Err(error) = back {
                tracing::warn!("{:?} was renamed to {:?}: {error}", from.name(), to.name());
            }
            return Err(Refusal::Changed);
        };
        let exchange = || {
            let flags = RenameFlags::EXCHANGE;
            let exchanged = rustix::fs::renameat_with(&from.directory, from.name(), &to.directory, to.name(), flags);
            meanwhile();
            exchanged
        };
        match exchange() {
            Ok(()) if is_it(to, before) && is_it(from, over) => {
                // If something else is there by now, it is seen there.
                match self.set_aside(from, over) {
                    Ok(old) => Ok(old.remove()?),
                    Err(Refusal::Changed) => Ok(()),
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(()) => {
                exchange()?;
                Err(Refusal::Changed)
            }
            Err(error) if lacks_flags(error) => {
                let old = self.set_aside(to, over)?;
                match self.rename(from, before, to, None) {
                    Ok(()) => Ok(old.remove()?),
                    Err(refusal) => {
                        old.give_back(to);
                        Err(refusal)
                    }
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the attributes of what was seen as `before`.
    fn set_attributes(&self, place: &Place<'_>, before: &Stat, wanted: Attributes) -> Outcome<Facts> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&place.directory, place.name(), flags, Mode::empty())?;
        let now = rustix::fs::fstat(&opened)?;
        if !is_dir(&now) && !is_same(&now, before) || InodeId::of(&now) != InodeId::of(before) {
            return Err(Refusal::Changed);
        }
        let made = self.set_attributes_of(&opened, wanted)?;
        meanwhile();
        Ok(settled(place, &made))
    }

    /// Sets what is not so already. Says how it is then.
    fn set_attributes_of(&self, opened: &OwnedFd, wanted: Attributes) -> Outcome<Stat> {
        let mut now = rustix::fs::fstat(opened)?;
        let is_symlink = FileType::from_raw_mode(now.st_mode) == FileType::Symlink;
        if let Some(xattrs) = wanted.xattrs.filter(|_| !is_symlink) {
            let set = crate::xattrs::set(opened, &xattrs);
            if let Some(error) = set.refused {
                self.lacking.note(&self.beneath, error)?;
            }
            if set.is_changed {
                now = rustix::fs::fstat(opened)?;
            }
        }
        if let Some(mode) = wanted.mode.filter(|_| !is_symlink) {
            let shared = RawMode::from(SHARED_MODE_BITS);
            let mode = RawMode::from(mode) & shared | now.st_mode & 0o7777 & !shared;
            if mode != now.st_mode & 0o7777 {
                set_mode(opened, mode)?;
            }
        }
        if modified(&now) != wanted.modified {
            let FileTime { seconds, nanos } = wanted.modified;
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
            };
            rustix::fs::utimensat(opened, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(rustix::fs::fstat(opened)?)
    }
}

/// An operation, and what takes long of it, which is done.
pub(super) struct Prepared<'a> {
    op: Apply,
    ready: Outcome<Ready<'a>>,
}

/// What was prepared.
enum Ready<'a> {
    Nothing,
    /// The file that it is to publish, which is not empty.
    File(File<'a>),
    /// What lost its name has the bytes of what took it.
    Same,
}

impl<'a> Prepared<'a> {
    /// The time that it is to give to what may be a directory, and where.
    fn wanted_time(&self) -> Option<(RelPath, FileTime)> {
        match &self.op {
            Apply::MakeDir { path, modified, .. } | Apply::SetAttributes { path, modified, .. } => {
                Some((path.clone(), *modified))
            }
            Apply::MakeSymlink { .. }
            | Apply::Remove { .. }
            | Apply::Rename { .. }
            | Apply::KeepCopy { .. }
            | Apply::Publish { .. } => None,
        }
    }

    fn file(&self) -> Option<&File<'a>> {
        match &self.ready {
            Ok(Ready::File(file)) => Some(file),
            Ok(Ready::Nothing | Ready::Same) | Err(_) => None,
        }
    }
}

/// A file that nobody sees yet, and whose bytes it has.
type File<'a> = (Item<'a>, Arc<dyn Stored>);

/// What is to be set; nobody sets the mode of a symlink, and it has no attributes that travel.
#[derive(Debug, Clone)]
struct Attributes {
    mode: Option<u16>,
    modified: FileTime,
    xattrs: Option<Xattrs>,
}

fn set_mode(opened: &OwnedFd, mode: RawMode) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// The directory that holds `path`; `None` for the root.
fn parent(path: &RelPath) -> Option<RelPath> {
    RelPath::new(path.split_last()?.0.to_vec()).ok()
}

/// The facts of what was `made`, if it is what is there. Otherwise those that it had before somebody changed it.
fn settled(place: &Place<'_>, made: &Stat) -> Facts {
    match place.stat() {
        Ok(now) if is_same(&now, made) || is_dir(&now) && InodeId::of(&now) == InodeId::of(made) => facts(&now),
        Ok(_) | Err(_) => facts(made),
    }
}

/// Whether these are two looks at the same thing, of which nothing was changed but its name.
fn is_same(now: &Stat, before: &Stat) -> bool {
    InodeId::of(now) == InodeId::of(before)
        && (now.st_mode, now.st_size) == (before.st_mode, before.st_size)
        && modified(now) == modified(before)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether the file system cannot rename in other ways than the usual one.
fn lacks_flags(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Whether a file holds the bytes of a content, all of which is stored.
fn holds(file: &fs::File, stored: &dyn Stored) -> io::Result<bool> {
    let len_bytes = file.metadata()?.len();
    // Only what is looked at is read: a file that grows meanwhile is not the one that is expected.
    let (mut ours, mut theirs) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    for offset in (0..len_bytes).step_by(COMPARED_BYTES) {
        let len = (len_bytes - offset).min(COMPARED_BYTES as u64) as usize;
        let (ours, theirs) = (&mut ours[..len], &mut theirs[..len]);
        match file.read_exact_at(ours, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        match stored.read(offset, theirs) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if ours != theirs {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all that a directory holds is of the kinds that are not shared.
fn holds_nothing_shared(place: &Place<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&place.directory, place.name(), flags, Mode::empty());
    let entries = opened.and_then(rustix::fs::Dir::new);
    let is_shared = |kind| matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Directory);
    entries.is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                matches!(entry.file_name().to_bytes(), b"." | b"..") || !is_shared(entry.file_type())
            })
        })
    })
}

/// A moment in which a program may do something. Tests do something in it.
#[inline(always)]
fn meanwhile() {
    #[cfg(test)]
    tests::meanwhile();
}

#[cfg(test)]
mod tests;
