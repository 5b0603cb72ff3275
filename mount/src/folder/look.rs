//! Looking at one entry: what the file system says of it, as the engine wants to hear it.

use super::beneath::{Beneath, InodeId, is_gone, stat_in};
use crate::xattrs::read_in;
use farshore_engine::Xattrs;
use farshore_engine::event::{Seen, SeenKind};
use farshore_engine::path::{PathError, RelPath};
use farshore_engine::record::{Facts, FileTime};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// How often an entry that changes while it is being looked at is looked at anew.
const LOOKS: usize = 4;

/// Why something in the folder is not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// A socket.
    #[error("it is a socket")]
    Socket,
    /// A named pipe.
    #[error("it is a named pipe")]
    Pipe,
    /// A character or block device, or something unknown.
    #[error("it is a device")]
    Device,
    /// A name or path that the engine has no room for.
    #[error("{0}")]
    Path(PathError),
    /// Its attributes, or the target of a symbolic link, cannot be read.
    #[error("its attributes cannot be read: {}", std::io::Error::from_raw_os_error(*.0))]
    Attributes(i32),
    /// A directory that cannot be listed or searched; what it holds is not shared.
    #[error("the directory cannot be read: {}", std::io::Error::from_raw_os_error(*.0))]
    Unreadable(i32),
    /// A directory that is its own ancestor; what it holds is shared where it was met first.
    #[error("the directory contains itself")]
    Loop,
}

impl SkipReason {
    /// Whether it is not known what is there.
    pub(crate) fn is_trouble(&self) -> bool {
        matches!(self, SkipReason::Attributes(_) | SkipReason::Unreadable(_))
    }
}

/// Something in the folder that is not shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not shared: {}: {reason}", .path.display())]
pub struct Skipped {
    /// Where, relative to the folder.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

impl Skipped {
    pub(super) fn new(path: &RelPath, reason: SkipReason) -> Skipped {
        Skipped { path: native(path), reason }
    }
}

/// A path of the engine as the standard library writes it; relative.
pub(super) fn native(path: &RelPath) -> PathBuf {
    std::ffi::OsString::from_vec(path.to_bytes()).into()
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Nothing is there.
    Nothing,
    /// This is there.
    There(There),
    /// Something is there that is not shared.
    Skip(SkipReason),
}

/// Something that can be shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) seen: Seen,
    pub(super) id: InodeId,
    /// How many names it has, in this folder or elsewhere.
    pub(super) links: u64,
}

impl There {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.seen.kind, SeenKind::Dir)
    }
}

/// Looks at `path`, which is not the root, in the directory `parent`. `None` if what holds it by name is not that
/// directory (any more): then nothing can be said of what is meant by `path`.
pub(super) fn look(beneath: &Beneath, path: &RelPath, parent: InodeId) -> Option<Sight> {
    let (_, name) = path.split_last()?;
    let directory = beneath.parent(path).ok()?;
    let stat = rustix::fs::fstat(&directory).ok()?;
    (InodeId::of(&stat) == parent).then(|| look_in(directory.as_fd(), name.as_bytes()))
}

/// Looks at `name` in an open directory.
pub(crate) fn look_in<N: rustix::path::Arg + Copy>(directory: BorrowedFd<'_>, name: N) -> Sight {
    look_while(directory, name, || {})
}

/// As [`look_in`], where something is done in the middle of each look.
fn look_while<N: rustix::path::Arg + Copy>(directory: BorrowedFd<'_>, name: N, meanwhile: impl Fn()) -> Sight {
    for looks in 1..=LOOKS {
        let looked = stat_in(directory, name).and_then(|stat| {
            meanwhile();
            Ok((sight(directory, name, &stat)?, stat))
        });
        let error = match looked {
            // Its extended attributes may be newer than its time, which would then look like an edit when it is seen.
            Ok((Sight::There(_), stat)) if looks < LOOKS && is_changed(directory, name, &stat) => continue,
            Ok((sight, _)) => return sight,
            Err(error) => error,
        };
        match error {
            // It was a symbolic link when it was looked at, and something else when its target was read.
            Errno::INVAL => {}
            error if is_gone(error) => return Sight::Nothing,
            error => return Sight::Skip(SkipReason::Attributes(error.raw_os_error())),
        }
    }
    Sight::Skip(SkipReason::Attributes(Errno::INVAL.raw_os_error()))
}

