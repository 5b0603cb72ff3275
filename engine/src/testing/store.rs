//! A follower's store in memory, and the frames that its driver holds until they are stored.

use crate::chunk::{CHUNK_SIZE, FRAME_SIZE, FRAMES_PER_CHUNK, chunk_range, chunks_touched};
use crate::ids::ContentId;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

/// A store in memory. It believes the engine: what is read and is not there panics.
#[derive(Debug, Default)]
pub struct MemStore {
    frames: BTreeMap<(ContentId, u64), BTreeMap<u32, Vec<u8>>>,
    chunks: BTreeMap<(ContentId, u64), Vec<u8>>,
    discarded: BTreeSet<ContentId>,
}

impl MemStore {
    /// Takes a verified frame into memory.
    ///
    /// # Panics
    /// If it is there already, or its content was discarded: memory that nobody would let go of.
    pub fn hold(&mut self, content: ContentId, chunk: u64, frame: u32, bytes: Vec<u8>) {
        assert!(!self.discarded.contains(&content), "a frame came for content {content}, which was discarded");
        assert!(!self.chunks.contains_key(&(content, chunk)), "a frame came for a chunk that is stored");
        let before = self.frames.entry((content, chunk)).or_default().insert(frame, bytes);
        assert!(before.is_none(), "frame {frame} of chunk {chunk} of content {content} came twice");
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
        self.chunks.insert((content, chunk), bytes);
    }

    /// Lets go of the frames of a chunk.
    pub fn drop_frames(&mut self, content: ContentId, chunk: u64) {
        let dropped = self.frames.remove(&(content, chunk));
        assert!(dropped.is_some(), "there are no frames of chunk {chunk} of content {content} to let go of");
    }

    /// Removes a content.
    pub fn discard(&mut self, content: ContentId) {
        assert!(self.discarded.insert(content), "content {content} was discarded twice");
        self.frames.retain(|(of, _), _| *of != content);
        self.chunks.retain(|(of, _), _| *of != content);
    }

    /// The bytes of `range`, from the store or from memory.
    ///
    /// # Panics
    /// If one is not there.
    #[must_use]
    pub fn read(&self, content: ContentId, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for chunk in chunks_touched(range) {
            let base = chunk * CHUNK_SIZE;
            let part = range.start.max(base)..range.end.min(base + CHUNK_SIZE);
            if let Some(stored) = self.chunks.get(&(content, chunk)) {
                bytes.extend_from_slice(&stored[(part.start - base) as usize..(part.end - base) as usize]);
                continue;
            }
            for frame in 0..FRAMES_PER_CHUNK {
                let at = base + u64::from(frame) * FRAME_SIZE;
                let (start, end) = (part.start.max(at), part.end.min(at + FRAME_SIZE));
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
        self.chunks.keys().chain(self.frames.keys()).map(|(content, _)| *content).collect()
    }
}
