use secateur_formats::Preprocessing;
use secateur_net::random::with_random_weights;
use secateur_net::{
    ChannelGroups, Conv2d, Graph, GraphBuilder, KeptChannels, Network, Op, Protocol, Shape, Tensor, arch,
    drop_zero_biases, fold_batch_norm, prune,
};
use secateur_onnx::Compacted;
use serde_json::Value;

use super::check::noise;
use super::{CUT_SCRIPT, CutPlan};
use crate::inputs::load::LoadedNetwork;

/// A network of this graph, as if it came from a state dict.
fn loaded(graph: Graph) -> LoadedNetwork {
    let original = with_random_weights(graph, 5);
    LoadedNetwork {
        name: "net".into(),
        path: "net.pth".into(),
        arch: None,
        document: None,
        outputs: vec![],
        ends_early: None,
        folded: fold_batch_norm(&original).unwrap(),
        preprocessing: Preprocessing::new(vec![0.0; 3], vec![1.0; 3]).unwrap(),
        original,
        assumptions: vec![],
    }
}

/// The plan of a network without every `nth` channel of each group, and the pruned network.
fn plan_of(source: &LoadedNetwork, nth: usize) -> (Value, Network) {
    let groups = ChannelGroups::derive(source.folded.graph(), Protocol::Full);
    let lists = groups.groups().iter().map(|group| {
        let is_kept = |&channel: &usize| group.frozen.is_some() || channel % nth != 1;
        (0..group.n_channels).filter(is_kept).collect()
    });
    let kept = KeptChannels::new(&groups, lists.collect()).unwrap();
    let network = drop_zero_biases(&prune(&source.folded, &groups, &kept).unwrap());
    let pruned = Compacted { folded: &source.folded, groups: &groups, kept: &kept, network: &network };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let text = CutPlan::new(source, &pruned, &pool).unwrap().to_json().unwrap();
    (serde_json::from_str(&text).unwrap(), network)
}

