//! Names: making, removing and renaming what has one.

use super::away::Found;
use super::files::OpenFile;
use super::inodes::Place;
use super::volume::{Caller, Live, Look, Outcome, Seen, open_in, path_to};
use super::waiting::{Tried, Turn};
use farshore_engine::Observation;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, makedev};
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
        let (directory, place) = (self.directory(parent, name)?, Place::new(parent, name));
        self.nothing_is_away(&place)?;
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
        self.tell(&place);
        Ok(self.met(place, Look::Here(stat)))
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
        let (directory, place) = (self.directory(parent, name)?, Place::new(parent, name));
        let wanted = OpenFile::flags(flags) | OFlags::CREATE | OFlags::EXCL;
        let made = self.nothing_is_away(&place);
        let file = match made.and_then(|()| rustix::fs::openat(&directory, name, wanted, permissions(mode))) {
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => return Err(Errno::STALE),
            opened => opened?,
        };
        let file = OpenFile::without_direct_access(file, flags)?;
        let stat = self.hand_over(&file, &directory, caller, Some(mode))?;
        let seen = self.met(place, Look::Here(stat));
        // Peers hear of it when it is closed, or as soon as the watcher has noticed it.
        Ok((seen, self.made(seen.number, file, flags)))
    }

    /// Gives a file one more name.
    pub(super) fn link(&self, number: u64, place: &Place) -> Tried<Seen> {
        let (parent, name) = (place.parent, &*place.name);
        let directory = self.directory(parent, name)?;
        self.nothing_is_away(place)?;
        let anchor = match self.find(number)? {
            Found::Here(anchor) => anchor,
            Found::Away(absent) => return Err(absent.is_needed()),
        };
        self.inodes.changes(number);
        rustix::fs::linkat(CWD, path_to(&anchor), &directory, name, AtFlags::SYMLINK_FOLLOW)?;
        let seen = self.met(place.clone(), Look::Here(rustix::fs::fstat(&*anchor)?));
        self.tell(place);
        Ok(seen)
    }

    /// What is away has its name, as if it was here.
    fn nothing_is_away(&self, place: &Place) -> Outcome<()> {
        if self.away_at(place).is_some() { Err(Errno::EXIST) } else { Ok(()) }
    }

    /// Takes a name away, of a directory if `flags` say so.
    pub(super) fn remove(&self, place: &Place, flags: AtFlags, turn: Turn) -> Tried<()> {
        let directory = self.directory(place.parent, &place.name)?;
        if flags.contains(AtFlags::REMOVEDIR) && self.holds_away(place) {
            return Err(Errno::NOTEMPTY.into());
        }
        let remove = |_| rustix::fs::unlinkat(&directory, &*place.name, flags);
        match self.holding(place, remove) {
            Ok(()) => {
                self.inodes.unlinked(place.parent, &place.name);
                self.tell(place);
                Ok(())
            }
            Err(Errno::NOENT) => self.remove_away(place, turn),
            Err(error) => Err(error.into()),
        }
    }

    fn remove_away(&self, place: &Place, turn: Turn) -> Tried<()> {
        let (path, _) = self.away_at(place).ok_or(Errno::NOENT)?;
        turn.must_be_ours()?;
        self.must_stay_away(&path)?;
        self.inodes.unlinked(place.parent, &place.name);
        self.teller.hear(vec![Observation::Sighted { path: path.clone() }, Observation::Missing { path }]);
        Ok(())
    }

    /// Does something to a name, while what has it can be reached without it. `change` hears what has it, if the kernel
    /// knows it.
    pub(super) fn holding<T, E>(
        &self,
        place: &Place,
        change: impl FnOnce(Option<u64>) -> Result<T, E>,
    ) -> Result<T, E> {
        let held = self.inodes.child(place.parent, &place.name).map(|(number, _)| number);
        if let Some(number) = held {
            self.inodes.pin(number);
            self.inodes.changes(number);
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
