//! The gate that every byte of content passes: nothing is handed on unless it was asked for and matches its hash.

use crate::read::{Frame, Hashes};
use bytes::Bytes;
use core::cmp::Ordering;
use core::ops::Range;
use farshore_engine::PeerFault;
use farshore_engine::chunk::{CHUNK_SIZE, FRAMES_PER_CHUNK, frames_range};
use xxhash_rust::xxh3::xxh3_64;

/// What was asked for with one request, and how much of it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    chunk: u64,
    /// The frames that have not come yet.
    missing: Range<u32>,
    size_bytes: u64,
}

impl Asked {
    /// A request for `frames` of chunk number `chunk` in a file of `size_bytes`. Frames that the file does not have
    /// are not expected.
    #[must_use]
    pub fn new(chunk: u64, frames: Range<u32>, size_bytes: u64) -> Asked {
        let mut missing = frames.start..frames.end.min(FRAMES_PER_CHUNK);
        while !missing.is_empty() && frames_range(chunk, &(missing.end - 1..missing.end), size_bytes).is_empty() {
            missing.end -= 1;
        }
        Asked { chunk, missing, size_bytes }
    }

    /// Which chunk the frames are of.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Whether all of a file of one chunk is missing.
    #[must_use]
    pub fn is_whole_file(&self) -> bool {
        let is_small = (1..=CHUNK_SIZE).contains(&self.size_bytes);
        is_small && *self == Asked::new(0, 0..FRAMES_PER_CHUNK, self.size_bytes)
    }

    /// The frames that have not come yet.
    #[must_use]
    pub fn missing(&self) -> Range<u32> {
        self.missing.clone()
    }

    /// Takes a frame if it is the next one, whole, and matches its hash. Nothing changes otherwise.
    ///
    /// # Errors
    /// [`PeerFault::TooMuch`], [`PeerFault::WrongRange`], [`PeerFault::TooLittle`] or [`PeerFault::WrongHash`].
    pub fn accept(&mut self, frame: Frame) -> Result<(u32, Bytes), PeerFault> {
        if self.missing.is_empty() {
            return Err(PeerFault::TooMuch);
        }
        let index = self.missing.start;
        if frame.frame != index {
            return Err(PeerFault::WrongRange);
        }
        let range = frames_range(self.chunk, &(index..index + 1), self.size_bytes);
        match (frame.data.len() as u64).cmp(&(range.end - range.start)) {
            Ordering::Less => return Err(PeerFault::TooLittle),
            Ordering::Greater => return Err(PeerFault::TooMuch),
            Ordering::Equal => {}
        }
        if xxh3_64(&frame.data) != frame.xxh3 {
            return Err(PeerFault::WrongHash);
        }
        self.missing.start += 1;
        Ok((index, frame.data))
    }

    /// Hears that the request has ended.
    ///
    /// # Errors
    /// [`PeerFault::TooLittle`] if frames are missing.
    pub fn finish(&self) -> Result<(), PeerFault> {
        if self.missing.is_empty() { Ok(()) } else { Err(PeerFault::TooLittle) }
    }
}

/// The hashes that were asked for with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedHashes(Range<u64>);

impl AskedHashes {
    /// A request for the hashes of `chunks`.
    #[must_use]
    pub fn new(chunks: Range<u64>) -> AskedHashes {
        AskedHashes(chunks)
    }

    /// Takes an answer if it is what was asked for, no less and no more. Whether the hashes are right is not known
    /// until the chunks are: a wrong one only costs that a chunk is fetched, or fetched twice.
    ///
    /// # Errors
    /// [`PeerFault::WrongRange`], [`PeerFault::TooLittle`] or [`PeerFault::TooMuch`].
    pub fn accept(&self, hashes: Hashes) -> Result<Vec<u64>, PeerFault> {
        if hashes.first_chunk != self.0.start {
            return Err(PeerFault::WrongRange);
        }
        match (hashes.xxh3.len() as u64).cmp(&(self.0.end - self.0.start)) {
            Ordering::Less => Err(PeerFault::TooLittle),
            Ordering::Greater => Err(PeerFault::TooMuch),
            Ordering::Equal => Ok(hashes.xxh3),
        }
    }
}

/// The hash of a chunk, as it is sent.
#[must_use]
pub fn hash_of(chunk: &[u8]) -> u64 {
    xxh3_64(chunk)
}

/// A frame to be sent, with its hash.
#[must_use]
pub fn seal(request: u64, frame: u32, data: Bytes) -> Frame {
    Frame { request, frame, xxh3: xxh3_64(&data), data }
}

