//! The certificate's counts against the search's own, which share no code; and files that must not be certified.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};

use secateur::certify::certify;
use secateur::formats::{Preprocessing, write_network};
use secateur::net::random::{random_network, random_network_of_every_operation, with_random_weights};
use secateur::net::{
    ChannelGroups, Conv2d, Cost, CostModel, GraphBuilder, GraphTail, KeptChannels, Network, Op, Pointwise, Protocol,
    Shape, Window, arch, drop_zero_biases, fold_batch_norm, prune,
};
use secateur::run::{full_cost, load_network};

fn write(folder: &Path, network: &Network) -> PathBuf {
    let path = folder.join("model.safetensors");
    let n = network.graph().input().c;
    write_network(&path, network, &Preprocessing::new(vec![0.5; n], vec![0.25; n]).unwrap()).unwrap();
    path
}

fn check_agreement(network: &Network, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let certificate = certify(&write(dir.path(), network), &[]).unwrap();
    let (graph, macs, params) = (network.graph(), full_cost(network, Cost::Macs), full_cost(network, Cost::Params));
    assert_eq!((certificate.macs, certificate.params), (macs, params), "{name}");
    assert_eq!(certificate.activation_bytes, full_cost(network, Cost::ActivationBytes), "{name}");
    assert_eq!(certificate.operations.len(), graph.nodes().len(), "{name}");
    let groups = ChannelGroups::derive(graph, Protocol::Full);
    let (model, full) = (CostModel::new(graph, &groups), groups.full_widths());
    for (id, operation) in certificate.operations.iter().enumerate() {
        let (node, Shape { c, h, w }) = (graph.node(id), graph.shape(id));
        assert_eq!((operation.name.as_str(), operation.op.as_str()), (node.name.as_str(), node.op.name()));
        assert_eq!(operation.output, [c, h, w].map(|n| n as u64), "{name}: {}", node.name);
        let counts = (model.node_macs(id, &full), model.node_params(id, &full));
        assert_eq!((operation.macs, operation.params), counts, "{name}: {}", node.name);
    }
}

#[test]
fn counts_agree_with_the_search_on_known_architectures() {
    for name in ["resnet20", "resnet56", "vgg16", "mobilenet_v1"] {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let network = with_random_weights(graph, 1);
        check_agreement(&network, name);
        check_agreement(&fold_batch_norm(&network).unwrap(), &format!("{name}, folded"));
    }
}

#[test]
fn counts_agree_with_the_search_on_random_networks() {
    for seed in 0..100 {
        let network = random_network(seed);
        check_agreement(&network, &format!("seed {seed}"));
        check_agreement(&fold_batch_norm(&network).unwrap(), &format!("seed {seed}, folded"));
        check_agreement(&random_network_of_every_operation(seed), &format!("every operation, seed {seed}"));
    }
}

/// What follows a network counts, in the search and in the certificate, whatever is done to the network.
#[test]
fn what_follows_a_network_counts_in_its_budget() {
    let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    let plain = with_random_weights(graph.clone(), 1);
    let network = with_random_weights(graph.with_tail(GraphTail { macs: 1000, params: 7 }), 1);
    let folded = drop_zero_biases(&fold_batch_norm(&network).unwrap());
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let pruned = prune(&network, &groups, &KeptChannels::all(&groups)).unwrap();
    for (name, network) in [("as it is", &network), ("folded", &folded), ("pruned", &pruned)] {
        assert_eq!(network.graph().tail(), GraphTail { macs: 1000, params: 7 }, "{name}");
        check_agreement(network, name);
    }
    assert_eq!(full_cost(&network, Cost::Macs), full_cost(&plain, Cost::Macs) + 1000);
    assert_eq!(full_cost(&network, Cost::Params), full_cost(&plain, Cost::Params) + 7);
    let dir = tempfile::tempdir().unwrap();
    let read = load_network(&write(dir.path(), &network), None, None).unwrap();
    assert_eq!(read.original.graph(), network.graph());
}

