//! Saves of one sidecar over each other, cut off in the middle, with blocks of each on the disk.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farshore_engine::testing::fuzz_sidecar_crash(data));
