//! A store in memory, for tests and for simulated machines: no thread, no disk, and nothing that takes time.
//!
//! Stricter than a disk: bytes that were never written cannot be read. What was not saved is lost when another life of the
//! store begins ([`MemoryStore::next_life`]), as it may be on a disk.

use super::journal::{Journals, Recalled};
use super::ledger::Ledger;
use super::{Found, KnownTree, Space, Store, Stored, check_read, closed, foreign, hash_chunk};
use bytes::Bytes;
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range, chunks_touched};
use farshore_engine::path::RelPath;
use farshore_engine::record::FileTime;
use farshore_engine::sidecar::Sidecar;
use farshore_engine::{Changes, ContentIdentity, ContentKey, Held, Memory, Xattrs};
use farshore_proto::{Boot, JournalFile, ShareId, TreeFile, TreeId, encode_memory};
use futures_util::future::BoxFuture;
use rustix::fs::{Mode, OFlags};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// A store in memory. Cloning gives the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shelf: Arc<Mutex<Shelf>>,
}

/// A file that [`Stored::keep`] has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// All of its bytes.
    pub bytes: Bytes,
    /// Its permission bits.
    pub mode: u16,
    /// When it was last modified.
    pub modified: FileTime,
    /// Its extended attributes.
    pub xattrs: Xattrs,
}

/// The chunks that were written, each as the frames that it came in.
type Chunks = BTreeMap<u64, Vec<Bytes>>;

/// What survives of a content.
#[derive(Debug, Clone)]
struct Saved {
    sidecar: Sidecar,
    chunks: Chunks,
    last_used: u64,
    /// It was there after a stop that was not clean, and nobody has opened it since.
    is_doubtful: bool,
}

#[derive(Debug)]
struct Shelf {
    room_bytes: u64,
    used_bytes: u64,
    /// Contents that are open, of which each key has one.
    in_use: BTreeMap<ContentKey, std::sync::Weak<MemoryStored>>,
    /// What is known of contents that were let go of before it was saved.
    unsaved: BTreeMap<ContentKey, (Ledger, Chunks)>,
    saved: BTreeMap<ContentKey, Saved>,
    kept: BTreeMap<PathBuf, KeptFile>,
    pins: Vec<RelPath>,
    tree: Option<TreeFile>,
    /// What is remembered of a share: a copy, journals, and what is known of them.
    copy: Option<Vec<u8>>,
    noted: BTreeMap<u64, Vec<u8>>,
    journals: Option<Journals>,
    /// Counts how often the machine began to run.
    boot: u64,
    was_closed: bool,
    /// Counts uses, so that they have an order.
    uses: u64,
    is_closed: bool,
}

impl Default for MemoryStore {
    /// With room for everything.
    fn default() -> MemoryStore {
        MemoryStore::with_room(u64::MAX)
    }
}

impl MemoryStore {
    /// A store that is full when it holds `room_bytes`.
    #[must_use]
    pub fn with_room(room_bytes: u64) -> MemoryStore {
        MemoryStore::with(room_bytes, BTreeMap::new(), BTreeMap::new())
    }

    fn with(room_bytes: u64, saved: BTreeMap<ContentKey, Saved>, kept: BTreeMap<PathBuf, KeptFile>) -> MemoryStore {
        let used_bytes = saved.values().map(|saved| bytes_of(&saved.chunks)).sum();
        let uses = saved.values().map(|saved| saved.last_used).max().unwrap_or(0);
        let shelf = Shelf {
            room_bytes,
            used_bytes,
            in_use: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            saved,
            kept,
            pins: Vec::new(),
            tree: None,
            copy: None,
            noted: BTreeMap::new(),
            journals: None,
            boot: 1,
            was_closed: false,
            uses,
            is_closed: false,
        };
        MemoryStore { shelf: Arc::new(Mutex::new(shelf)) }
    }

