//! One content on disk.

use super::dir::full;
use super::home::{Home, LoadError, Loaded, Reserved};
use super::{KEPT_MODE_BITS, Stored, blocking, names};
use crate::ranked::{Rank, Ranked, RankedGuard};
use crate::store::ledger::Ledger;
use crate::store::publish::{copy_to, publish};
use crate::store::{check_read, closed, hash_chunk};
use bytes::{Buf, Bytes};
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range};
use farshore_engine::path::RelPath;
use farshore_engine::record::FileTime;
use farshore_engine::{ContentIdentity, ContentKey, Resumed, Xattrs};
use futures_util::future::BoxFuture;
use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

/// The most slices that the kernel takes at once.
const SLICES: usize = 1_024;

/// One content on disk.
#[derive(Debug)]
pub(super) struct DiskStored {
    number: u64,
    /// Its name in the private place.
    name: String,
    size_bytes: u64,
    home: Arc<Home>,
    ledger: Ranked<Ledger>,
    /// When it was used last, if nobody uses it now: it is only looked after.
    used_at: Option<Timespec>,
    is_discarded: AtomicBool,
    /// Held while its sidecar gets its name, or it gets one of its own.
    naming: Ranked<()>,
    /// Its file, to be read, once it has a name of its own; then it is not the store's any more.
    kept: OnceLock<Arc<File>>,
    /// Whether its file is there.
    is_made: Ranked<bool>,
    /// Its key, unless somebody had that when this one was made. Given back after everything else is done.
    reserved: Option<Reserved>,
}

/// What a content is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be read: it is in use now.
    Use,
    /// To find out what is stored, or to save that: whether anybody uses it does not change.
    LookAfter,
}

impl DiskStored {
    /// A content of which nothing is here. Its file is made when something is written: making it waits for the disk, and
    /// this is called where nobody may.
    pub(super) fn create(home: &Arc<Home>, identity: &ContentIdentity, path: &RelPath) -> Arc<DiskStored> {
        let (key, number) = (identity.key(), home.next_number());
        let reserved = home.reserve(key);
        let name = match &reserved {
            Some(_) => names::partial(key),
            None => names::second(key, number),
        };
        DiskStored::new(home, number, name, Ledger::new(identity, path), reserved, false).announced()
    }

    /// Opens what lies under a key; `None` if somebody else has it open, or it cannot be used.
    pub(super) fn resume(
        home: &Arc<Home>,
        key: ContentKey,
        expected: Option<&ContentIdentity>,
        purpose: Purpose,
    ) -> io::Result<Option<Arc<DiskStored>>> {
        let Some(reserved) = home.reserve(key) else { return Ok(None) };
        let opened = home.load(key, expected).and_then(|loaded| DiskStored::open(home, reserved, loaded, purpose));
        match opened {
            Ok(stored) => Ok(Some(stored)),
            Err(LoadError::Io(error)) => Err(error),
            Err(error) => {
                home.give_up(key, &error);
                Ok(None)
            }
        }
    }

