//! The disk of a simulated machine: a store in memory that can be slow, full or broken, and that outlives the processes
//! which use it.
//!
//! What is written is lost at a crash unless it was saved. A save takes time. For each content it counts at one moment,
//! before or after the time that it takes: so a crash in the middle finds what was saved before or what was to be saved,
//! of some contents the one and of others the other, and never a mix.

use crate::lots::Lots;
use bytes::Bytes;
use farshore::store::{Found, KnownTree, MemoryStore, Space, Store, Stored};
use farshore_engine::chunk::{chunk_range, chunks_touched};
use farshore_engine::path::RelPath;
use farshore_engine::record::FileTime;
use farshore_engine::{Changes, ChunkBitmap, ContentIdentity, ContentKey, Held, Memory, Resumed, Trust, Xattrs};
use farshore_proto::{ShareId, TreeFile, TreeId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::any::Any;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that a save takes for each content, on a disk that is well.
const MAX_SAVE_MILLIS: u64 = 30;

/// How the disk fares. Shared by all of its contents, and by all lives of the store.
#[derive(Debug, Default, Clone, Copy)]
struct Health {
    delay: Duration,
    full: bool,
    failing: bool,
    bug: Option<Bug>,
    /// Contents that are open.
    open: usize,
    writes: u64,
}

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What is written is not what was given.
    Corrupts,
    /// A write never ends.
    Hangs,
    /// After a crash it says that the last stop was clean, and has lost a chunk of each content.
    ForgetsCrashes,
    /// What it saves claims a chunk that was never written.
    ClaimsTooMuch,
    /// Whoever asks whether a chunk is right is told so.
    NeverLooks,
    /// What is to go stays.
    KeepsAll,
    /// What is remembered of a folder is durable before that itself is.
    RemembersTooSoon,
}

/// The disk of one machine. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimStore(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    /// This life of the store.
    memory: MemoryStore,
    /// This life has ended well.
    is_closed: bool,
    health: Health,
    /// How long saves take and when they count; `None` for a disk that takes no time.
    lots: Option<Lots>,
    /// Makes durable what lies beside the store, on the same disk.
    beside: Beside,
    /// All that was to be remembered of a folder could be.
    knows_all: bool,
}