    /// The store that is opened after this one: it holds what this one has saved. If this one was not closed, that is a
    /// crash: what is held has to be hashed before it is believed.
    #[must_use]
    pub fn next_life(&self) -> MemoryStore {
        let shelf = self.shelf();
        let mut saved = shelf.saved.clone();
        if !shelf.is_closed {
            saved.values_mut().for_each(|saved| saved.is_doubtful = true);
        }
        let next = MemoryStore::with(shelf.room_bytes, saved, shelf.kept.clone());
        next.shelf().pins.clone_from(&shelf.pins);
        next.shelf().tree.clone_from(&shelf.tree);
        next.shelf().copy.clone_from(&shelf.copy);
        next.shelf().noted.clone_from(&shelf.noted);
        next.shelf().boot = shelf.boot;
        next.shelf().was_closed = shelf.is_closed && shelf.journals.is_none_or(|journals| journals.is_told());
        next
    }

    /// The machine stops, and runs again in the next life: of what was noted, and not made durable, half is lost.
    pub fn lose_power(&self) {
        let mut shelf = self.shelf();
        shelf.boot += 1;
        let Some(journals) = shelf.journals else { return };
        for bytes in shelf.noted.values_mut() {
            let durable_bytes =
                JournalFile::open(bytes, journals.share()).map_or(0, |journal| journal.durable_bytes() as usize);
            bytes.truncate(durable_bytes + bytes.len().saturating_sub(durable_bytes) / 2);
        }
    }

    /// What is remembered of a share is lost, for the next life.
    pub fn lose_memory(&self) {
        let mut shelf = self.shelf();
        shelf.copy = None;
        shelf.noted.clear();
    }

    /// As if the disk had refused what was to be noted of a share.
    pub fn refuse_note(&self, share: ShareId) {
        let mut shelf = self.shelf();
        let refused = shelf.journals_of(share).ok().and_then(Journals::note_failed);
        let Some((number, until)) = refused else { return };
        if let Some(bytes) = shelf.noted.get_mut(&number) {
            bytes.resize(until as usize + 1, 0);
        }
    }

    /// Changes a byte of what is saved, as a failing disk does. Says whether there was one.
    pub fn damage(&self, key: ContentKey, offset: u64) -> bool {
        let mut shelf = self.shelf();
        let chunk = shelf.saved.get_mut(&key).and_then(|saved| saved.chunks.get_mut(&(offset / CHUNK_SIZE)));
        let Some(frames) = chunk else { return false };
        let mut bytes = frames.concat();
        let Some(byte) = bytes.get_mut((offset % CHUNK_SIZE) as usize) else { return false };
        *byte ^= 1;
        *frames = vec![bytes.into()];
        true
    }

    /// From now on it is full when it holds `room_bytes`. What it holds already stays.
    pub fn set_room(&self, room_bytes: u64) {
        self.shelf().room_bytes = room_bytes;
    }

