//! Open files: reading, writing, and making it last.

use super::attributes::lose_set_ids;
use super::away::{Absent, AwayHandle, Found};
use super::inodes::Told;
use super::volume::{Live, Look, Outcome, path_to};
use super::waiting::Tried;
use crate::fuse::Invalidation;
use farshore_engine::Ino;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A file that a program has opened. Each open has its own, with the flags that make a difference to the disk.
pub(super) struct OpenFile {
    pub(super) number: u64,
    bytes: Bytes,
    pub(super) is_writable: bool,
    /// Whether it could be written through a memory map.
    may_be_mapped: bool,
    /// It could, and the kernel would not tell us.
    is_looked_at: AtomicBool,
    /// How the file was when peers were told of it last; `None` if they were not told since it was made. Only then is it known
    /// whether it was written to: what the kernel writes by itself does not come here.
    told: Mutex<Option<Told>>,
}

/// Where the bytes of an open file are.
enum Bytes {
    Here(OwnedFd),
    /// It was away when it was opened.
    Away(OpenAway),
}

/// A file that was away when it was opened. It comes when it is written to, and when it has come it is opened in the folder.
struct OpenAway {
    handle: AwayHandle,
    /// How a program wants to have it open.
    flags: OFlags,
    /// How often peers had edited it.
    edits: u64,
    come: OnceLock<OwnedFd>,
}

/// Where bytes are to be read.
pub(super) enum Readable<'a> {
    Here(&'a OwnedFd),
    Away(&'a AwayHandle),
}

/// Whether a file that is opened so can be written through a memory map: that takes the right to read it, too.
pub(super) fn may_be_mapped(flags: OFlags) -> bool {
    flags.contains(OFlags::RDWR)
}

fn is_for_writing(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

impl OpenFile {
    /// The file in the folder, if it was there when it was opened.
    pub(super) fn in_folder(&self) -> Option<&OwnedFd> {
        match &self.bytes {
            Bytes::Here(file) => Some(file),
            Bytes::Away(_) => None,
        }
    }

    /// Whether peers have to be told that a file is like this now; they count as told.
    fn is_news(&self, now: Told) -> bool {
        self.told().replace(now) != Some(now)
    }

    /// Whether peers have never been told of it.
    fn is_unheard_of(&self) -> bool {
        self.told().is_none()
    }

    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kernel should read and write it by itself, if that is worth while from `from_bytes` on. How much will be
    /// written is not known.
    pub(super) fn is_worth_passing(&self, from_bytes: u64) -> bool {
        let is_large = |stat: Stat| stat.st_size.cast_unsigned() >= from_bytes;
        self.in_folder().is_some_and(|file| self.is_writable || rustix::fs::fstat(file).is_ok_and(is_large))
    }

    /// With which flags a file is opened, if a program wants to open it with these. Where to append is said with each write,
    /// because a program may change its mind.
    pub(super) fn flags(wanted: OFlags) -> OFlags {
        let kept = OFlags::RWMODE | OFlags::SYNC | OFlags::DSYNC | OFlags::NOATIME | OFlags::DIRECT;
        wanted & kept | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC
    }

    /// Direct access is between the program and the kernel, once the disk has said whether it can be had. What comes by us lies
    /// anywhere in memory.
    pub(super) fn without_direct_access(file: OwnedFd, flags: OFlags) -> Outcome<OwnedFd> {
        if flags.contains(OFlags::DIRECT) {
            rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)?.difference(OFlags::DIRECT))?;
        }
        Ok(file)
    }
}

/// What a call through an open file is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) handle: u64,
    pub(super) offset: u64,
}

/// How something is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// At the end of the file.
    pub(super) append: bool,
    /// By who may not keep set-id bits of what they write to.
    pub(super) loses_set_ids: bool,
}

impl Live {
    /// Opens a file. Returns its handle, and whether what the kernel has cached of it is still good. What is away is opened where
    /// it is.
    ///
    /// # Errors
    /// `ESTALE` if others may open it than when the kernel was told: it asks, checks that, and tries again.
    pub(super) fn open_file(&self, number: u64, flags: OFlags) -> Outcome<(u64, bool)> {
        // Pinned first: from now on its anchor stays.
        self.inodes.pin(number);
        let opened = self.open_anew(number, flags).map(|(bytes, told, is_good)| {
            if !is_good {
                // The kernel cuts what it reads at the size that it remembers.
                self.send(Invalidation::Inode { ino: Ino(number), data: true });
            }
            (self.keep_open(number, bytes, flags, Some(told)), is_good)
        });
        self.inodes.unpin(number);
        opened
    }