#[cfg(test)]
// The numbers are small.
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use farshore_engine::chunk::FRAME_SIZE;

    const WHOLE: usize = FRAME_SIZE as usize;

    fn frame(index: u32, len: usize) -> Frame {
        seal(1, index, vec![index as u8; len].into())
    }

    #[test]
    fn what_was_asked_for_passes_in_order_and_once() {
        let mut asked = Asked::new(0, 1..3, CHUNK_SIZE);
        assert_eq!(asked.accept(frame(2, WHOLE)), Err(PeerFault::WrongRange), "out of order");
        assert_eq!(asked.accept(frame(0, WHOLE)), Err(PeerFault::WrongRange), "before what was asked for");
        assert_eq!(asked.accept(frame(1, WHOLE)).unwrap().0, 1);
        assert_eq!(asked.finish(), Err(PeerFault::TooLittle));
        assert_eq!(asked.accept(frame(1, WHOLE)), Err(PeerFault::WrongRange), "twice");
        assert_eq!(asked.accept(frame(2, WHOLE)).unwrap().1, vec![2; WHOLE]);
        assert_eq!(asked.finish(), Ok(()));
        assert_eq!(asked.accept(frame(3, WHOLE)), Err(PeerFault::TooMuch), "beyond what was asked for");
    }

    #[test]
    fn lengths_are_exact() {
        let mut asked = Asked::new(1, 0..2, CHUNK_SIZE + FRAME_SIZE + 5);
        assert_eq!(asked.accept(frame(0, WHOLE - 1)), Err(PeerFault::TooLittle));
        assert_eq!(asked.accept(frame(0, WHOLE + 1)), Err(PeerFault::TooMuch));
        assert!(asked.accept(frame(0, WHOLE)).is_ok());
        assert_eq!(asked.accept(frame(1, 0)), Err(PeerFault::TooLittle));
        assert_eq!(asked.accept(frame(1, 6)), Err(PeerFault::TooMuch));
        assert!(asked.accept(frame(1, 5)).is_ok(), "the last frame of a file is short");
    }

    #[test]
    fn a_whole_file_is_one_of_one_chunk_of_which_nothing_has_come() {
        for (chunk, frames, size_bytes, is_whole) in [
            (0, 0..1, 5, true),
            (0, 0..4, CHUNK_SIZE, true),
            (0, 0..3, CHUNK_SIZE, false),
            (0, 1..4, CHUNK_SIZE, false),
            (0, 0..4, CHUNK_SIZE + 1, false),
            (1, 0..4, CHUNK_SIZE, false),
            (0, 0..4, 0, false),
        ] {
            let asked = Asked::new(chunk, frames.clone(), size_bytes);
            assert_eq!(asked.is_whole_file(), is_whole, "frames {frames:?} of chunk {chunk} of {size_bytes} bytes");
        }
        let mut asked = Asked::new(0, 0..2, FRAME_SIZE + 1);
        assert!(asked.is_whole_file());
        asked.accept(frame(0, WHOLE)).unwrap();
        assert!(!asked.is_whole_file());
    }

    #[test]
    fn one_bit_is_enough_to_be_refused() {
        let mut asked = Asked::new(0, 0..1, 10);
        let good = frame(0, 10);
        let mut data = good.data.to_vec();
        data[9] ^= 1;
        assert_eq!(asked.accept(Frame { data: data.into(), ..good.clone() }), Err(PeerFault::WrongHash));
        assert_eq!(asked.accept(Frame { xxh3: good.xxh3 ^ 1, ..good.clone() }), Err(PeerFault::WrongHash));
        assert_eq!(asked.accept(good.clone()), Ok((0, good.data)), "a refused frame changes nothing");
    }

    #[test]
    fn hashes_are_those_that_were_asked_for_no_less_and_no_more() {
        let asked = AskedHashes::new(3..5);
        let hashes = |first_chunk, xxh3: &[u64]| Hashes { request: 1, first_chunk, xxh3: xxh3.to_vec() };
        assert_eq!(asked.accept(hashes(3, &[7, 8])), Ok(vec![7, 8]));
        assert_eq!(asked.accept(hashes(2, &[7, 8])), Err(PeerFault::WrongRange));
        assert_eq!(asked.accept(hashes(3, &[7])), Err(PeerFault::TooLittle));
        assert_eq!(asked.accept(hashes(3, &[])), Err(PeerFault::TooLittle));
        assert_eq!(asked.accept(hashes(3, &[7, 8, 9])), Err(PeerFault::TooMuch));
    }

    #[test]
    fn frames_beyond_the_file_are_not_expected() {
        assert_eq!(Asked::new(0, 0..4, 10), Asked::new(0, 0..1, 10));
        assert_eq!(Asked::new(9, 0..4, 10).finish(), Ok(()));
    }
}
