//! Archives as torch lays them out, with names of every length, and whatever may stand before and behind them.

use crate::handmade::*;

/// What varies between archives of the same entries.
#[derive(Clone, Copy, Default)]
struct Layout<'a> {
    /// The folder all entries are in, which torch names after the file.
    folder: &'a str,
    /// Zip64's end record and locator, as torch always writes them.
    zip64: bool,
    before: &'a [u8],
    comment: &'a [u8],
    /// Behind the comment, belonging to nobody.
    behind: &'a [u8],
}

fn le(values: &[(u64, usize)]) -> Vec<u8> {
    values.iter().flat_map(|&(value, n)| value.to_le_bytes()[..n].to_vec()).collect()
}

/// CRC-32 by its definition, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// The archive, byte by byte: sizes in data descriptors, elements at multiples of 64, no entry in zip64 itself.
fn archive(layout: Layout, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let name = format!("{}/{name}", layout.folder);
        let (start, size, crc) = (body.len(), bytes.len() as u64, u64::from(crc32(bytes)));
        let n_pad = (64 - (start + 30 + name.len() + 4) % 64) % 64;
        body.extend(b"PK\x03\x04");
        body.extend(le(&[(0, 2), (0x0808, 2), (0, 2), (0, 4), (0, 4), (0, 4), (0, 4)]));
        body.extend(le(&[(name.len() as u64, 2), (n_pad as u64 + 4, 2)]));
        body.extend(name.bytes().chain(*b"FB").chain(le(&[(n_pad as u64, 2)])).chain(vec![b'Z'; n_pad]));
        body.extend_from_slice(bytes);
        body.extend([b"PK\x07\x08".to_vec(), le(&[(crc, 4), (size, 4), (size, 4)])].concat());
        directory.extend(b"PK\x01\x02");
        directory.extend(le(&[(0, 2), (0, 2), (0x0808, 2), (0, 2), (0, 4), (crc, 4), (size, 4), (size, 4)]));
        directory.extend(le(&[(name.len() as u64, 2), (0, 2), (0, 2), (0, 2), (0, 2), (0, 4), (start as u64, 4)]));
        directory.extend(name.bytes());
    }
    let (n, size, offset) = (entries.len() as u64, directory.len() as u64, body.len() as u64);
    let end = offset + size;
    let mut out = [layout.before, &body, &directory].concat();
    if layout.zip64 {
        out.extend([b"PK\x06\x06".to_vec(), le(&[(44, 8), (0x1e, 2), (0x2d, 2), (0, 8)])].concat());
        out.extend(le(&[(n, 8), (n, 8), (size, 8), (offset, 8)]));
        out.extend([b"PK\x06\x07".to_vec(), le(&[(0, 4), (end, 8), (1, 4)])].concat());
    }
    out.extend([b"PK\x05\x06".to_vec(), le(&[(0, 4), (n, 2), (n, 2), (size, 4), (offset, 4)])].concat());
    out.extend(le(&[(layout.comment.len() as u64, 2)]));
    [&out, layout.comment, layout.behind].concat()
}

fn one_tensor(layout: Layout) -> Vec<u8> {
    let pickle = state_dict(&[("w", TensorSpec::default())]);
    let data = floats(&[1., 2., 3., 4., 5., 6.]);
    let entries: [(&str, &[u8]); 7] = [
        ("data.pkl", &pickle),
        (".format_version", b"1"),
        (".storage_alignment", b"64"),
        ("byteorder", b"little"),
        ("data/0", &data),
        ("version", b"3\n"),
        (".data/serialization_id", b"1572819951185464302607448455956370413909"),
    ];
    archive(layout, &entries)
}

fn check_read(what: &str, bytes: &[u8]) {
    let file = read_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(file.weights["w"].data(), [1., 2., 3., 4., 5., 6.], "{what}");
}

#[test]
fn archives_with_names_of_every_length_are_read() {
    for length in 1..=100 {
        let folder = "n".repeat(length);
        for zip64 in [false, true] {
            for (before, comment) in
                [(&b""[..], &b""[..]), (b"#!/bin/sh\n", b""), (b"", b"a comment"), (b"PK\x05\x06..", b"both")]
            {
                let layout = Layout { folder: &folder, zip64, before, comment, behind: b"" };
                let what =
                    format!("{length} characters, zip64 {zip64}, {} before, {} behind", before.len(), comment.len());
                check_read(&what, &one_tensor(layout));
            }
        }
    }
}

