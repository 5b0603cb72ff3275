//! Who has what open. A handle is opaque, counts up and is never reused; every open has its own.

use crate::ids::{Handle, Ino};
use crate::output::Errno;
use crate::readahead::ReadAhead;
use crate::time::Time;
use core::ops::Range;
use std::collections::BTreeMap;

/// One open of a file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) ino: Ino,
    pub(crate) read_ahead: ReadAhead,
    /// When a read of it last failed, how, and of which bytes.
    pub(crate) failed: Option<(Time, Errno, Range<u64>)>,
}

/// How often a file is open. Every open is counted once, and so is every release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenCount(u32);

impl OpenCount {
    /// One more.
    pub fn open(&mut self) {
        self.0 += 1;
    }

    /// One less. Returns how many are left.
    ///
    /// # Panics
    /// If nothing is open: somebody released twice, and the next release would close a file that is in use.
    pub fn release(&mut self) -> u32 {
        assert!(self.0 > 0, "a file was released more often than it was opened");
        self.0 -= 1;
        self.0
    }

    /// How many are open.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0
    }
}

/// All open files.
#[derive(Debug, Default)]
pub(crate) struct HandleTable {
    open: BTreeMap<Handle, OpenFile>,
    last: u64,
}

impl HandleTable {
    pub(crate) fn open(&mut self, ino: Ino) -> Handle {
        self.last += 1;
        let handle = Handle(self.last);
        self.open.insert(handle, OpenFile { ino, read_ahead: ReadAhead::default(), failed: None });
        handle
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&OpenFile> {
        self.open.get(&handle)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut OpenFile> {
        self.open.get_mut(&handle)
    }

    /// Whatever failed may go well now.
    pub(crate) fn forget_failures(&mut self) {
        self.open.values_mut().for_each(|file| file.failed = None);
    }

    pub(crate) fn release(&mut self, handle: Handle) -> Option<OpenFile> {
        self.open.remove(&handle)
    }

    /// An entry has other bytes now: nothing of them was run ahead of, and no read of them has failed.
    pub(crate) fn restart(&mut self, ino: Ino) {
        for file in self.open.values_mut().filter(|file| file.ino == ino) {
            file.read_ahead = ReadAhead::default();
            file.failed = None;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &OpenFile)> {
        self.open.iter().map(|(handle, file)| (*handle, file))
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_opens_of_one_file_are_two_handles_and_none_comes_back() {
        let mut table = HandleTable::default();
        let first = table.open(Ino(5));
        let second = table.open(Ino(5));
        assert_ne!(first, second);
        assert!(table.release(first).is_some());
        assert!(table.release(first).is_none(), "a handle is released once");
        assert_eq!(table.get(second).unwrap().ino, Ino(5), "the other open is untouched");
        assert!(table.open(Ino(5)) > second, "handles are never reused");
    }

    #[test]
    #[should_panic(expected = "more often than it was opened")]
    fn an_extra_release_is_caught() {
        let mut count = OpenCount::default();
        count.open();
        assert_eq!(count.release(), 0);
        count.release();
    }
}
