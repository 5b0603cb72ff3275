//! A follower's store in memory, what of it survives the end of its process, and the frames that its driver holds until
//! they are stored.

use crate::bitmap::ChunkBitmap;
use crate::chunk::{CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK, chunk_range, chunks_touched};
use crate::identity::{ContentIdentity, ContentKey};
use crate::ids::ContentId;
use crate::path::RelPath;
use crate::rng::Rng;
use crate::stored::{Held, Resumed, Trust};
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// A store in memory. It believes the engine: what is read and is not there panics.
#[derive(Debug, Default)]
pub struct MemStore {
    frames: BTreeMap<(ContentId, u64), BTreeMap<u32, Vec<u8>>>,
    parts: BTreeMap<ContentKey, Part>,
    /// The parts of contents that are open.
    open: BTreeMap<ContentId, Open>,
    discarded: BTreeSet<ContentId>,
    last_used: u64,
    /// Bytes of chunks that were written, in all lives.
    pub written_bytes: u64,
}

/// Which parts a content has.
#[derive(Debug, Clone, Copy)]
struct Open {
    own: ContentKey,
    base: Option<ContentKey>,
}

/// What there is of one version of a file.
#[derive(Debug)]
struct Part {
    path: RelPath,
    size_bytes: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
    /// The hashes of chunks, as they would be written down now.
    hashes: BTreeMap<u64, u64>,
    /// Of those, the ones that were not verified since a stop that was not clean.
    unverified: BTreeSet<u64>,
    /// What is written down: the hashes, and whether some are unverified.
    saved: Option<(BTreeMap<u64, u64>, bool)>,
    saved_path: RelPath,
    /// The last stop was clean.
    is_clean: bool,
    last_used: u64,
    /// It goes with its process.
    is_private: bool,
}

impl Part {
    fn bitmap(&self) -> Option<ChunkBitmap> {
        let mut bitmap = ChunkBitmap::new(self.size_bytes)?;
        self.hashes.keys().for_each(|chunk| bitmap.set(*chunk));
        Some(bitmap)
    }

    fn stored_bytes(&self) -> u64 {
        self.bitmap().map_or(0, |bitmap| bitmap.have_bytes())
    }

    fn save(&mut self) {
        self.saved = Some((self.hashes.clone(), !self.unverified.is_empty()));
        self.saved_path.clone_from(&self.path);
    }
}

impl MemStore {
    /// Takes a verified frame into memory.
    ///
    /// # Panics
    /// If it is there already, or its content was discarded: memory that nobody would let go of.
    pub fn hold(&mut self, content: ContentId, chunk: u64, frame: u32, bytes: Vec<u8>) {
        assert!(!self.discarded.contains(&content), "a frame came for content {content}, which was discarded");
        let stored = self.part(content).is_some_and(|part| part.chunks.contains_key(&chunk));
        assert!(!stored, "a frame came for a chunk that is stored");
        let before = self.frames.entry((content, chunk)).or_default().insert(frame, bytes);
        assert!(before.is_none(), "frame {frame} of chunk {chunk} of content {content} came twice");
    }

    /// Makes room for a content, unless there is.
    pub(super) fn create(&mut self, content: ContentId, identity: &ContentIdentity, path: &RelPath) {
        if self.open.contains_key(&content) {
            return;
        }
        self.last_used += 1;
        let last_used = self.last_used;
        // Two contents can be the same bytes: what was replaced by its like is open still. The second is not kept.
        let is_private = self.parts.contains_key(&identity.key());
        let own = if is_private { ContentKey(u128::from(last_used)) } else { identity.key() };
        self.open.insert(content, Open { own, base: None });
        self.parts.insert(
            own,
            Part {
                path: path.clone(),
                size_bytes: identity.size_bytes,
                chunks: BTreeMap::new(),
                hashes: BTreeMap::new(),
                unverified: BTreeSet::new(),
                saved: None,
                saved_path: path.clone(),
                is_clean: false,
                last_used,
                is_private,
            },
        );
    }

    /// Writes a chunk, whose frames are all in memory, and lets go of them.
    ///
    /// # Panics
    /// If a frame is missing.
    pub fn write(&mut self, content: ContentId, chunk: u64, size_bytes: u64) {
        if self.discarded.contains(&content) {
            return;
        }
        let frames = self.frames.remove(&(content, chunk)).unwrap_or_default();
        let whole = chunk_range(chunk, size_bytes);
        let bytes = frames.into_values().collect::<Vec<_>>().concat();
        assert_eq!(
            bytes.len() as u64,
            whole.end - whole.start,
            "chunk {chunk} of {content} is stored before it is whole"
        );
        self.put(content, chunk, bytes);
    }

