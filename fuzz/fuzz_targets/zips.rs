//! Whole files, which begin as archives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_formats::weights_from_bytes;

fuzz_target!(|bytes: &[u8]| {
    drop(weights_from_bytes(bytes));
    drop(weights_from_bytes(&[b"PK\x03\x04", bytes].concat()));
});