    fn open_anew(&self, number: u64, flags: OFlags) -> Outcome<(Bytes, Told, bool)> {
        match self.find(number)? {
            Found::Here(anchor) => {
                let file = self.open_here(number, &anchor, flags)?;
                let stat = rustix::fs::fstat(&file)?;
                if !self.inodes.knows_rights(number, &stat) {
                    return Err(Errno::STALE);
                }
                Ok((Bytes::Here(file), Told::of(&stat), !self.inodes.has_other_bytes(number, &stat)))
            }
            Found::Away(Absent { attr, .. }) => {
                if !self.inodes.knows_rights_of_away(number, &attr) {
                    return Err(Errno::STALE);
                }
                let is_good = !self.inodes.has_other_bytes_away(number, &attr);
                let (handle, edits) = (self.open_away(&attr)?, self.inodes.edits(number));
                Ok((
                    Bytes::Away(OpenAway { handle, flags, edits, come: OnceLock::new() }),
                    Told::of_away(&attr),
                    is_good,
                ))
            }
        }
    }

    fn open_here(&self, number: u64, anchor: &OwnedFd, flags: OFlags) -> Outcome<OwnedFd> {
        if is_for_writing(flags) {
            self.inodes.changes(number);
        }
        // The path is a link itself, and its last part must be followed.
        let flags = OpenFile::flags(flags).difference(OFlags::NOFOLLOW);
        let opened = match rustix::fs::open(path_to(anchor), flags, Mode::empty()) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
                rustix::fs::open(path_to(anchor), flags.difference(OFlags::NOATIME), Mode::empty())
            }
            opened => opened,
        };
        OpenFile::without_direct_access(opened?, flags)
    }

    /// A file was made and is open for a program: it stays within reach until it is closed. Nobody has been told of it.
    pub(super) fn made(&self, number: u64, file: OwnedFd, flags: OFlags) -> u64 {
        self.keep_open(number, Bytes::Here(file), flags, None)
    }

    fn keep_open(&self, number: u64, bytes: Bytes, flags: OFlags, told: Option<Told>) -> u64 {
        self.inodes.pin(number);
        let is_writable = is_for_writing(flags);
        if is_writable {
            self.inodes.begin_writing(number);
        }
        let may_be_mapped = may_be_mapped(flags);
        let (is_looked_at, told) = (AtomicBool::new(false), Mutex::new(told));
        self.files.add(OpenFile { number, bytes, is_writable, may_be_mapped, is_looked_at, told })
    }

    /// From now on the kernel reads and writes an open file by itself.
    pub(super) fn passes(&self, handle: u64) {
        if let Ok(open) = self.files.get(handle)
            && open.may_be_mapped
        {
            open.is_looked_at.store(true, Ordering::Relaxed);
            self.mapped.add(handle, open);
        }
    }

    /// An open file in the folder; `None` if it is away, as far as is known.
    ///
    /// # Errors
    /// `ESTALE` if it is neither, or if it is open to be written and peers have edited it since: what a program has read of it
    /// and what it writes would not fit.
    pub(super) fn here<'a>(&self, open: &'a OpenFile) -> Outcome<Option<&'a OwnedFd>> {
        let away = match &open.bytes {
            Bytes::Here(file) => return Ok(Some(file)),
            Bytes::Away(away) => away,
        };
        if let Some(file) = away.come.get() {
            return Ok(Some(file));
        }
        if self.inodes.is_away(open.number) {
            return Ok(None);
        }
        if open.is_writable && self.inodes.edits(open.number) != away.edits {
            return Err(Errno::STALE);
        }
        let file = self.open_here(open.number, &*self.anchor(open.number)?, away.flags)?;
        Ok(Some(away.come.get_or_init(|| file)))
    }

    /// Where to read the bytes of an open file now.
    pub(super) fn readable<'a>(&self, open: &'a OpenFile) -> Outcome<Readable<'a>> {
        match (self.here(open), &open.bytes) {
            (Ok(Some(file)), _) => Ok(Readable::Here(file)),
            // It may have come and gone, while nobody had it open to write.
            (Ok(None) | Err(Errno::STALE), Bytes::Away(away)) => Ok(Readable::Away(&away.handle)),
            (Ok(None), Bytes::Here(_)) => Err(Errno::STALE),
            (Err(error), _) => Err(error),
        }
    }

    /// The file to write to.
    fn writable<'a>(&self, open: &'a OpenFile) -> Tried<&'a OwnedFd> {
        if let Some(file) = self.here(open)? {
            return Ok(file);
        }
        match self.find(open.number)? {
            Found::Here(_) => Ok(self.here(open)?.ok_or(Errno::STALE)?),
            Found::Away(absent) => Err(absent.is_needed()),
        }
    }

    /// Reads until `into` is full or the file ends. Returns how much it was.
    pub(super) fn read(file: &OwnedFd, offset: u64, into: &mut [u8]) -> Outcome<usize> {
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(file, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes`. Returns how much was written; less than everything if the disk took no more.
    pub(super) fn write(&self, part: Part, bytes: &[u8], how: How) -> Tried<usize> {
        let open = self.files.get(part.handle)?;
        let file = self.writable(&open)?;
        if how.loses_set_ids {
            self.lose_set_ids(open.number, file)?;
        }
        let flags = if how.append { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        let mut done = 0;
        while done < bytes.len() {
            let rest = [IoSlice::new(&bytes[done..])];
            match rustix::io::pwritev2(file, &rest, part.offset + done as u64, flags) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // What was written stays written; the program hears of the error with its next write.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn lose_set_ids(&self, number: u64, file: &OwnedFd) -> Outcome<()> {
        if lose_set_ids(file)? {
            // An answer to a write says nothing of the mode.
            self.send(Invalidation::Inode { ino: Ino(number), data: false });
        }
        Ok(())
    }

    pub(super) fn allocate(&self, part: Part, len: u64, mode: i32) -> Tried<()> {
        let open = self.files.get(part.handle)?;
        let file = self.writable(&open)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        Ok(rustix::fs::fallocate(file, mode, part.offset, len)?)
    }

    /// Copies within the disk. Returns how much it was.
    pub(super) fn copy(&self, from: Part, to: Part, len: u64) -> Tried<usize> {
        let (source, target) = (self.files.get(from.handle)?, self.files.get(to.handle)?);
        let Readable::Here(bytes) = self.readable(&source)? else {
            // The kernel reads and writes then.
            return Err(Errno::XDEV.into());
        };
        let file = self.writable(&target)?;
        let (mut offset_in, mut offset_out) = (from.offset, to.offset);
        // The answer has 32 bits.
        let len = usize::try_from(len.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        Ok(rustix::fs::copy_file_range(bytes, Some(&mut offset_in), file, Some(&mut offset_out), len)?)
    }

    /// Where the next data or the next hole begins.
    ///
    /// # Errors
    /// `EINVAL` for anything else, which the kernel does by itself.
    pub(super) fn seek(&self, part: Part, whence: i32) -> Outcome<u64> {
        let open = self.files.get(part.handle)?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(part.offset),
            libc::SEEK_HOLE => SeekFrom::Hole(part.offset),
            _ => return Err(Errno::INVAL),
        };
        match self.readable(&open)? {
            Readable::Here(file) => rustix::fs::seek(file, to),
            Readable::Away(_) => {
                // As far as is known it has no holes but the one at its end.
                let end = match self.attributes(open.number)?.look {
                    Look::Here(stat) => stat.st_size.cast_unsigned(),
                    Look::Away(attr) => attr.size_bytes,
                };
                let is_inside = part.offset < end;
                is_inside.then_some(if whence == libc::SEEK_DATA { part.offset } else { end }).ok_or(Errno::NXIO)
            }
        }
    }

    /// A program has closed the file. Every write has been answered with what the disk said to it, so there is no error
    /// left to tell.
    pub(super) fn flush(&self, handle: u64) -> Outcome<()> {
        self.tell_if_untold(&*self.files.get(handle)?);
        Ok(())
    }

    /// Makes what was written last, with the attributes, or without those that reading it does not need.
    pub(super) fn sync(&self, handle: u64, is_data_only: bool) -> Outcome<()> {
        let open = self.files.get(handle)?;
        let synced = match (self.readable(&open)?, is_data_only) {
            (Readable::Here(file), true) => rustix::fs::fdatasync(file),
            (Readable::Here(file), false) => rustix::fs::fsync(file),
            // Nothing of it was written here.
            (Readable::Away(_), _) => Ok(()),
        };
        self.tell_if_untold(&open);
        synced
    }

    /// The last program has closed the file.
    pub(super) fn release(&self, handle: u64) -> Outcome<()> {
        let open = self.files.remove(handle)?;
        if open.is_looked_at.load(Ordering::Relaxed) {
            self.mapped.remove(handle);
        }
        if open.is_writable {
            // Who sets its attributes from now on tells of that, and before that we do.
            self.inodes.end_writing(open.number);
        }
        self.tell_if_untold(&open);
        self.inodes.unpin(open.number);
        Ok(())
    }

    /// Tells peers of a file, if it was made or written to since they were told last.
    pub(super) fn tell_if_untold(&self, open: &OpenFile) {
        // Who only reads has nothing to tell, nor has anybody to whom it is away.
        if !open.is_writable && !open.is_unheard_of() {
            return;
        }
        if let Ok(Some(file)) = self.here(open)
            && let Ok(stat) = rustix::fs::fstat(file)
            && open.is_news(Told::of(&stat))
        {
            self.inodes.written(open.number, &stat);
            if open.is_looked_at.load(Ordering::Relaxed) {
                // It may have been written through a memory map, of which the kernel has not noted the time.
                self.send(Invalidation::Inode { ino: Ino(open.number), data: false });
            }
            self.tell_of(open.number);
        }
    }
}
