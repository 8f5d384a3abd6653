//! Image files of every format that is read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_formats::decode_image;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = decode_image(bytes) {
        assert_eq!(image.pixels.len(), image.shape.len());
    }
});
