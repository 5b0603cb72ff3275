//! Replays every input that the fuzzer keeps, on the stable compiler: what was found once is not lost again.
//!
//! The corpora lie in `fuzz/corpus/`; `cargo +nightly fuzz run engine` adds to them. The seeds, whose names begin with
//! `seed`, are written anew by `cargo test -p farshore-engine --test fuzz_corpus -- --ignored`.

// A test may read the files that it replays.
#![allow(clippy::disallowed_methods)]

use farshore_engine::ContentIdentity;
use farshore_engine::PeerId;
use farshore_engine::bitmap::{ChunkBitmap, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::path::RelPath;
use farshore_engine::record::{FileTime, Stamp};
use farshore_engine::sidecar::Sidecar;
use farshore_engine::testing::{
    Op, ReplicaOp, fuzz_bitmap, fuzz_engine, fuzz_replicas, fuzz_sidecar, fuzz_sidecar_crash,
};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn replay(target: &str, body: fn(&[u8])) {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the corpus of {target} is nearly empty");
    for file in files {
        let data = fs::read(&file).unwrap();
        let played = std::panic::catch_unwind(|| body(&data));
        assert!(played.is_ok(), "{} fails: run it with `cargo +nightly fuzz run {target} <file>`", file.display());
    }
}

#[test]
fn the_engine_plays_every_kept_input() {
    replay("engine", fuzz_engine);
}

#[test]
fn devices_that_all_write_play_every_kept_input() {
    replay("replicas", fuzz_replicas);
}

#[test]
fn the_bitmap_plays_every_kept_input() {
    replay("bitmap", fuzz_bitmap);
}

#[test]
fn the_sidecar_plays_every_kept_input() {
    replay("sidecar", fuzz_sidecar);
}

#[test]
fn the_sidecar_after_a_crash_plays_every_kept_input() {
    replay("sidecar_crash", fuzz_sidecar_crash);
}

#[test]
#[ignore = "writes the seeds into the source tree"]
fn write_the_seeds() {
    for seed in 0..12_u64 {
        let bytes = |count: u64| -> Vec<u8> {
            (0..count).flat_map(|index| xxh3_64(&(seed << 32 | index).to_le_bytes()).to_le_bytes()).collect()
        };
        let mut engine = (seed as u16).to_le_bytes().to_vec();
        // Eight bytes are two operations.
        engine.extend(bytes(4 + 3 * seed));
        assert_eq!((engine.len() - 2) % Op::BYTES, 0);
        fs::write(corpus("engine").join(format!("seed{seed:02}")), engine).unwrap();

        // A seed and so many devices, with five bytes for each operation.
        let mut replicas = [seed as u8, 0, seed as u8].to_vec();
        replicas.extend(bytes(5 + 3 * seed));
        replicas.truncate(3 + (replicas.len() - 3) / ReplicaOp::BYTES * ReplicaOp::BYTES);
        fs::write(corpus("replicas").join(format!("seed{seed:02}")), replicas).unwrap();

        let mut bitmap = bytes(1)[..3].to_vec();
        bitmap[2] &= 3;
        for op in bytes(7 * (1 + seed)).chunks_exact(7) {
            // Offsets and lengths that lie near the file's.
            bitmap.extend([op[0], op[1] & 3, op[2], op[3], op[4] & 3, op[5], op[6]]);
        }
        fs::write(corpus("bitmap").join(format!("seed{seed:02}")), bitmap).unwrap();

        // The size, the number of saves, and bytes for the saves and the mix of what they wrote; some mixes are of one
        // save alone, and are read.
        let mut crash = vec![seed as u8, (seed * 20) as u8, 1 + seed as u8 % 5];
        crash.extend(bytes(2 + 2 * seed));
        if seed % 3 == 0 {
            let ops = 3 + 3 * (usize::from(crash[2]) % 8 + 1);
            crash[ops..].fill(0);
        }
        fs::write(corpus("sidecar_crash").join(format!("seed{seed:02}")), crash).unwrap();
    }
}

/// Two saves of the same chunks with other hashes, and blocks of both on the disk: only the checksum tells.
#[test]
#[ignore = "writes the seeds into the source tree"]
fn write_the_mixed_seeds() {
    for (number, (length, blocks)) in [(0, [0, 1]), (1, [1, 0]), (0, [1, 1])].into_iter().enumerate() {
        let crash = [7, 32, 1, 0, 63, 1, 0, 63, 2, 0, length, 0, blocks[0], blocks[1]];
        fs::write(corpus("sidecar_crash").join(format!("seed{:02}", 12 + number)), crash).unwrap();
    }
}

/// Sidecars of several shapes, each also without its checksum (the target puts it there), and files of version 1.
#[test]
#[ignore = "writes the seeds into the source tree"]
fn write_the_sidecar_seeds() {
    let shapes = [
        (1, CHUNK_SIZE, 0),
        (CHUNK_SIZE, CHUNK_SIZE, 1),
        (65 * CHUNK_SIZE + 7, CHUNK_SIZE, 2),
        (64 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, 1),
        (129 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, 40),
        (3 * MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES, 2),
    ];
    for (index, (size_bytes, chunk_bytes, every)) in shapes.into_iter().enumerate() {
        let mut bitmap = ChunkBitmap::with_chunk_size(size_bytes, chunk_bytes).unwrap();
        (0..bitmap.total()).filter(|chunk| every > 0 && chunk % every == 0).for_each(|chunk| bitmap.set(chunk));
        let hashes: Vec<u64> = bitmap.present().map(|chunk| xxh3_64(&chunk.to_le_bytes())).collect();
        let modified = FileTime { seconds: 1_700_000_000, nanos: 5 };
        let identity =
            ContentIdentity { owner: PeerId([index as u8; 32]), stamp: Stamp(index as u64), size_bytes, modified };

        let mut v1 = b"KDBM\x01".to_vec();
        v1.extend(size_bytes.to_le_bytes());
        for count in [bitmap.total(), bitmap.have(), chunk_bytes] {
            v1.extend((count as u32).to_le_bytes());
        }
        let bits = |byte: u64| (0..8).fold(0, |bits, bit| bits | u8::from(bitmap.has(byte * 8 + bit)) << bit);
        v1.extend((0..bitmap.total().div_ceil(64) * 8).map(bits));

        let path = RelPath::parse(format!("dir/file {index}").as_bytes()).unwrap();
        let sidecar = Sidecar::new(identity, path, bitmap, hashes).unwrap();
        let whole = sidecar.with_unverified(index % 2 == 1).encode();
        let open = whole[..whole.len() - 16].to_vec();
        for (kind, bytes) in [whole, open, v1].into_iter().enumerate() {
            fs::write(corpus("sidecar").join(format!("seed{:02}", index * 3 + kind)), bytes).unwrap();
        }
    }
}
