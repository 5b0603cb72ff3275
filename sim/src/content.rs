//! What simulated files hold: a function of the file, the version and the place, so that every byte can be checked.
//!
//! No two blocks of 4 KiB are the same, in whichever files and versions. So bytes from another place, another file or
//! another version never pass for the right ones.

use bytes::Bytes;
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
}

impl Text {
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
        name[8..16].copy_from_slice(&u64::from(self.version).to_le_bytes());
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
        let text = Text { file: 3, version: 1 };
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
        let text = Text { file: 3, version: 1 };
        let bytes = text.bytes(8_192..8_192 + 64);
        assert!(text.first_difference(4_096, &bytes).is_some());
        assert!(Text { version: 2, ..text }.first_difference(8_192, &bytes).is_some());
        assert!(Text { file: 4, ..text }.first_difference(8_192, &bytes).is_some());
    }
}
