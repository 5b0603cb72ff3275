//! A store in memory that can be slow, full or broken, and that knows what was never written.

use bytes::Bytes;
use farshore::store::{Found, KnownTree, Space, Store, Stored};
use farshore_engine::chunk::{CHUNK_SIZE, chunk_range};
use farshore_engine::path::RelPath;
use farshore_engine::record::FileTime;
use farshore_engine::{ContentIdentity, ContentKey, Held};
use farshore_proto::{TreeFile, TreeId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// How the store fares. Shared by all of its contents.
#[derive(Debug, Default, Clone, Copy)]
struct Health {
    delay: Duration,
    full: bool,
    failing: bool,
    /// A planted bug: what is written is not what was given.
    corrupts: bool,
    /// A planted bug: a write never ends.
    hangs: bool,
    /// Contents that exist.
    contents: usize,
    writes: u64,
}

/// A store in memory, with faults.
#[derive(Debug, Default, Clone)]
pub struct SimStore(Arc<Mutex<Health>>);

impl SimStore {
    /// How long each write takes from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.health().delay = delay;
    }

    /// Whether there is no room from now on.
    pub fn set_full(&self, full: bool) {
        self.health().full = full;
    }

    /// Whether writing fails from now on.
    pub fn set_failing(&self, failing: bool) {
        self.health().failing = failing;
    }

    /// Plants a bug: one byte of every write is changed from now on.
    pub fn corrupt(&self) {
        self.health().corrupts = true;
    }

    /// Plants a bug: writes never end from now on.
    pub fn hang(&self) {
        self.health().hangs = true;
    }

    /// Contents that exist now.
    #[must_use]
    pub fn contents(&self) -> usize {
        self.health().contents
    }

    /// Writes that have ended well.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.health().writes
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SimStore {
    fn held(&self) -> Vec<Held> {
        // It has no earlier life.
        Vec::new()
    }

    fn create(&self, identity: &ContentIdentity, _: &RelPath) -> io::Result<Arc<dyn Stored>> {
        let size_bytes = identity.size_bytes;
        let mut health = self.health();
        assert!(size_bytes > 0, "an empty content is never stored");
        if health.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        health.contents += 1;
        let (pieces, hashes) = Default::default();
        Ok(Arc::new(SimStored { store: self.clone(), size_bytes, pieces, hashes }))
    }

    fn resume(&self, _: ContentKey, _: Option<&ContentIdentity>) -> BoxFuture<'static, io::Result<Found>> {
        async { Ok(None) }.boxed()
    }

    fn save(&self, _: Vec<Arc<dyn Stored>>) -> BoxFuture<'static, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn touch(&self, _: ContentKey) {}

    fn evict(&self, _: ContentKey) {}

    fn pins(&self) -> Vec<RelPath> {
        Vec::new()
    }

    fn save_pins(&self, _: &[RelPath]) -> io::Result<()> {
        Ok(())
    }

    fn tree(&self, _: TreeId) -> Option<TreeFile> {
        None
    }

    fn save_tree(&self, _: KnownTree) -> BoxFuture<'static, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn close(&self) -> BoxFuture<'static, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX })
    }
}

/// One content: its pieces by where they begin.
struct SimStored {
    store: SimStore,
    size_bytes: u64,
    pieces: Mutex<BTreeMap<u64, Bytes>>,
    /// Of the chunks that were written, as they were given.
    hashes: Mutex<BTreeMap<u64, u64>>,
}

impl Drop for SimStored {
    fn drop(&mut self) {
        self.store.health().contents -= 1;
    }
}

impl SimStored {
    fn pieces(&self) -> MutexGuard<'_, BTreeMap<u64, Bytes>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashes(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_right(&self, chunk: u64, hash: u64) -> bool {
        let range = chunk_range(chunk, self.size_bytes);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read(range.start, &mut bytes).is_ok() && xxh3_64(&bytes) == hash
    }
}

impl Stored for SimStored {
    fn write(self: Arc<Self>, chunk: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            let before = *self.store.health();
            if before.hangs {
                std::future::pending::<()>().await;
            }
            if !before.delay.is_zero() {
                tokio::time::sleep(before.delay).await;
            }
            let mut health = self.store.health();
            if health.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if health.failing {
                return Err(io::Error::other("the simulated disk fails"));
            }
            health.writes += 1;
            self.hashes().insert(chunk, xxh3_64(&frames.concat()));
            let mut pieces = self.pieces();
            let mut offset = chunk * CHUNK_SIZE;
            for frame in frames {
                assert!(offset + frame.len() as u64 <= self.size_bytes, "a write goes beyond the end of the content");
                let (at, len) = (offset, frame.len());
                let frame = if before.corrupts { corrupted(&frame) } else { frame };
                pieces.insert(at, frame);
                offset += len as u64;
            }
            Ok(())
        }
        .boxed()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let pieces = self.pieces();
        let mut at = offset;
        let end = offset + into.len() as u64;
        while at < end {
            let piece = pieces.range(..=at).next_back();
            let Some((start, piece)) = piece.filter(|(start, piece)| at < *start + piece.len() as u64) else {
                // What the real store would answer with zeros.
                panic!("a read of what was never written: byte {at} of {}", self.size_bytes);
            };
            let inside = &piece[(at - start) as usize..];
            let len = inside.len().min((end - at) as usize);
            let to = (at - offset) as usize;
            into[to..to + len].copy_from_slice(&inside[..len]);
            at += len as u64;
        }
        Ok(())
    }

    fn read_chunk(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        async move {
            let range = chunk_range(chunk, self.size_bytes);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.read(range.start, &mut bytes)?;
            Ok(bytes.into())
        }
        .boxed()
    }

    fn verify(self: Arc<Self>, chunk: u64) -> BoxFuture<'static, io::Result<bool>> {
        async move { Ok(self.hash_of(chunk).is_some_and(|hash| self.is_right(chunk, hash))) }.boxed()
    }

    fn verify_against(self: Arc<Self>, chunk: u64, hash: u64) -> BoxFuture<'static, io::Result<bool>> {
        async move { Ok(self.is_right(chunk, hash)) }.boxed()
    }

    fn hash_of(&self, chunk: u64) -> Option<u64> {
        self.hashes().get(&chunk).copied()
    }

    fn note_path(&self, _: &RelPath) {}

    fn discard(&self) {}

    fn keep(self: Arc<Self>, _: PathBuf, _: u16, _: FileTime) -> BoxFuture<'static, io::Result<()>> {
        // There are no ordinary files in the simulated world.
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }
}

fn corrupted(frame: &Bytes) -> Bytes {
    let mut bytes = frame.to_vec();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    bytes.into()
}
