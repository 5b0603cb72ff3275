//! The bodies of the fuzz targets, here so that the committed corpus is replayed by plain `cargo test`.

use super::ops::{Op, play};
use crate::bitmap::{ChunkBitmap, MIN_CHUNK_BYTES};
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
