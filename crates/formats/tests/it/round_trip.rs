//! Networks written and read back.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use secateur_formats::{Preprocessing, read_weights, write_network};
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape, Tensor, Weights, parameter_shapes};

use crate::handmade::refusal;

fn network() -> Network {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
    let conv = builder.push("conv1", Op::Conv2d(Conv2d::square(3, 4, 3, 1, 1)), &[0]);
    let norm = builder.push("bn1", Op::BatchNorm { channels: 4, eps: 1e-5 }, &[conv]);
    let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu), &[norm]);
    let pool = builder.push("pool", Op::GlobalAvgPool, &[relu]);
    builder.push("linear \"ü\"", Op::Linear { in_features: 4, out_features: 10, bias: true }, &[pool]);
    let graph = builder.finish().unwrap();
    let mut weights = Weights::new();
    for node in graph.nodes() {
        for (parameter, shape) in parameter_shapes(&node.op) {
            let n: usize = shape.iter().product();
            let data = (0..n).map(|i| (i as f32 + 0.1).recip()).collect();
            weights.insert(format!("{}.{parameter}", node.name), Tensor::new(shape, data).unwrap());
        }
    }
    Network::new(graph, weights).unwrap()
}

fn written(path: &Path) -> Vec<u8> {
    write_network(path, &network(), &Preprocessing::imagenet()).unwrap();
    fs::read(path).unwrap()
}

/// A file of ours in which one piece of the header was replaced by another of the same length.
fn edited(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = written(&dir.path().join("m"));
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_network_comes_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = written(&path);
    let file = read_weights(&path).unwrap();
    let description = file.description.unwrap();
    assert_eq!(description.n_classes, 10);
    assert_eq!(description.preprocessing, Preprocessing::imagenet());
    assert_eq!(Network::new(description.graph, file.weights).unwrap(), network());
    // Written again, elsewhere: the same bytes.
    assert_eq!(written(&dir.path().join("other.safetensors")), bytes);
}

#[test]
fn the_formats_own_library_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written(&dir.path().join("m"));
    let (header_bytes, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0);
    let metadata: &HashMap<String, String> = header.metadata().as_ref().unwrap();
    assert_eq!(metadata["secateur.format"], "1");
    assert_eq!(metadata["secateur.mean"], "[0.485,0.456,0.406]");
    assert_eq!(metadata["secateur.std"], "[0.229,0.224,0.225]");
    assert_eq!(metadata["secateur.classes"], "10");
    assert!(metadata["secateur.graph"].starts_with(r#"{"input":{"c":3,"h":8,"w":8},"nodes":["#));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let network = network();
    assert_eq!(file.len(), network.weights().len());
    for (name, tensor) in network.weights() {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.shape(), tensor.shape());
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(values, tensor.data());
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let message = refusal(&edited(r#""secateur.format":"1""#, r#""secateur.format":"2""#));
    assert!(message.contains("secateur.format is '2'") && message.contains("newer secateur"), "{message}");
}

#[test]
fn descriptions_that_contradict_themselves_are_refused() {
    for (from, to, expected) in [
        (r#""secateur.classes":"10""#, r#""secateur.classes":"11""#, "the graph has 10 outputs"),
        (r#""secateur.classes":"10""#, r#""secateur.classes":"1x""#, "secateur.classes"),
        (r#""secateur.mean":"[0.485,"#, r#""secateur.mean":"[      "#, "mean and one std per channel"),
        (r#""secateur.std":"[0.229"#, r#""secateur.std":"[0.000"#, "above 0"),
        (r#""secateur.graph""#, r#""secateur.grape""#, "secateur.graph is missing"),
        (r#"\"out_channels\":4"#, r#"\"out_channels\":5"#, "bn1"),
        (r#"\"eps\""#, r#"\"EPS\""#, "secateur.graph"),
    ] {
        let message = refusal(&edited(from, to));
        assert!(message.contains(expected), "expected '{expected}' in: {message}");
    }
}

#[test]
fn preprocessing_for_other_channels_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    for prep in [
        Preprocessing { mean: vec![0.5], std: vec![0.5] },
        Preprocessing { mean: vec![0.5; 3], std: vec![0.0; 3] },
        Preprocessing { mean: vec![f32::NAN; 3], std: vec![1.0; 3] },
    ] {
        let message = write_network(&path, &network(), &prep).unwrap_err().to_string();
        assert!(message.contains("preprocessing"), "{message}");
        assert!(!path.exists());
    }
}

#[test]
fn paths_that_are_no_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let absent = read_weights(&dir.path().join("absent.pth")).unwrap_err().to_string();
    assert!(absent.contains("absent.pth") && absent.contains("No such file"), "{absent}");
    let folder = read_weights(dir.path()).unwrap_err().to_string();
    assert!(folder.contains("got a folder") && folder.contains(dir.path().to_str().unwrap()), "{folder}");
}
