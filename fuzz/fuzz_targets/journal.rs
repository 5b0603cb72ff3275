//! Any bytes as the journal of what a device remembers of a share.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Every answer is right, as long as there is one.
    let _is_read = farshore_proto::testing::fuzz_journal(data);
});