    fn put(&mut self, content: ContentId, chunk: u64, bytes: Vec<u8>) {
        self.written_bytes += bytes.len() as u64;
        let Some(part) = self.open.get(&content).and_then(|open| self.parts.get_mut(&open.own)) else {
            panic!("content {content} is stored nowhere")
        };
        part.hashes.insert(chunk, xxh3_64(&bytes));
        part.unverified.remove(&chunk);
        part.chunks.insert(chunk, bytes);
    }

    /// Opens what there is of a content. [`MemStore::resumed`] says what that is.
    pub(super) fn resume(
        &mut self,
        content: ContentId,
        identity: &ContentIdentity,
        path: &RelPath,
        own: bool,
        base: Option<ContentKey>,
    ) {
        if own {
            assert!(self.parts.contains_key(&identity.key()), "there is nothing of {identity:?} to go on with");
            self.open.insert(content, Open { own: identity.key(), base });
        } else {
            self.create(content, identity, path);
        }
        if let Some(open) = self.open.get_mut(&content) {
            open.base = base;
        }
        assert!(base.is_none_or(|base| self.parts.contains_key(&base)), "there is no other version to go on from");
    }

    /// What there is of a content that was opened, and of the other version.
    pub(super) fn resumed(&self, content: ContentId) -> (Option<Resumed>, Option<ChunkBitmap>) {
        let Some(open) = self.open.get(&content) else { return (None, None) };
        let own = self.parts.get(&open.own).filter(|part| !part.hashes.is_empty()).and_then(|part| {
            let trust = if part.is_clean && part.unverified.is_empty() { Trust::Verified } else { Trust::Hashed };
            Some(Resumed { chunks: part.bitmap()?, trust })
        });
        let base = open.base.and_then(|base| self.parts.get(&base)?.bitmap());
        (own, base)
    }

    /// Whether a chunk has the hash that was written down. One that has not is not there.
    pub(super) fn verify(&mut self, content: ContentId, chunk: u64) -> bool {
        let Some(part) = self.open.get(&content).and_then(|open| self.parts.get_mut(&open.own)) else { return false };
        part.unverified.remove(&chunk);
        let is_right = part.chunks.get(&chunk).map(|bytes| xxh3_64(bytes)) == part.hashes.get(&chunk).copied();
        if !is_right {
            part.chunks.remove(&chunk);
            part.hashes.remove(&chunk);
        }
        is_right
    }

    /// Takes a chunk over from the other version, if it has this hash.
    pub(super) fn adopt(&mut self, content: ContentId, chunk: u64, hash: u64) -> bool {
        let base = self.open.get(&content).and_then(|open| self.parts.get(&open.base?));
        let Some(bytes) = base.and_then(|base| base.chunks.get(&chunk)).filter(|bytes| xxh3_64(bytes) == hash) else {
            return false;
        };
        let bytes = bytes.clone();
        self.put(content, chunk, bytes);
        true
    }

    /// Takes a chunk over from elsewhere, if it has this hash.
    pub(super) fn adopt_bytes(&mut self, content: ContentId, chunk: u64, hash: u64, bytes: Vec<u8>) -> bool {
        // Nobody may want the content any more.
        let is_same = xxh3_64(&bytes) == hash && self.open.contains_key(&content);
        if is_same {
            self.put(content, chunk, bytes);
        }
        is_same
    }

    /// Writes down what there is of contents.
    pub(super) fn save(&mut self, contents: &[ContentId]) {
        for content in contents {
            if let Some(part) = self.open.get(content).and_then(|open| self.parts.get_mut(&open.own)) {
                part.save();
            }
        }
    }

    /// The file has other bytes: those before become the other version.
    pub(super) fn rebase(
        &mut self,
        content: ContentId,
        identity: &ContentIdentity,
        path: &RelPath,
        from: ContentId,
        older: bool,
    ) {
        self.create(content, identity, path);
        let Some(before) = self.open.get(&from).copied() else { panic!("content {from} was never stored") };
        let (kept, gone) = if older { (before.base, Some(before.own)) } else { (Some(before.own), before.base) };
        assert!(kept.is_some(), "content {from} has nothing to go on from");
        gone.map(|gone| self.parts.remove(&gone));
        self.open.remove(&from);
        self.discard_frames(from);
        if let Some(open) = self.open.get_mut(&content) {
            assert!(open.base.is_none(), "content {content} has another version already");
            open.base = kept;
        }
    }

    /// The owner has it elsewhere now.
    pub(super) fn note_path(&mut self, content: ContentId, path: RelPath) {
        let part = self.open.get(&content).and_then(|open| self.parts.get_mut(&open.own));
        let Some(part) = part else { panic!("content {content} was moved, and is stored nowhere") };
        part.path = path;
    }

