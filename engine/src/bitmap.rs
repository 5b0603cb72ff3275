//! Which chunks of a file are present.

use crate::chunk::{CHUNK_SIZE, MAX_FILE_BYTES};
use bitvec::vec::BitVec;
use core::fmt;

/// The smallest chunk size that a bitmap takes, in bytes (4 KiB): smaller ones would only cost memory.
pub const MIN_CHUNK_BYTES: u64 = 4 * 1024;

/// The largest chunk size that a bitmap takes, in bytes (1 GiB).
pub const MAX_CHUNK_BYTES: u64 = 1 << 30;

/// The most chunks that a bitmap tracks: those of the largest file in chunks of the usual size.
pub const MAX_CHUNKS: u64 = MAX_FILE_BYTES / CHUNK_SIZE;

/// Why there is no bitmap for such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitmapError {
    /// An empty file has no chunks; it needs no bitmap.
    #[error("an empty file has no chunks")]
    Empty,
    /// A chunk size outside [`MIN_CHUNK_BYTES`]..=[`MAX_CHUNK_BYTES`].
    #[error("a chunk size of {0} bytes is outside {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}")]
    ChunkSize(u64),
    /// More than [`MAX_CHUNKS`].
    #[error("a file of {0} bytes has more than {MAX_CHUNKS} chunks")]
    TooManyChunks(u64),
}

/// Which chunks of a file are present. A chunk is present as a whole or not at all.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkBitmap {
    bits: BitVec<u64>,
    have: u64,
    file_bytes: u64,
    chunk_bytes: u64,
}

/// The same for equal bitmaps, as histories of runs have to be: where the bits lie in memory is not part of it.
impl fmt::Debug for ChunkBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChunkBitmap { bits, have, file_bytes, chunk_bytes } = self;
        write!(f, "ChunkBitmap({have} of {} chunks of {chunk_bytes}, {file_bytes} bytes:", bits.len())?;
        let mut from = 0;
        while let Some(ahead) = bits[from..].first_one() {
            let start = from + ahead;
            from = bits[start..].first_zero().map_or(bits.len(), |len| start + len);
            write!(f, " {start}..{from}")?;
        }
        f.write_str(")")
    }
}

impl ChunkBitmap {
    /// An empty bitmap for a file of `file_bytes`, in chunks of [`CHUNK_SIZE`]. `None` for an empty file, which needs
    /// none, and for one larger than [`MAX_FILE_BYTES`].
    #[must_use]
    pub fn new(file_bytes: u64) -> Option<ChunkBitmap> {
        ChunkBitmap::with_chunk_size(file_bytes, CHUNK_SIZE).ok()
    }

    /// An empty bitmap for a file of `file_bytes` in chunks of `chunk_bytes`.
    ///
    /// # Errors
    /// [`BitmapError`], before anything is allocated.
    pub fn with_chunk_size(file_bytes: u64, chunk_bytes: u64) -> Result<ChunkBitmap, BitmapError> {
        let total = ChunkBitmap::chunks_in(file_bytes, chunk_bytes)?;
        Ok(ChunkBitmap { bits: BitVec::repeat(false, total), have: 0, file_bytes, chunk_bytes })
    }

    /// A bitmap from words of 64 chunks each, the first chunk in the lowest bit of the first word. Where words are missing
    /// nothing is present; bits beyond the last chunk are dropped.
    ///
    /// # Errors
    /// [`BitmapError`], before anything is allocated.
    pub(crate) fn from_words(
        file_bytes: u64,
        chunk_bytes: u64,
        words: impl IntoIterator<Item = u64>,
    ) -> Result<ChunkBitmap, BitmapError> {
        let mut bitmap = ChunkBitmap::with_chunk_size(file_bytes, chunk_bytes)?;
        for (word, given) in bitmap.bits.as_raw_mut_slice().iter_mut().zip(words) {
            *word = given;
        }
        // Whatever lies beyond the last bit in its word is no part of the bits: nothing sees it.
        bitmap.have = bitmap.bits.count_ones() as u64;
        Ok(bitmap)
    }

    /// How many chunks of `chunk_bytes` a file of `file_bytes` has; allocates nothing.
    ///
    /// # Errors
    /// [`BitmapError`], if there is no bitmap for such a file.
    pub(crate) fn chunks_in(file_bytes: u64, chunk_bytes: u64) -> Result<usize, BitmapError> {
        if file_bytes == 0 {
            return Err(BitmapError::Empty);
        }
        if !(MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk_bytes) {
            return Err(BitmapError::ChunkSize(chunk_bytes));
        }
        match usize::try_from(file_bytes.div_ceil(chunk_bytes)) {
            Ok(total) if total as u64 <= MAX_CHUNKS => Ok(total),
            _ => Err(BitmapError::TooManyChunks(file_bytes)),
        }
    }

