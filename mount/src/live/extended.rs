//! Extended attributes.
//!
//! Access control lists are not offered: the kernel would keep them without obeying them.

use super::away::Found;
use super::volume::{Live, Outcome, path_to};
use super::waiting::Tried;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What SELinux keeps its label under. Where it is at work the kernel knows the label, and does not ask. Where it is not, `ls -l`
/// asks for the label of every file, until it hears that there are none to be had.
const LABEL: &str = "security.selinux";

/// What access control lists are kept under.
const LISTS: &[u8] = b"system.posix_acl_";

/// The most that a value or a list of names may take, in bytes: the kernel's own limit.
const MOST_BYTES: usize = 65_536;

impl Live {
    pub(super) fn extended(&self, number: u64, name: &OsStr) -> Outcome<Vec<u8>> {
        check(name)?;
        // What is away has none: they are not told.
        let Found::Here(anchor) = self.find(number)? else { return Err(Errno::NODATA) };
        let path = path_to(&anchor);
        match read(|buffer| rustix::fs::getxattr(&path, name, buffer)) {
            Err(Errno::NODATA) if name == LABEL => Err(Errno::OPNOTSUPP),
            value => value,
        }
    }

    pub(super) fn set_extended(&self, number: u64, name: &OsStr, value: &[u8], flags: i32) -> Tried<()> {
        check(name)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        match self.find(number)? {
            Found::Here(anchor) => {
                self.inodes.changes(number);
                Ok(rustix::fs::setxattr(path_to(&anchor), name, value, flags)?)
            }
            Found::Away(absent) => Err(absent.is_needed()),
        }
    }

    /// The names, each with a zero byte behind it.
    pub(super) fn list_extended(&self, number: u64) -> Outcome<Vec<u8>> {
        let Found::Here(anchor) = self.find(number)? else { return Ok(Vec::new()) };
        let path = path_to(&anchor);
        let names = read(|buffer| rustix::fs::listxattr(&path, buffer))?;
        let offered = names.split_inclusive(|byte| *byte == 0).filter(|name| !name.starts_with(LISTS));
        Ok(offered.flatten().copied().collect())
    }

    pub(super) fn remove_extended(&self, number: u64, name: &OsStr) -> Outcome<()> {
        check(name)?;
        let Found::Here(anchor) = self.find(number)? else { return Err(Errno::NODATA) };
        self.inodes.changes(number);
        rustix::fs::removexattr(path_to(&anchor), name)
    }
}

fn check(name: &OsStr) -> Outcome<()> {
    if name.as_bytes().starts_with(LISTS) { Err(Errno::OPNOTSUPP) } else { Ok(()) }
}

/// Reads as much as there is; most of what is read is short.
fn read(call: impl Fn(&mut [u8]) -> Outcome<usize>) -> Outcome<Vec<u8>> {
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
