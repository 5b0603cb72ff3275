//! Listings: a directory is read as far as the kernel has room, from where it stopped the last time.

use super::inodes::{Inodes, Place};
use super::volume::{Live, Outcome, path_to};
use crate::folder::beneath::{InodeId, stat_in};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// Room for the names that are read at once, in bytes.
const NAMES_BYTES: usize = 32 * 1024;

/// A directory that a program lists.
pub(super) struct OpenDir {
    number: u64,
    device: u64,
    directory: OwnedFd,
    reading: Mutex<Reading>,
}

/// Where a listing stands.
struct Reading {
    /// Names that were read and not yet taken.
    ahead: VecDeque<Entry>,
    /// The cookie of the last one that was taken.
    taken: u64,
    buffer: Vec<MaybeUninit<u8>>,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) kind: FileType,
    pub(super) inode: u64,
    /// From where a listing goes on behind this entry.
    pub(super) cookie: u64,
}

impl Live {
    pub(super) fn open_dir(&self, number: u64) -> Outcome<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path_to(&*self.anchor(number)?), flags, Mode::empty())?;
        let device = InodeId::of(&rustix::fs::fstat(&directory)?).device;
        let reading = Reading { ahead: VecDeque::new(), taken: 0, buffer: Vec::new() };
        Ok(self.dirs.add(OpenDir { number, device, directory, reading: Mutex::new(reading) }))
    }

    /// Hands the entries behind cookie `after` to `take`, until that says that there is no more room.
    pub(super) fn list(&self, handle: u64, after: u64, mut take: impl FnMut(&OpenDir, &Entry) -> bool) -> Outcome<()> {
        let open = self.dirs.get(handle)?;
        let mut reading = open.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.taken != after || after == 0 {
            rustix::fs::seek(&open.directory, SeekFrom::Start(after))?;
            reading.ahead.clear();
            reading.taken = after;
        }
        loop {
            while let Some(entry) = reading.ahead.pop_front() {
                if !take(&open, &entry) {
                    reading.ahead.push_front(entry);
                    return Ok(());
                }
                reading.taken = entry.cookie;
            }
            if !open.read_more(&mut reading)? {
                return Ok(());
            }
        }
    }

    pub(super) fn sync_dir(&self, handle: u64, is_data_only: bool) -> Outcome<()> {
        let open = self.dirs.get(handle)?;
        if is_data_only { rustix::fs::fdatasync(&open.directory) } else { rustix::fs::fsync(&open.directory) }
    }

    pub(super) fn release_dir(&self, handle: u64) -> Outcome<()> {
        self.dirs.remove(handle).map(drop)
    }

    /// What an entry looks like, for a kernel that will know it then. `None` if it is gone.
    pub(super) fn look_at(&self, open: &OpenDir, entry: &Entry) -> Option<Stat> {
        stat_in(open.directory.as_fd(), &*entry.name).ok()
    }

    pub(super) fn place_of(open: &OpenDir, entry: &Entry) -> Place {
        Place::new(open.number, &entry.name)
    }
}

impl OpenDir {
    /// Reads on. Returns whether there was more.
    fn read_more(&self, reading: &mut Reading) -> Outcome<bool> {
        reading.buffer.resize(NAMES_BYTES, MaybeUninit::uninit());
        let Reading { ahead, buffer, .. } = reading;
        let mut names = RawDir::new(&self.directory, buffer);
        while let Some(entry) = names.next() {
            match entry {
                Ok(entry) => ahead.push_back(Entry {
                    name: entry.file_name().to_bytes().into(),
                    kind: entry.file_type(),
                    inode: entry.ino(),
                    cookie: entry.next_entry_cookie(),
                }),
                Err(Errno::INTR) => continue,
                // It was removed while it was read.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error),
            }
            if names.is_buffer_empty() {
                break;
            }
        }
        Ok(!ahead.is_empty())
    }

    /// The number that a listing shows for an entry.
    pub(super) fn number_of(&self, inodes: &Inodes, entry: &Entry) -> u64 {
        inodes.number_of(InodeId { device: self.device, inode: entry.inode })
    }
}
