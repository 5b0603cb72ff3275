//! The lock of a store: one process uses it at a time, and says which.

use super::dir::{Dir, full};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};

/// The file that is locked. Its text is the number of the process.
pub(super) const LOCK: &str = "lock";

/// Why there is no lock.
pub(super) enum LockError {
    /// Another process has it. Its number, if it said.
    Held(Option<u32>),
    Io(io::Error),
}

/// Takes the lock of a store, and writes this process's number into it.
pub(super) fn lock(private: &Dir) -> Result<OwnedFd, LockError> {
    let io_error = |error: Errno| LockError::Io(full(error));
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(private, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(io_error)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who holds it may not have written its number yet, or something else.
                let _: io::Result<usize> = File::from(fd).take(32).read_to_string(&mut text);
                return Err(LockError::Held(text.trim().parse().ok()));
            }
            Err(error) => return Err(io_error(error)),
        }
        let ours = rustix::fs::fstat(&fd).map_err(io_error)?;
        let named = rustix::fs::statat(private, LOCK, AtFlags::SYMLINK_NOFOLLOW);
        // Who held it before may have removed it just before we locked it: then it is not the store's lock any more.
        if !named.is_ok_and(|named| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)) {
            continue;
        }
        let mut file = File::from(fd);
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(LockError::Io)?;
        return Ok(file.into());
    }
}
