//! Extended attributes. Those under `user.` travel, and files that are away have no others.
//!
//! Access control lists are not offered: the kernel would keep them without obeying them.

use super::away::{Absent, Found};
use super::volume::{Live, Outcome, path_to};
use super::waiting::{Tried, Turn};
use crate::xattrs::read_whole;
use farshore_engine::xattrs::XATTR_PREFIX;
use farshore_engine::{Observation, Xattrs};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What SELinux keeps its label under. Where it is at work the kernel knows the label, and does not ask. Where it is not, `ls -l`
/// asks for the label of every file, until it hears that there are none to be had.
const LABEL: &str = "security.selinux";

/// What access control lists are kept under.
const LISTS: &[u8] = b"system.posix_acl_";

impl Live {
    pub(super) fn extended(&self, number: u64, name: &OsStr) -> Outcome<Vec<u8>> {
        check(name)?;
        match self.find(number)? {
            Found::Here(anchor) => {
                let path = path_to(&anchor);
                match read_whole(|buffer| rustix::fs::getxattr(&path, name, buffer)) {
                    Err(Errno::NODATA) if name == LABEL => Err(Errno::OPNOTSUPP),
                    value => value,
                }
            }
            Found::Away(absent) => {
                let value = self.extended_away(&absent).get(name.as_bytes()).map(<[u8]>::to_vec);
                value.ok_or(Errno::NODATA)
            }
        }
    }

    pub(super) fn set_extended(&self, number: u64, name: &OsStr, value: &[u8], flags: i32, turn: Turn) -> Tried<()> {
        check(name)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        match self.find(number)? {
            Found::Here(anchor) => {
                self.inodes.changes(number);
                rustix::fs::setxattr(path_to(&anchor), name, value, flags)?;
                self.tell_of_extended(number);
                Ok(())
            }
            Found::Away(absent) if !name.as_bytes().starts_with(XATTR_PREFIX) => Err(absent.is_needed()),
            Found::Away(absent) => self.amend_extended(&absent, turn, |there| {
                let is_there = there.get(name.as_bytes()).is_some();
                match () {
                    () if is_there && flags.contains(XattrFlags::CREATE) => Err(Errno::EXIST),
                    () if !is_there && flags.contains(XattrFlags::REPLACE) => Err(Errno::NODATA),
                    () => Ok(there.with(name.as_bytes(), value)),
                }
            }),
        }
    }

    /// The names, each with a zero byte behind it.
    pub(super) fn list_extended(&self, number: u64) -> Outcome<Vec<u8>> {
        let anchor = match self.find(number)? {
            Found::Here(anchor) => anchor,
            Found::Away(absent) => return Ok(self.extended_away(&absent).list()),
        };
        let path = path_to(&anchor);
        let names = read_whole(|buffer| rustix::fs::listxattr(&path, buffer))?;
        let offered = names.split_inclusive(|byte| *byte == 0).filter(|name| !name.starts_with(LISTS));
        Ok(offered.flatten().copied().collect())
    }

    pub(super) fn remove_extended(&self, number: u64, name: &OsStr, turn: Turn) -> Tried<()> {
        check(name)?;
        match self.find(number)? {
            Found::Here(anchor) => {
                self.inodes.changes(number);
                rustix::fs::removexattr(path_to(&anchor), name)?;
                self.tell_of_extended(number);
                Ok(())
            }
            Found::Away(absent) => self.amend_extended(&absent, turn, |there| {
                there.get(name.as_bytes()).ok_or(Errno::NODATA).map(|_| there.without(name.as_bytes()))
            }),
        }
    }

    /// Who has it open to write it will tell of it, with what is written.
    fn tell_of_extended(&self, number: u64) {
        if !self.inodes.is_being_written(number) {
            self.tell_of(number);
        }
    }

    fn extended_away(&self, absent: &Absent) -> Xattrs {
        match (&self.away, absent.named()) {
            (Some(away), Ok((_, path))) => away.xattrs(path),
            (None, _) | (_, Err(_)) => Xattrs::default(),
        }
    }

    /// Sets those of a file that is away, where it is.
    fn amend_extended(&self, absent: &Absent, turn: Turn, amend: impl FnOnce(Xattrs) -> Outcome<Xattrs>) -> Tried<()> {
        let (_, path) = absent.named()?;
        turn.must_be_ours()?;
        let xattrs = amend(self.extended_away(absent))?;
        // The kernel has checked name and value; it has no limit for all of a file's together, and disks have one.
        xattrs.check().map_err(|_| Errno::NOSPC)?;
        let (path, xattrs) = (path.clone(), Some(xattrs));
        self.teller.hear(vec![Observation::Amended { path, mode: None, modified: None, xattrs }]);
        Ok(())
    }
}

fn check(name: &OsStr) -> Outcome<()> {
    if name.as_bytes().starts_with(LISTS) { Err(Errno::OPNOTSUPP) } else { Ok(()) }
}
