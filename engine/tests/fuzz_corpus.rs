//! Replays every input that the fuzzer keeps, on the stable compiler: what was found once is not lost again.
//!
//! The corpora lie in `fuzz/corpus/`; `cargo +nightly fuzz run engine` adds to them. The seeds, whose names begin with
//! `seed`, are written anew by `cargo test -p farshore-engine --test fuzz_corpus -- --ignored`.

// A test may read the files that it replays.
#![allow(clippy::disallowed_methods)]

use farshore_engine::testing::{Op, fuzz_bitmap, fuzz_engine};
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
fn the_bitmap_plays_every_kept_input() {
    replay("bitmap", fuzz_bitmap);
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

        let mut bitmap = bytes(1)[..3].to_vec();
        bitmap[2] &= 3;
        for op in bytes(7 * (1 + seed)).chunks_exact(7) {
            // Offsets and lengths that lie near the file's.
            bitmap.extend([op[0], op[1] & 3, op[2], op[3], op[4] & 3, op[5], op[6]]);
        }
        fs::write(corpus("bitmap").join(format!("seed{seed:02}")), bitmap).unwrap();
    }
}
