//! Names: making, removing and renaming what has one.

use super::files::OpenFile;
use super::inodes::Place;
use super::volume::{Caller, Live, Outcome, Seen, open_in, path_to};
use crate::folder::beneath::stat_in;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, RenameFlags, makedev};
use rustix::io::Errno;

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) enum New<'a> {
    Directory {
        mode: u32,
    },
    Symlink {
        target: &'a [u8],
    },
    /// A file, pipe, socket or device; `mode` has its kind too, `device` is as the kernel writes it.
    Node {
        mode: u32,
        device: u32,
    },
}

impl Live {
    /// Makes something that is not an open file.
    pub(super) fn make(&self, parent: u64, name: &[u8], new: New<'_>, caller: Caller) -> Outcome<Seen> {
        let directory = self.anchor(parent)?;
        let mode = match new {
            New::Directory { mode } => {
                rustix::fs::mkdirat(&directory, name, permissions(mode))?;
                Some(mode)
            }
            New::Symlink { target } => {
                rustix::fs::symlinkat(target, &directory, name)?;
                None
            }
            New::Node { mode, device } => {
                let kind = FileType::from_raw_mode(mode as RawMode);
                rustix::fs::mknodat(&directory, name, kind, permissions(mode), device_number(device))?;
                Some(mode)
            }
        };
        let stat = self.hand_over(&open_in(&directory, name)?, &directory, caller, mode)?;
        let place = Place::new(parent, name);
        self.tell(&place);
        Ok(self.met(place, stat))
    }

    /// Makes a file and opens it.
    ///
    /// # Errors
    /// `ESTALE` if there is something by this name, which the kernel did not know of and has not checked whether it may
    /// be opened: it looks, and asks again.
    pub(super) fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: OFlags,
        caller: Caller,
    ) -> Outcome<(Seen, u64)> {
        let directory = self.anchor(parent)?;
        let wanted = OpenFile::flags(flags) | OFlags::CREATE | OFlags::EXCL;
        let file = match rustix::fs::openat(&directory, name, wanted, permissions(mode)) {
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => return Err(Errno::STALE),
            opened => opened?,
        };
        let stat = self.hand_over(&file, &directory, caller, Some(mode))?;
        let seen = self.met(Place::new(parent, name), stat);
        // Peers hear of it when it is closed, or as soon as the watcher has noticed it.
        Ok((seen, self.opened(seen.number, file, flags, true)))
    }

    /// Gives a file one more name.
    pub(super) fn link(&self, number: u64, parent: u64, name: &[u8]) -> Outcome<Seen> {
        let (anchor, directory) = (self.anchor(number)?, self.anchor(parent)?);
        rustix::fs::linkat(CWD, path_to(&anchor), &directory, name, AtFlags::SYMLINK_FOLLOW)?;
        let place = Place::new(parent, name);
        let seen = self.met(place.clone(), rustix::fs::fstat(&*anchor)?);
        self.tell(&place);
        Ok(seen)
    }

    /// Takes a name away, of a directory if `flags` say so.
    pub(super) fn remove(&self, parent: u64, name: &[u8], flags: AtFlags) -> Outcome<()> {
        let directory = self.anchor(parent)?;
        let removed = self.holding(parent, name, |_| rustix::fs::unlinkat(&directory, name, flags));
        if removed.is_ok() {
            self.inodes.unlinked(parent, name);
            self.tell(&Place::new(parent, name));
        }
        removed
    }

    pub(super) fn rename(&self, from: &Place, to: &Place, flags: RenameFlags) -> Outcome<()> {
        let (source, target) = (self.anchor(from.parent)?, self.anchor(to.parent)?);
        self.holding(from.parent, &from.name, |moved| {
            self.holding(to.parent, &to.name, |_| {
                let paths = (self.inodes.path(from), self.inodes.path(to));
                rustix::fs::renameat_with(&source, &*from.name, &target, &*to.name, flags)?;
                if flags.contains(RenameFlags::EXCHANGE) {
                    self.inodes.exchanged(from, to);
                    self.tell(from);
                    self.tell(to);
                } else if !self.is_one_file(from, to) {
                    self.inodes.renamed(moved, from, to.clone());
                    self.tell_rename(paths.0, paths.1);
                }
                Ok(())
            })
        })
    }

    /// Whether a rename has done nothing, because both are names of one file.
    fn is_one_file(&self, from: &Place, to: &Place) -> bool {
        let (from_id, to_id) = (self.inodes.child(from.parent, &from.name), self.inodes.child(to.parent, &to.name));
        from_id.is_some()
            && from_id == to_id
            && self.anchor(from.parent).is_ok_and(|parent| stat_in(parent.as_fd(), &*from.name).is_ok())
    }

    /// Does something to a name, while what has it can be reached without it. `change` hears what has it, if the kernel
    /// knows it.
    fn holding<T>(&self, parent: u64, name: &[u8], change: impl FnOnce(Option<u64>) -> Outcome<T>) -> Outcome<T> {
        let held = self.inodes.child(parent, name).map(|(number, _)| number);
        if let Some(number) = held {
            self.inodes.pin(number);
            // If it is not to be found, its name is another's, who is not known.
            let _ = self.anchor(number);
        }
        let changed = change(held);
        if let Some(number) = held {
            self.inodes.unpin(number);
        }
        changed
    }
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode as RawMode & 0o7777)
}

/// The number of a device, from how the kernel writes it in 32 bits.
fn device_number(device: u32) -> u64 {
    makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}
