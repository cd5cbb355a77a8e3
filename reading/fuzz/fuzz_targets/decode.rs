//! From bytes to a graded photo, guided by coverage. Needs a nightly compiler and `cargo install cargo-fuzz`:
//!
//! `cd reading && mkdir -p fuzz/corpus/decode && cp ../examples/photos/*.* fuzz/corpus/decode/`
//! `cargo +nightly fuzz run decode -- -max_len=300000 -rss_limit_mb=1024 -timeout=10`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let inspected = reading::inspect(bytes);
    match reading::decode(bytes) {
        Ok(photo) => {
            assert!(inspected.is_ok(), "decoded, but not inspected");
            let _ = reading::grade(&photo);
        }
        Err(fault) => assert!(!fault.reason.advice().is_empty()),
    }
});
