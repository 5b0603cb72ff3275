//! The bytes of one content: those in the store, and those still in memory because they have only just come.

use super::answers::Bytes;
use crate::ranked::{Rank, Ranked};
use crate::store::{Found, Store, Stored};
use bytes::Bytes as Frame;
use farshore_engine::chunk::{
    CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK, FrameSet, chunk_range, chunks_touched, frames_range,
};
use farshore_engine::path::RelPath;
use farshore_engine::{ChunkBitmap, ContentIdentity, ContentKey, Resumed};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often it is tried to open what the store holds, and the pause in between: together half a second.
const RESUME_ATTEMPTS: u32 = 5;
const RESUME_PAUSE: Duration = Duration::from_millis(125);

/// The frames of one chunk that are in memory.
type Frames = [Option<Frame>; FRAMES_PER_CHUNK as usize];

/// The bytes of one content.
///
/// The frames change only while the node's lock is held, so they agree with the engine's picture; their own lock is
/// for those who read them without it, and is held for moments.
pub(super) struct Content {
    identity: ContentIdentity,
    frames: Ranked<BTreeMap<u64, Frames>>,
    place: Ranked<Place>,
}

/// Where the bytes of a content are stored.
struct Place {
    /// Where the owner has them, for whoever looks into the store.
    path: RelPath,
    /// Made when the first chunk is written, or found from an earlier life.
    stored: Option<Arc<dyn Stored>>,
    /// Another version, to be compared with.
    base: Option<Arc<dyn Stored>>,
    /// Nobody will ask for them again: what is found or made after this goes at once.
    is_discarded: bool,
}

impl Content {
    pub(super) fn new(identity: ContentIdentity, path: RelPath) -> Content {
        let place = Place { path, stored: None, base: None, is_discarded: false };
        Content {
            identity,
            frames: Ranked::new(Rank::Content, BTreeMap::new()),
            place: Ranked::new(Rank::Content, place),
        }
    }

    /// The owner has it at `path` now.
    pub(super) fn note_path(&self, path: &RelPath) {
        let mut place = self.place.lock();
        if place.path != *path {
            place.path = path.clone();
            if let Some(stored) = &place.stored {
                stored.note_path(path);
            }
        }
    }

    /// Keeps a verified frame in memory.
    pub(super) fn keep_frame(&self, chunk: u64, frame: u32, bytes: Frame) {
        if let Some(slot) = self.frames.lock().entry(chunk).or_default().get_mut(frame as usize) {
            *slot = Some(bytes);
        }
    }

    /// All frames of a chunk of a content of `size_bytes`, in order; `None` if they are not all in memory, down to the
    /// last byte.
    pub(super) fn whole_chunk(&self, chunk: u64, size_bytes: u64) -> Option<Vec<Frame>> {
        let held = self.frames.lock().get(&chunk)?.clone();
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
        self.frames.lock().values().flatten().flatten().count()
    }

    /// Lets go of the frames of a chunk.
    pub(super) fn drop_frames(&self, chunk: u64) {
        let mut frames = self.frames.lock();
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
        let frames = self.frames.lock();
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
        self.place.lock().stored.clone()
    }

    /// Where it is stored, made now if nothing of it was.
    pub(super) fn stored_in(&self, store: &dyn Store) -> io::Result<Arc<dyn Stored>> {
        let mut place = self.place.lock();
        if let Some(stored) = &place.stored {
            return Ok(stored.clone());
        }
        let made = store.create(&self.identity, &place.path)?;
        place.take(made.clone());
        Ok(made)
    }

    /// Opens what the store has of it from an earlier life, and of another version. What cannot be opened is told in the
    /// log, and fetched.
    pub(super) async fn resume(
        &self,
        store: &dyn Store,
        own: bool,
        base: Option<ContentKey>,
    ) -> (Option<Resumed>, Option<ChunkBitmap>) {
        let own = match own {
            true => opened(store, self.identity.key(), Some(&self.identity)).await,
            false => None,
        };
        let base = match base {
            Some(key) => opened(store, key, None).await,
            None => None,
        };
        let mut place = self.place.lock();
        let own = own.map(|(stored, resumed)| {
            stored.note_path(&place.path);
            place.take(stored);
            resumed
        });
        let base = base.map(|(stored, resumed)| {
            place.take_base(stored);
            resumed.chunks
        });
        (own, base)
    }

    /// Takes over from `before` what it has stored, or, if `older`, what it would have been compared with, to be compared
    /// with from now on. The rest of it goes.
    pub(super) fn rebase(&self, before: &Content, older: bool) {
        let mut before = before.place.lock();
        // Whoever reads from it goes on doing so.
        let stored = before.stored.clone();
        let (kept, gone) = if older { (before.base.take(), stored) } else { (stored, before.base.take()) };
        before.is_discarded = true;
        drop(before);
        if let Some(gone) = gone {
            gone.discard();
        }
        if let Some(kept) = kept {
            self.place.lock().take_base(kept);
        }
    }

    /// What of another version it can be compared with.
    pub(super) fn base(&self) -> Option<Arc<dyn Stored>> {
        self.place.lock().base.clone()
    }

    /// It has been compared. What is returned is to be dropped where a disk may be waited for.
    pub(super) fn take_base(&self) -> Option<Arc<dyn Stored>> {
        let base = self.place.lock().base.take();
        if let Some(base) = &base {
            base.discard();
        }
        base
    }

    /// Nobody will ask for it again: what is stored goes with the last reference.
    pub(super) fn discard(&self) {
        let mut place = self.place.lock();
        place.is_discarded = true;
        for stored in place.stored.iter().chain(&place.base) {
            stored.discard();
        }
    }
}

impl Place {
    fn take(&mut self, stored: Arc<dyn Stored>) {
        if self.is_discarded {
            stored.discard();
        }
        self.stored = Some(stored);
    }

    fn take_base(&mut self, stored: Arc<dyn Stored>) {
        if self.is_discarded {
            stored.discard();
        }
        self.base = Some(stored);
    }
}

/// What the store holds under a key. A disk that fails may do so for a moment only (too many files are open, say).
async fn opened(store: &dyn Store, key: ContentKey, expected: Option<&ContentIdentity>) -> Found {
    for attempt in 1.. {
        match store.resume(key, expected).await {
            Ok(found) => return found,
            Err(error) if attempt == RESUME_ATTEMPTS => {
                tracing::warn!("what was stored of a file cannot be opened, and is fetched again: {error}");
                return None;
            }
            Err(_) => tokio::time::sleep(RESUME_PAUSE).await,
        }
    }
    None
}