#[test]
fn budgets_are_judged_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let network = random_network(3);
    let path = write(dir.path(), &network);
    let macs = full_cost(&network, Cost::Macs);
    let met = certify(&path, &[("macs", macs), ("params", u64::MAX)]).unwrap();
    assert!(met.holds());
    let missed = certify(&path, &[("macs", macs - 1), ("activation_bytes", u64::MAX)]).unwrap();
    assert!(!missed.holds());
    assert_eq!(missed.budgets.iter().map(|b| b.ok).collect::<Vec<_>>(), [false, true]);
    assert_eq!((missed.budgets[0].value, missed.budgets[0].max), (macs, macs - 1));
    let unknown = certify(&path, &[("latency", 1)]).unwrap_err();
    assert!(format!("{unknown:#}").contains("'latency'"), "{unknown:#}");
}

#[test]
fn the_certificate_names_its_file_and_hash_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &random_network(4));
    let json = serde_json::to_value(certify(&path, &[("macs", 1)]).unwrap()).unwrap();
    assert_eq!(json["file"], "model.safetensors");
    assert_eq!(json["blake3"], blake3::hash(&std::fs::read(&path).unwrap()).to_hex().as_str());
    assert_eq!(json["operations"][0]["op"], "Input");
    assert_eq!(json["budgets"][0]["ok"], false);
}

/// Message for the file of a small network after `change` to its header and data.
fn refusal_after(change: impl FnOnce(&mut serde_json::Value, &mut Vec<u8>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &random_network(5));
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    change(&mut header, &mut data);
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    std::fs::write(&path, file).unwrap();
    let message = format!("{:#}", certify(&path, &[]).unwrap_err());
    assert!(message.contains("model.safetensors"), "{message}");
    message
}

fn edit_graph(header: &mut serde_json::Value, change: impl FnOnce(&mut serde_json::Value)) {
    let text = header["__metadata__"]["secateur.graph"].as_str().unwrap();
    let mut graph = serde_json::from_str(text).unwrap();
    change(&mut graph);
    header["__metadata__"]["secateur.graph"] = graph.to_string().into();
}

/// Name of the first weight in the file with four dimensions.
fn a_filter(header: &serde_json::Value) -> String {
    let is_filter = |entry: &serde_json::Value| entry["shape"].as_array().is_some_and(|s| s.len() == 4);
    header.as_object().unwrap().iter().find(|(_, entry)| is_filter(entry)).unwrap().0.clone()
}

#[test]
fn a_tensor_of_another_shape_than_the_graph_is_refused() {
    let message = refusal_after(|header, _| {
        let name = a_filter(header);
        let shape = header[&name]["shape"].as_array_mut().unwrap();
        // As many elements, so that only the graph can tell.
        let n: u64 = shape.iter().map(|d| d.as_u64().unwrap()).product();
        *shape = [1, n, 1, 1].map(serde_json::Value::from).to_vec();
    });
    assert!(message.contains("the graph calls for shape"), "{message}");
}

#[test]
fn a_graph_that_claims_fewer_channels_than_the_file_has_is_refused() {
    let message = refusal_after(|header, _| {
        edit_graph(header, |graph| {
            let conv = graph["nodes"].as_array_mut().unwrap().iter_mut().find(|n| !n["op"]["Conv2d"].is_null());
            conv.unwrap()["op"]["Conv2d"]["out_channels"] = 1.into();
        });
    });
    assert!(message.contains("shape") || message.contains("channels"), "{message}");
}

#[test]
fn windows_of_all_kinds_functions_and_slopes_are_counted_as_the_search_counts_them() {
    let cases = (0..3usize.pow(6)).map(|i| [1, 3, 9, 27, 81, 243].map(|n| i / n % 3));
    for [kernel, stride, above, below, size, ceil] in cases {
        let window = Window {
            padding: [[above, below], [below, 0]],
            ceil: ceil == 1,
            counts_padding: ceil == 2,
            ..Window::new([kernel + 1, kernel + 2], [stride + 1, 1], [0, 0])
        };
        let mut b = GraphBuilder::new(Shape { c: 2, h: size + 1, w: 3 });
        let conv = b.push("conv", Op::Conv2d(Conv2d::square(2, 4, 1, 1, 0)), &[0]);
        let slopes = b.push("slopes", Op::PRelu { channels: 4 }, &[conv]);
        let pool = b.push("pool", if stride == 0 { Op::MaxPool(window) } else { Op::AvgPool(window) }, &[slopes]);
        let clip = Pointwise::Clip { min: 0.0, max: f32::INFINITY };
        let clip = b.push("clip", Op::Pointwise(clip), &[pool]);
        let gelu = b.push("gelu", Op::Pointwise(Pointwise::Gelu { tanh: stride == 1 }), &[clip]);
        b.push("last", Op::Conv2d(Conv2d::square(4, 3, 1, 1, 0)), &[gelu]);
        let Ok(graph) = b.finish() else { continue };
        check_agreement(&with_random_weights(graph, 1), &format!("{kernel} {stride} {above} {below} {size} {ceil}"));
    }
}

