//! Whatever the bytes, the answer is a file or an error.

use std::sync::LazyLock;

use proptest::prelude::*;
use secateur_formats::{Preprocessing, write_network};
use secateur_net::{GraphBuilder, Network, Op, Shape, Tensor, Weights};

use crate::handmade::*;

/// One small valid file of every layout.
static SMALL_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
    builder.push("fc", Op::Linear { in_features: 3, out_features: 2, bias: false }, &[0]);
    let weight = Tensor::new(vec![2, 3], vec![0.5; 6]).unwrap();
    let network = Network::new(builder.finish().unwrap(), Weights::from([("fc.weight".into(), weight)])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    write_network(&path, &network, &Preprocessing::imagenet()).unwrap();
    let deflated = zip_file(
        &state_dict(&[("w", TensorSpec::default())]),
        &[("0", floats(&[1.; 6]))],
        zip::CompressionMethod::Deflated,
    );
    let mut files = two_tensors().to_vec();
    files.push(deflated);
    files.push(std::fs::read(&path).unwrap());
    files
});

#[test]
fn every_truncation_of_every_small_file_is_refused() {
    for bytes in SMALL_FILES.iter() {
        read_bytes(bytes).unwrap();
        for n in 0..bytes.len() {
            assert!(read_bytes(&bytes[..n]).is_err(), "cut to {n} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn every_single_changed_byte_is_survived() {
    for bytes in SMALL_FILES.iter() {
        for at in 0..bytes.len() {
            for flip in [0x01, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                drop(read_bytes(&changed));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn random_bytes_are_survived(kind in 0usize..4, tail in proptest::collection::vec(any::<u8>(), 0..600)) {
        let starts: [&[u8]; 4] = [b"", b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", b"\x40\0\0\0\0\0\0\0{"];
        drop(read_bytes(&[starts[kind], &tail].concat()));
    }

    #[test]
    fn random_pickles_are_survived(ops in proptest::collection::vec(opcode(), 0..25)) {
        // Values to work on, so that most opcodes find what they need.
        let values = PickleWriter::new().tensor(&TensorSpec::default()).raw(b"q\x00(}]))U\x01w}]K\x02(}U\x01wh\x00)}(h\x00");
        let pickle = values.raw(&ops.concat()).stop();
        drop(read_bytes(&stored(&pickle, &[("0", vec![0; 24])])));
        drop(read_bytes(&legacy_file(&pickle, &[("0", 6, vec![0; 24])])));
    }

    #[test]
    fn several_changes_at_once_are_survived(
        which in 0usize..4,
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..3), 1..8),
    ) {
        let mut bytes = SMALL_FILES[which].clone();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        drop(read_bytes(&bytes));
    }
}

/// Opcodes and short pieces that are likely to fit together.
fn opcode() -> impl Strategy<Value = Vec<u8>> {
    let tensor = PickleWriter::default().tensor(&TensorSpec::default()).0;
    let pieces: Vec<Vec<u8>> = [
        &b"("[..],
        b")",
        b"]",
        b"}",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"a",
        b"e",
        b"s",
        b"u",
        b"d",
        b"l",
        b"0",
        b"1",
        b"2",
        b"N",
        b"\x88",
        b"K\x02",
        b"M\x00\x01",
        b"J\xff\xff\xff\xff",
        b"U\x01w",
        b"q\x00",
        b"h\x00",
        b"\x94",
        b"R",
        b"b",
        b"Q",
        b"\x93",
        b"\x81",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nSize\n",
        b"ctorch\nFloatStorage\n",
        b"U\x07storage",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    ]
    .iter()
    .map(|piece| piece.to_vec())
    .chain([tensor])
    .collect();
    prop_oneof![9 => proptest::sample::select(pieces), 1 => proptest::collection::vec(any::<u8>(), 1..3)]
}
