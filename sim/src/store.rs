//! A store in memory that can be slow, full or broken, and that knows what was never written.

use bytes::Bytes;
use farshore::store::{Store, Stored};
use farshore_engine::ContentId;
use farshore_engine::record::FileTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    fn create(&self, _: ContentId, size_bytes: u64) -> io::Result<Arc<dyn Stored>> {
        let mut health = self.health();
        assert!(size_bytes > 0, "an empty content is never stored");
        if health.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        health.contents += 1;
        Ok(Arc::new(SimStored { store: self.clone(), size_bytes, pieces: Mutex::default() }))
    }
}

/// One content: its pieces by where they begin.
struct SimStored {
    store: SimStore,
    size_bytes: u64,
    pieces: Mutex<BTreeMap<u64, Bytes>>,
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
}

impl Stored for SimStored {
    fn write(self: Arc<Self>, mut offset: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
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
            let mut pieces = self.pieces();
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