    /// Bytes that it holds, not counting files that were kept.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shelf().used_bytes
    }

    /// The contents that it holds, open or saved.
    #[must_use]
    pub fn contents(&self) -> Vec<ContentKey> {
        let shelf = self.shelf();
        let all: BTreeSet<ContentKey> =
            shelf.in_use.keys().chain(shelf.saved.keys()).chain(shelf.unsaved.keys()).copied().collect();
        all.into_iter().collect()
    }

    /// The file that was kept at `target`.
    #[must_use]
    pub fn kept(&self, target: &Path) -> Option<KeptFile> {
        self.shelf().kept.get(target).cloned()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }

    fn open(&self, key: Option<ContentKey>, ledger: Ledger, chunks: Chunks, is_made: bool) -> Arc<MemoryStored> {
        Arc::new(MemoryStored {
            key,
            size_bytes: ledger.size_bytes(),
            shelf: Arc::clone(&self.shelf),
            state: Mutex::new(State { ledger, chunks }),
            is_gone: AtomicBool::new(false),
            is_made: AtomicBool::new(is_made),
        })
    }

    fn resume_now(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> io::Result<Found> {
        let mut shelf = self.shelf();
        shelf.check_open()?;
        if shelf.in_use.contains_key(&key) {
            return Ok(None);
        }
        shelf.uses += 1;
        let uses = shelf.uses;
        let (ledger, chunks) = match (shelf.unsaved.remove(&key), shelf.saved.get_mut(&key)) {
            (Some(unsaved), _) => unsaved,
            (None, Some(saved)) if expected.is_none_or(|expected| expected == saved.sidecar.identity()) => {
                saved.last_used = uses;
                let is_doubtful = std::mem::take(&mut saved.is_doubtful);
                // From now on the open content answers for the room that it takes.
                (Ledger::from_sidecar(&saved.sidecar, is_doubtful), saved.chunks.clone())
            }
            (None, Some(_) | None) => return Ok(None),
        };
        let resumed = ledger.resumed();
        let stored = self.open(Some(key), ledger, chunks, true);
        shelf.in_use.insert(key, Arc::downgrade(&stored));
        Ok(resumed.map(|resumed| (stored as Arc<dyn Stored>, resumed)))
    }

    fn save_now(&self, contents: &[Arc<dyn Stored>]) -> io::Result<()> {
        self.shelf().check_open()?;
        for stored in contents {
            let stored = (&**stored as &dyn Any).downcast_ref::<MemoryStored>().ok_or_else(foreign)?;
            if !Arc::ptr_eq(&stored.shelf, &self.shelf) {
                return Err(foreign());
            }
            stored.save()?;
        }
        Ok(())
    }

    fn close_now(&self) -> io::Result<()> {
        if self.shelf().is_closed {
            return Ok(());
        }
        let (open, unsaved) = {
            let mut shelf = self.shelf();
            let open: Vec<Arc<MemoryStored>> = shelf.in_use.values().filter_map(std::sync::Weak::upgrade).collect();
            (open, std::mem::take(&mut shelf.unsaved))
        };
        for stored in open {
            stored.save()?;
        }
        let mut shelf = self.shelf();
        for (key, (mut ledger, chunks)) in unsaved {
            shelf.save(key, &mut ledger, &chunks)?;
        }
        for saved in shelf.saved.values_mut() {
            if std::mem::take(&mut saved.is_doubtful) {
                saved.sidecar = saved.sidecar.clone().with_unverified(true);
            }
        }
        shelf.is_closed = true;
        Ok(())
    }
}

impl Shelf {
    fn check_open(&self) -> io::Result<()> {
        if self.is_closed { Err(closed()) } else { Ok(()) }
    }

    /// The journals of a share, while the store is open.
    fn journals_of(&mut self, share: ShareId) -> io::Result<&mut Journals> {
        self.check_open()?;
        self.journals.as_mut().filter(|journals| journals.share() == share).ok_or_else(foreign)
    }

    /// Appends to the journal, which is begun if there is none yet.
    fn append(&mut self, share: ShareId, frame: &[u8]) -> io::Result<()> {
        self.begin(share)?;
        let journals = self.journals_of(share)?;
        journals.note_appended(frame.len());
        let number = journals.number();
        self.noted.entry(number).or_default().extend(frame);
        Ok(())
    }

    /// Begins the journal if there is none yet.
    fn begin(&mut self, share: ShareId) -> io::Result<()> {
        let journals = self.journals_of(share)?;
        let Some(beginning) = journals.beginning()? else { return Ok(()) };
        journals.note_appended(beginning.len());
        let number = journals.number();
        self.noted.split_off(&number);
        self.noted.insert(number, beginning);
        Ok(())
    }

    fn save(&mut self, key: ContentKey, ledger: &mut Ledger, chunks: &Chunks) -> io::Result<()> {
        let Some(draft) = ledger.draft().map_err(io::Error::other)? else { return Ok(()) };
        let saved = Saved { sidecar: draft.sidecar, chunks: chunks.clone(), last_used: self.uses, is_doubtful: false };
        self.saved.insert(key, saved);
        ledger.synced(&draft.unsynced);
        ledger.saved(draft.revision);
        Ok(())
    }

    /// Removes what is held under a key that nobody has open.
    fn remove(&mut self, key: ContentKey) {
        let saved = self.saved.remove(&key).map(|saved| saved.chunks);
        let unsaved = self.unsaved.remove(&key).map(|(_, chunks)| chunks);
        if let Some(chunks) = unsaved.or(saved) {
            self.used_bytes -= bytes_of(&chunks);
        }
    }
}

