//! Serving the files of a folder on disk.
//!
//! What is sent as a version of a file must be that version. A file is opened only if it is what the engine knows,
//! and after every read the open file is asked whether it still is: what was read before a change is noticed is
//! thrown away.

use super::apply::{Applier, Contents};
use super::beneath::{Beneath, is_gone};
use super::lacking::Lacking;
use super::look::{facts, modified};
use super::order::Order;
use super::watch::{Recheck, Watcher};
use super::{Folder, FolderError, ServeError, ServedBytes};
use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::record::{Facts, FileTime};
use farshore_engine::{Apply, ApplyError, ServedFile};
use futures_util::future::BoxFuture;
use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A folder on disk.
#[derive(Debug)]
pub struct DiskFolder {
    beneath: Arc<Beneath>,
    recheck: Option<Recheck>,
    /// How it is changed, if it may be.
    changing: Option<Changing>,
}

#[derive(Debug, Clone)]
struct Changing {
    applier: Arc<Applier>,
    /// While something is changed, nobody looks and tells.
    order: Arc<Order>,
}

impl DiskFolder {
    /// Opens the folder `root`. A file that turns out to be other than the engine knows is looked at again through
    /// `recheck`, so that the engine hears of changes that the kernel does not tell of.
    ///
    /// # Errors
    /// [`FolderError::Open`]: it is not there, not a directory, or may not be read.
    pub fn open(root: &Path, recheck: Option<Recheck>) -> Result<DiskFolder, FolderError> {
        let beneath =
            Beneath::open(root).map_err(|error| FolderError::Open { path: root.to_owned(), source: error.into() })?;
        Ok(DiskFolder { beneath: Arc::new(beneath), recheck, changing: None })
    }

    /// Opens the folder `root`, which `watcher` watches, to have changed in it what peers change. What its disk does not
    /// take of that is noted in `lacking`.
    ///
    /// # Errors
    /// As [`DiskFolder::open`].
    pub(crate) fn writable(root: &Path, watcher: &Watcher, lacking: Lacking) -> Result<DiskFolder, FolderError> {
        let mut folder = DiskFolder::open(root, Some(watcher.recheck()))?;
        lacking.recall(&folder.beneath);
        let applier = Arc::new(Applier::new(Arc::clone(&folder.beneath), lacking));
        folder.changing = Some(Changing { applier, order: watcher.order() });
        Ok(folder)
    }
}

impl Changing {
    fn apply(&self, ops: Vec<Apply>, contents: &Contents) -> Vec<Result<Facts, ApplyError>> {
        let prepared = self.applier.prepare(ops, contents);
        self.order.wait_for(|| self.applier.apply(prepared))
    }
}

impl Folder for DiskFolder {
    fn open(&self, served: ServedFile) -> BoxFuture<'static, Result<Arc<dyn ServedBytes>, ServeError>> {
        let (beneath, recheck) = (Arc::clone(&self.beneath), self.recheck.clone());
        Box::pin(blocking(move || Ok(Arc::new(DiskFile::open(&beneath, served, recheck)?) as Arc<dyn ServedBytes>)))
    }

    fn read_whole(&self, files: Vec<ServedFile>) -> BoxFuture<'static, Vec<Result<Bytes, ServeError>>> {
        let (beneath, recheck) = (Arc::clone(&self.beneath), self.recheck.clone());
        let count = files.len();
        let read = move |served: ServedFile| {
            let size_bytes = served.size_bytes;
            DiskFile::open(&beneath, served, recheck.clone())?.read(&(0..size_bytes))
        };
        Box::pin(async move {
            let all = blocking(move || Ok(files.into_iter().map(read).collect())).await;
            all.unwrap_or_else(|error| vec![Err(error); count])
        })
    }

    fn open_local(&self, path: &RelPath) -> Result<File, farshore_engine::Errno> {
        let opened = self.beneath.file(path).and_then(|file| Ok((rustix::fs::fstat(&file)?, file)));
        match opened {
            Ok((stat, file)) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(file.into()),
            Ok(_) => Err(farshore_engine::Errno::Stale),
            Err(error) if is_gone(error) => Err(farshore_engine::Errno::Stale),
            Err(_) => Err(farshore_engine::Errno::Io),
        }
    }

    fn apply(&self, ops: Vec<Apply>, contents: Contents) -> BoxFuture<'static, Vec<Result<Facts, ApplyError>>> {
        let (changing, count) = (self.changing.clone(), ops.len());
        Box::pin(async move {
            let refused = vec![Err(ApplyError::Io); count];
            let Some(changing) = changing else { return refused };
            // It fails only if the runtime is being shut down.
            tokio::task::spawn_blocking(move || changing.apply(ops, &contents)).await.unwrap_or(refused)
        })
    }

    fn look_at(&self, path: &RelPath, known: Option<u64>) {
        if let Some(recheck) = &self.recheck {
            recheck.look_and_tell(path, known);
        }
    }
}