    /// Opens what was loaded. Believes nothing that lies beyond the end of the file, and makes the file as long as the
    /// content.
    pub(super) fn open(
        home: &Arc<Home>,
        reserved: Reserved,
        loaded: Loaded,
        purpose: Purpose,
    ) -> Result<Arc<DiskStored>, LoadError> {
        let key = reserved.key();
        let mut stored =
            DiskStored::new(home, home.next_number(), names::partial(key), loaded.ledger, Some(reserved), true);
        match purpose {
            Purpose::Use => home.touch(key),
            Purpose::LookAfter => stored.used_at = Some(loaded.used_at),
        }
        let file = match stored.opened() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LoadError::NoBytes),
            file => file?,
        };
        let len_bytes = file.metadata()?.len();
        if len_bytes != stored.size_bytes {
            stored.ledger().forget_beyond(len_bytes);
            home.partial.set_len(&stored.name, &file, stored.size_bytes)?;
        }
        Ok(stored.announced())
    }

    fn new(
        home: &Arc<Home>,
        number: u64,
        name: String,
        ledger: Ledger,
        reserved: Option<Reserved>,
        is_made: bool,
    ) -> DiskStored {
        DiskStored {
            number,
            name,
            size_bytes: ledger.size_bytes(),
            home: Arc::clone(home),
            ledger: Ranked::new(Rank::Ledger, ledger),
            used_at: None,
            is_discarded: AtomicBool::new(false),
            naming: Ranked::new(Rank::Naming, ()),
            kept: OnceLock::new(),
            is_made: Ranked::new(Rank::Making, is_made),
            reserved,
        }
    }

    fn announced(self) -> Arc<DiskStored> {
        let stored = Arc::new(self);
        if let Some(reserved) = &stored.reserved {
            reserved.announce(&stored);
        }
        stored
    }

    pub(super) fn is_in(&self, home: &Home) -> bool {
        std::ptr::eq(&*self.home, home)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The name of its bytes in the private place.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Under which key it is saved, if it is.
    pub(super) fn key(&self) -> Option<ContentKey> {
        let is_gone = self.is_discarded.load(Ordering::Acquire) || self.kept.get().is_some();
        self.reserved.as_ref().filter(|_| !is_gone).map(Reserved::key)
    }

    /// When it was used last, if nobody uses it now.
    pub(super) fn used_at(&self) -> Option<Timespec> {
        self.used_at
    }

    pub(super) fn resumed(&self) -> Option<Resumed> {
        self.ledger().resumed()
    }

    pub(super) fn ledger(&self) -> RankedGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Nobody gives the content or its sidecar another name while this is held.
    pub(super) fn naming(&self) -> RankedGuard<'_, ()> {
        self.naming.lock()
    }

    /// Its file, opened anew if it was closed to make room for others.
    pub(super) fn opened(&self) -> io::Result<Arc<File>> {
        match self.kept.get() {
            Some(kept) => Ok(Arc::clone(kept)),
            None => self.home.descriptors.get(self.number, || self.home.partial.open(&self.name)),
        }
    }

    /// Makes its file, if it is not there, and removes what was held of the content.
    fn make(&self) -> io::Result<()> {
        let mut is_made = self.is_made.lock();
        if *is_made {
            return Ok(());
        }
        let file = match &self.reserved {
            Some(reserved) => self.home.create_anew(reserved.key())?,
            None => self.home.partial.create(&self.name)?,
        };
        // From here on dropping the content removes it.
        *is_made = true;
        let made = self.home.partial.set_len(&self.name, &file, self.size_bytes);
        if let Err(error) = made {
            *is_made = false;
            self.home.partial.remove(&self.name)?;
            return Err(error);
        }
        self.home.descriptors.get(self.number, || Ok(file))?;
        Ok(())
    }

    fn write_now(&self, chunk: u64, frames: Vec<Bytes>) -> io::Result<()> {
        let _open = self.home.enter()?;
        let hash = hash_chunk(chunk, &frames, self.size_bytes)?;
        if self.kept.get().is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the content was kept and belongs to others now"));
        }
        self.make()?;
        let range = chunk_range(chunk, self.size_bytes);
        self.home.room.take(range.end - range.start, &self.home.partial)?;
        self.ledger().forget(chunk);
        self.write_all(range.start, frames)?;
        self.ledger().record(chunk, hash);
        self.write_soon(&self.home);
        Ok(())
    }

    fn write_all(&self, mut offset: u64, frames: Vec<Bytes>) -> io::Result<()> {
        let file = self.opened()?;
        let mut frames = VecDeque::from(frames);
        loop {
            while frames.front().is_some_and(Bytes::is_empty) {
                frames.pop_front();
            }
            if frames.is_empty() {
                return Ok(());
            }
            let slices: Vec<IoSlice<'_>> = frames.iter().take(SLICES).map(|frame| IoSlice::new(frame)).collect();
            let written = self.home.partial.write(&self.name, &file, &slices, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
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

    /// The bytes of a chunk as they lie there; `None` if the file ends before.
    fn bytes_of(&self, chunk: u64) -> io::Result<Option<Vec<u8>>> {
        let range = chunk_range(chunk, self.size_bytes);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
        match self.home.partial.read_exact(&*self.opened()?, &mut bytes, range.start) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a chunk has this hash, or the one that is remembered. If not, it is forgotten.
    pub(super) fn verify_now(&self, chunk: u64, hash: Option<u64>) -> io::Result<bool> {
        let _open = self.home.enter()?;
        let Some(hash) = hash.or_else(|| self.hash_of(chunk)) else { return Ok(false) };
        let bytes = self.bytes_of(chunk)?;
        let is_right = bytes.is_some_and(|bytes| !bytes.is_empty() && xxh3_64(&bytes) == hash);
        let mut ledger = self.ledger();
        if is_right {
            ledger.confirm(chunk, hash);
        } else {
            ledger.forget(chunk);
        }
        Ok(is_right)
    }

    /// Writes those chunks again that the system may have let go of when it could not make them durable. What it has let
    /// go of is forgotten.
    pub(super) fn rewrite(&self) -> io::Result<()> {
        let chunks = self.ledger().to_rewrite();
        for chunk in chunks {
            let hash = self.hash_of(chunk);
            let bytes = self.bytes_of(chunk)?.filter(|bytes| Some(xxh3_64(bytes)) == hash);
            let (Some(bytes), Some(hash)) = (bytes, hash) else {
                self.ledger().forget(chunk);
                continue;
            };
            // It stays known meanwhile: these are the bytes that it has.
            self.write_all(chunk_range(chunk, self.size_bytes).start, vec![bytes.into()])?;
            self.ledger().record(chunk, hash);
        }
        Ok(())
    }

    fn keep_now(&self, target: &Path, mode: u16, modified: FileTime, xattrs: &Xattrs) -> io::Result<()> {
        let _open = self.home.enter()?;
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
        // An empty file has no chunks that were written.
        self.make()?;
        let file = self.opened()?;
        finish(&file, mode, modified, xattrs)?;
        match publish(self.home.partial.as_fd(), self.name.as_ref(), directory.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_to(&file, directory.as_fd(), name, |copy| finish(copy, mode, modified, xattrs))?;
                self.home.partial.remove(&self.name)?;
            }
            published => published?,
        }
        self.be_kept(file);
        self.remove_sidecars();
        rustix::fs::fsync(&directory).map_err(full)
    }

    /// It has a name of its own, which is anybody's to take; whoever reads it goes on with its file.
    fn be_kept(&self, file: Arc<File>) {
        // Rather not one that can be written: as long as that is open, the file cannot be executed.
        let flags = OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = rustix::fs::open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, Mode::empty());
        let kept = opened.map_or(file, |opened| Arc::new(opened.into()));
        // Whoever saves it at this moment either sees that it is kept, or is done before its sidecar is removed.
        let naming = self.naming();
        // Whoever keeps it at the same time has lost the race for the name already.
        let _ = self.kept.set(kept);
        drop(naming);
        self.home.descriptors.close(self.number);
    }

    fn lend_now(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let _open = self.home.enter()?;
        if let Some(kept) = self.kept.get() {
            // Its file belongs to others, who may have written to it.
            return copy_to(kept, to, name, |copy| self.check_copy(copy));
        }
        // An empty file has no chunks that were written.
        self.make()?;
        match rustix::fs::linkat(&self.home.partial, self.name.as_str(), to, name, AtFlags::empty()) {
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                let file = self.opened()?;
                copy_to(&file, to, name, |_| Ok(()))
            }
            linked => linked.map_err(full),
        }
    }

    /// Whether a copy has the bytes that the content had when it was verified.
    fn check_copy(&self, copy: &File) -> io::Result<()> {
        let changed = || io::Error::new(io::ErrorKind::InvalidData, "the file was changed since it was given away");
        if copy.metadata()?.len() != self.size_bytes {
            return Err(changed());
        }
        for chunk in 0..self.size_bytes.div_ceil(CHUNK_SIZE) {
            let range = chunk_range(chunk, self.size_bytes);
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
            self.home.partial.read_exact(copy, &mut bytes, range.start)?;
            if self.hash_of(chunk) != Some(xxh3_64(&bytes)) {
                return Err(changed());
            }
        }
        Ok(())
    }

    fn give_away_now(&self) -> io::Result<()> {
        let _open = self.home.enter()?;
        if self.kept.get().is_some() {
            return Ok(());
        }
        self.be_kept(self.opened()?);
        self.remove_sidecars();
        self.home.partial.remove(&self.name)
    }

    /// Of a content that the store holds no more. If that fails, the next start removes it.
    fn remove_sidecars(&self) {
        let Some(reserved) = &self.reserved else { return };
        if let Err(error) = self.home.remove_sidecars(reserved.key()) {
            self.home.note_sidecars_left();
            tracing::warn!(%error, content = self.name, "a sidecar cannot be removed from the store");
        }
    }
}

