//! The seeds of the fuzz targets, and all their single changed bytes, through the readers: files or errors, never a
//! panic.

use std::fs;
use std::path::Path;

use secateur_formats::{decode_image, weights_from_bytes};

use crate::handmade::{legacy_file, stored};

/// The seeds of a target, at least `n`.
fn seeds(target: &str, n: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    assert!(files.len() >= n, "{target}: {} seeds", files.len());
    files
}

/// Every seed and its changed versions.
fn feed(target: &str, n: usize, read: impl Fn(&[u8])) {
    for seed in seeds(target, n) {
        read(&seed);
        for at in 0..seed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= flip;
                read(&changed);
            }
        }
    }
}

#[test]
fn pickles() {
    feed("pickles", 7, |pickle| {
        drop(weights_from_bytes(&stored(pickle, &[("0", vec![0x3f; 16])])));
        drop(weights_from_bytes(&legacy_file(pickle, &[("0", 4, vec![0x3f; 16])])));
    });
}

#[test]
fn zips() {
    feed("zips", 4, |bytes| drop(weights_from_bytes(bytes)));
    assert!(seeds("zips", 4).iter().all(|bytes| weights_from_bytes(bytes).is_ok()));
}

#[test]
fn safetensors() {
    feed("safetensors", 3, |header| {
        for n in [0, 16, 24, 56] {
            drop(weights_from_bytes(&[&(header.len() as u64).to_le_bytes()[..], header, &vec![0; n]].concat()));
        }
    });
}

#[test]
fn images() {
    feed("images", 7, |bytes| {
        if let Ok(image) = decode_image(bytes) {
            assert_eq!(image.pixels.len(), image.shape.len());
        }
    });
    assert!(seeds("images", 7).iter().all(|bytes| decode_image(bytes).is_ok()));
}