#[test]
fn hostile_windows_are_refused() {
    let mut b = GraphBuilder::new(Shape { c: 1, h: 4, w: 4 });
    b.push("pool", Op::MaxPool(Window::new([2; 2], [2; 2], [0; 2])), &[0]);
    let network = with_random_weights(b.finish().unwrap(), 1);
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &network);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let huge = serde_json::json!(u64::MAX);
    for (key, value) in [
        ("padding", serde_json::json!([[0, 2], [0, 0]])),
        ("padding", serde_json::json!([[0], [0, 0]])),
        ("padding", serde_json::json!([[0, huge], [0, 0]])),
        ("kernel", serde_json::json!([huge, 2])),
        ("stride", serde_json::json!([0, 2])),
        ("stride", serde_json::json!([huge, 2])),
        ("ceil", serde_json::json!("yes")),
    ] {
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        edit_graph(&mut header, |graph| {
            graph["nodes"][1]["op"]["MaxPool"]["ceil"] = true.into();
            graph["nodes"][1]["op"]["MaxPool"][key] = value.clone();
        });
        let header = serde_json::to_vec(&header).unwrap();
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
        std::fs::write(&path, file).unwrap();
        assert!(certify(&path, &[]).is_err(), "{key}: {value}");
    }
}

#[test]
fn truncated_and_padded_files_are_refused() {
    let truncated = refusal_after(|_, data| data.truncate(data.len() - 4));
    assert!(truncated.contains("bytes of tensors"), "{truncated}");
    let padded = refusal_after(|_, data| data.extend([0; 4]));
    assert!(padded.contains("bytes of tensors"), "{padded}");
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &random_network(6));
    let bytes = std::fs::read(&path).unwrap();
    for n in (0..bytes.len()).step_by(41) {
        std::fs::write(&path, &bytes[..n]).unwrap();
        assert!(certify(&path, &[]).is_err(), "cut to {n} bytes");
    }
}

#[test]
fn tensors_nobody_counts_are_refused() {
    let hidden = refusal_after(|header, data| {
        let end = data.len();
        header["hidden.weight"] = serde_json::json!({"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]});
        data.extend([0; 8]);
    });
    assert!(hidden.contains("'hidden.weight' belongs to no operation"), "{hidden}");
    let overlapping = refusal_after(|header, _| {
        let name = a_filter(header);
        let offsets = header[&name]["data_offsets"].clone();
        let shape = header[&name]["shape"].clone();
        header["twin.weight"] = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    });
    assert!(overlapping.contains("do not follow one another"), "{overlapping}");
}

#[test]
fn hostile_numbers_are_refused() {
    let huge = u64::MAX / 2;
    for key in ["kernel", "stride", "padding", "dilation"] {
        for value in [0, huge] {
            // Padding of 0 and the like are legal; only a crash or a silent wrap-around would be wrong.
            let dir = tempfile::tempdir().unwrap();
            let path = write(dir.path(), &random_network(7));
            let before = certify(&path, &[]).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
            edit_graph(&mut header, |graph| {
                let conv = graph["nodes"].as_array_mut().unwrap().iter_mut().find(|n| !n["op"]["Conv2d"].is_null());
                conv.unwrap()["op"]["Conv2d"][key] = serde_json::json!([value, value]);
            });
            let header = serde_json::to_vec(&header).unwrap();
            let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
            std::fs::write(&path, file).unwrap();
            let after = certify(&path, &[]);
            assert!(after.is_err() || (key, value) == ("padding", 0) || after.is_ok_and(|a| a.macs <= before.macs));
        }
    }
    let input = refusal_after(|header, _| edit_graph(header, |graph| graph["input"]["h"] = huge.into()));
    assert!(input.contains("operation"), "{input}");
}
