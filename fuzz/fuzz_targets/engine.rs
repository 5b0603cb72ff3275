//! Operations from bytes, on an owner and two followers with everything that can go wrong around them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farshore_engine::testing::fuzz_engine(data));
