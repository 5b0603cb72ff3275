//! What simulated files hold: a function of the file, the version and the place, so that every byte can be checked.
//!
//! No two blocks of 4 KiB are the same, in whichever files and versions, except where a version was made of another one by
//! changing some of its chunks. So bytes from another place, another file or another version never pass for the right ones.

use bytes::Bytes;
use farshore_engine::chunk::CHUNK_SIZE;
use std::ops::Range;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64;

const BLOCK_BYTES: u64 = 4096;
const TABLE_BYTES: usize = 64 * 1024;

/// One version of one file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text {
    /// The file: its inode number.
    pub file: u64,
    /// Which of its versions, counted from zero.
    pub version: u32,
    /// The version that all chunks are from which were not changed since.
    base: u32,
    /// The chunks that were changed since, as bits: the chunk of each bit, and every 64th after that.
    changed: u64,
}

impl Text {
    /// A version that has nothing in common with any other.
    #[must_use]
    pub fn new(file: u64, version: u32) -> Text {
        Text { file, version, base: version, changed: 0 }
    }

    /// What this one becomes as `version` if a chunk is changed. Those that were changed before are so again, and so is
    /// every 64th chunk after each; all others stay as they are.
    #[must_use]
    pub fn with_changed(self, version: u32, chunk: u64) -> Text {
        Text { version, changed: self.changed | 1 << (chunk % 64), ..self }
    }

    /// The bytes of `range`.
    #[must_use]
    pub fn bytes(self, range: Range<u64>) -> Bytes {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        self.each_block(range, |block, inside| {
            bytes.extend_from_slice(&block[inside]);
            true
        });
        bytes.into()
    }

    /// The place in the file of the first of `bytes`, which begin at `offset`, that is wrong.
    #[must_use]
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut done = 0;
        let mut wrong = None;
        self.each_block(offset..offset + bytes.len() as u64, |block, inside| {
            let (ours, theirs) = (&block[inside.clone()], &bytes[done..done + inside.len()]);
            if ours != theirs {
                let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap_or(0);
                wrong = Some(offset + (done + at) as u64);
                return false;
            }
            done += inside.len();
            true
        });
        wrong
    }

    /// Hands out each block that `range` touches, with the part of it that lies in the range, until told to stop.
    fn each_block(self, range: Range<u64>, mut take: impl FnMut(&[u8], Range<usize>) -> bool) {
        let mut block = [0; BLOCK_BYTES as usize];
        let mut at = range.start;
        while at < range.end {
            let (number, from) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
            let until = BLOCK_BYTES.min(from + range.end - at);
            self.fill_block(number, &mut block);
            if !take(&block, from as usize..until as usize) {
                return;
            }
            at += until - from;
        }
    }

    fn fill_block(self, number: u64, block: &mut [u8; BLOCK_BYTES as usize]) {
        let mut name = [0; 24];
        name[..8].copy_from_slice(&self.file.to_le_bytes());
        let is_changed = self.changed >> (number * BLOCK_BYTES / CHUNK_SIZE % 64) & 1 == 1;
        let version = if is_changed { self.version } else { self.base };
        name[8..16].copy_from_slice(&u64::from(version).to_le_bytes());
        name[16..].copy_from_slice(&number.to_le_bytes());
        let hash = xxh3_64(&name);
        let len = block.len();
        let from = hash as usize % (TABLE_BYTES - len);
        block.copy_from_slice(&table()[from..from + len]);
        // Twice, so that no part of the block is without.
        block[..8].copy_from_slice(&hash.to_le_bytes());
        block[2048..2056].copy_from_slice(&hash.to_le_bytes());
    }
}

/// Bytes that look like noise.
fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut lots = crate::lots::Lots::new(7);
        (0..TABLE_BYTES / 8).flat_map(|_| lots.bits().to_le_bytes()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_byte_is_found() {
        let text = Text::new(3, 1);
        let bytes = text.bytes(5_000..20_000).to_vec();
        assert_eq!(text.first_difference(5_000, &bytes), None);
        for at in [0, 1, 3_191, 3_192, 14_999] {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!(text.first_difference(5_000, &wrong), Some(5_000 + at as u64));
        }
    }

    #[test]
    fn no_place_version_or_file_looks_like_another() {
        let text = Text::new(3, 1);
        let bytes = text.bytes(8_192..8_192 + 64);
        assert!(text.first_difference(4_096, &bytes).is_some());
        assert!(Text::new(3, 2).first_difference(8_192, &bytes).is_some());
        assert!(Text::new(4, 1).first_difference(8_192, &bytes).is_some());
    }

    #[test]
    fn a_version_of_which_one_chunk_was_changed_differs_there_and_nowhere_else() {
        let text = Text::new(3, 1);
        let edited = text.with_changed(2, 1);
        let twice = edited.with_changed(3, 0);
        let differs = |one: Text, other: Text, chunk: u64| {
            let range = chunk * CHUNK_SIZE..(chunk + 1) * CHUNK_SIZE;
            one.first_difference(range.start, &other.bytes(range.clone())) == Some(range.start)
        };
        assert_eq!([0, 1, 2].map(|chunk| differs(text, edited, chunk)), [false, true, false]);
        assert_eq!([0, 1, 2].map(|chunk| differs(edited, twice, chunk)), [true, true, false]);
    }
}
