//! Operations from bytes, on devices that all write, with everything that can go wrong around them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farshore_engine::testing::fuzz_replicas(data));
