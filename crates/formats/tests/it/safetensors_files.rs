//! Safetensors read and refused.

use crate::handmade::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

#[test]
fn every_float_type_is_read_and_batch_counters_are_left_out() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
        "c":{"dtype":"BF16","shape":[1,1],"data_offsets":[8,10]},"d":{"dtype":"F64","shape":[],"data_offsets":[10,18]},
        "bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[18,26]},"__metadata__":{"format":"pt"}}"#;
    let mut data = floats(&[0.25]);
    data.extend([0x00, 0x3e, 0x00, 0xc0, 0xc0, 0x3f]);
    data.extend(0.1f64.to_le_bytes());
    data.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let read = read_bytes(&file(header, &data)).unwrap();
    assert_eq!(read.description, None);
    let got: Vec<_> =
        read.weights.iter().map(|(name, t)| (name.as_str(), t.shape().to_vec(), t.data().to_vec())).collect();
    let expected = [
        ("a", vec![1], vec![0.25]),
        ("b", vec![2], vec![1.5, -2.0]),
        ("c", vec![1, 1], vec![1.5]),
        ("d", vec![], vec![0.1]),
    ];
    assert_eq!(got, expected);
}

#[test]
fn integer_tensors_are_named() {
    let header = r#"{"table":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#;
    let message = refusal(&file(header, &[0; 4]));
    assert!(message.contains("'table'") && message.contains("I32"), "{message}");
}

#[test]
fn hostile_headers_are_refused() {
    let tensor = |shape: &str, from: &str, to: &str| {
        format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[{from},{to}]}}}}"#)
    };
    let max = usize::MAX.to_string();
    for (header, expected) in [
        (tensor(&max, "0", &max), "overflow"),
        (tensor("4294967296,4294967296", "0", "4"), "overflow"),
        (tensor("4", "4", "0"), "offset"),
        (tensor("4", "2", "6"), "offset"),
        (tensor("5", "0", "4"), "invalid shape"),
        (tensor("3", "0", "3"), "expected 3 bytes of tensors after the header, got 4"),
        (tensor("-1", "0", "4"), "header"),
        ("{".into(), "header"),
        ("{}".into(), "bytes of tensors"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), "header"),
    ] {
        let message = refusal(&file(&header, &[0; 4]));
        assert!(message.contains(expected), "expected '{expected}' in: {message}");
    }
    assert!(refusal(&file("{}", &[])).contains("no tensor"));
    // Eight tensors that together end just below 2^64: adding the header's length to that must not overflow.
    let size = (1u64 << 61) - 1;
    let entries: Vec<_> = (0..8)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{}]}}"#, i * size, (i + 1) * size))
        .collect();
    let message = refusal(&file(&format!("{{{}}}", entries.join(",")), &[0; 4]));
    assert!(message.contains("bytes of tensors"), "{message}");
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    let mut bytes = file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4]);
    bytes[0..4].copy_from_slice(&90_000_000u32.to_le_bytes());
    assert!(refusal(&bytes).contains("truncated"));
    bytes[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&bytes).contains("at most 100000000 bytes"));
}
