//! Extended attributes on this machine's disk, as far as they travel: those under `user.`.

use farshore_engine::Xattrs;
use farshore_engine::xattrs::XATTR_PREFIX;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, RawMode, XattrFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

/// The most that a value or a list of names may take, in bytes: the kernel's own limit.
const MOST_BYTES: usize = 65_536;

/// A name that one may have, to ask whether any can be had.
const ANY: &CStr = c"user.farshore";

/// What an owner needs to change them.
const OWNER_BITS: RawMode = 0o600;

/// Those of `name` in an open directory, which is a file or a directory. `None` if that cannot be said: the file system has no such
/// thing, they may not be read, or there are more than others can be told of.
pub(crate) fn read_in(directory: BorrowedFd<'_>, name: impl Arg) -> Option<Xattrs> {
    let name = name.into_c_str().ok()?;
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    read(|buffer| rustix::fs::llistxattr(&*path, buffer), |name, buffer| rustix::fs::lgetxattr(&*path, name, buffer))
}

/// As [`read_in`], of what is open.
fn read_of(opened: BorrowedFd<'_>) -> Option<Xattrs> {
    let path = path_of(opened);
    read(|buffer| rustix::fs::listxattr(&*path, buffer), |name, buffer| rustix::fs::getxattr(&*path, name, buffer))
}

fn read(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Option<Xattrs> {
    let names = read_whole(list).ok()?;
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0).filter(|name| name.starts_with(XATTR_PREFIX)) {
        let name = CStr::from_bytes_with_nul(name).ok()?;
        match read_whole(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_bytes().to_vec(), value)),
            // It was removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(_) => return None,
        }
    }
    // Where a file system has no such thing the list is empty, too.
    if found.is_empty() && get(ANY, &mut []) == Err(Errno::NOTSUP) {
        return None;
    }
    Some(found.into_iter().collect::<Xattrs>()).filter(|found| found.check().is_ok())
}

/// What came of setting them.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Whether anything had to be changed.
    pub(crate) is_changed: bool,
    /// Why the disk does not take one of them, if it does not.
    pub(crate) refused: Option<Errno>,
}

/// Gives what is open these and no others, as far as the disk takes them.
pub(crate) fn set(opened: impl AsFd, wanted: &Xattrs) -> Done {
    let opened = opened.as_fd();
    let _writable = Writable::make(opened);
    let Some(there) = read_of(opened).filter(|there| there != wanted) else { return Done::default() };
    let path = path_of(opened);
    for (name, _) in there.iter().filter(|(name, _)| wanted.get(name).is_none()) {
        if let Err(error) = rustix::fs::removexattr(&*path, OsStr::from_bytes(name)) {
            tracing::debug!(%error, "an extended attribute cannot be removed");
        }
    }
    let mut done = Done { is_changed: true, refused: None };
    for (name, value) in wanted.iter().filter(|(name, value)| there.get(name) != Some(value)) {
        // One that there is no room for is no reason to leave out the others, nor the file.
        let set = rustix::fs::setxattr(&*path, OsStr::from_bytes(name), value, XattrFlags::empty());
        done.refused = set.err().or(done.refused);
    }
    done
}

/// Where what is open is found by calls that take a path.
fn path_of(opened: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

/// What nobody may write does not get attributes either. Its mode comes back when this is dropped.
struct Writable<'a>(BorrowedFd<'a>, Option<RawMode>);

impl Writable<'_> {
    fn make(opened: BorrowedFd<'_>) -> Writable<'_> {
        let mode = rustix::fs::fstat(opened).ok().map(|stat| stat.st_mode & 0o7777);
        let is_root = rustix::process::geteuid().is_root();
        let narrow = mode.filter(|mode| !is_root && mode & OWNER_BITS != OWNER_BITS);
        Writable(opened, narrow.filter(|mode| chmod(opened, mode | OWNER_BITS)))
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        if let Some(mode) = self.1 {
            chmod(self.0, mode);
        }
    }
}

fn chmod(opened: BorrowedFd<'_>, mode: RawMode) -> bool {
    rustix::fs::chmodat(CWD, path_of(opened), Mode::from_raw_mode(mode), AtFlags::empty()).is_ok()
}

/// Reads as much as there is; most of what is read is short.
///
/// # Errors
/// What the call says; `ERANGE` if it is more than the kernel allows.
pub(crate) fn read_whole(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for room in [256, MOST_BYTES] {
        let mut buffer = vec![0; room];
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::OFlags;

    #[test]
    fn that_a_file_system_has_none_is_not_taken_for_a_file_without_any() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // As on every file system without them, the list is empty there, and only who asks for one by name hears why.
        let without = rustix::fs::open("/proc", flags, Mode::empty()).unwrap();
        assert_eq!(read_in(without.as_fd(), "version"), None);
        let dir = tempfile::tempdir().unwrap();
        let with = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        match rustix::fs::setxattr(&file, "user.a", b"1", XattrFlags::empty()) {
            Ok(()) => rustix::fs::removexattr(&file, "user.a").unwrap(),
            Err(error) => return eprintln!("skipped: {} keeps none: {error}", dir.path().display()),
        }
        assert_eq!(read_in(with.as_fd(), "file"), Some(Xattrs::default()));
    }
}