    /// Whether chunk number `chunk` is present; `false` beyond the end.
    #[must_use]
    pub fn has(&self, chunk: u64) -> bool {
        usize::try_from(chunk).ok().and_then(|index| self.bits.get(index)).is_some_and(|bit| *bit)
    }

    /// Whether every byte of the `len` bytes at `offset` is present. An empty range is; one that reaches beyond the end
    /// of the file is not.
    #[must_use]
    pub fn has_range(&self, offset: u64, len: u64) -> bool {
        if len == 0 {
            return true;
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.file_bytes => {
                let first = index(offset / self.chunk_bytes);
                let after = index(end.div_ceil(self.chunk_bytes));
                // Not `all`, which counts the whole range before it answers.
                after - first == 1 && self.bits[first] || self.bits[first..after].first_zero().is_none()
            }
            _ => false,
        }
    }

    /// Marks chunk number `chunk` as present. Marking it again, or one beyond the end, changes nothing.
    pub fn set(&mut self, chunk: u64) {
        if chunk < self.total() && !self.bits.replace(index(chunk), true) {
            self.have += 1;
        }
    }

    /// Marks chunk number `chunk` as not present. Doing so again, or for one beyond the end, changes nothing.
    pub fn clear(&mut self, chunk: u64) {
        if chunk < self.total() && self.bits.replace(index(chunk), false) {
            self.have -= 1;
        }
    }

    /// Marks the chunks that lie wholly inside the `len` bytes at `offset`. The last chunk of the file, which may be
    /// short, lies inside when the range reaches the end of the file.
    pub fn set_range(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.file_bytes);
        let first = offset.div_ceil(self.chunk_bytes);
        let after = if end == self.file_bytes { self.total() } else { end / self.chunk_bytes };
        if first < after {
            let span = &mut self.bits[index(first)..index(after)];
            self.have += span.count_zeros() as u64;
            span.fill(true);
        }
    }

    /// Chunks that are present.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Bytes of the chunks that are present.
    #[must_use]
    pub fn have_bytes(&self) -> u64 {
        let last = self.total() - 1;
        let missing_of_last = self.total() * self.chunk_bytes - self.file_bytes;
        self.have * self.chunk_bytes - if self.has(last) { missing_of_last } else { 0 }
    }

    /// Chunks in all, at least one.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bits.len() as u64
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of one chunk.
    #[must_use]
    pub fn chunk_size_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// The share of chunks that are present, from 0 to 1. For people: decisions use the counts.
    #[must_use]
    pub fn progress(&self) -> f64 {
        self.have as f64 / self.total() as f64
    }

    /// Whether every chunk is present.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.have == self.total()
    }

    /// The first chunk from number `from` on that is not present. Looks at whole words.
    #[must_use]
    pub fn next_missing(&self, from: u64) -> Option<u64> {
        if from >= self.total() {
            return None;
        }
        self.bits[index(from)..].first_zero().map(|ahead| from + ahead as u64)
    }

    /// The chunks that are present, in order.
    pub fn present(&self) -> impl Iterator<Item = u64> + '_ {
        self.bits.iter_ones().map(|chunk| chunk as u64)
    }

    /// The words that [`ChunkBitmap::from_words`] takes, with zeros beyond the last chunk.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bits.domain()
    }
}

