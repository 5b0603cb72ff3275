//! Directories in which their owner may not write, although what is in them is changed by a peer who has the right to: they
//! are as they were as soon as that is done.

use super::{OWNER_BITS, set_mode};
use crate::folder::beneath::Beneath;
use farshore_engine::path::RelPath;
use rustix::fd::OwnedFd;
use rustix::fs::RawMode;

/// A directory of ours that can be changed until this is dropped.
pub(super) struct Opened {
    directory: OwnedFd,
    mode: RawMode,
}

impl Opened {
    /// The directory that holds `path`, if we may not change it as it is, and own it.
    pub(super) fn above(beneath: &Beneath, path: &RelPath) -> Option<Opened> {
        let user = rustix::process::geteuid();
        if user.is_root() {
            return None;
        }
        let directory = beneath.parent(path).ok()?;
        let stat = rustix::fs::fstat(&directory).ok()?;
        let (mode, needed) = (stat.st_mode & 0o7777, RawMode::from(OWNER_BITS));
        if stat.st_uid != user.as_raw() || mode & needed == needed {
            return None;
        }
        // If that fails, what is to be done fails, and says why.
        set_mode(&directory, mode | needed).ok()?;
        Some(Opened { directory, mode })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Err(error) = set_mode(&self.directory, self.mode) {
            tracing::warn!(%error, "a directory in which something was changed cannot be closed again");
        }
    }
}
