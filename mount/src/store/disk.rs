//! A store on disk: one file per content, in a private place.
//!
//! ```text
//! <dir>/.farshore/lock             held by the process that uses the store; its text is that process's number
//! <dir>/.farshore/partial/<number> the bytes of one content, with holes where none have come yet
//! ```
//!
//! A file that is not complete never stands under a name of its own, so it cannot be taken for a whole one. What
//! an earlier process left there is removed: nothing says which of its bytes were written.

mod descriptors;

use self::descriptors::Descriptors;
use super::publish::{copy_to, publish};
use super::{Store, Stored, check_frames, check_read};
use bytes::{Buf, Bytes};
use farshore_engine::ContentId;
use farshore_engine::record::FileTime;
use futures_util::future::BoxFuture;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The private directory of a store.
pub const PRIVATE: &str = ".farshore";

/// The mode bits that a kept file gets: not set-uid and set-gid, which would lend the rights of whoever fetched it to
/// whatever the peer sent.
pub const KEPT_MODE_BITS: u16 = 0o1777;

/// Files of contents that are open at once.
const OPEN_FILES: usize = 256;

/// The most slices that the kernel takes at once.
const SLICES: usize = 1_024;

/// A store on disk. Contents that are still in use when it is dropped stay usable.
#[derive(Debug)]
pub struct DiskStore {
    home: Arc<Home>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the store {} is in use{}; end that process, or use another directory", .dir.display(), process(*.pid))]
    InUse {
        /// The store.
        dir: PathBuf,
        /// The number of that process, if it said.
        pid: Option<u32>,
    },
    /// It cannot be made or read.
    #[error("cannot open the store {}: {source}", .dir.display())]
    Io {
        /// The store.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| " by another process".to_owned(), |pid| format!(" by process {pid}"))
}

impl DiskStore {
    /// Opens the store in `dir`, which is made if it is not there. Removes contents that an earlier process left.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be made.
    pub fn open(dir: &Path) -> Result<DiskStore, OpenError> {
        let failed = |source: io::Error| OpenError::Io { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir_fd = rustix::fs::open(dir, dir_flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let private = subdirectory(&dir_fd, PRIVATE).map_err(failed)?;
        let lock = lock(&private).map_err(|error| match error {
            LockError::Held(pid) => OpenError::InUse { dir: dir.to_owned(), pid },
            LockError::Io(source) => failed(source),
        })?;
        let partial = subdirectory(&private, "partial").map_err(failed)?;
        let home = Home { dir: dir_fd, private, partial, descriptors: Descriptors::new(OPEN_FILES), _lock: lock };
        home.remove_leftovers().map_err(failed)?;
        Ok(DiskStore { home: Arc::new(home) })
    }
}

impl Store for DiskStore {
    fn create(&self, content: ContentId, size_bytes: u64) -> io::Result<Arc<dyn Stored>> {
        let name = content.to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.home.partial, &name, flags, Mode::RUSR | Mode::WUSR).map_err(full)?;
        let home = Arc::clone(&self.home);
        let stored = DiskStored { number: content.0, name, size_bytes, home, kept: OnceLock::new() };
        // If this fails, dropping the content removes its file.
        rustix::fs::ftruncate(&file, size_bytes).map_err(full)?;
        self.home.descriptors.get(content.0, || Ok(File::from(file)))?;
        Ok(Arc::new(stored))
    }
}

/// The directories of a store, and the right to use them.
#[derive(Debug)]
struct Home {
    dir: OwnedFd,
    private: OwnedFd,
    partial: OwnedFd,
    descriptors: Descriptors,
    /// Held until all else is done.
    _lock: OwnedFd,
}

impl Home {
    /// Removes files that are named like contents, and nothing else.
    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.partial)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_content = name.to_str().is_ok_and(|name| name.parse::<u64>().is_ok());
            if is_content && entry.file_type() != FileType::Directory {
                rustix::fs::unlinkat(&self.partial, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

impl Drop for Home {
    /// Leaves nothing behind where nothing is in use. The lock's file goes while it is held, so that who waits for
    /// it never locks a file that is gone without noticing.
    fn drop(&mut self) {
        let removed = rustix::fs::unlinkat(&self.private, "partial", AtFlags::REMOVEDIR)
            .and_then(|()| rustix::fs::unlinkat(&self.private, "lock", AtFlags::empty()))
            .and_then(|()| rustix::fs::unlinkat(&self.dir, PRIVATE, AtFlags::REMOVEDIR));
        match removed {
            // Something else is kept there.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
            Err(error) => tracing::warn!(%error, "the store's private directory cannot be removed"),
        }
    }
}

/// Makes and opens a directory that only its owner may enter. Refuses a symbolic link.
fn subdirectory(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(full(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{name} is not a directory that can be used: {error}"))
    })
}

enum LockError {
    Held(Option<u32>),
    Io(io::Error),
}

/// Takes the lock of a store, and writes this process's number into it.
fn lock(private: &OwnedFd) -> Result<OwnedFd, LockError> {
    let io_error = |error: Errno| LockError::Io(full(error));
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(private, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(io_error)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who holds it may not have written its number yet, or something else.
                let _: io::Result<usize> = File::from(fd).take(32).read_to_string(&mut text);
                return Err(LockError::Held(text.trim().parse().ok()));
            }
            Err(error) => return Err(io_error(error)),
        }
        let ours = rustix::fs::fstat(&fd).map_err(io_error)?;
        let named = rustix::fs::statat(private, "lock", AtFlags::SYMLINK_NOFOLLOW);
        // Who held it before may have removed it just before we locked it: then it is not the store's lock any more.
        if !named.is_ok_and(|named| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)) {
            continue;
        }
        let mut file = File::from(fd);
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(LockError::Io)?;
        return Ok(file.into());
    }
}

/// One content on disk.
#[derive(Debug)]
struct DiskStored {
    number: u64,
    /// Its name in the private place.
    name: String,
    size_bytes: u64,
    home: Arc<Home>,
    /// Where it has a name of its own, and as which file; then it has none in the private place any more.
    kept: OnceLock<(PathBuf, Identity)>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

impl Stored for DiskStored {
    fn write(self: Arc<Self>, offset: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(blocking(move || {
            check_frames(offset, &frames, self.size_bytes)?;
            write_all(&*self.file()?, offset, frames)
        }))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_read(offset, into.len(), self.size_bytes)?;
        self.file()?.read_exact_at(into, offset)
    }

