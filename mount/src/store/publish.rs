//! Giving a finished file a name of its own, without ever taking a name from another file.

use super::disk::full;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

/// Renames `name` in `from` to `target` in `to`.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something has that name; [`io::ErrorKind::CrossesDevices`] if it is on another
/// file system; otherwise what the disk says. Nothing has changed then.
pub(crate) fn publish(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, target: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, target, RenameFlags::NOREPLACE) {
        // The file system cannot rename without replacing. A second name never replaces; then the first one goes.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(from, name, to, target, AtFlags::empty()).map_err(full)?;
            rustix::fs::unlinkat(from, name, AtFlags::empty()).map_err(full)
        }
        renamed => renamed.map_err(full),
    }
}

/// Copies `file` into the directory `to` under a name that nobody uses, has it finished, and renames it to `target`.
///
/// # Errors
/// Those of [`publish`], and what the disk says of the copy. No copy is left behind.
pub(super) fn copy_to(
    file: &File,
    to: BorrowedFd<'_>,
    target: &OsStr,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut copy = Copy::create(to)?;
    copy_bytes(file, &copy.file)?;
    finish(&copy.file)?;
    publish(to, &copy.name, to, target)?;
    copy.published = true;
    Ok(())
}

/// A copy under a temporary name, removed when dropped.
struct Copy<'a> {
    directory: BorrowedFd<'a>,
    name: OsString,
    file: File,
    /// It has another name now; the temporary one may be somebody else's.
    published: bool,
}

impl<'a> Copy<'a> {
    fn create(directory: BorrowedFd<'a>) -> io::Result<Copy<'a>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for number in 0u32.. {
            let name = OsString::from(format!(".farshore-{}-{number}.tmp", std::process::id()));
            match rustix::fs::openat(directory, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(Copy { directory, name, file: file.into(), published: false }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(full(error)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        match rustix::fs::unlinkat(self.directory, &self.name, AtFlags::empty()) {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, name = ?self.name, "a temporary copy cannot be removed"),
        }
    }
}

/// Copies all bytes, without moving the position of `from`, which others may be reading.
fn copy_bytes(from: &File, to: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1024 * 1024];
    let mut offset = 0;
    loop {
        match from.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all_at(&buffer[..count], offset)?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