/// Makes something durable.
#[derive(Clone)]
struct Beside(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

impl Default for SimStore {
    /// A disk that takes no time.
    fn default() -> SimStore {
        SimStore::with(None)
    }
}

impl SimStore {
    /// A disk whose saves take time, as drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SimStore {
        SimStore::with(Some(Lots::new(seed)))
    }

    fn with(lots: Option<Lots>) -> SimStore {
        let (memory, health) = (MemoryStore::default(), Health::default());
        let beside = Beside(Arc::new(|| {}));
        let disk = Disk { memory, is_closed: false, health, lots, beside, knows_all: true };
        SimStore(Arc::new(Mutex::new(disk)))
    }

    /// The store lies on a disk with something else, which `sync` makes durable. That has happened before it is durable what is
    /// remembered of that.
    pub fn lie_beside(&self, sync: impl Fn() + Send + Sync + 'static) {
        self.disk().beside = Beside(Arc::new(sync));
    }

    /// Makes durable what lies beside it, before what is remembered of that.
    fn sync_beside(&self) {
        let (beside, bug) = {
            let disk = self.disk();
            (disk.beside.clone(), disk.health.bug)
        };
        if bug != Some(Bug::RemembersTooSoon) {
            (beside.0)();
        }
    }

    /// Whether all that was to be remembered of a folder could be, so far.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.disk().knows_all
    }

    /// What is remembered of a folder is lost, for the next life.
    pub fn lose_memory(&self) {
        self.memory().lose_memory();
    }

    /// All that it holds is lost, for the next life.
    pub fn lose_all(&self) {
        self.disk().memory = MemoryStore::default();
    }

    /// The process that used it is gone, and the next one opens the store: it finds what was saved.
    pub fn next_life(&self) {
        let mut disk = self.disk();
        disk.memory = disk.memory.next_life();
        disk.is_closed = false;
    }

    /// Changes a byte of what is saved under `key`. Says whether there was one.
    pub fn damage(&self, key: ContentKey, offset: u64) -> bool {
        self.disk().memory.damage(key, offset)
    }

    /// The machine loses its power: the first byte of every content that is saved is another one, unless the store was
    /// closed. What was written down at a clean stop stays as it is.
    pub fn lose_power(&self) {
        let disk = self.disk();
        let saved = if disk.is_closed { Vec::new() } else { disk.memory.held() };
        for held in saved {
            // Only one that has lost its first chunk has no such byte.
            disk.memory.damage(held.key, 0);
        }
        if !disk.is_closed {
            disk.memory.lose_power();
        }
    }

    /// How long each write, and each step of a save, takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.disk().health.delay = delay;
    }

    /// Whether there is no room from now on.
    pub fn set_full(&self, full: bool) {
        self.disk().health.full = full;
    }

    /// Whether writing fails from now on.
    pub fn set_failing(&self, failing: bool) {
        self.disk().health.failing = failing;
    }

    /// Plants a bug.
    pub fn plant(&self, bug: Bug) {
        self.disk().health.bug = Some(bug);
    }

    /// Contents that are open now.
    #[must_use]
    pub fn open_contents(&self) -> usize {
        self.disk().health.open
    }

    /// Contents that there are, open or not.
    #[must_use]
    pub fn contents(&self) -> usize {
        self.memory().contents().len()
    }

    /// What they take, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.memory().used_bytes()
    }

    /// Writes that have ended well.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk().health.writes
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MemoryStore {
        self.disk().memory.clone()
    }

    fn wrap(&self, inner: Arc<dyn Stored>, size_bytes: u64, lost: Option<u64>) -> Arc<dyn Stored> {
        self.disk().health.open += 1;
        Arc::new(SimStored { disk: self.clone(), inner, size_bytes, lost: Mutex::new(lost) })
    }

    /// Carries out `step`, which takes time and counts before or after that.
    async fn step_of_save<T>(&self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let (takes, counts_first) = self.disk().draw_step();
        if counts_first {
            self.disk().check()?;
            let ended = step.await?;
            pause(takes).await;
            Ok(ended)
        } else {
            pause(takes).await;
            self.disk().check()?;
            step.await
        }
    }
}

impl Disk {
    /// What a disk that is full or broken says to whoever writes.
    fn check(&self) -> io::Result<()> {
        match self.health {
            Health { failing: true, .. } => Err(io::Error::other("the simulated disk fails")),
            Health { full: true, .. } => Err(io::ErrorKind::StorageFull.into()),
            Health { .. } => Ok(()),
        }
    }

