//! Any bytes as the sidecar of a file that is partly here, in each version of its format.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farshore_engine::testing::fuzz_sidecar(data));
