//! Open files: reading, writing, and making it last.

use super::volume::{Live, Outcome, path_to};
use crate::fuse::Invalidation;
use farshore_engine::Ino;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file that a program has opened. Each open has its own, with the flags that make a difference to the disk.
pub(super) struct OpenFile {
    pub(super) number: u64,
    pub(super) file: OwnedFd,
    pub(super) is_writable: bool,
    /// It was made or written to, and peers have not been told of that.
    is_untold: AtomicBool,
}

impl OpenFile {
    /// With which flags a file is opened, if a program wants to open it with these. Where to append is said with each write,
    /// because a program may change its mind; direct access is between the program and the kernel.
    pub(super) fn flags(wanted: OFlags) -> OFlags {
        let kept = OFlags::RWMODE | OFlags::SYNC | OFlags::DSYNC | OFlags::NOATIME;
        wanted & kept | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC
    }
}

/// What a call through an open file is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) handle: u64,
    pub(super) offset: u64,
}

impl Live {
    /// Opens a file. Returns its handle, and whether what the kernel has cached of it is still good.
    ///
    /// # Errors
    /// `ESTALE` if others may open it than when the kernel was told: it asks, checks that, and tries again.
    pub(super) fn open_file(&self, number: u64, flags: OFlags) -> Outcome<(u64, bool)> {
        // Pinned first: from now on its anchor stays.
        self.inodes.pin(number);
        match self.open_anew(number, flags) {
            Ok((file, stat)) => {
                let is_good = !self.inodes.has_other_bytes(number, &stat);
                if !is_good {
                    // The kernel cuts what it reads at the size that it remembers.
                    self.send(Invalidation::Inode { ino: Ino(number), data: true });
                }
                let handle = self.opened(number, file, flags, false);
                self.inodes.unpin(number);
                Ok((handle, is_good))
            }
            Err(error) => {
                self.inodes.unpin(number);
                Err(error)
            }
        }
    }

    fn open_anew(&self, number: u64, flags: OFlags) -> Outcome<(OwnedFd, Stat)> {
        let anchor = self.anchor(number)?;
        // The path is a link itself, and its last part must be followed.
        let flags = OpenFile::flags(flags).difference(OFlags::NOFOLLOW);
        let file = match rustix::fs::open(path_to(&anchor), flags, Mode::empty()) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
                rustix::fs::open(path_to(&anchor), flags.difference(OFlags::NOATIME), Mode::empty())?
            }
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&file)?;
        if self.inodes.knows_rights(number, &stat) { Ok((file, stat)) } else { Err(Errno::STALE) }
    }

    /// A file is open for a program: it stays within reach until it is closed. `is_new` if nobody has been told of it.
    pub(super) fn opened(&self, number: u64, file: OwnedFd, flags: OFlags, is_new: bool) -> u64 {
        self.inodes.pin(number);
        let is_writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        self.files.add(OpenFile { number, file, is_writable, is_untold: AtomicBool::new(is_new) })
    }

    /// Reads until `into` is full or the file ends. Returns how much it was.
    pub(super) fn read(&self, part: Part, into: &mut [u8]) -> Outcome<usize> {
        let open = self.files.get(part.handle)?;
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&open.file, &mut into[done..], part.offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes`, at the end of the file if `append`. Returns how much was written; less than everything if
    /// the disk took no more.
    pub(super) fn write(&self, part: Part, bytes: &[u8], append: bool) -> Outcome<usize> {
        let open = self.files.get(part.handle)?;
        open.is_untold.store(true, Ordering::Relaxed);
        let flags = if append { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        let mut done = 0;
        while done < bytes.len() {
            let rest = [IoSlice::new(&bytes[done..])];
            match rustix::io::pwritev2(&open.file, &rest, part.offset + done as u64, flags) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // What was written stays written; the program hears of the error with its next write.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    pub(super) fn allocate(&self, part: Part, len: u64, mode: i32) -> Outcome<()> {
        let open = self.files.get(part.handle)?;
        open.is_untold.store(true, Ordering::Relaxed);
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        rustix::fs::fallocate(&open.file, mode, part.offset, len)
    }

    /// Copies within the disk. Returns how much it was.
    pub(super) fn copy(&self, from: Part, to: Part, len: u64) -> Outcome<usize> {
        let (source, target) = (self.files.get(from.handle)?, self.files.get(to.handle)?);
        target.is_untold.store(true, Ordering::Relaxed);
        let (mut offset_in, mut offset_out) = (from.offset, to.offset);
        // The answer has 32 bits.
        let len = usize::try_from(len.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        rustix::fs::copy_file_range(&source.file, Some(&mut offset_in), &target.file, Some(&mut offset_out), len)
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
        rustix::fs::seek(&open.file, to)
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
        let synced = match is_data_only {
            true => rustix::fs::fdatasync(&open.file),
            false => rustix::fs::fsync(&open.file),
        };
        self.tell_if_untold(&open);
        synced
    }

    /// The last program has closed the file.
    pub(super) fn release(&self, handle: u64) -> Outcome<()> {
        let open = self.files.remove(handle)?;
        self.tell_if_untold(&open);
        self.inodes.unpin(open.number);
        Ok(())
    }

    fn tell_if_untold(&self, open: &OpenFile) {
        if open.is_untold.swap(false, Ordering::Relaxed) {
            if let Ok(stat) = rustix::fs::fstat(&open.file) {
                self.inodes.written(open.number, &stat);
            }
            self.tell_of(open.number);
        }
    }
}