    fn draw_step(&mut self) -> (Duration, bool) {
        let delay = self.health.delay;
        match &mut self.lots {
            Some(lots) => (delay + lots.millis(0..=MAX_SAVE_MILLIS), lots.chance(50)),
            None => (delay, true),
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl Store for SimStore {
    fn held(&self) -> Vec<Held> {
        self.memory().held()
    }

    fn create(&self, identity: &ContentIdentity, path: &RelPath) -> io::Result<Arc<dyn Stored>> {
        self.disk().check()?;
        let inner = self.memory().create(identity, path)?;
        Ok(self.wrap(inner, identity.size_bytes, None))
    }

    fn resume(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> BoxFuture<'static, io::Result<Found>> {
        let (store, expected) = (self.clone(), expected.copied());
        async move {
            let (takes, _) = store.disk().draw_step();
            pause(takes).await;
            let memory = store.memory();
            let Some((inner, resumed)) = memory.resume(key, expected.as_ref()).await? else { return Ok(None) };
            let bug = store.disk().health.bug;
            let (resumed, lost) = sabotaged(resumed, bug);
            Ok(Some((store.wrap(inner, resumed.chunks.file_size(), lost), resumed)))
        }
        .boxed()
    }

    fn save(&self, contents: Vec<Arc<dyn Stored>>) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            for stored in contents {
                let ours = (&*stored as &dyn Any).downcast_ref::<SimStored>();
                let inner = ours.map_or_else(|| stored.clone(), |ours| ours.inner.clone());
                store.step_of_save(memory.save(vec![inner])).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn touch(&self, key: ContentKey) {
        self.memory().touch(key);
    }

    fn evict(&self, key: ContentKey) {
        if self.disk().health.bug != Some(Bug::KeepsAll) {
            self.memory().evict(key);
        }
    }

    fn close(&self) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            let close = async {
                memory.close().await?;
                store.disk().is_closed = true;
                Ok(())
            };
            store.step_of_save(close).await
        }
        .boxed()
    }

    fn pins(&self) -> Vec<RelPath> {
        self.memory().pins()
    }

    fn save_pins(&self, pins: &[RelPath]) -> io::Result<()> {
        self.disk().check()?;
        self.memory().save_pins(pins)
    }

    fn tree(&self, id: TreeId) -> Option<TreeFile> {
        self.memory().tree(id)
    }

    fn save_tree(&self, tree: KnownTree) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            store.step_of_save(memory.save_tree(tree)).await
        }
        .boxed()
    }

    fn memory(&self, share: ShareId) -> Option<Memory> {
        let known = self.memory().memory(share);
        self.disk().knows_all = true;
        known
    }

    fn is_copied(&self, share: ShareId) -> bool {
        self.memory().is_copied(share)
    }

    fn note(&self, share: ShareId, changes: Changes) -> BoxFuture<'static, io::Result<bool>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            let noted = store.step_of_save(memory.note(share, changes)).await;
            store.disk().knows_all &= noted.is_ok();
            if noted.is_err() {
                memory.refuse_note(share);
            }
            noted
        }
        .boxed()
    }

    fn sync_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<bool>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            let sync = async {
                store.sync_beside();
                memory.sync_journal(share).await
            };
            store.step_of_save(sync).await
        }
        .boxed()
    }

    fn begin_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<u64>> {
        self.memory().begin_journal(share)
    }

    fn save_memory(&self, share: ShareId, journal: u64, known: Memory) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        async move {
            let memory = store.memory();
            let save = async {
                store.sync_beside();
                memory.save_memory(share, journal, known).await
            };
            let saved = store.step_of_save(save).await;
            store.disk().knows_all |= saved.is_ok();
            saved
        }
        .boxed()
    }

    fn space(&self) -> io::Result<Space> {
        let space = self.memory().space()?;
        let free_bytes = if self.disk().health.full { 0 } else { space.free_bytes };
        Ok(Space { free_bytes, ..space })
    }
}

/// What a store with a planted bug says of what it holds, and the chunk that it has not in truth.
fn sabotaged(resumed: Resumed, bug: Option<Bug>) -> (Resumed, Option<u64>) {
    match bug {
        Some(Bug::ForgetsCrashes) if resumed.trust == Trust::Hashed => {
            let lost = resumed.chunks.present().next();
            (Resumed { trust: Trust::Verified, ..resumed }, lost)
        }
        Some(Bug::ClaimsTooMuch) => {
            let lost = resumed.chunks.next_missing(0);
            let mut chunks: ChunkBitmap = resumed.chunks;
            if let Some(lost) = lost {
                chunks.set(lost);
            }
            (Resumed { chunks, ..resumed }, lost)
        }
        Some(
            Bug::ForgetsCrashes | Bug::Corrupts | Bug::Hangs | Bug::NeverLooks | Bug::KeepsAll | Bug::RemembersTooSoon,
        )
        | None => (resumed, None),
    }
}

