//! Whatever a peer may send, as any kind of message: the first byte says which.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((tag, bytes)) = data.split_first() {
        // Every answer is right, as long as there is one.
        let _parsed = farshore_proto::any::parse_any(*tag, bytes);
    }
});
