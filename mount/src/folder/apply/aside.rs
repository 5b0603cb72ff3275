//! A place in the folder that nobody sees, on its own file system: for what is about to get a name, or has just lost it.

use super::{Outcome, Place, Refusal, lacks_flags};
use crate::folder::beneath::{Beneath, open_private, stat_in};
use crate::store::{APPLYING, PRIVATE, publish};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names that are tried for something that lost its own to somebody else.
const RESCUES: u32 = 1_000;

/// The place. It is made at its first use.
#[derive(Debug, Default)]
pub(super) struct Aside {
    directory: OnceLock<OwnedFd>,
    last: AtomicU64,
}

/// Something in the place, or a name for it. What is left of it when it is dropped is removed.
#[derive(Debug)]
pub(super) struct Item<'a> {
    directory: BorrowedFd<'a>,
    name: OsString,
    /// Whether it is there.
    is_made: bool,
}

impl Aside {
    /// A name that nothing has. Whoever has made something there says so by [`Item::made`].
    pub(super) fn item(&self, beneath: &Beneath) -> Outcome<Item<'_>> {
        let directory = match self.directory.get() {
            Some(directory) => directory,
            None => {
                let private = open_private(beneath.root(), PRIVATE)?;
                let made = open_private(private.as_fd(), APPLYING)?;
                self.directory.get_or_init(|| made)
            }
        };
        loop {
            let name = OsString::from(self.last.fetch_add(1, Ordering::Relaxed).to_string());
            match stat_in(directory.as_fd(), &name) {
                Err(Errno::NOENT) => return Ok(Item { directory: directory.as_fd(), name, is_made: false }),
                // Left by an earlier process, if the store is somewhere else.
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<'a> Item<'a> {
    pub(super) fn directory(&self) -> BorrowedFd<'a> {
        self.directory
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// It is there now.
    pub(super) fn made(mut self) -> Item<'a> {
        self.is_made = true;
        self
    }

    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        stat_in(self.directory, &*self.name)
    }

    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.directory, &self.name, flags, Mode::empty())
    }

    /// Makes a file's bytes durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, &self.name, flags, Mode::empty())?;
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&file))
    }

    /// Moves it to where nothing is.
    pub(super) fn give_name(mut self, place: &Place<'_>) -> Outcome<()> {
        self.move_to(place.directory.as_fd(), place.name()).map_err(Refusal::from)?;
        self.is_made = false;
        Ok(())
    }

    fn move_to(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let is_dir = self.stat().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_dir {
            return publish(self.directory, &self.name, directory, name);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(self.directory, &self.name, directory, name, flags) {
            // At the worst it takes the place of an empty directory.
            Err(error) if lacks_flags(error) => Ok(rustix::fs::renameat(self.directory, &self.name, directory, name)?),
            renamed => Ok(renamed?),
        }
    }

    /// Has it and what is there change places.
    pub(super) fn exchange(&self, place: &Place<'_>) -> Result<(), Errno> {
        let flags = RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(self.directory, &self.name, &place.directory, place.name(), flags)
    }

    /// Removes it.
    pub(super) fn remove(mut self) -> Result<(), Errno> {
        self.is_made = false;
        self.unlink()
    }

    fn unlink(&self) -> Result<(), Errno> {
        match rustix::fs::unlinkat(self.directory, &self.name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(self.directory, &self.name, AtFlags::REMOVEDIR),
            removed => removed,
        }
    }

    /// Gives something that is not ours its name back, or, if something else has that by now, one beside it.
    pub(super) fn give_back(mut self, place: &Place<'_>) {
        self.is_made = false;
        let Err(mut last) = self.move_to(place.directory.as_fd(), place.name()) else { return };
        for number in 1..=RESCUES {
            let mut name = place.name().to_owned();
            name.push(format!(".rescued-{number}"));
            match self.move_to(place.directory.as_fd(), &name) {
                Ok(()) => {
                    let lost = place.name();
                    return tracing::warn!("what was {lost:?} is {name:?} now: something else took its name meanwhile");
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        tracing::warn!(
            "what was {:?} lies in {PRIVATE}/{APPLYING} as {:?} until the next start: {last}",
            place.name(),
            self.name
        );
    }
}

impl Drop for Item<'_> {
    fn drop(&mut self) {
        if !self.is_made {
            return;
        }
        // It may be the very file of a content, which goes on being the store's to open.
        let is_file = self.stat().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let mode = Mode::RUSR | Mode::WUSR;
        let opened =
            if is_file { rustix::fs::chmodat(self.directory, &self.name, mode, AtFlags::empty()) } else { Ok(()) };
        if let Err(error) = opened.and_then(|()| self.unlink()) {
            tracing::warn!(%error, name = ?self.name, "what was to be put into the folder cannot be removed");
        }
    }
}
