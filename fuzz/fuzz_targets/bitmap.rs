//! Operations from bytes, on a bitmap of chunks and on a set of chunk numbers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farshore_engine::testing::fuzz_bitmap(data));