fn open(beneath: &Beneath, served: &ServedFile) -> Result<OwnedFd, ServeError> {
    let file = beneath.file(&served.path).map_err(|error| refused(&served.path, error))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| refused(&served.path, error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ServeError::Gone);
    }
    let version = Version { size_bytes: served.size_bytes, modified: served.modified };
    if Version::of(&stat) != version || facts(&stat) != served.facts {
        return Err(ServeError::Stale);
    }
    Ok(file)
}

/// What must stay as it is while a file is read. Not the time of the inode's last change: renaming or removing a file,
/// or changing its permissions, leaves its bytes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    size_bytes: u64,
    modified: FileTime,
}

impl Version {
    fn of(stat: &Stat) -> Version {
        Version { size_bytes: u64::try_from(stat.st_size).unwrap_or(0), modified: modified(stat) }
    }
}

/// An open file in the version that was asked for.
#[derive(Debug)]
struct DiskFile {
    file: OwnedFd,
    version: Version,
    path: RelPath,
    recheck: Option<Recheck>,
}

impl ServedBytes for DiskFile {
    fn read(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Bytes, ServeError>> {
        Box::pin(blocking(move || DiskFile::read(&self, &range)))
    }
}

impl DiskFile {
    /// Opens a file, and has it looked at again if it is other than it should be.
    fn open(beneath: &Beneath, served: ServedFile, recheck: Option<Recheck>) -> Result<DiskFile, ServeError> {
        let file = open(beneath, &served).inspect_err(|_| {
            if let Some(recheck) = &recheck {
                recheck.look_at(&served.path);
            }
        })?;
        let version = Version { size_bytes: served.size_bytes, modified: served.modified };
        Ok(DiskFile { file, version, path: served.path, recheck })
    }

    fn read(&self, range: &Range<u64>) -> Result<Bytes, ServeError> {
        let read = self.read_now(range);
        if let (Err(ServeError::Stale), Some(recheck)) = (&read, &self.recheck) {
            recheck.look_at(&self.path);
        }
        read
    }

    fn read_now(&self, range: &Range<u64>) -> Result<Bytes, ServeError> {
        let len = range.end.saturating_sub(range.start);
        // The size of the file, and so the range, is a peer's word.
        if range.end > self.version.size_bytes {
            return Err(ServeError::Stale);
        }
        let len = usize::try_from(len.min(CHUNK_SIZE)).map_err(|_| ServeError::Io)?;
        let mut bytes = Vec::with_capacity(len);
        let mut offset = range.start;
        while bytes.len() < len {
            match rustix::io::pread(&self.file, spare_capacity(&mut bytes), offset) {
                Ok(0) => return Err(ServeError::Stale),
                Ok(count) => offset += count as u64,
                Err(Errno::INTR) => {}
                Err(error) => return Err(refused(&self.path, error)),
            }
        }
        bytes.truncate(len);
        let stat = rustix::fs::fstat(&self.file).map_err(|error| refused(&self.path, error))?;
        if Version::of(&stat) == self.version { Ok(bytes.into()) } else { Err(ServeError::Stale) }
    }
}

fn refused(path: &RelPath, error: Errno) -> ServeError {
    if is_gone(error) {
        return ServeError::Gone;
    }
    tracing::warn!(%path, %error, "a shared file cannot be read");
    ServeError::Io
}

/// Runs disk work where it may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    // It fails only if the runtime is being shut down.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ServeError::Io))
}

#[cfg(test)]
mod tests;
