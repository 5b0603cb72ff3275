//! The bytes of one content: those in the store, and those still in memory because they have only just come.

use super::answers::Bytes;
use crate::store::{Store, Stored};
use bytes::Bytes as Frame;
use farshore_engine::chunk::{
    CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK, FrameSet, chunk_range, chunks_touched, frames_range,
};
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Stamp};
use farshore_engine::{ContentIdentity, PeerId, Wanted};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The frames of one chunk that are in memory.
type Frames = [Option<Frame>; FRAMES_PER_CHUNK as usize];

/// The bytes of one content.
///
/// The frames change only while the node's lock is held, so they agree with the engine's picture; their own lock is
/// for those who read them without it, and is held for moments.
pub(super) struct Content {
    identity: ContentIdentity,
    path: RelPath,
    frames: Mutex<BTreeMap<u64, Frames>>,
    /// Made when the first chunk is written.
    stored: Mutex<Option<Arc<dyn Stored>>>,
}

impl Content {
    pub(super) fn new(wanted: &Wanted) -> Content {
        Content {
            identity: identity(wanted.stamp, wanted.size_bytes),
            path: wanted.path.clone(),
            frames: Mutex::default(),
            stored: Mutex::default(),
        }
    }

    /// Keeps a verified frame in memory.
    pub(super) fn keep_frame(&self, chunk: u64, frame: u32, bytes: Frame) {
        if let Some(slot) = lock(&self.frames).entry(chunk).or_default().get_mut(frame as usize) {
            *slot = Some(bytes);
        }
    }

    /// All frames of a chunk of a content of `size_bytes`, in order; `None` if they are not all in memory, down to the
    /// last byte.
    pub(super) fn whole_chunk(&self, chunk: u64, size_bytes: u64) -> Option<Vec<Frame>> {
        let held = lock(&self.frames).get(&chunk)?.clone();
        let bytes = chunk_range(chunk, size_bytes);
        let frames = FrameSet::all(bytes.end - bytes.start).len();
        let whole = (0..frames).zip(held).map(|(frame, held)| {
            let range = frames_range(chunk, &(frame..frame + 1), size_bytes);
            held.filter(|held| held.len() as u64 == range.end - range.start)
        });
        whole.collect()
    }

    /// How many frames are in memory.
    pub(super) fn held_frames(&self) -> usize {
        lock(&self.frames).values().flatten().flatten().count()
    }

    /// Lets go of the frames of a chunk.
    pub(super) fn drop_frames(&self, chunk: u64) {
        let mut frames = lock(&self.frames);
        frames.remove(&chunk);
        if frames.is_empty() {
            // An empty map keeps the room that it once needed, for each of a great many files.
            *frames = BTreeMap::new();
        }
    }

    /// The `len` bytes at `offset`, all of which are here. Frames in memory are captured now: they may be let go of
    /// before they are copied. A content that is wholly stored needs no allocation.
    pub(super) fn bytes(self: &Arc<Self>, offset: u64, len: u32) -> Bytes {
        let range = offset..offset + u64::from(len);
        let frames = lock(&self.frames);
        let mut captured = Vec::new();
        if !frames.is_empty() {
            for chunk in chunks_touched(&range) {
                for (frame, bytes) in frames.get(&chunk).into_iter().flatten().zip(0u64..) {
                    let Some(frame) = frame else { continue };
                    let at = chunk * CHUNK_SIZE + bytes * FRAME_SIZE;
                    if at < range.end && range.start < at + frame.len() as u64 {
                        captured.push((at, frame.clone()));
                    }
                }
            }
        }
        drop(frames);
        Bytes::content(self.clone(), captured, offset, len)
    }

    /// Where it is stored, if any of it is.
    pub(super) fn stored(&self) -> Option<Arc<dyn Stored>> {
        lock(&self.stored).clone()
    }

    /// Where it is stored, made now if nothing of it was.
    pub(super) fn stored_in(&self, store: &dyn Store) -> io::Result<Arc<dyn Stored>> {
        let mut stored = lock(&self.stored);
        if let Some(stored) = &*stored {
            return Ok(stored.clone());
        }
        let made = store.create(&self.identity, &self.path)?;
        // Nobody goes on with it yet.
        made.discard();
        *stored = Some(made.clone());
        Ok(made)
    }
}

/// What a store tells contents apart by. Nothing is found again by it yet, so that what the owner calls the bytes is enough.
pub(super) fn identity(stamp: Stamp, size_bytes: u64) -> ContentIdentity {
    ContentIdentity { owner: PeerId([0; 32]), stamp, size_bytes, modified: FileTime::default() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
