//! State dicts saved by `torch.save`, in both layouts.

use zip::CompressionMethod;

use crate::handmade::*;

#[test]
fn both_layouts_hold_the_same_tensors() {
    for bytes in two_tensors() {
        let file = read_bytes(&bytes).unwrap();
        assert_eq!(file.description, None);
        assert_eq!(file.weights.keys().collect::<Vec<_>>(), ["conv.bias", "conv.weight"]);
        assert_eq!(file.weights["conv.weight"].shape(), [2, 3]);
        assert_eq!(file.weights["conv.weight"].data(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(file.weights["conv.bias"].data(), [7.0, 8.0]);
    }
}

/// Storage 0, 1, …, 11 seen through offset, shape and strides.
fn strided(offset: i32, shape: &[i32], stride: &[i32]) -> Result<Vec<f32>, String> {
    let spec = TensorSpec { n_elements: 12, offset, shape, stride, ..TensorSpec::default() };
    let storage = floats(&std::array::from_fn::<f32, 12, _>(|i| i as f32));
    let read = read_bytes(&stored(&state_dict(&[("w", spec)]), &[("0", storage)]));
    read.map(|file| file.weights["w"].data().to_vec()).map_err(|e| e.to_string())
}

#[test]
fn tensors_are_gathered_along_their_strides() {
    // A transposed 3x4 matrix, a slice of it, an expanded row, a column, a scalar, an empty tensor.
    assert_eq!(strided(0, &[4, 3], &[1, 4]).unwrap(), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
    assert_eq!(strided(5, &[2, 2], &[4, 1]).unwrap(), [5., 6., 9., 10.]);
    assert_eq!(strided(2, &[2, 3], &[0, 1]).unwrap(), [2., 3., 4., 2., 3., 4.]);
    assert_eq!(strided(3, &[3], &[4]).unwrap(), [3., 7., 11.]);
    assert_eq!(strided(11, &[], &[]).unwrap(), [11.]);
    assert_eq!(strided(4, &[1, 2, 1], &[i32::MAX, 3, i32::MAX]).unwrap(), [4., 7.]);
    assert!(strided(0, &[3, 0], &[1, 1]).unwrap().is_empty());
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    for (offset, shape, stride) in [
        (0, &[13][..], &[1][..]),
        (12, &[], &[]),
        (1, &[3, 4], &[4, 1]),
        (0, &[2], &[12]),
        (i32::MAX, &[i32::MAX, i32::MAX], &[i32::MAX, i32::MAX]),
    ] {
        let message = strided(offset, shape, stride).unwrap_err();
        assert!(message.contains("exceeds its storage of 12") && message.contains("'w'"), "{message}");
    }
    assert!(strided(-1, &[1], &[1]).unwrap_err().contains("-1"));
    assert!(strided(0, &[2, 2], &[1]).unwrap_err().contains("2 dimensions and 1 strides"));
    assert!(strided(0, &[1; 9], &[1; 9]).unwrap_err().contains("at most 8 dimensions"));
    assert!(strided(0, &[i32::MAX; 4], &[0; 4]).unwrap_err().contains("larger than memory"));
    assert!(strided(0, &[i32::MAX], &[0]).unwrap_err().contains("may unfold to"));
}

#[test]
fn tensors_share_a_storage() {
    let first = TensorSpec { n_elements: 8, ..TensorSpec::default() };
    let second = TensorSpec { offset: 6, shape: &[2], stride: &[1], ..first };
    let storage = floats(&[1., 2., 3., 4., 5., 6., 7., 8.]);
    let pickle = state_dict(&[("a", first), ("b", second)]);
    for bytes in [stored(&pickle, &[("0", storage.clone())]), legacy_file(&pickle, &[("0", 8, storage.clone())])] {
        assert_eq!(read_bytes(&bytes).unwrap().weights["b"].data(), [7.0, 8.0]);
    }
}

#[test]
fn other_float_types_become_f32_and_integers_are_refused_but_for_batch_counters() {
    let one = TensorSpec { n_elements: 1, shape: &[1], stride: &[1], ..TensorSpec::default() };
    for (storage_type, bytes) in [
        ("HalfStorage", vec![0x00, 0x3e]),
        ("BFloat16Storage", vec![0xc0, 0x3f]),
        ("DoubleStorage", 1.5f64.to_le_bytes().to_vec()),
    ] {
        let pickle = state_dict(&[("w", TensorSpec { storage_type, ..one })]);
        assert_eq!(read_bytes(&stored(&pickle, &[("0", bytes)])).unwrap().weights["w"].data(), [1.5]);
    }
    let counter = TensorSpec { storage_type: "LongStorage", key: "1", shape: &[], stride: &[], ..one };
    let storages = [("0", floats(&[2.0])), ("1", 5u64.to_le_bytes().to_vec())];
    let file = read_bytes(&stored(&state_dict(&[("w", one), ("bn.num_batches_tracked", counter)]), &storages)).unwrap();
    assert_eq!(file.weights.keys().collect::<Vec<_>>(), ["w"]);
    let message = refusal(&stored(&state_dict(&[("w", one), ("indices", counter)]), &storages));
    assert!(message.contains("'indices'") && message.contains("I64"), "{message}");
}

#[test]
fn checkpoints_are_unwrapped_and_parallel_prefixes_stripped() {
    for wrapper in ["state_dict", "model", "net"] {
        let pickle = PickleWriter::new()
            .raw(b"}(")
            .str("epoch")
            .int(7)
            .str("best")
            .raw(b"G\x40\x56\xf1\xeb\x8c\xcc\xcc\xcd")
            .str("arch")
            .str("resnet20")
            .str(wrapper)
            .global("collections", "OrderedDict")
            .raw(b")R(")
            .str("module.conv.weight")
            .tensor(&TensorSpec::default())
            .raw(b"u}")
            .str("_metadata")
            .raw(b"}sbu")
            .stop();
        let file = read_bytes(&stored(&pickle, &[("0", floats(&[1.; 6]))])).unwrap();
        assert_eq!(file.weights.keys().collect::<Vec<_>>(), ["conv.weight"]);
    }
}

#[test]
fn parameters_sizes_and_lists_of_pairs_are_understood() {
    // OrderedDict([("w", Parameter(tensor, requires_grad=True, hooks))]), as Python 2 pickled it, shape a torch.Size.
    let tensor = PickleWriter::default()
        .global("torch._utils", "_rebuild_tensor")
        .raw(b"((")
        .str("storage")
        .global("torch", "FloatStorage")
        .raw(b"U\x010")
        .str("cuda:0")
        .int(6)
        .raw(b"NtQK\x00")
        .global("torch", "Size")
        .ints(&[2, 3])
        .raw(b"\x85R")
        .ints(&[3, 1])
        .raw(b"tR");
    let pickle = PickleWriter::new()
        .global("collections", "OrderedDict")
        .raw(b"](](")
        .str("w")
        .global("torch._utils", "_rebuild_parameter")
        .raw(&tensor.0)
        .raw(b"\x88N\x87Ree\x85R")
        .stop();
    let file = read_bytes(&stored(&pickle, &[("0", floats(&[1., 2., 3., 4., 5., 6.]))])).unwrap();
    assert_eq!((file.weights["w"].shape(), file.weights["w"].data()[5]), (&[2, 3][..], 6.0));
}

#[test]
fn compressed_archives_are_read() {
    let pickle = state_dict(&[("w", TensorSpec::default())]);
    let bytes = zip_file(&pickle, &[("0", floats(&[3.; 6]))], CompressionMethod::Deflated);
    assert_eq!(read_bytes(&bytes).unwrap().weights["w"].data(), [3.0; 6]);
}

#[test]
fn storages_of_another_size_are_refused() {
    let pickle = state_dict(&[("w", TensorSpec::default())]);
    let short = refusal(&stored(&pickle, &[("0", floats(&[1.; 5]))]));
    assert!(short.contains("data/0") && short.contains("expected 24 bytes, got 20"), "{short}");
    let missing = refusal(&stored(&pickle, &[]));
    assert!(missing.contains("data/0"), "{missing}");
    let legacy = refusal(&legacy_file(&pickle, &[("0", 5, floats(&[1.; 5]))]));
    assert!(legacy.contains("expected 6 elements, got 5"), "{legacy}");
    let truncated = refusal(&legacy_file(&pickle, &[("0", 6, floats(&[1.; 5]))]));
    assert!(truncated.contains("truncated"), "{truncated}");
    let unlisted = refusal(&legacy_file(&pickle, &[]));
    assert!(unlisted.contains("its storage '0' is not in the file"), "{unlisted}");
}

#[test]
fn a_zip_bomb_is_refused_before_it_unfolds() {
    let n_elements = 64 << 20;
    let spec = TensorSpec { n_elements, shape: &[64 << 20], stride: &[1], ..TensorSpec::default() };
    let zeros = vec![0; 4 * n_elements as usize];
    let bytes = zip_file(&state_dict(&[("w", spec)]), &[("0", zeros)], CompressionMethod::Deflated);
    let message = refusal(&bytes);
    assert!(message.contains("may unfold to"), "{message}");
}
