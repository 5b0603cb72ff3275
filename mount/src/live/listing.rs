//! Listings: a directory is read as far as the kernel has room, from where it stopped the last time.

use super::inodes::{Kept, Looks, Place};
use super::volume::{Live, Look, Outcome, path_to};
use crate::folder::beneath::InodeId;
use farshore_engine::Ino;
use farshore_engine::path::Name;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Room for the names that are read at once, in bytes.
const NAMES_BYTES: usize = 32 * 1024;

/// Cookies from here on are those of files that are away, which come after what the folder has. The file systems that use
/// numbers as large as these (ext4, whose cookies are hashes) leave them out, but for the very last one, which is their end.
const FIRST_AWAY_COOKIE: u64 = 0x7fff_ffff_0000_0000;

/// The most files that are away which a listing shows.
const MOST_AWAY: usize = u32::MAX as usize;

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
    /// The files that were away when the listing began, in the order of their names. Those that come meanwhile are shown
    /// once.
    away: Vec<AwayEntry>,
}

/// A file that was away when a listing began.
struct AwayEntry {
    name: Name,
    ino: Ino,
    is_shown: bool,
}

/// What an entry of a directory is known by.
#[derive(Debug, Clone, Copy)]
enum Number {
    /// Its number in the folder's file system.
    Here(u64),
    /// The engine's number of what is away.
    Away(Ino),
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) kind: FileType,
    number: Number,
    /// From where a listing goes on behind this entry.
    pub(super) cookie: u64,
}

impl Live {
    /// Opens a directory. Returns its handle, and what the kernel may do with what it keeps of it.
    pub(super) fn open_dir(&self, number: u64) -> Outcome<(u64, Kept)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path_to(&*self.anchor(number)?), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&directory)?;
        let device = InodeId::of(&stat).device;
        let reading = Reading { ahead: VecDeque::new(), taken: 0, buffer: Vec::new(), away: Vec::new() };
        let handle = self.dirs.add(OpenDir { number, device, directory, reading: Mutex::new(reading) });
        let looks = Looks::new(&stat, self.away_mark(number), SystemTime::now());
        Ok((handle, self.inodes.begin_listing(number, looks)))
    }

    /// Hands the entries behind cookie `after` to `take`, until that says that there is no more room.
    pub(super) fn list(&self, handle: u64, after: u64, mut take: impl FnMut(&OpenDir, &Entry) -> bool) -> Outcome<()> {
        let open = self.dirs.get(handle)?;
        let mut reading = open.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if after == 0 {
            reading.away = self.away_from_now_on(open.number);
        }
        if reading.taken != after || after == 0 {
            if !is_away(after) {
                rustix::fs::seek(&open.directory, SeekFrom::Start(after))?;
            }
            reading.ahead.clear();
            reading.taken = after;
        }
        loop {
            while let Some(entry) = reading.ahead.pop_front() {
                if self.is_private(open.number, &entry.name) {
                    continue;
                }
                if !take(&open, &entry) {
                    reading.ahead.push_front(entry);
                    return Ok(());
                }
                reading.taken = entry.cookie;
                reading.has_shown(&entry.name);
            }
            if is_away(reading.taken) || !open.read_more(&mut reading)? {
                break;
            }
        }
        while let Some(entry) = reading.next_away() {
            if self.is_there(&open, &entry) && !take(&open, &entry) {
                break;
            }
            reading.taken = entry.cookie;
        }
        Ok(())
    }

    /// A number that is another one when other files are away in a directory.
    fn away_mark(&self, number: u64) -> u64 {
        let mut mark = DefaultHasher::new();
        for (name, attr) in self.away_in(number) {
            (name.as_bytes(), attr.ino.0).hash(&mut mark);
        }
        mark.finish()
    }

    fn away_from_now_on(&self, number: u64) -> Vec<AwayEntry> {
        let mut away = self.away_in(number);
        away.truncate(MOST_AWAY);
        away.into_iter().map(|(name, attr)| AwayEntry { name, ino: attr.ino, is_shown: false }).collect()
    }

    /// Whether what was away still is there, here or there.
    fn is_there(&self, open: &OpenDir, entry: &Entry) -> bool {
        self.look(&open.directory, &Live::place_of(open, entry)).is_ok()
    }

    pub(super) fn sync_dir(&self, handle: u64, is_data_only: bool) -> Outcome<()> {
        let open = self.dirs.get(handle)?;
        if is_data_only { rustix::fs::fdatasync(&open.directory) } else { rustix::fs::fsync(&open.directory) }
    }

    pub(super) fn release_dir(&self, handle: u64) -> Outcome<()> {
        self.inodes.end_listing(self.dirs.remove(handle)?.number);
        Ok(())
    }

    /// What an entry looks like, for a kernel that will know it then. `None` if it is gone.
    pub(super) fn look_at(&self, open: &OpenDir, entry: &Entry) -> Option<Look> {
        self.look(&open.directory, &Live::place_of(open, entry)).ok()
    }

    /// The number that a listing shows for an entry.
    pub(super) fn number_of(&self, open: &OpenDir, entry: &Entry) -> u64 {
        match entry.number {
            Number::Here(inode) => self.inodes.number_of(InodeId { device: open.device, inode }),
            Number::Away(ino) => self.inodes.number_of_away(&Live::place_of(open, entry), ino),
        }
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
                    number: Number::Here(entry.ino()),
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
}

/// Whether a cookie is that of a file that is away.
fn is_away(cookie: u64) -> bool {
    (FIRST_AWAY_COOKIE..FIRST_AWAY_COOKIE + MOST_AWAY as u64).contains(&cookie)
}

impl Reading {
    /// An entry of the folder was shown: it is not shown once more as one that is away.
    fn has_shown(&mut self, name: &[u8]) {
        if let Ok(at) = self.away.binary_search_by(|entry| entry.name.as_bytes().cmp(name)) {
            self.away[at].is_shown = true;
        }
    }

    /// The next of those that are away, behind what was taken last.
    fn next_away(&self) -> Option<Entry> {
        let behind = if is_away(self.taken) { (self.taken - FIRST_AWAY_COOKIE) as usize + 1 } else { 0 };
        let (at, entry) = self.away.iter().enumerate().skip(behind).find(|(_, entry)| !entry.is_shown)?;
        Some(Entry {
            name: entry.name.as_bytes().into(),
            kind: FileType::RegularFile,
            number: Number::Away(entry.ino),
            cookie: FIRST_AWAY_COOKIE + at as u64,
        })
    }
}
