//! Remembering that a folder's disk has not taken an extended attribute that a peer gave.
//!
//! Whoever looks cannot tell what the disk did not take from what a program has removed. So where it happened once, nothing
//! that is missing is told any more, also in later lives.

use super::beneath::{Beneath, open_private, stat_in};
use crate::store::PRIVATE;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The empty file in [`PRIVATE`] that says so.
const LACKING: &str = "lacks-xattrs";

/// Whether it has happened. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lacking(Arc<State>);

#[derive(Debug, Default)]
struct State {
    has_happened: AtomicBool,
    /// Whether later lives will know.
    is_kept: AtomicBool,
}

impl Lacking {
    /// As it was in earlier lives.
    pub(super) fn recall(&self, folder: &Beneath) {
        let name = format!("{PRIVATE}/{LACKING}");
        if stat_in(folder.root(), name).is_ok() {
            self.0.has_happened.store(true, Ordering::SeqCst);
            self.0.is_kept.store(true, Ordering::SeqCst);
        }
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.0.has_happened.load(Ordering::SeqCst)
    }

    /// It has. What lacks the attribute must not be seen before this returns.
    ///
    /// # Errors
    /// Later lives would not know of it.
    pub(super) fn note(&self, folder: &Beneath, why: Errno) -> Result<(), Errno> {
        if !self.0.has_happened.swap(true, Ordering::SeqCst) {
            tracing::warn!(
                "the disk of this folder does not take all extended attributes that others have given their files ({why}): those \
                 are left out here, and which ones are removed here is not told to others any more"
            );
        }
        if self.0.is_kept.load(Ordering::SeqCst) {
            return Ok(());
        }
        let private = open_private(folder.root(), PRIVATE)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&private, LACKING, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fsync(private.as_fd())?;
        self.0.is_kept.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_is_remembered_in_later_lives() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Beneath::open(dir.path()).unwrap();
        let recalled = || {
            let lacking = Lacking::default();
            lacking.recall(&folder);
            lacking.has_happened()
        };
        // What could not be kept is kept at the next chance, and holds until then.
        let lacking = Lacking::default();
        std::fs::write(dir.path().join(PRIVATE), "in the way").unwrap();
        assert_eq!(lacking.note(&folder, Errno::NOSPC), Err(Errno::NOTDIR));
        assert_eq!((lacking.clone().has_happened(), recalled()), (true, false));
        std::fs::remove_file(dir.path().join(PRIVATE)).unwrap();
        lacking.note(&folder, Errno::NOSPC).unwrap();
        assert!(recalled());
    }
}