/// A chunk number as an index. Every caller has compared it with the total, which fits.
fn index(chunk: u64) -> usize {
    usize::try_from(chunk).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const SMALL: u64 = MIN_CHUNK_BYTES;

    #[test]
    fn it_is_shown_as_runs_of_chunks() {
        let mut bitmap = ChunkBitmap::with_chunk_size(9 * SMALL + 1, SMALL).unwrap();
        [0, 1, 2, 5, 9].into_iter().for_each(|chunk| bitmap.set(chunk));
        assert_eq!(format!("{bitmap:?}"), "ChunkBitmap(5 of 10 chunks of 4096, 36865 bytes: 0..3 5..6 9..10)");
    }

    #[test]
    fn impossible_bitmaps_are_refused() {
        assert_eq!(ChunkBitmap::new(0), None);
        assert_eq!(ChunkBitmap::new(u64::MAX), None);
        assert_eq!(ChunkBitmap::with_chunk_size(10, 0), Err(BitmapError::ChunkSize(0)));
        assert_eq!(ChunkBitmap::with_chunk_size(10, u64::MAX), Err(BitmapError::ChunkSize(u64::MAX)));
        assert_eq!(ChunkBitmap::with_chunk_size(u64::MAX, SMALL), Err(BitmapError::TooManyChunks(u64::MAX)));
        assert_eq!(ChunkBitmap::new(1).unwrap().total(), 1);
        assert_eq!(ChunkBitmap::new(MAX_FILE_BYTES).unwrap().total(), MAX_CHUNKS);
    }

    #[test]
    fn four_kib_do_not_make_a_chunk() {
        let mut bitmap = ChunkBitmap::new(3 * CHUNK_SIZE).unwrap();
        bitmap.set_range(0, 4096);
        assert_eq!(bitmap.have(), 0);
        bitmap.set_range(1, 2 * CHUNK_SIZE);
        assert!(!bitmap.has(0) && bitmap.has(1) && !bitmap.has(2));
    }

    #[test]
    fn the_short_last_chunk_is_whole_at_the_end_of_the_file() {
        let mut bitmap = ChunkBitmap::new(CHUNK_SIZE + 10).unwrap();
        bitmap.set_range(CHUNK_SIZE, 9);
        assert!(!bitmap.has(1), "one byte of the last chunk is missing");
        bitmap.set_range(CHUNK_SIZE, 10);
        assert!(bitmap.has(1));
        assert!(bitmap.has_range(CHUNK_SIZE, 10));
        assert!(!bitmap.has_range(CHUNK_SIZE, 11), "beyond the end is not present");
        assert!(!bitmap.has_range(u64::MAX, 2), "nor is what overflows");
        assert!(bitmap.has_range(u64::MAX, 0), "an empty range is");
    }

    #[test]
    fn words_beyond_the_last_chunk_are_dropped_and_missing_ones_are_zero() {
        let bitmap = ChunkBitmap::from_words(70 * SMALL, SMALL, [1 << 63 | 1, u64::MAX, u64::MAX]).unwrap();
        assert_eq!(bitmap.present().collect::<Vec<_>>(), [0, 63, 64, 65, 66, 67, 68, 69]);
        assert_eq!(bitmap.have(), 8);
        assert_eq!(bitmap.words().collect::<Vec<_>>(), [1 << 63 | 1, 0b11_1111]);
        let short = ChunkBitmap::from_words(70 * SMALL, SMALL, [2]).unwrap();
        assert_eq!(short.present().collect::<Vec<_>>(), [1]);
        assert_eq!(ChunkBitmap::from_words(10, 0, [1]), Err(BitmapError::ChunkSize(0)));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Set(u64),
        SetRange(u64, u64),
    }

    fn ops() -> impl Strategy<Value = (u64, Vec<Op>)> {
        (1..40 * SMALL).prop_flat_map(|file_bytes| {
            let chunks = file_bytes.div_ceil(SMALL) + 2;
            let op = prop_oneof![
                (0..chunks).prop_map(Op::Set),
                (0..file_bytes + 10, 0..file_bytes + 10).prop_map(|(offset, len)| Op::SetRange(offset, len)),
            ];
            (Just(file_bytes), proptest::collection::vec(op, 0..20))
        })
    }

    proptest! {
        /// A bitmap is a set of chunk numbers, whatever is done to it.
        #[test]
        fn it_is_a_set((file_bytes, ops) in ops(), offset in 0..50 * SMALL, len in 0..50 * SMALL) {
            let mut bitmap = ChunkBitmap::with_chunk_size(file_bytes, SMALL).unwrap();
            let mut model = BTreeSet::new();
            let total = file_bytes.div_ceil(SMALL);
            for op in ops {
                match op {
                    Op::Set(chunk) => {
                        bitmap.set(chunk);
                        if chunk < total { model.insert(chunk); }
                    }
                    Op::SetRange(offset, len) => {
                        bitmap.set_range(offset, len);
                        model.extend((0..total).filter(|chunk| {
                            let whole = chunk * SMALL..(chunk * SMALL + SMALL).min(file_bytes);
                            offset <= whole.start && whole.end <= offset + len
                        }));
                    }
                }
            }
            prop_assert_eq!(bitmap.have(), model.len() as u64);
            prop_assert_eq!(bitmap.is_complete(), model.len() as u64 == total);
            for chunk in 0..total + 2 {
                prop_assert_eq!(bitmap.has(chunk), model.contains(&chunk));
                prop_assert_eq!(bitmap.next_missing(chunk), (chunk..total).find(|chunk| !model.contains(chunk)));
            }
            prop_assert_eq!(bitmap.present().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let words: Vec<u64> = bitmap.words().collect();
            let again = ChunkBitmap::from_words(file_bytes, SMALL, words.iter().copied()).unwrap();
            prop_assert_eq!((&again, again.have()), (&bitmap, bitmap.have()));
            let inside = offset + len <= file_bytes;
            let touched = offset / SMALL..(offset + len).div_ceil(SMALL);
            prop_assert_eq!(
                bitmap.has_range(offset, len),
                len == 0 || inside && touched.clone().all(|chunk| model.contains(&chunk))
            );
        }
    }
}