fn bytes_of(chunks: &Chunks) -> u64 {
    chunks.values().flatten().map(|frame| frame.len() as u64).sum()
}

/// What is behind these locks stays whole if a thread that holds one panics: nothing between two steps can.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn held(&self) -> Vec<Held> {
        let shelf = self.shelf();
        let held = |(key, saved): (&ContentKey, &Saved)| {
            let len = |chunk| chunk_range(chunk, saved.sidecar.identity().size_bytes);
            let lens = saved.sidecar.bitmap().present().map(len).map(|range| range.end - range.start);
            let path = saved.sidecar.path().clone();
            Held { key: *key, path, stored_bytes: lens.sum(), last_used: saved.last_used }
        };
        shelf.saved.iter().map(held).collect()
    }

    fn create(&self, identity: &ContentIdentity, path: &RelPath) -> io::Result<Arc<dyn Stored>> {
        let mut shelf = self.shelf();
        shelf.check_open()?;
        let key = identity.key();
        let ledger = Ledger::new(identity, path);
        if shelf.in_use.contains_key(&key) {
            return Ok(self.open(None, ledger, Chunks::new(), true));
        }
        shelf.uses += 1;
        let stored = self.open(Some(key), ledger, Chunks::new(), false);
        shelf.in_use.insert(key, Arc::downgrade(&stored));
        Ok(stored)
    }

    fn resume(&self, key: ContentKey, expected: Option<&ContentIdentity>) -> BoxFuture<'static, io::Result<Found>> {
        let (store, expected) = (self.clone(), expected.copied());
        Box::pin(async move { store.resume_now(key, expected.as_ref()) })
    }

    fn save(&self, contents: Vec<Arc<dyn Stored>>) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        Box::pin(async move { store.save_now(&contents) })
    }

    fn touch(&self, key: ContentKey) {
        let mut shelf = self.shelf();
        shelf.uses += 1;
        let uses = shelf.uses;
        if let Some(saved) = shelf.saved.get_mut(&key) {
            saved.last_used = uses;
        }
    }

    fn evict(&self, key: ContentKey) {
        let mut shelf = self.shelf();
        if !shelf.is_closed && !shelf.in_use.contains_key(&key) {
            shelf.remove(key);
        }
    }

    fn pins(&self) -> Vec<RelPath> {
        self.shelf().pins.clone()
    }

    fn save_pins(&self, pins: &[RelPath]) -> io::Result<()> {
        let mut shelf = self.shelf();
        shelf.check_open()?;
        shelf.pins = pins.to_vec();
        Ok(())
    }

    fn tree(&self, id: TreeId) -> Option<TreeFile> {
        self.shelf().tree.clone().filter(|tree| tree.id == id)
    }

    fn save_tree(&self, tree: KnownTree) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        Box::pin(async move {
            let mut shelf = store.shelf();
            shelf.check_open()?;
            shelf.tree = Some(tree.into_file());
            Ok(())
        })
    }

    fn memory(&self, share: ShareId) -> Option<Memory> {
        let mut shelf = self.shelf();
        let boot = Boot(u128::from(shelf.boot).to_be_bytes());
        let recalled = Journals::recall(share, boot, shelf.was_closed, shelf.copy.clone(), &shelf.noted);
        let Recalled { journals, memory } = recalled.unwrap_or_else(|error| {
            tracing::warn!("what was remembered of the share is of no use: {error}");
            let last = shelf.noted.keys().next_back().copied();
            Recalled { journals: Journals::anew(share, boot, last.unwrap_or(0)), memory: None }
        });
        shelf.journals.get_or_insert(journals);
        memory
    }

    fn is_copied(&self, share: ShareId) -> bool {
        self.shelf().journals.is_some_and(|journals| journals.share() == share && journals.is_copied())
    }

    fn note(&self, share: ShareId, changes: Changes) -> BoxFuture<'static, io::Result<bool>> {
        let store = self.clone();
        Box::pin(async move {
            let mut shelf = store.shelf();
            let journals = shelf.journals_of(share)?;
            if journals.is_full() {
                journals.begin_next();
            }
            let frame = journals.frame_of(&changes)?;
            shelf.append(share, &frame)?;
            Ok(shelf.journals_of(share)?.is_long())
        })
    }

    fn sync_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<bool>> {
        let store = self.clone();
        Box::pin(async move {
            let mut shelf = store.shelf();
            shelf.begin(share)?;
            let journals = shelf.journals_of(share)?;
            if let Some(mark) = journals.mark_of(journals.number(), journals.len_bytes()) {
                shelf.append(share, &mark)?;
            }
            Ok(shelf.journals_of(share)?.is_long())
        })
    }

    fn begin_journal(&self, share: ShareId) -> BoxFuture<'static, io::Result<u64>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.shelf().journals_of(share)?.begin_next()) })
    }

    fn save_memory(&self, share: ShareId, journal: u64, memory: Memory) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        Box::pin(async move {
            let mut shelf = store.shelf();
            let bytes = encode_memory(share, journal, &memory).map_err(io::Error::other)?;
            if shelf.journals_of(share)?.is_outdated(journal) {
                return Ok(());
            }
            shelf.journals_of(share)?.note_copied(journal, bytes.len());
            shelf.noted.retain(|number, _| *number >= journal);
            shelf.copy = Some(bytes);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'static, io::Result<()>> {
        let store = self.clone();
        Box::pin(async move { store.close_now() })
    }

    fn space(&self) -> io::Result<Space> {
        let shelf = self.shelf();
        let free_bytes = shelf.room_bytes.saturating_sub(shelf.used_bytes);
        Ok(Space { free_bytes, total_bytes: shelf.room_bytes })
    }
}

