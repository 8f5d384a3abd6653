//! The trained networks, in every layout they come in.

use std::fs;

use secateur_formats::{Split, read_cifar10, read_weights};

use crate::handmade::{models, read_bytes};

#[test]
fn every_layout_of_a_trained_network_holds_the_same_tensors() {
    let Some(folder) = models() else { return };
    for (name, legacy, n_tensors) in
        [("resnet20", "resnet20-12fca82f.th", 97), ("resnet56", "resnet56-4bfd9763.th", 277)]
    {
        let reference = read_weights(&folder.join(format!("{name}.safetensors"))).unwrap();
        assert_eq!(reference.weights.len(), n_tensors);
        assert_eq!(reference.weights["linear.weight"].shape(), [10, 64]);
        let zip = read_weights(&folder.join(format!("{name}.pth"))).unwrap();
        assert!(zip.weights == reference.weights, "{name}.pth differs");
        let legacy = read_weights(&folder.join(legacy)).unwrap();
        assert!(legacy.weights == reference.weights, "{name}: the legacy file differs");
    }
}

#[test]
fn the_files_are_what_the_format_library_reads() {
    let Some(folder) = models() else { return };
    let bytes = fs::read(folder.join("mobilenet_v1.safetensors")).unwrap();
    let library = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = read_weights(&folder.join("mobilenet_v1.safetensors")).unwrap();
    for (name, tensor) in &ours.weights {
        let view = library.tensor(name).unwrap();
        assert_eq!(view.shape(), tensor.shape());
        assert!(view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).eq(tensor.data().iter().copied()));
    }
}

#[test]
fn onnx_is_refused_with_a_way_out() {
    let Some(folder) = models() else { return };
    let message = read_weights(&folder.join("resnet20.onnx")).unwrap_err().to_string();
    assert!(message.contains("ONNX") && message.contains("ends in .onnx"), "{message}");
}

#[test]
fn truncated_trained_networks_are_refused() {
    let Some(folder) = models() else { return };
    for name in [
        "resnet20.safetensors",
        "resnet20.pth",
        "resnet20-12fca82f.th",
        "resnet56.safetensors",
        "resnet56.pth",
        "resnet56-4bfd9763.th",
        "mobilenet_v1.safetensors",
    ] {
        let bytes = fs::read(folder.join(name)).unwrap();
        // Densely where the headers, pickles and directories are, coarsely over the elements.
        let head = (0..40_000).step_by(1009);
        let body = (40_000..bytes.len()).step_by(bytes.len() / 20);
        let tail = (bytes.len() - 9_000..bytes.len()).step_by(487);
        for n in head.chain(body).chain(tail) {
            assert!(read_bytes(&bytes[..n]).is_err(), "{name} cut to {n} bytes was read");
        }
    }
}

#[test]
fn cifar10_has_its_images_and_the_golden_labels() {
    let (Some(models), Some(data)) = (models(), std::env::var_os("SECATEUR_DATA")) else {
        assert!(std::env::var("SECATEUR_REQUIRE_DATA").as_deref() != Ok("1"), "SECATEUR_DATA is not set");
        eprintln!("SKIPPED: set SECATEUR_DATA to the folder that holds cifar-10-batches-bin");
        return;
    };
    let test = read_cifar10(data.as_ref(), Split::Test).unwrap();
    assert_eq!((test.len(), test.bytes().len()), (10_000, 10_000 * 3072));
    let golden = fs::read(models.join("../golden/resnet20_cifar10_test.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let labels = golden.tensor("labels").unwrap();
    let size = labels.data().len() / labels.shape()[0];
    assert!(
        labels.data().chunks_exact(size).map(|l| u16::from(l[0])).eq(test
            .labels()
            .unwrap()
            .iter()
            .copied()
            .take(labels.shape()[0]))
    );
    assert_eq!(read_cifar10(data.as_ref(), Split::Train).unwrap().len(), 50_000);
}