/// One content that is open.
struct SimStored {
    disk: SimStore,
    inner: Arc<dyn Stored>,
    size_bytes: u64,
    /// A planted bug: a chunk of zeros, which it says it has.
    lost: Mutex<Option<u64>>,
}

impl Drop for SimStored {
    fn drop(&mut self) {
        self.disk.disk().health.open -= 1;
    }
}

impl SimStored {
    /// All of its bytes, if every chunk is there.
    fn all(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.size_bytes).map_err(io::Error::other)?];
        self.read(0, &mut bytes)?;
        Ok(bytes.into())
    }

    fn lost(&self) -> MutexGuard<'_, Option<u64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a disk has where nothing was written.
    fn read_around(&self, lost: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset + into.len() as u64;
        for chunk in chunks_touched(&(offset..end)) {
            let range = chunk_range(chunk, self.size_bytes);
            let (from, until) = (range.start.max(offset), range.end.min(end));
            let part = &mut into[(from - offset) as usize..(until - offset) as usize];
            if chunk == lost {
                part.fill(0);
            } else {
                self.inner.read(from, part)?;
            }
        }
        Ok(())
    }
}

impl Stored for SimStored {
    fn write(self: Arc<Self>, chunk: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            let Health { delay, bug, .. } = self.disk.disk().health;
            if bug == Some(Bug::Hangs) {
                std::future::pending::<()>().await;
            }
            pause(delay).await;
            self.disk.disk().check()?;
            let frames = if bug == Some(Bug::Corrupts) { frames.iter().map(corrupted).collect() } else { frames };
            self.inner.clone().write(chunk, frames).await?;
            self.disk.disk().health.writes += 1;
            let mut lost = self.lost();
            *lost = lost.filter(|lost| *lost != chunk);
            Ok(())
        }
        .boxed()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let lost = *self.lost();
        match lost {
            Some(lost) => self.read_around(lost, offset, into),
            None => self.inner.read(offset, into),
        }
    }

    fn read_chunk(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        self.inner.clone().read_chunk(chunk)
    }

    fn verify(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<bool>> {
        async move {
            let Health { delay, bug, .. } = self.disk.disk().health;
            pause(delay).await;
            if bug == Some(Bug::NeverLooks) {
                return Ok(true);
            }
            self.inner.clone().verify(chunk).await
        }
        .boxed()
    }

    fn verify_against(self: Arc<Self>, chunk: u64, hash: u64) -> BoxFuture<'static, io::Result<bool>> {
        self.inner.clone().verify_against(chunk, hash)
    }

    fn hash_of(&self, chunk: u64) -> Option<u64> {
        self.inner.hash_of(chunk)
    }

    fn note_path(&self, path: &RelPath) {
        self.inner.note_path(path);
    }

    fn discard(&self) {
        if self.disk.disk().health.bug != Some(Bug::KeepsAll) {
            self.inner.discard();
        }
    }

    fn keep(
        self: Arc<Self>,
        target: PathBuf,
        mode: u16,
        modified: FileTime,
        xattrs: Xattrs,
    ) -> BoxFuture<'static, io::Result<()>> {
        self.inner.clone().keep(target, mode, modified, xattrs)
    }

    fn lend(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.inner.lend(to, name)
    }

    fn give_away(&self) -> io::Result<()> {
        self.inner.give_away()
    }
}

/// All bytes of a content that some [`SimStore`] has whole.
///
/// # Errors
/// Not all of it is there.
pub(crate) fn all_of(stored: &Arc<dyn Stored>) -> io::Result<Bytes> {
    match (&**stored as &dyn Any).downcast_ref::<SimStored>() {
        Some(stored) => stored.all(),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn corrupted(frame: &Bytes) -> Bytes {
    let mut bytes = frame.to_vec();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    bytes.into()
}

#[cfg(test)]
mod tests;