/// Whether it is not any more what `before` says, or cannot be seen any more.
fn is_changed<N: rustix::path::Arg>(directory: BorrowedFd<'_>, name: N, before: &Stat) -> bool {
    stat_in(directory, name).map(|now| facts(&now)) != Ok(facts(before))
}

fn sight<N: rustix::path::Arg + Copy>(directory: BorrowedFd<'_>, name: N, stat: &Stat) -> Result<Sight, Errno> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => SeenKind::File { size_bytes: u64::try_from(stat.st_size).unwrap_or(0) },
        FileType::Directory => SeenKind::Dir,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            SeenKind::Symlink { target: target.into_bytes().into() }
        }
        FileType::Socket => return Ok(Sight::Skip(SkipReason::Socket)),
        FileType::Fifo => return Ok(Sight::Skip(SkipReason::Pipe)),
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            return Ok(Sight::Skip(SkipReason::Device));
        }
    };
    let mode = (stat.st_mode & 0o7777) as u16;
    let xattrs = match &kind {
        SeenKind::Symlink { .. } => Some(Xattrs::default()),
        SeenKind::File { .. } | SeenKind::Dir => read_in(directory, name),
    };
    let seen = Seen { kind, mode, modified: modified(stat), xattrs, facts: facts(stat) };
    #[allow(clippy::unnecessary_cast, reason = "the width of st_nlink differs between architectures")]
    let links = stat.st_nlink as u64;
    Ok(Sight::There(There { seen, id: InodeId::of(stat), links }))
}

/// When the bytes last changed.
pub(super) fn modified(stat: &Stat) -> FileTime {
    file_time(stat.st_mtime, stat.st_mtime_nsec)
}

/// By what an edit is noticed, whatever it does to the file's times.
pub(super) fn facts(stat: &Stat) -> Facts {
    Facts { inode: InodeId::of(stat).inode, changed: file_time(stat.st_ctime, stat.st_ctime_nsec) }
}

/// The kernel keeps nanoseconds below a billion; a file system that does not is corrected.
fn file_time(seconds: impl Into<i64>, nanos: impl TryInto<u32>) -> FileTime {
    FileTime { seconds: seconds.into(), nanos: nanos.try_into().unwrap_or(0).min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, XattrFlags};
    use std::cell::Cell;

    #[test]
    fn extended_attributes_that_are_set_during_a_look_come_with_the_time_of_that() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("file");
        std::fs::write(&at, "text").unwrap();
        let set = || rustix::fs::setxattr(&at, "user.a", b"1", XattrFlags::empty());
        if let Err(error) = set() {
            return eprintln!("skipped: {} keeps none: {error}", dir.path().display());
        }
        rustix::fs::removexattr(&at, "user.a").unwrap();
        let directory = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let changed = || rustix::fs::stat(&at).map(|stat| facts(&stat).changed).unwrap();
        let is_set = Cell::new(false);
        let sight = look_while(directory.as_fd(), "file", || {
            let before = changed();
            // The clock of a disk is a coarse one.
            while !is_set.get() && changed() == before {
                set().unwrap();
            }
            is_set.set(true);
        });
        let Sight::There(there) = sight else { panic!("{sight:?}") };
        assert_eq!(there.seen.xattrs, Some(Xattrs::default().with(b"user.a", b"1")));
        assert_eq!(there.seen.facts.changed, changed());
    }
}
