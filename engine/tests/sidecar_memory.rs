//! Counts that a sidecar states cost no memory before it is known that they are true. Alone in its process, because it
//! measures all of it.

// A test may ask the kernel how much memory it has taken.
#![allow(clippy::disallowed_methods)]

use farshore_engine::bitmap::MAX_CHUNKS;
use farshore_engine::chunk::{CHUNK_SIZE, MAX_FILE_BYTES};
use farshore_engine::sidecar::{Sidecar, SidecarError, decode_v1};
use std::fs;
use std::hint::black_box;
use xxhash_rust::xxh3::xxh3_128;

/// A line of what the kernel says of this process, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most address space that this process has ever had, in KiB.
fn peak_kib() -> u64 {
    status_kib("VmPeak:")
}

/// Takes as much address space as the process has given back, so that whatever it takes next raises the peak.
fn fill_up() -> Vec<u8> {
    Vec::with_capacity((peak_kib() - status_kib("VmSize:")) as usize * 1024)
}

/// A sidecar with these counts and nothing of what they count. The fields between are zero; the checksum is right.
fn sidecar(size_bytes: u64, total: u32, have: u32) -> Vec<u8> {
    let mut bytes = b"KDBM\x02\0\0\0".to_vec();
    bytes.extend([0; 40]);
    bytes.extend(size_bytes.to_le_bytes());
    bytes.extend([0; 12]);
    for count in [CHUNK_SIZE as u32, total, have] {
        bytes.extend(count.to_le_bytes());
    }
    bytes.extend(xxh3_128(&bytes).to_le_bytes());
    bytes
}

fn version_1(size_bytes: u64, total: u32) -> Vec<u8> {
    let mut bytes = b"KDBM\x01".to_vec();
    bytes.extend(size_bytes.to_le_bytes());
    for count in [total, total, CHUNK_SIZE as u32] {
        bytes.extend(count.to_le_bytes());
    }
    bytes
}

#[test]
fn absurd_counts_allocate_nothing() {
    // The bitmap of the largest file takes 16 MiB, its hashes 1 GiB; as many hashes as 32 bits can count, 32 GiB.
    let all = MAX_CHUNKS as u32;
    let absurd = [(all, 0), (0, all), (all, all), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)];
    let filler = black_box(fill_up());
    let before = peak_kib();
    for (total, have) in absurd {
        let read = Sidecar::decode(&sidecar(MAX_FILE_BYTES, total, have));
        assert!(matches!(read, Err(SidecarError::Truncated { .. })), "{total} {have}: {read:?}");
    }
    // With a length that fits, the size of the file alone is absurd.
    let read = Sidecar::decode(&sidecar(MAX_FILE_BYTES, 0, 0));
    assert_eq!(read, Err(SidecarError::ChunkCount { stated: 0, chunks: MAX_CHUNKS }));
    for total in [all, u32::MAX] {
        let read = decode_v1(&version_1(MAX_FILE_BYTES, total), MAX_FILE_BYTES);
        assert!(matches!(read, Err(SidecarError::Truncated { .. })), "{total}: {read:?}");
    }
    let read = decode_v1(&version_1(MAX_FILE_BYTES, 0), MAX_FILE_BYTES);
    assert_eq!(read, Err(SidecarError::ChunkCount { stated: 0, chunks: MAX_CHUNKS }));
    let grown = peak_kib() - before;
    drop(filler);
    assert!(grown < 4 * 1024, "{grown} KiB were allocated on the word of a count");
}