impl Stored for DiskStored {
    fn write(self: Arc<Self>, chunk: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        if self.size_bytes > CHUNK_SIZE {
            return Box::pin(blocking(move || self.write_now(chunk, frames)));
        }
        let (sender, written) = oneshot::channel();
        self.home.clone().small_writes.add(Box::new(move || {
            let result = self.write_now(chunk, frames);
            // Whoever hears of it may close the store next, which must not be kept open from here.
            drop(self);
            // Nobody may be left to hear of it.
            let _ = sender.send(result);
        }));
        Box::pin(async move { written.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_read(offset, into.len(), self.size_bytes)?;
        self.home.partial.read_exact(&*self.opened()?, into, offset)
    }

    fn file(&self) -> Option<Arc<File>> {
        let opened = self.opened();
        opened.inspect_err(|error| tracing::warn!(%error, content = self.name, "a content cannot be opened")).ok()
    }

    fn read_chunk(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        Box::pin(blocking(move || Ok(self.bytes_of(chunk)?.ok_or(io::ErrorKind::UnexpectedEof)?.into())))
    }

    fn verify(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<bool>> {
        Box::pin(blocking(move || self.verify_now(chunk, None)))
    }

    fn verify_against(self: Arc<Self>, chunk: u64, hash: u64) -> BoxFuture<'static, io::Result<bool>> {
        Box::pin(blocking(move || self.verify_now(chunk, Some(hash))))
    }

    fn hash_of(&self, chunk: u64) -> Option<u64> {
        self.ledger().hash_of(chunk)
    }

    fn note_path(&self, path: &RelPath) {
        self.ledger().set_path(path);
    }

    fn discard(&self) {
        self.is_discarded.store(true, Ordering::Release);
    }

    fn keep(
        self: Arc<Self>,
        target: PathBuf,
        mode: u16,
        modified: FileTime,
        xattrs: Xattrs,
    ) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(blocking(move || self.keep_now(&target, mode, modified, &xattrs)))
    }

    fn lend(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.lend_now(to, name)
    }

    fn give_away(&self) -> io::Result<()> {
        self.give_away_now()
    }
}

impl Drop for DiskStored {
    fn drop(&mut self) {
        self.home.descriptors.close(self.number);
        if self.kept.get().is_some() {
            return;
        }
        let ledger = self.ledger.get_mut();
        let is_nothing = ledger.is_empty() && !ledger.was_saved();
        let is_made = *self.is_made.get_mut();
        let removed = match &self.reserved {
            Some(reserved) if *self.is_discarded.get_mut() || is_nothing && is_made => self.home.remove(reserved.key()),
            Some(reserved) => {
                if ledger.is_changed() {
                    let nothing = Ledger::new(ledger.identity(), &RelPath::ROOT);
                    self.home.put_unsaved(reserved.key(), std::mem::replace(ledger, nothing));
                }
                Ok(())
            }
            None if is_made => self.home.partial.remove(&self.name),
            None => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, content = self.name, "a content cannot be removed from the store");
        }
    }
}

/// Gives a file its attributes, and makes all of it durable.
fn finish(file: &File, mode: u16, modified: FileTime, xattrs: &Xattrs) -> io::Result<()> {
    crate::xattrs::set(file, xattrs);
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(mode & KEPT_MODE_BITS)))?;
    let modified = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanos.into() };
    let accessed = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    rustix::fs::futimens(file, &Timestamps { last_access: accessed, last_modification: modified })?;
    rustix::fs::fsync(file).map_err(full)
}