#[test]
fn large_things_before_and_behind_an_archive_do_no_harm() {
    let folder = "archive";
    let long = vec![b'c'; 65_535];
    let program = vec![0x7f; 3_000_000];
    for zip64 in [false, true] {
        check_read("longest comment", &one_tensor(Layout { folder, zip64, comment: &long, ..Layout::default() }));
        check_read("large program", &one_tensor(Layout { folder, zip64, before: &program, ..Layout::default() }));
        check_read(
            "something behind",
            &one_tensor(Layout { folder, zip64, behind: b"some bytes", ..Layout::default() }),
        );
        // Another archive, whole and shorter, before it; and one's end record alone in the comment.
        let other = archive(Layout { folder: "x", ..Layout::default() }, &[("data.pkl", b"}.")]);
        check_read("an archive before", &one_tensor(Layout { folder, zip64, before: &other, ..Layout::default() }));
        let end = &other[other.len() - 22..];
        check_read(
            "an end record in the comment",
            &one_tensor(Layout { folder, zip64, comment: end, ..Layout::default() }),
        );
    }
}

#[test]
fn end_records_that_promise_what_is_not_there_are_refused() {
    let bytes = one_tensor(Layout { folder: "archive", ..Layout::default() });
    let end = bytes.len() - 22;
    let changed = |at: usize, value: u32| {
        let mut bytes = bytes.clone();
        bytes[end + at..end + at + 4].copy_from_slice(&value.to_le_bytes());
        refusal(&bytes)
    };
    for (at, value, expected) in [
        (12, u32::MAX, "do not fit before it"),
        (16, u32::MAX, "do not fit before it"),
        (12, 0, "there is none"),
        (12, 46, "there is none"),
        (16, 1, ""),
        (8, u32::MAX, "65535 entries"),
        (8, 0, "data.pkl"),
        (8, 0x0064_0064, ""),
    ] {
        let message = changed(at, value);
        assert!(message.contains(expected), "expected '{expected}' in: {message}");
    }
    let truncated = refusal(&bytes[..end]);
    assert!(truncated.contains("truncated"), "{truncated}");
}

#[test]
fn entries_that_lie_over_one_another_unfold_to_no_more_than_a_file_may() {
    // 60 names for the same four megabytes of zeros, compressed to four kilobytes.
    let n_elements = 1 << 20;
    let keys: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let spec = |key| TensorSpec { key, n_elements, shape: &[1 << 20], stride: &[1], ..TensorSpec::default() };
    let tensors: Vec<(&str, TensorSpec)> = keys.iter().map(|key| (key.as_str(), spec(key.as_str()))).collect();
    let zeros = vec![0; 4 << 20];
    let mut bytes = zip_file(&state_dict(&tensors), &[("0", zeros)], zip::CompressionMethod::Deflated);
    let at = bytes.len() - 22;
    let (size, offset) = (u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()), at);
    let directory = bytes[offset - size as usize..offset].to_vec();
    let entry = directory.windows(14).position(|w| w == b"archive/data/0").unwrap() - 46;
    let entry = directory[entry..entry + 60].to_vec();
    let tail = bytes.split_off(at);
    for i in 1..10u8 {
        bytes.extend([&entry[..59], &[b'0' + i]].concat());
    }
    let (n, size) = (4 + 9u16, size + 9 * 60);
    bytes.extend([&tail[..8], &n.to_le_bytes(), &n.to_le_bytes(), &size.to_le_bytes(), &tail[16..]].concat());
    let message = refusal(&bytes);
    assert!(message.contains("may unfold to"), "{message}");
}

#[test]
fn archives_of_other_things_are_named() {
    let layout = Layout { folder: "archive", ..Layout::default() };
    let pickle = state_dict(&[("w", TensorSpec::default())]);
    let script = archive(layout, &[("data.pkl", &pickle), ("code/__torch__.py", b"x"), ("constants.pkl", b").")]);
    assert!(refusal(&script).contains("TorchScript"));
    let exported = archive(layout, &[("archive_format", b"pt2"), ("models/model.json", b"{}")]);
    assert!(refusal(&exported).contains("torch.export"));
    let sheet = archive(layout, &[("sheet.xml", b"<x/>")]);
    assert!(refusal(&sheet).contains("expected an entry 'data.pkl'"));
}
