//! The bodies of the fuzz targets, here so that the committed corpus is replayed by plain `cargo test`.

use super::ops::{Op, play};
use crate::bitmap::{ChunkBitmap, MIN_CHUNK_BYTES};
use crate::path::PATH_MAX_BYTES;
use crate::sidecar::{Sidecar, SidecarError, decode_v1, seal};
use std::collections::BTreeSet;

/// The most operations of one fuzzed run: longer ones find nothing more and take long.
const MAX_OPS: usize = 120;

/// Decodes a seed and operations from `data` and plays them.
///
/// # Panics
/// If a rule of the world is broken: a bug in the engine.
pub fn fuzz_engine(data: &[u8]) {
    let Some((seed, ops)) = data.split_first_chunk::<2>() else { return };
    let ops: Vec<Op> = ops.as_chunks::<{ Op::BYTES }>().0.iter().take(MAX_OPS).map(|op| Op::decode(*op)).collect();
    let _world = play(u64::from(u16::from_le_bytes(*seed)), &ops, false);
}

/// Decodes a file size and operations from `data`, and compares a bitmap with a set of chunk numbers.
///
/// # Panics
/// If they differ.
pub fn fuzz_bitmap(data: &[u8]) {
    let Some((size, ops)) = data.split_first_chunk::<3>() else { return };
    let file_bytes = u64::from_le_bytes([size[0], size[1], size[2], 0, 0, 0, 0, 0]);
    let bitmap = ChunkBitmap::with_chunk_size(file_bytes, MIN_CHUNK_BYTES);
    let Ok(mut bitmap) = bitmap else {
        assert_eq!(file_bytes, 0, "{bitmap:?}");
        return;
    };
    let total = file_bytes.div_ceil(MIN_CHUNK_BYTES);
    let mut model = BTreeSet::new();
    for op in ops.as_chunks::<7>().0 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (a, b) = (number(&op[1..4]), number(&op[4..7]));
        match op[0] % 4 {
            0 => {
                bitmap.set(a);
                model.extend((a < total).then_some(a));
            }
            1 => {
                bitmap.set_range(a, b);
                let whole = |chunk: &u64| {
                    let (start, end) = (chunk * MIN_CHUNK_BYTES, (chunk * MIN_CHUNK_BYTES + MIN_CHUNK_BYTES));
                    a <= start && end.min(file_bytes) <= a + b
                };
                model.extend((0..total).filter(whole));
            }
            2 => {
                let touched = a / MIN_CHUNK_BYTES..(a + b).div_ceil(MIN_CHUNK_BYTES);
                let inside = a + b <= file_bytes && touched.clone().all(|chunk| model.contains(&chunk));
                assert_eq!(bitmap.has_range(a, b), b == 0 || inside, "{a} {b}");
            }
            _ => {
                let missing = (a..total).find(|chunk| !model.contains(chunk));
                assert_eq!(bitmap.next_missing(a), missing, "{a}");
            }
        }
    }
    assert_eq!(bitmap.have(), model.len() as u64);
    assert_eq!(bitmap.is_complete(), model.len() as u64 == total);
    assert!((0..total + 2).all(|chunk| bitmap.has(chunk) == model.contains(&chunk)));
}

/// Takes `data` for a sidecar in each version of the format: as it is, and with the checksum that it should have,
/// because the fuzzer would never find it.
///
/// # Panics
/// If what was read is not what was written, or claims more than that.
pub fn fuzz_sidecar(data: &[u8]) {
    check_sidecar(data);
    check_sidecar(&seal(data.to_vec()));

    let size_bytes = data.get(5..13).and_then(|size| size.try_into().ok()).map_or(0, u64::from_le_bytes);
    if let Ok(claimed) = decode_v1(data, size_bytes) {
        let chunks: Vec<u64> = claimed.chunks().collect();
        assert_eq!(chunks, marked(&data[25..]), "chunks are claimed that nobody wrote");
        assert_eq!(claimed.verify(|_| false).have(), 0);
        let other = decode_v1(data, size_bytes + 1);
        assert_eq!(other, Err(SidecarError::WrongSize { expected: size_bytes + 1, found: size_bytes }));
    }
}

fn check_sidecar(bytes: &[u8]) {
    let Ok(sidecar) = Sidecar::decode(bytes) else { return };
    assert_eq!(sidecar.encode(), bytes, "it was read and would be written in another way");
    let (identity, bitmap) = (*sidecar.identity(), sidecar.bitmap());
    assert_eq!(bitmap.file_size(), identity.size_bytes);
    assert_eq!(Sidecar::decode_for(bytes, &identity, bitmap.chunk_size_bytes()).as_ref(), Ok(&sidecar));

    let words = bitmap.total().div_ceil(64) as usize * 8;
    let chunks: Vec<u64> = sidecar.chunks().map(|(chunk, _)| chunk).collect();
    assert_eq!(chunks, marked(&bytes[80..80 + words]), "chunks are claimed that nobody wrote");
    assert!(chunks.iter().all(|chunk| *chunk < bitmap.total()));
    assert_eq!(bitmap.have(), chunks.len() as u64);
    let path = sidecar.path().to_bytes();
    let (hashes, rest) = bytes[80 + words..].split_at(chunks.len() * 8);
    let (hashes, _) = hashes.as_chunks::<8>();
    assert_eq!(&rest[..rest.len() - 16], path);
    assert!((1..=PATH_MAX_BYTES).contains(&path.len()));
    assert!(sidecar.chunks().map(|(_, hash)| hash.to_le_bytes()).eq(hashes.iter().copied()));
}

/// The numbers of the bits that are set, the lowest of the first byte being number 0.
fn marked(bytes: &[u8]) -> Vec<u64> {
    let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    (0..).zip(bits).filter_map(|(number, set)| set.then_some(number)).collect()
}
