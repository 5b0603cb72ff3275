//! The geometry of content: chunks are the unit of what is present, frames the unit of what travels.

use core::ops::Range;

/// The unit of presence, in bytes (512 KiB).
pub const CHUNK_SIZE: u64 = 512 * 1024;

/// The unit of travel inside a chunk, in bytes (128 KiB): a read waits for the frames it touches, not for the chunk.
pub const FRAME_SIZE: u64 = 128 * 1024;

/// Frames in a whole chunk.
pub const FRAMES_PER_CHUNK: u32 = (CHUNK_SIZE / FRAME_SIZE) as u32;

/// The block size told to the kernel, in bytes (256 KiB): what `cp` and `dd` use by default.
pub const FILESYSTEM_BLOCK_SIZE: u32 = 256 * 1024;

/// Parallel streams per file; chunk *i* travels on stream *i* mod this.
pub const STREAM_POOL_SIZE: u32 = 4;

/// The largest file that is shared or accepted, in bytes (64 TiB): its bitmap still fits into 16 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 46;

/// The bytes of a file of `size_bytes` that chunk number `chunk` holds; the last chunk may be short.
#[must_use]
pub fn chunk_range(chunk: u64, size_bytes: u64) -> Range<u64> {
    let start = chunk.saturating_mul(CHUNK_SIZE).min(size_bytes);
    start..start.saturating_add(CHUNK_SIZE).min(size_bytes)
}

/// The chunks that `range` touches; empty for an empty range.
#[must_use]
pub fn chunks_touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / CHUNK_SIZE..range.end.div_ceil(CHUNK_SIZE)
}

/// The stream of a file's pool that chunk number `chunk` travels on.
#[must_use]
pub fn stream_of(chunk: u64) -> u32 {
    (chunk % u64::from(STREAM_POOL_SIZE)) as u32
}

/// A set of frames of one chunk, one bit each, the first frame in the lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameSet(u8);

impl FrameSet {
    /// No frame.
    pub const EMPTY: FrameSet = FrameSet(0);

    /// All frames of a chunk of `chunk_bytes` bytes, which is 1 to [`CHUNK_SIZE`].
    #[must_use]
    pub fn all(chunk_bytes: u64) -> FrameSet {
        FrameSet::span(0, chunk_bytes.min(CHUNK_SIZE).div_ceil(FRAME_SIZE) as u32)
    }

    /// The frames from number `first` up to, not including, `end`.
    #[must_use]
    pub fn span(first: u32, end: u32) -> FrameSet {
        let below = |n: u32| ((1u32 << n.min(FRAMES_PER_CHUNK)) - 1) as u8;
        FrameSet(below(end) & !below(first))
    }

    /// The frames of chunk number `chunk` that `range` of the file touches.
    #[must_use]
    pub fn touched(chunk: u64, range: &Range<u64>) -> FrameSet {
        let base = chunk * CHUNK_SIZE;
        let start = range.start.clamp(base, base + CHUNK_SIZE) - base;
        let end = range.end.clamp(base, base + CHUNK_SIZE) - base;
        if start >= end {
            return FrameSet::EMPTY;
        }
        FrameSet::span((start / FRAME_SIZE) as u32, end.div_ceil(FRAME_SIZE) as u32)
    }

    /// Whether there is no frame in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every frame of `other` is in it.
    #[must_use]
    pub fn contains(self, other: FrameSet) -> bool {
        other.0 & !self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: FrameSet) -> FrameSet {
        FrameSet(self.0 | other.0)
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub fn minus(self, other: FrameSet) -> FrameSet {
        FrameSet(self.0 & !other.0)
    }

    /// How many frames it has.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The runs of neighbouring frames, in order: each can be asked for with one request.
    pub fn runs(self) -> impl Iterator<Item = Range<u32>> {
        let mut next = 0;
        core::iter::from_fn(move || {
            let first = (next..FRAMES_PER_CHUNK).find(|frame| self.0 >> frame & 1 == 1)?;
            let end = (first..FRAMES_PER_CHUNK).find(|frame| self.0 >> frame & 1 == 0).unwrap_or(FRAMES_PER_CHUNK);
            next = end;
            Some(first..end)
        })
    }
}

/// The bytes of the file that frames `frames` of chunk `chunk` cover, in a file of `size_bytes`.
#[must_use]
pub fn frames_range(chunk: u64, frames: &Range<u32>, size_bytes: u64) -> Range<u64> {
    let whole = chunk_range(chunk, size_bytes);
    let at = |frame: u32| (whole.start + u64::from(frame) * FRAME_SIZE).min(whole.end);
    at(frames.start)..at(frames.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_is_short_and_beyond_it_is_nothing() {
        assert_eq!(chunk_range(0, 10), 0..10);
        assert_eq!(chunk_range(1, CHUNK_SIZE + 1), CHUNK_SIZE..CHUNK_SIZE + 1);
        assert!(chunk_range(2, CHUNK_SIZE + 1).is_empty());
        assert!(chunk_range(u64::MAX, CHUNK_SIZE).is_empty());
        assert_eq!(chunks_touched(&(CHUNK_SIZE - 1..CHUNK_SIZE + 1)), 0..2);
        assert_eq!(chunks_touched(&(5..5)), 0..0);
    }

    #[test]
    fn frame_sets_follow_ranges() {
        assert_eq!(FrameSet::all(1).len(), 1);
        assert_eq!(FrameSet::all(CHUNK_SIZE).len(), FRAMES_PER_CHUNK);
        let middle = FrameSet::touched(1, &(CHUNK_SIZE + FRAME_SIZE..CHUNK_SIZE + FRAME_SIZE + 1));
        assert_eq!(middle, FrameSet::span(1, 2));
        assert!(FrameSet::touched(0, &(CHUNK_SIZE..CHUNK_SIZE + 1)).is_empty());
        let rest = FrameSet::all(CHUNK_SIZE).minus(middle);
        assert_eq!(rest.runs().collect::<Vec<_>>(), [0..1, 2..4]);
        assert_eq!(frames_range(1, &(0..4), CHUNK_SIZE + 5), CHUNK_SIZE..CHUNK_SIZE + 5);
        assert!(frames_range(1, &(1..4), CHUNK_SIZE + 5).is_empty());
    }
}
