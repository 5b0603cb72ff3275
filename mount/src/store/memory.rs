//! A store in memory, for tests and for simulated machines: no thread, no disk, and nothing that takes time.
//!
//! Stricter than a disk: bytes that were never written cannot be read.

use super::{Store, Stored, check_frames, check_read};
use bytes::Bytes;
use farshore_engine::ContentId;
use farshore_engine::record::FileTime;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

#[derive(Debug)]
struct Shelf {
    room_bytes: u64,
    used_bytes: u64,
    contents: BTreeSet<ContentId>,
    kept: BTreeMap<PathBuf, KeptFile>,
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
        let shelf = Shelf { room_bytes, used_bytes: 0, contents: BTreeSet::new(), kept: BTreeMap::new() };
        MemoryStore { shelf: Arc::new(Mutex::new(shelf)) }
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

    /// The contents that it holds.
    #[must_use]
    pub fn contents(&self) -> Vec<ContentId> {
        self.shelf().contents.iter().copied().collect()
    }

    /// The file that was kept at `target`.
    #[must_use]
    pub fn kept(&self, target: &Path) -> Option<KeptFile> {
        self.shelf().kept.get(target).cloned()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }
}

/// What is behind these locks stays whole if a thread that holds one panics: nothing between two steps can.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn create(&self, content: ContentId, size_bytes: u64) -> io::Result<Arc<dyn Stored>> {
        if !self.shelf().contents.insert(content) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("content {content} is stored already")));
        }
        Ok(Arc::new(MemoryStored { content, size_bytes, shelf: Arc::clone(&self.shelf), pieces: Mutex::default() }))
    }
}

/// One content in memory.
#[derive(Debug)]
struct MemoryStored {
    content: ContentId,
    size_bytes: u64,
    shelf: Arc<Mutex<Shelf>>,
    pieces: Mutex<Pieces>,
}

/// What was written, by offset. No two pieces overlap.
#[derive(Debug, Default)]
struct Pieces(BTreeMap<u64, Bytes>);

impl Stored for MemoryStored {
    fn write(self: Arc<Self>, offset: u64, frames: Vec<Bytes>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            check_frames(offset, &frames, self.size_bytes)?;
            let mut at = offset;
            for frame in frames {
                let len = frame.len() as u64;
                self.put(at, frame)?;
                at += len;
            }
            Ok(())
        })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_read(offset, into.len(), self.size_bytes)?;
        lock(&self.pieces).read(offset, into)
    }

    fn keep(self: Arc<Self>, target: PathBuf, mode: u16, modified: FileTime) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let len = usize::try_from(self.size_bytes).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            self.read(0, &mut bytes)?;
            match lock(&self.shelf).kept.entry(target) {
                std::collections::btree_map::Entry::Occupied(there) => {
                    let text = format!("{} is there already", there.key().display());
                    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
                }
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(KeptFile { bytes: bytes.into(), mode: mode & 0o7777, modified });
                    Ok(())
                }
            }
        })
    }
}

impl MemoryStored {
    fn put(&self, offset: u64, frame: Bytes) -> io::Result<()> {
        let mut pieces = lock(&self.pieces);
        let added = pieces.lacking(offset, frame.len() as u64);
        let mut shelf = lock(&self.shelf);
        if shelf.used_bytes.saturating_add(added) > shelf.room_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the store is full"));
        }
        shelf.used_bytes += added;
        drop(shelf);
        pieces.write(offset, frame);
        Ok(())
    }
}

impl Drop for MemoryStored {
    fn drop(&mut self) {
        let held = lock(&self.pieces).0.values().map(|piece| piece.len() as u64).sum::<u64>();
        let mut shelf = lock(&self.shelf);
        shelf.used_bytes -= held;
        shelf.contents.remove(&self.content);
    }
}

impl Pieces {
    /// How many of `len` bytes at `offset` were not written before.
    fn lacking(&self, offset: u64, len: u64) -> u64 {
        let end = offset + len;
        let overlap =
            |(start, piece): (&u64, &Bytes)| (start + piece.len() as u64).min(end).saturating_sub(offset.max(*start));
        len - self.0.range(..end).map(overlap).sum::<u64>()
    }

    fn write(&mut self, offset: u64, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let under = |(start, piece): (&u64, &Bytes)| (start + piece.len() as u64 > offset).then_some(*start);
        let covered: Vec<u64> = self.0.range(..end).filter_map(under).collect();
        for start in covered {
            let Some(piece) = self.0.remove(&start) else { continue };
            // Both fit: they lie inside the piece, whose length is a `usize`.
            let before = usize::try_from(offset.saturating_sub(start)).unwrap_or(0);
            let after = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
            if before > 0 {
                self.0.insert(start, piece.slice(..before));
            }
            if after < piece.len() {
                self.0.insert(end, piece.slice(after..));
            }
        }
        self.0.insert(offset, bytes);
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let lacking = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("byte {at} was never written"));
            let (start, piece) = self.0.range(..=at).next_back().ok_or_else(lacking)?;
            let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
            let piece = piece.get(skip..).filter(|piece| !piece.is_empty()).ok_or_else(lacking)?;
            let count = piece.len().min(rest.len());
            let (filled, unfilled) = rest.split_at_mut(count);
            filled.copy_from_slice(&piece[..count]);
            rest = unfilled;
            at += count as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_written_over_each_other_hold_what_came_last() {
        let mut pieces = Pieces::default();
        let mut model = [None; 64];
        let writes = [(10, 10), (30, 10), (15, 20), (0, 64), (5, 1), (5, 3), (60, 4), (4, 1), (20, 20)];
        for (value, (offset, len)) in (1u8..).zip(writes) {
            let lacking = model[offset..offset + len].iter().filter(|byte| byte.is_none()).count();
            assert_eq!(pieces.lacking(offset as u64, len as u64), lacking as u64);
            pieces.write(offset as u64, vec![value; len].into());
            model[offset..offset + len].fill(Some(value));
            for (at, byte) in model.iter().enumerate() {
                let mut into = [0];
                let read = pieces.read(at as u64, &mut into).ok().map(|()| into[0]);
                assert_eq!(read, *byte, "byte {at} after write {value}");
            }
        }
    }
}