/// One content in memory.
#[derive(Debug)]
struct MemoryStored {
    /// Under which key it is saved, unless another one has that.
    key: Option<ContentKey>,
    size_bytes: u64,
    shelf: Arc<Mutex<Shelf>>,
    state: Mutex<State>,
    /// Discarded, or kept under another name.
    is_gone: AtomicBool,
    /// Something was written, or it was there already.
    is_made: AtomicBool,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    chunks: Chunks,
}

impl Stored for MemoryStored {
    fn write(self: Arc<Self>, chunk: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move { self.write_now(chunk, frames) })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_read(offset, into.len(), self.size_bytes)?;
        let state = lock(&self.state);
        let range = offset..offset + into.len() as u64;
        let mut rest = into;
        for chunk in chunks_touched(&range) {
            let lacking = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("chunk {chunk} was never written"));
            let frames = state.chunks.get(&chunk).ok_or_else(lacking)?;
            let mut at = chunk * CHUNK_SIZE;
            for frame in frames {
                // Both fit: they lie inside the frame, whose length is a `usize`.
                let skip = range.start.saturating_sub(at).min(frame.len() as u64) as usize;
                let count = (frame.len() - skip).min(rest.len());
                let (filled, unfilled) = rest.split_at_mut(count);
                filled.copy_from_slice(&frame[skip..skip + count]);
                rest = unfilled;
                at += frame.len() as u64;
            }
        }
        Ok(())
    }

    fn read_chunk(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        Box::pin(async move {
            let range = chunk_range(chunk, self.size_bytes);
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
            self.read(range.start, &mut bytes)?;
            Ok(bytes.into())
        })
    }

    fn verify(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<bool>> {
        Box::pin(async move { self.verify_now(chunk, None) })
    }

    fn verify_against(self: Arc<Self>, chunk: u64, hash: u64) -> BoxFuture<'static, io::Result<bool>> {
        Box::pin(async move { self.verify_now(chunk, Some(hash)) })
    }

    fn hash_of(&self, chunk: u64) -> Option<u64> {
        lock(&self.state).ledger.hash_of(chunk)
    }

    fn note_path(&self, path: &RelPath) {
        lock(&self.state).ledger.set_path(path);
    }

    fn discard(&self) {
        self.is_gone.store(true, Ordering::Release);
    }

    fn keep(
        self: Arc<Self>,
        target: PathBuf,
        mode: u16,
        modified: FileTime,
        xattrs: Xattrs,
    ) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            lock(&self.shelf).check_open()?;
            let len = usize::try_from(self.size_bytes).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            self.read(0, &mut bytes)?;
            let mut shelf = lock(&self.shelf);
            match shelf.kept.entry(target) {
                std::collections::btree_map::Entry::Occupied(there) => {
                    let text = format!("{} is there already", there.key().display());
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(KeptFile { bytes: bytes.into(), mode: mode & 0o7777, modified, xattrs });
                }
            }
            if let Some(key) = self.key {
                shelf.saved.remove(&key);
            }
            self.is_gone.store(true, Ordering::Release);
            Ok(())
        })
    }

    fn lend(&self, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        lock(&self.shelf).check_open()?;
        let mut bytes = vec![0; usize::try_from(self.size_bytes).map_err(io::Error::other)?];
        self.read(0, &mut bytes)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(&bytes)
    }

    fn give_away(&self) -> io::Result<()> {
        let mut shelf = lock(&self.shelf);
        shelf.check_open()?;
        if let Some(key) = self.key {
            shelf.saved.remove(&key);
        }
        self.is_gone.store(true, Ordering::Release);
        Ok(())
    }
}