fn list(of: &Value) -> Vec<usize> {
    of.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

/// As a reader of the plan would cut a weight, one element at a time.
fn cut(weight: &Tensor, layer: &Value) -> Vec<f32> {
    let (keep_outputs, keep_inputs) = (list(&layer["keep_outputs"]), list(&layer["keep_inputs"]));
    let [n_out, per_group] = [weight.shape()[0], weight.shape()[1]];
    let tap = weight.data().len() / n_out / per_group;
    let groups = layer["groups"].as_u64().unwrap() as usize;
    let mut out = Vec::new();
    for &o in &keep_outputs {
        let first = o / (n_out / groups) * per_group;
        for &i in keep_inputs.iter().filter(|&&i| (first..first + per_group).contains(&i)) {
            out.extend_from_slice(&weight.data()[(o * per_group + i - first) * tap..][..tap]);
        }
    }
    out
}

/// Residual blocks, depthwise and grouped convolutions.
fn graphs() -> Vec<Graph> {
    let image = Shape { c: 3, h: 8, w: 8 };
    let mut b = GraphBuilder::new(image);
    let stem = b.push("stem", Op::Conv2d(Conv2d { groups: 1, ..Conv2d::square(3, 12, 3, 1, 1) }), &[0]);
    let grouped = b.push("grouped", Op::Conv2d(Conv2d { groups: 3, ..Conv2d::square(12, 18, 1, 1, 0) }), &[stem]);
    let norm = b.push("norm", Op::BatchNorm { channels: 18, eps: 1e-5 }, &[grouped]);
    let parts = [[0, 9], [9, 18]]
        .map(|channels| b.push(format!("part{}", channels[0]), Op::Slice { channels, step: [1; 2] }, &[norm]));
    let sum = b.push("sum", Op::Add, &parts);
    let flat = b.push("flat", Op::Flatten, &[sum]);
    b.push("head", Op::Linear { in_features: 9 * 64, out_features: 4, bias: true }, &[flat]);
    let built = |name: &str| arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    vec![b.finish().unwrap(), built("resnet20"), built("mobilenet_v1")]
}

#[test]
fn lists_of_channels_cut_the_original_to_the_pruned_network() {
    for graph in graphs() {
        let source = loaded(graph);
        let (plan, network) = plan_of(&source, 3);
        let layers = plan["layers"].as_array().unwrap();
        let convolutions = network.graph().nodes().iter().filter(|node| node.op.as_conv2d().is_some()).count();
        assert_eq!(layers.len(), convolutions, "BatchNorm is folded and has no entry");
        for layer in layers {
            let name = layer["name"].as_str().unwrap();
            assert_eq!((layer["module"].as_str(), layer["node"].as_str()), (Some(name), None));
            let (before, after) = (source.folded.parameter(name, "weight"), network.parameter(name, "weight"));
            assert_eq!(
                (list(&layer["shape"]), list(&layer["cut_shape"])),
                (before.shape().to_vec(), after.shape().to_vec())
            );
            assert_eq!(cut(before, layer), after.data(), "{name}");
            assert_eq!(layer["original"][1].as_f64().unwrap() as f32, before.data()[0]);
        }
    }
}

#[test]
fn halves_stay_halves() {
    let source = loaded(graphs().remove(0));
    let (plan, network) = plan_of(&source, 3);
    let splits = plan["splits"].as_array().unwrap();
    let norm = network.graph().nodes().iter().position(|node| node.name == "grouped").unwrap();
    let n = network.graph().shape(norm).c;
    assert!(n < 18 && n.is_multiple_of(2));
    let found: Vec<_> =
        splits.iter().map(|s| (s["cut_of"].as_u64(), list(&s["channels"]), list(&s["cut_channels"]))).collect();
    let wanted = [(Some(n as u64), vec![0, 9], vec![0, n / 2]), (Some(n as u64), vec![9, 18], vec![n / 2, n])];
    assert_eq!(found, wanted);
}

#[test]
fn a_network_that_was_left_as_it_is_has_its_batch_norms() {
    let source = loaded(graphs().remove(1));
    let groups = ChannelGroups::derive(source.folded.graph(), Protocol::Full);
    let kept = KeptChannels::all(&groups);
    let pruned = Compacted { folded: &source.folded, groups: &groups, kept: &kept, network: &source.original };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let plan = CutPlan::new(&source, &pruned, &pool).unwrap();
    let norms: Vec<_> = plan.layers.iter().filter(|layer| layer.kind == "BatchNorm").collect();
    assert_eq!(norms.len(), 19);
    assert!(norms.iter().all(|norm| norm.behind.as_ref().is_some_and(|layer| layer.contains("conv"))));
    assert!(
        plan.layers.iter().all(|layer| layer.shape == layer.cut_shape && layer.keep_outputs.len() == layer.shape[0])
    );
}

/// `cut.py` makes the same numbers; these are computed with other code.
#[test]
fn images_of_the_check_are_the_same_everywhere() {
    let mixed = |i: u64| {
        let mut x = (i + 1) % (1 << 32);
        for factor in [2_146_121_005_u64, 2_221_713_035] {
            x = ((x ^ (x / 65_536)) * factor) % (1 << 32);
        }
        ((x ^ (x / 65_536)) / 256) as f64 / 16_777_216.0
    };
    let numbers: Vec<f64> = (0..10_000).map(|i| f64::from(noise(i))).collect();
    assert!(numbers.iter().enumerate().all(|(i, &x)| x == mixed(i as u64)));
    let mean = numbers.iter().sum::<f64>() / 1e4;
    let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4;
    assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
}

#[test]
fn what_is_checked_is_what_the_network_computes() {
    // One convolution of 1x1: what it makes can be told by hand.
    let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 2 });
    let conv = b.push("conv", Op::Conv2d(Conv2d::square(2, 2, 1, 1, 0)), &[0]);
    b.push("relu", Op::Identity, &[conv]);
    let mut source = loaded(b.finish().unwrap());
    for network in [&mut source.original, &mut source.folded] {
        network
            .set_parameter("conv", "weight", Tensor::new(vec![2, 2, 1, 1], vec![1.0, 2.0, 0.0, -3.0]).unwrap())
            .unwrap();
    }
    let (plan, _) = plan_of(&source, 9);
    assert_eq!(list(&plan["check"]["images"]), [2, 2, 1, 2]);
    let x = |i: usize| f64::from(4.0 * noise(i) - 2.0);
    let mut outputs = Vec::new();
    for image in 0..2 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| x(4 * image + i));
        let wanted = [a + 2.0 * c, b + 2.0 * d, -3.0 * c, -3.0 * d];
        let got = plan["check"]["logits"][image].as_array().unwrap();
        assert!(got.iter().zip(wanted).all(|(got, wanted)| (got.as_f64().unwrap() - wanted).abs() < 1e-5));
        outputs.extend(wanted);
    }
    let rms = (outputs.iter().map(|y| y * y).sum::<f64>() / 8.0).sqrt();
    let probe = outputs.iter().enumerate().map(|(i, y)| y * f64::from(noise(i % 4))).sum::<f64>() / 8.0;
    for mark in [&plan["check"]["output"], &plan["layers"][0]["output"]] {
        assert!(
            (mark["rms"].as_f64().unwrap() - rms).abs() < 1e-5
                && (mark["probe"].as_f64().unwrap() - probe).abs() < 1e-5
        );
    }
}

#[test]
fn a_layer_stands_on_one_line_and_names_that_need_it_are_escaped() {
    let mut source = loaded(graphs().remove(1));
    source.name = "a \"quoted\"\nname \u{e9}".into();
    let groups = ChannelGroups::derive(source.folded.graph(), Protocol::Full);
    let kept = KeptChannels::all(&groups);
    let pruned = Compacted { folded: &source.folded, groups: &groups, kept: &kept, network: &source.folded };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let text = CutPlan::new(&source, &pruned, &pool).unwrap().to_json().unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["network"], source.name.as_str());
    assert_eq!(
        text.lines().filter(|line| line.starts_with("{\"name\":")).count(),
        read["layers"].as_array().unwrap().len()
    );
    assert!(text.ends_with("}\n"));
}

#[test]
fn a_network_of_other_layers_is_refused_by_name() {
    let source = loaded(graphs().remove(1));
    let other = loaded(graphs().remove(0));
    let groups = ChannelGroups::derive(source.folded.graph(), Protocol::Full);
    let kept = KeptChannels::all(&groups);
    let pruned = Compacted { folded: &source.folded, groups: &groups, kept: &kept, network: &other.folded };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let error = CutPlan::new(&source, &pruned, &pool).unwrap_err().to_string();
    assert_eq!(error, "plan.json: the network that was pruned has no layer 'stem'");
}

#[test]
fn the_script_reads_the_format_that_is_written() {
    assert!(CUT_SCRIPT.contains(&format!("\nFORMAT = {}\n", super::FORMAT)));
    let kinds = ["Conv2d", "ConvTranspose2d", "Linear", "BatchNorm", "PReLU", "LayerNorm", "GroupNorm", "ChannelConv"];
    assert!(kinds.iter().all(|kind| CUT_SCRIPT.contains(&format!("    \"{kind}\": ("))));
}
