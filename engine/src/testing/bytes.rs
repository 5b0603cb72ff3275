//! What files hold: bytes that are a function of a version number, so that any byte of any version can be checked.
//!
//! Every other edit leaves every other chunk as it was: version `2n + 1` has the odd chunks of version `2n`.

use crate::chunk::CHUNK_SIZE;

/// Makes neighbouring words differ in all their bytes.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `len` bytes at `offset` of version `version`. No two places of one version look alike, and no two versions, but for
/// the chunks that they share.
#[must_use]
pub fn bytes_of(version: u64, offset: u64, len: u64) -> Vec<u8> {
    let (mut bytes, end) = (Vec::with_capacity(len as usize), offset + len);
    let mut at = offset;
    while at < end {
        let chunk = at / CHUNK_SIZE;
        let until = ((chunk + 1) * CHUNK_SIZE).min(end);
        bytes.extend(part_of(if chunk % 2 == 1 { version & !1 } else { version }, at, until - at));
        at = until;
    }
    bytes
}

fn part_of(version: u64, offset: u64, len: u64) -> Vec<u8> {
    let key = version.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let (first, end) = (offset / 8, (offset + len).div_ceil(8));
    // Unoptimised tests fill megabytes with this: as few calls as there can be.
    let mut words = vec![0; ((end - first) * 8) as usize];
    let (mut index, mut at) = (first, 0);
    while index < end {
        let word = (key ^ index.wrapping_mul(STRIDE)).to_le_bytes();
        words[at..at + 8].copy_from_slice(&word);
        index += 1;
        at += 8;
    }
    let skip = (offset - first * 8) as usize;
    words.drain(..skip);
    words.truncate(len as usize);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_wherever_it_is_cut() {
        let whole = bytes_of(7, 0, 1_000);
        assert_eq!(whole.len(), 1_000);
        for (offset, len) in [(0, 8), (1, 9), (13, 500), (999, 1), (1_000, 0)] {
            assert_eq!(bytes_of(7, offset, len), whole[offset as usize..(offset + len) as usize]);
        }
        assert_ne!(bytes_of(8, 0, 8), bytes_of(7, 0, 8));
        assert_eq!(bytes_of(9, CHUNK_SIZE, 8), bytes_of(8, CHUNK_SIZE, 8));
        assert_ne!(bytes_of(9, CHUNK_SIZE - 1, 1), bytes_of(8, CHUNK_SIZE - 1, 1));
        assert_ne!(bytes_of(10, CHUNK_SIZE, 8), bytes_of(9, CHUNK_SIZE, 8));
    }
}
