//! Pickles in both layouts of torch.save: the bytes are the pickle, behind which some elements lie.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_formats::weights_from_bytes;

/// Elements of every storage: 16 bytes.
const ELEMENTS: [u8; 16] = [0x3f; 16];
/// Magic number, protocol and system of a legacy file.
const HEAD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}U\x0dlittle_endian\x88s.";

fuzz_target!(|pickle: &[u8]| {
    let legacy = [HEAD, pickle, b"\x80\x02]U\x010a.\x04\0\0\0\0\0\0\0", &ELEMENTS].concat();
    drop(weights_from_bytes(&legacy));
    drop(weights_from_bytes(&archive(&[("a/data.pkl", pickle), ("a/data/0", &ELEMENTS)])));
});

/// Entries that are stored as they are.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let [crc, size, start] = [crc32(bytes), bytes.len() as u32, body.len() as u32];
        let mut common = vec![0; 22];
        common[10..14].copy_from_slice(&crc.to_le_bytes());
        common[14..18].copy_from_slice(&size.to_le_bytes());
        common[18..22].copy_from_slice(&size.to_le_bytes());
        let length = (name.len() as u16).to_le_bytes();
        body.extend([b"PK\x03\x04", &common[..], &length, &[0; 2], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\0\0", &common[..], &length, &[0; 12], &start.to_le_bytes(), name.as_bytes()].concat());
    }
    let n = (entries.len() as u16).to_le_bytes();
    let [size, offset] = [directory.len(), body.len()].map(|n| (n as u32).to_le_bytes());
    [&body[..], &directory, b"PK\x05\x06\0\0\0\0", &n, &n, &size, &offset, &[0; 2]].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}
