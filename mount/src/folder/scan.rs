//! Reading a folder: every directory before what it holds, in the order of names, as [`Observation`]s.
//!
//! Directories are opened one at a time from the folder's own descriptor, and what they hold is asked for through
//! that descriptor: a symbolic link that is put in a directory's place meanwhile is never followed. What cannot be
//! read is reported and left out. Nothing but the visitor ends a scan early.

use super::beneath::{Beneath, InodeId, is_gone, stat_in};
use super::look::{Sight, SkipReason, Skipped, There, look_in, native};
use farshore_engine::Observation;
use farshore_engine::path::{Name, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::RawDir;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

/// The most observations told at once.
pub(super) const BATCH: usize = 1_024;

/// Room for the names that the kernel hands out at once, in bytes.
const NAMES_BYTES: usize = 64 * 1024;

/// The visitor wants the scan to end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// Goes along with a scan.
pub(super) trait Visitor {
    /// Whether what has this name in `directory` is passed over.
    fn is_private(&self, directory: &RelPath, name: &[u8]) -> bool;
    /// Directory `path` is open as `directory` and will be read when this returns. What happens in it from now on
    /// may be in what is read or not.
    fn enter(&mut self, path: &RelPath, directory: BorrowedFd<'_>, id: InodeId) -> Result<(), Stopped>;
    /// This was found; at most [`BATCH`] at once.
    fn observed(&mut self, observations: Vec<Observation>);
    /// A file with several names was found; told by `observed` too.
    fn linked(&mut self, path: &RelPath, there: &There);
    /// Directory `path` was told, but it was not there any more, or another one was, when it was its turn to be read.
    /// What it holds was not told. It may have been moved together with a directory above it.
    fn lost(&mut self, path: &RelPath);
    /// This is not shared.
    fn skipped(&mut self, skipped: Skipped);
}

/// Reads directory `at`, which was seen as `there`, and everything below it: tells the directory, then what is in it
/// between [`Observation::ScanBegin`] and [`Observation::ScanEnd`]. If the directory is not there any more, it is
/// `lost` and nothing is told. The root, for which `there` is `None`, is not told itself.
///
/// # Errors
/// [`Stopped`] if the visitor said so; the end is then not told.
pub(super) fn scan(
    beneath: &Beneath,
    at: &RelPath,
    there: Option<There>,
    visitor: &mut impl Visitor,
) -> Result<(), Stopped> {
    let names = vec![MaybeUninit::uninit(); NAMES_BYTES];
    Scan { beneath, visitor, stack: Vec::new(), batch: Vec::with_capacity(BATCH), names }.run(at, there)
}

struct Scan<'a, V> {
    beneath: &'a Beneath,
    visitor: &'a mut V,
    /// The directories that lead to where the scan is, each with what is still to be told of it. None is held open:
    /// a tree may be deeper than a process may have files open.
    stack: Vec<Level>,
    batch: Vec<Observation>,
    names: Vec<MaybeUninit<u8>>,
}

/// What came of opening a directory.
enum Entered {
    /// It is open; seen like this since the visitor was shown it.
    Open(OwnedFd, There),
    /// What it holds is not shared, for this reason.
    Closed(SkipReason),
    /// It is not there any more.
    Lost,
}

struct Level {
    path: RelPath,
    id: InodeId,
    entries: std::vec::IntoIter<(Name, There)>,
}

impl<V: Visitor> Scan<'_, V> {
    fn run(mut self, at: &RelPath, there: Option<There>) -> Result<(), Stopped> {
        match self.enter(at, there.as_ref())? {
            Entered::Lost => {
                self.visitor.lost(at);
                return Ok(());
            }
            Entered::Closed(reason) => {
                self.tell_directory(at, there);
                self.tell(Observation::ScanBegin { path: at.clone() });
                self.skip(at, reason);
            }
            Entered::Open(directory, fresh) => {
                self.tell_directory(at, there.and(Some(fresh.clone())));
                self.tell(Observation::ScanBegin { path: at.clone() });
                self.push(at.clone(), &directory, fresh.id);
            }
        }
        while let Some(level) = self.stack.last_mut() {
            let Some((name, there)) = level.entries.next() else {
                self.stack.pop();
                continue;
            };
            match level.path.join(name.clone()) {
                Ok(path) if there.is_directory() => self.descend(path, there)?,
                Ok(path) => {
                    if there.links > 1 {
                        self.visitor.linked(&path, &there);
                    }
                    self.tell(Observation::Found { path, seen: there.seen });
                }
                Err(error) => {
                    let path = native(&level.path).join(OsStr::from_bytes(name.as_bytes()));
                    self.visitor.skipped(Skipped { path, reason: SkipReason::Path(error) });
                }
            }
        }
        self.tell(Observation::ScanEnd { path: at.clone() });
        self.hand_over();
        Ok(())
    }

    /// Tells a directory that was met on the way, and makes it the one whose entries are told next.
    fn descend(&mut self, path: RelPath, there: There) -> Result<(), Stopped> {
        match self.enter(&path, Some(&there))? {
            Entered::Lost => {
                self.tell_directory(&path, Some(there));
                self.visitor.lost(&path);
            }
            Entered::Closed(reason) => {
                self.tell_directory(&path, Some(there));
                self.skip(&path, reason);
            }
            Entered::Open(directory, fresh) => {
                let id = fresh.id;
                self.tell_directory(&path, Some(fresh));
                self.push(path, &directory, id);
            }
        }
        Ok(())
    }

    /// Opens a directory that was seen as `there` and shows it to the visitor.
    fn enter(&mut self, path: &RelPath, there: Option<&There>) -> Result<Entered, Stopped> {
        let (directory, id) = match open(self.beneath, path) {
            Ok((_, id)) if there.is_some_and(|there| there.id != id) => return Ok(Entered::Lost),
            Ok((_, id)) if self.stack.iter().any(|level| level.id == id) => {
                return Ok(Entered::Closed(SkipReason::Loop));
            }
            Ok(opened) => opened,
            Err(error) if is_gone(error) => return Ok(Entered::Lost),
            Err(error) => return Ok(Entered::Closed(SkipReason::Unreadable(error.raw_os_error()))),
        };
        self.visitor.enter(path, directory.as_fd(), id)?;
        // What happened to it before the visitor knew of it is seen only now.
        Ok(match look_in(directory.as_fd(), c".") {
            Sight::There(fresh) => Entered::Open(directory, fresh),
            Sight::Nothing => Entered::Lost,
            Sight::Skip(reason) => Entered::Closed(reason),
        })
    }

    fn push(&mut self, path: RelPath, directory: &OwnedFd, id: InodeId) {
        let mut entries = self.list(&path, directory.as_fd());
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        self.stack.push(Level { path, id, entries: entries.into_iter() });
    }

    fn tell_directory(&mut self, path: &RelPath, there: Option<There>) {
        if let Some(there) = there {
            self.tell(Observation::Found { path: path.clone(), seen: there.seen });
        }
    }

    fn list(&mut self, path: &RelPath, directory: BorrowedFd<'_>) -> Vec<(Name, There)> {
        let (mut entries, mut troubled, mut unreadable) = (Vec::new(), Vec::new(), None);
        let mut names = RawDir::new(directory, &mut self.names);
        while let Some(entry) = names.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                // It was removed while it was read.
                Err(Errno::NOENT) => break,
                Err(error) => {
                    unreadable = Some(SkipReason::Unreadable(error.raw_os_error()));
                    break;
                }
            };
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") || self.visitor.is_private(path, bytes) {
                continue;
            }
            let reason = match (Name::new(bytes), look_in(directory, entry.file_name())) {
                (_, Sight::Nothing) => continue,
                (Ok(name), Sight::There(there)) => {
                    entries.push((name, there));
                    continue;
                }
                (Ok(name), Sight::Skip(reason)) => {
                    if let (true, Ok(path)) = (reason.is_trouble(), path.join(name)) {
                        troubled.push(path);
                    }
                    reason
                }
                (Err(error), Sight::There(_) | Sight::Skip(_)) => SkipReason::Path(error),
            };
            self.visitor.skipped(Skipped { path: native(path).join(OsStr::from_bytes(bytes)), reason });
        }
        if let Some(reason) = unreadable {
            self.skip(path, reason);
        }
        troubled.into_iter().for_each(|path| self.tell(Observation::Unknown { path }));
        entries
    }

    fn skip(&mut self, path: &RelPath, reason: SkipReason) {
        if reason.is_trouble() {
            self.tell(Observation::Unknown { path: path.clone() });
        }
        self.visitor.skipped(Skipped::new(path, reason));
    }

    fn tell(&mut self, observation: Observation) {
        self.batch.push(observation);
        if self.batch.len() >= BATCH {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.batch.is_empty() {
            self.visitor.observed(std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH)));
        }
    }
}

/// Opens a directory that can be listed and whose entries can be looked at.
pub(super) fn open(beneath: &Beneath, path: &RelPath) -> Result<(OwnedFd, InodeId), Errno> {
    let directory = beneath.directory(path)?;
    // Asking for `.` needs the right to search the directory, unlike asking for the descriptor.
    let stat = stat_in(directory.as_fd(), c".")?;
    Ok((directory, InodeId::of(&stat)))
}

#[cfg(test)]
mod tests;