    /// The other version is not needed any more.
    pub(super) fn drop_base(&mut self, content: ContentId) {
        let Some(open) = self.open.get_mut(&content) else { panic!("content {content} was never stored") };
        open.base.take().map(|base| self.parts.remove(&base));
    }

    /// Removes something from an earlier life.
    pub(super) fn evict(&mut self, key: ContentKey) {
        assert!(!self.open.values().any(|open| open.own == key || open.base == Some(key)), "{key:?} is open");
        assert!(self.parts.remove(&key).is_some(), "{key:?} is not there");
    }

    /// Lets go of the frames of a chunk.
    pub fn drop_frames(&mut self, content: ContentId, chunk: u64) {
        let dropped = self.frames.remove(&(content, chunk));
        assert!(dropped.is_some(), "there are no frames of chunk {chunk} of content {content} to let go of");
    }

    /// Removes a content.
    pub fn discard(&mut self, content: ContentId) {
        self.discard_frames(content);
        if let Some(open) = self.open.remove(&content) {
            self.parts.remove(&open.own);
            open.base.map(|base| self.parts.remove(&base));
        }
    }

    fn discard_frames(&mut self, content: ContentId) {
        assert!(self.discarded.insert(content), "content {content} was discarded twice");
        self.frames.retain(|(of, _), _| *of != content);
    }

    /// The process ends, well or not, and another one looks what there is.
    pub(super) fn restart(&mut self, clean: bool, rng: &mut Rng) -> Vec<Held> {
        self.frames.clear();
        self.open.clear();
        self.discarded.clear();
        self.parts.retain(|_, part| {
            part.is_clean = clean;
            if clean {
                part.save();
            } else {
                let (hashes, _) = part.saved.clone().unwrap_or_default();
                part.path.clone_from(&part.saved_path);
                part.unverified = hashes.keys().copied().collect();
                part.hashes = hashes;
                let hashes = &part.hashes;
                part.chunks.retain(|chunk, _| hashes.contains_key(chunk));
                for bytes in part.chunks.values_mut() {
                    // What was written down is durable, but disks are not what they say.
                    if rng.up_to(15) == 0
                        && let Some(byte) = bytes.last_mut()
                    {
                        *byte ^= 0x40;
                    }
                }
            }
            !part.hashes.is_empty() && !part.is_private
        });
        let held = self.parts.iter().map(|(key, part)| Held {
            key: *key,
            path: part.path.clone(),
            stored_bytes: part.stored_bytes(),
            last_used: part.last_used,
        });
        held.collect()
    }

    fn part(&self, content: ContentId) -> Option<&Part> {
        self.parts.get(&self.open.get(&content)?.own)
    }

    /// The bytes of `range`, from the store or from memory.
    ///
    /// # Panics
    /// If one is not there.
    #[must_use]
    pub fn read(&self, content: ContentId, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let part = self.part(content);
        for chunk in chunks_touched(range) {
            let base = chunk * CHUNK_SIZE;
            let touched = range.start.max(base)..range.end.min(base + CHUNK_SIZE);
            if let Some(stored) = part.and_then(|part| part.chunks.get(&chunk)) {
                bytes.extend_from_slice(&stored[(touched.start - base) as usize..(touched.end - base) as usize]);
                continue;
            }
            for frame in 0..FRAMES_PER_CHUNK {
                let at = base + u64::from(frame) * FRAME_SIZE;
                let (start, end) = (touched.start.max(at), touched.end.min(at + FRAME_SIZE));
                if start >= end {
                    continue;
                }
                let held = self.frames.get(&(content, chunk)).and_then(|frames| frames.get(&frame));
                let Some(held) = held else {
                    panic!("frame {frame} of chunk {chunk} of content {content} is not here")
                };
                bytes.extend_from_slice(&held[(start - at) as usize..(end - at) as usize]);
            }
        }
        bytes
    }

    /// Frames in memory.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.frames.values().map(BTreeMap::len).sum()
    }

    /// Contents of which anything is kept.
    #[must_use]
    pub fn contents(&self) -> BTreeSet<ContentId> {
        self.open.keys().copied().chain(self.frames.keys().map(|(content, _)| *content)).collect()
    }

    /// Open contents of which something is not written down.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        let unsaved = |open: &&Open| {
            self.parts.get(&open.own).is_some_and(|part| {
                let saved = part.saved.as_ref();
                let is_saved = saved.is_some_and(|(hashes, _)| *hashes == part.hashes) && part.saved_path == part.path;
                !part.hashes.is_empty() && !is_saved
            })
        };
        self.open.values().filter(unsaved).count()
    }

    /// What is stored, in bytes, whole chunks counted.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.parts.values().map(Part::stored_bytes).sum()
    }
}
