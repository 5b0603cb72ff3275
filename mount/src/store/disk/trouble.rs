//! What can go wrong with a disk. Outside of tests nothing is planned, and all of this compiles to nothing.

use rustix::io::Errno;
use std::io::IoSlice;

/// A system call that is about to be made, with the name of the file that it is about.
#[cfg_attr(not(test), expect(dead_code, reason = "only a plan looks inside"))]
pub(super) enum Call<'a> {
    Create(&'a str),
    CreateNew(&'a str),
    Open,
    SetLen(&'a str, u64),
    Write(&'a str, u64, &'a [IoSlice<'a>]),
    Read,
    Sync(&'a str),
    SyncAll,
    SyncNames(&'a str),
    Rename(&'a str, &'a str),
    Remove(&'a str),
    Space,
}

#[cfg(not(test))]
mod none {
    use super::{Call, Errno};

    /// No trouble.
    #[derive(Debug, Clone, Default)]
    pub(in super::super) struct Trouble;

    impl Trouble {
        pub(in super::super) fn none() -> Trouble {
            Trouble
        }

        /// How many bytes it may be at most, if it is to be fewer.
        #[inline(always)]
        pub(in super::super) fn meet(&self, _: Call<'_>) -> Result<Option<usize>, Errno> {
            Ok(None)
        }
    }
}
#[cfg(not(test))]
pub(super) use none::Trouble;

#[cfg(test)]
mod planned;
#[cfg(test)]
pub(super) use planned::{Done, Fault, Trouble};
