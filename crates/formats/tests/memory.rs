//! Hostile files may claim any size; what is allocated follows the size they have. Alone in its program, because the peak
//! is that of the whole process.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use peak_alloc::PeakAlloc;
use secateur_formats::read_weights;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Half a million opcodes, each with an empty dict or tuple, take about half of this.
const LIMIT_MIB: f32 = 64.0;

/// First pickle of a legacy file.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fn refused_within_limit(what: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile");
    std::fs::write(&path, bytes).unwrap();
    MEMORY.reset_peak_usage();
    let error = read_weights(&path).expect_err(what);
    let peak = MEMORY.peak_usage_as_mb();
    assert!(peak < LIMIT_MIB, "{what}: {peak} MiB for {} bytes, {error}", bytes.len());
}

/// A zip64 end record that claims `n_files` entries in a directory of `size` bytes at `offset`.
fn zip64_end(n_files: u64, size: u64, offset: u64, record_size: u64) -> Vec<u8> {
    let mut out = b"PK\x03\x04".to_vec();
    let record = out.len() as u64;
    out.extend(b"PK\x06\x06");
    out.extend(record_size.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [n_files, n_files, size, offset].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(record.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([0xff; 12]);
    out.extend([0, 0]);
    out
}

#[test]
fn claimed_sizes_are_not_believed() {
    for n_files in [0, 1 << 20, 1 << 60, u64::MAX] {
        for offset in [0, 4, n_files, u64::MAX] {
            for size in [46, n_files.saturating_mul(46), u64::MAX] {
                refused_within_limit("zip64 directory", &zip64_end(n_files, size, offset, 44));
                refused_within_limit("zip64 record", &zip64_end(n_files, size, offset, u64::MAX));
            }
        }
    }
    let mut header = 90_000_000u64.to_le_bytes().to_vec();
    header.extend(b"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]");
    refused_within_limit("safetensors header", &header);
    let mut magic = MAGIC.to_vec();
    magic.extend(b"\x80\x02X\xff\xff\xff\x7f");
    refused_within_limit("pickled string", &magic);
    for op in [&b"}"[..], b")", b"N", b"(", b"N\x94", b"}2", b"N\x85"] {
        let mut ops = MAGIC.to_vec();
        ops.extend(op.repeat((1 << 20) / op.len()));
        refused_within_limit("a megabyte of one opcode", &ops);
    }
}
