//! A directory of the store, and everything that is done to the files in it: each system call that a broken disk or a
//! crash can get in the way of is made here, so that tests can let each of them go wrong.

use super::trouble::{Call, Trouble};
use crate::store::Space;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice};

/// What a file of the store may be opened with: never through a symbolic link.
const FLAGS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A directory of which the store owns the files.
#[derive(Debug)]
pub(super) struct Dir {
    name: String,
    fd: OwnedFd,
    trouble: Trouble,
}

impl Dir {
    /// Makes the directory `name` in `parent`, which only its owner may enter, and opens it. Refuses a symbolic link.
    pub(super) fn open_in(parent: &impl AsFd, name: &str, trouble: &Trouble) -> io::Result<Dir> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(full(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{name} is not a directory that can be used: {error}"))
        })?;
        Ok(Dir { name: name.to_owned(), fd, trouble: trouble.clone() })
    }

    /// Makes a file that only its owner may read. What has that name is replaced.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        self.trouble.meet(Call::Create(name))?;
        let flags = FLAGS | OFlags::CREATE | OFlags::TRUNC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map_err(full)?;
        Ok(file.into())
    }

    /// The same; if anything has that name, it stays, and [`io::ErrorKind::AlreadyExists`] is what becomes of it.
    pub(super) fn create_new(&self, name: &str) -> io::Result<File> {
        self.trouble.meet(Call::CreateNew(name))?;
        let flags = FLAGS | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map_err(full)?;
        Ok(file.into())
    }

    /// Opens a file, to be read and written.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        self.trouble.meet(Call::Open)?;
        let file = rustix::fs::openat(&self.fd, name, FLAGS | OFlags::NONBLOCK, Mode::empty())?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file"));
        }
        Ok(file)
    }

    /// Makes a file so many bytes long.
    pub(super) fn set_len(&self, name: &str, file: &File, len_bytes: u64) -> io::Result<()> {
        self.trouble.meet(Call::SetLen(name, len_bytes))?;
        rustix::fs::ftruncate(file, len_bytes).map_err(full)
    }

    /// Writes some of the slices; says how many bytes.
    pub(super) fn write(&self, name: &str, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let most = self.trouble.meet(Call::Write(name, offset, slices))?;
        match most {
            None => retry_on_intr(|| rustix::io::pwritev(file, slices, offset)).map_err(full),
            // A short write.
            Some(most) => {
                let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &slice[..]);
                rustix::io::pwrite(file, &first[..most.min(first.len())], offset).map_err(full)
            }
        }
    }

    /// Writes all of `bytes` from the beginning of a file on.
    pub(super) fn write_all(&self, name: &str, file: &File, bytes: &[u8]) -> io::Result<()> {
        let mut offset = 0;
        while offset < bytes.len() {
            match self.write(name, file, &[IoSlice::new(&bytes[offset..])], offset as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => offset += count,
            }
        }
        Ok(())
    }

    /// Reads some bytes; says how many, 0 at the end.
    pub(super) fn read(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = self.trouble.meet(Call::Read)?.unwrap_or(into.len()).min(into.len());
        Ok(retry_on_intr(|| rustix::io::pread(file, &mut into[..most], offset))?)
    }

    /// Fills `into`, or fails.
    pub(super) fn read_exact(&self, file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !into.is_empty() {
            match self.read(file, into, offset)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the content does")),
                count => {
                    into = &mut into[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Makes the bytes and the length of a file durable.
    pub(super) fn sync(&self, name: &str, file: &File) -> io::Result<()> {
        self.trouble.meet(Call::Sync(name))?;
        retry_on_intr(|| rustix::fs::fdatasync(file)).map_err(full)
    }

    /// Makes everything durable that was ever done on this file system, by anybody.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.trouble.meet(Call::SyncAll)?;
        retry_on_intr(|| rustix::fs::syncfs(&self.fd)).map_err(full)
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        self.trouble.meet(Call::SyncNames(&self.name))?;
        retry_on_intr(|| rustix::fs::fsync(&self.fd)).map_err(full)
    }

    /// Gives a file another name, and takes it from whatever has it.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.trouble.meet(Call::Rename(from, to))?;
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(full)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.trouble.meet(Call::Remove(name))?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(full(error)),
        }
    }

    /// Sets the times of a file.
    pub(super) fn set_times(&self, name: &str, times: &Timestamps) -> io::Result<()> {
        Ok(rustix::fs::utimensat(&self.fd, name, times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// How many names a file has.
    pub(super) fn links(&self, name: &str) -> io::Result<u64> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        #[allow(clippy::unnecessary_cast, reason = "the width of st_nlink differs between architectures")]
        Ok(stat.st_nlink as u64)
    }

    /// The names of everything but directories.
    pub(super) fn names(&self) -> io::Result<Vec<CString>> {
        self.list(|kind| kind != FileType::Directory)
    }

    /// The names of directories.
    pub(super) fn dirs(&self) -> io::Result<Vec<CString>> {
        let is_dir = |kind| kind == FileType::Directory;
        Ok(self.list(is_dir)?.into_iter().filter(|name| !matches!(name.as_bytes(), b"." | b"..")).collect())
    }

    fn list(&self, is_wanted: impl Fn(FileType) -> bool) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            if is_wanted(entry.file_type()) {
                names.push(entry.file_name().to_owned());
            }
        }
        Ok(names)
    }

    /// The room on the file system.
    pub(super) fn space(&self) -> io::Result<Space> {
        self.trouble.meet(Call::Space)?;
        let disk = rustix::fs::fstatvfs(&self.fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space { free_bytes: bytes(disk.f_bavail), total_bytes: bytes(disk.f_blocks) })
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A quota that is used up is a full disk to whoever writes.
pub(in crate::store) fn full(error: Errno) -> io::Error {
    match error {
        Errno::DQUOT => io::Error::new(io::ErrorKind::StorageFull, "the disk quota is used up"),
        error => error.into(),
    }
}