impl MemoryStored {
    fn write_now(&self, chunk: u64, frames: Vec<Bytes>) -> io::Result<()> {
        let hash = hash_chunk(chunk, &frames, self.size_bytes)?;
        let mut state = lock(&self.state);
        let mut shelf = lock(&self.shelf);
        shelf.check_open()?;
        if let Some(key) = self.key.filter(|_| !self.is_made.swap(true, Ordering::AcqRel)) {
            shelf.remove(key);
        }
        let len: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        let before = state.chunks.get(&chunk).map_or(0, |frames| frames.iter().map(|frame| frame.len() as u64).sum());
        let used_bytes = (shelf.used_bytes - before).saturating_add(len);
        if used_bytes > shelf.room_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the store is full"));
        }
        shelf.used_bytes = used_bytes;
        drop(shelf);
        state.chunks.insert(chunk, frames);
        state.ledger.record(chunk, hash);
        Ok(())
    }

    fn verify_now(&self, chunk: u64, hash: Option<u64>) -> io::Result<bool> {
        lock(&self.shelf).check_open()?;
        let mut state = lock(&self.state);
        let Some(hash) = hash.or_else(|| state.ledger.hash_of(chunk)) else { return Ok(false) };
        let is_right = state.chunks.get(&chunk).is_some_and(|frames| {
            let mut hasher = Xxh3::new();
            frames.iter().for_each(|frame| hasher.update(frame));
            hasher.digest() == hash
        });
        if is_right {
            state.ledger.confirm(chunk, hash);
        } else {
            state.ledger.forget(chunk);
            // Nobody will ask for it as it is.
            let wrong_bytes: usize = state.chunks.remove(&chunk).iter().flatten().map(Bytes::len).sum();
            lock(&self.shelf).used_bytes -= wrong_bytes as u64;
        }
        Ok(is_right)
    }

    fn save(&self) -> io::Result<()> {
        let Some(key) = self.key.filter(|_| !self.is_gone.load(Ordering::Acquire)) else { return Ok(()) };
        let mut state = lock(&self.state);
        let State { ledger, chunks } = &mut *state;
        lock(&self.shelf).save(key, ledger, chunks)
    }
}

impl Drop for MemoryStored {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut shelf = lock(&self.shelf);
        let is_gone = *self.is_gone.get_mut();
        match self.key {
            Some(key) => {
                shelf.in_use.remove(&key);
                let is_changed = state.ledger.is_changed();
                if is_gone {
                    shelf.saved.remove(&key);
                } else if is_changed {
                    let nothing = Ledger::new(state.ledger.identity(), &RelPath::ROOT);
                    let ledger = std::mem::replace(&mut state.ledger, nothing);
                    shelf.unsaved.insert(key, (ledger, std::mem::take(&mut state.chunks)));
                    return;
                } else if shelf.saved.contains_key(&key) {
                    return;
                }
                shelf.used_bytes -= bytes_of(&state.chunks);
            }
            None => shelf.used_bytes -= bytes_of(&state.chunks),
        }
    }
}
