//! Any bytes as what an owner says of the members of its share.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Every answer is right, as long as there is one.
    let _is_read = farshore_proto::testing::fuzz_members(data);
});
