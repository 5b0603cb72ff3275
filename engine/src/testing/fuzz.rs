//! The bodies of the fuzz targets, here so that the committed corpus is replayed by plain `cargo test`.

use super::ops::{Op, play};
use super::replicas::{ReplicaOp, play_replicas};
use crate::bitmap::{ChunkBitmap, MIN_CHUNK_BYTES};
use crate::identity::ContentIdentity;
use crate::ids::PeerId;
use crate::path::{PATH_MAX_BYTES, RelPath};
use crate::record::{FileTime, Stamp};
use crate::sidecar::{Sidecar, SidecarError, decode_v1, seal};
use std::collections::{BTreeMap, BTreeSet};

/// The most operations of one fuzzed run: longer ones find nothing more and take long.
const MAX_OPS: usize = 120;

/// The most operations of one fuzzed run on devices that all write: each of them is told to all others.
const MAX_REPLICA_OPS: usize = 60;

/// Decodes a seed and operations from `data` and plays them.
///
/// # Panics
/// If a rule of the world is broken: a bug in the engine.
pub fn fuzz_engine(data: &[u8]) {
    let Some((seed, ops)) = data.split_first_chunk::<2>() else { return };
    let ops: Vec<Op> = ops.as_chunks::<{ Op::BYTES }>().0.iter().take(MAX_OPS).map(|op| Op::decode(*op)).collect();
    let _world = play(u64::from(u16::from_le_bytes(*seed)), &ops, false);
}

/// Decodes a seed, how many devices there are, and operations from `data`, and plays them on devices that all write.
///
/// # Panics
/// If they do not all hold the same in the end, or something that was written is lost: a bug in the engine.
pub fn fuzz_replicas(data: &[u8]) {
    let Some((&[low, high, devices], ops)) = data.split_first_chunk::<3>() else { return };
    let ops = ops.as_chunks::<{ ReplicaOp::BYTES }>().0.iter().take(MAX_REPLICA_OPS);
    let ops: Vec<ReplicaOp> = ops.map(|op| ReplicaOp::decode(*op)).collect();
    let _replicas = play_replicas(u64::from(u16::from_le_bytes([low, high])), 2 + usize::from(devices % 4), &ops);
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
        let other = decode_v1(data, size_bytes + 1);
        assert_eq!(other, Err(SidecarError::WrongSize { expected: size_bytes + 1, found: size_bytes }));
    }
}

/// Saves a sidecar several times over the same place on a disk, cuts the power, and takes what is on the disk then for a
/// sidecar: any prefix, of any mix of blocks of what was ever written there.
///
/// # Panics
/// If it is read as anything that was not saved.
pub fn fuzz_sidecar_crash(data: &[u8]) {
    const BLOCK_BYTES: usize = 512;
    let Some(([shape, chunks, saves], rest)) = data.split_first_chunk::<3>() else { return };
    let total = 1 + u64::from(*chunks) * u64::from(shape % 8 + 1);
    let (ops, mix) = rest.split_at(rest.len().min((usize::from(*saves) % 8 + 1) * 3));
    let size_bytes = total * MIN_CHUNK_BYTES;
    let identity = ContentIdentity {
        owner: PeerId([*shape; 32]),
        stamp: Stamp(u64::from(*chunks)),
        size_bytes,
        modified: FileTime::default(),
    };
    let mut saved: Vec<Sidecar> = Vec::new();
    let mut hashes = BTreeMap::new();
    for op in ops.as_chunks::<3>().0 {
        // More is stored, some of it is lost, or the owner renames it.
        for chunk in u64::from(op[0])..u64::from(op[0]) + u64::from(op[1] % 64) {
            match op[2] % 4 {
                0 => _ = hashes.remove(&chunk),
                kind => _ = hashes.insert(chunk, chunk ^ u64::from(kind) << 32),
            }
        }
        let mut bitmap = ChunkBitmap::with_chunk_size(size_bytes, MIN_CHUNK_BYTES).expect("it has chunks");
        hashes.retain(|chunk, _| *chunk < total);
        hashes.keys().for_each(|chunk| bitmap.set(*chunk));
        let path = RelPath::parse("x".repeat(usize::from(op[2] >> 2 & 15) + 1).as_bytes()).expect("a name");
        let sidecar = Sidecar::new(identity, path, bitmap, hashes.values().copied().collect());
        saved.push(sidecar.expect("it agrees with itself").with_unverified(op[2] > 127));
    }
    let written: Vec<Vec<u8>> = saved.iter().map(Sidecar::encode).collect();
    let Some(longest) = written.iter().map(Vec::len).max() else { return };
    let byte = |index: usize| usize::from(mix.get(index).copied().unwrap_or(0));
    let mut disk = vec![0; longest];
    for (number, block) in disk.chunks_mut(BLOCK_BYTES).enumerate() {
        let from = &written[byte(number + 3) % written.len()];
        let from = from.get(number * BLOCK_BYTES..).unwrap_or(&[]);
        block.iter_mut().zip(from).for_each(|(byte, from)| *byte = *from);
    }
    // The length is that of one of them, or any other.
    let len = if byte(0) % 2 == 0 { written[byte(1) % written.len()].len() } else { byte(1) << 8 | byte(2) };
    disk.truncate(len);
    if let Ok(read) = Sidecar::decode(&disk) {
        assert!(saved.contains(&read), "a mix of {} sidecars was read as one that was never saved", saved.len());
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