    fn keep(self: Arc<Self>, target: PathBuf, mode: u16, modified: FileTime) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(blocking(move || self.keep_now(&target, mode, modified)))
    }
}

impl DiskStored {
    /// Its file, opened anew if it was closed to make room for others.
    fn file(&self) -> io::Result<Arc<File>> {
        self.home.descriptors.get(self.number, || {
            let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let Some((path, kept)) = self.kept.get() else {
                let flags = flags | OFlags::RDWR;
                return Ok(File::from(rustix::fs::openat(&self.home.partial, &self.name, flags, Mode::empty())?));
            };
            let opened = rustix::fs::open(path, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            // Its name is anybody's to take.
            if identity(&rustix::fs::fstat(&opened)?) != *kept {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced by another one"));
            }
            Ok(File::from(opened))
        })
    }

    fn keep_now(&self, target: &Path, mode: u16, modified: FileTime) -> io::Result<()> {
        if self.kept.get().is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the content was kept already"));
        }
        let (directory, name) = match (target.parent(), target.file_name()) {
            (Some(directory), Some(name)) if directory.as_os_str().is_empty() => (Path::new("."), name),
            (Some(directory), Some(name)) => (directory, name),
            (None, _) | (_, None) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the target has no name"));
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        let file = self.file()?;
        finish(&file, mode, modified)?;
        match publish(self.home.partial.as_fd(), self.name.as_ref(), directory.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_to(&file, directory.as_fd(), name, |copy| finish(copy, mode, modified))?;
                rustix::fs::unlinkat(&self.home.partial, &self.name, AtFlags::empty())?;
            }
            published => published?,
        }
        let kept = identity(&rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?);
        // Whoever keeps it at the same time has lost the race for the name already.
        let _ = self.kept.set((std::path::absolute(target)?, kept));
        rustix::fs::fsync(&directory).map_err(full)
    }
}

impl Drop for DiskStored {
    fn drop(&mut self) {
        self.home.descriptors.close(self.number);
        if self.kept.get().is_some() {
            return;
        }
        if let Err(error) = rustix::fs::unlinkat(&self.home.partial, &self.name, AtFlags::empty()) {
            tracing::warn!(%error, content = self.name, "a content cannot be removed from the store");
        }
    }
}

fn identity(stat: &rustix::fs::Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Gives a file its mode and time, and makes all of it durable.
fn finish(file: &File, mode: u16, modified: FileTime) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(mode & KEPT_MODE_BITS)))?;
    let modified = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() };
    let accessed = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    rustix::fs::futimens(file, &Timestamps { last_access: accessed, last_modification: modified })?;
    rustix::fs::fsync(file).map_err(full)
}

fn write_all(file: &File, mut offset: u64, frames: Vec<Bytes>) -> io::Result<()> {
    let mut frames = std::collections::VecDeque::from(frames);
    loop {
        while frames.front().is_some_and(Bytes::is_empty) {
            frames.pop_front();
        }
        if frames.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = frames.iter().take(SLICES).map(|frame| IoSlice::new(frame)).collect();
        let written = match rustix::io::pwritev(file, &slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(full(error)),
        };
        offset += written as u64;
        let mut rest = written;
        while rest > 0 {
            let Some(frame) = frames.front_mut() else { break };
            let count = rest.min(frame.len());
            frame.advance(count);
            rest -= count;
            if frame.is_empty() {
                frames.pop_front();
            }
        }
    }
}

/// A quota that is used up is a full disk to whoever writes.
pub(super) fn full(error: Errno) -> io::Error {
    match error {
        Errno::DQUOT => io::Error::new(io::ErrorKind::StorageFull, "the disk quota is used up"),
        error => error.into(),
    }
}

/// Runs disk work where it may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
