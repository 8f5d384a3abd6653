//! The networks that the quickstart ships are read as any other file, and say all there is to know about themselves.

use std::path::Path;

use secateur_formats::read_weights;
use secateur_net::{Network, Op};

fn read(name: &str) -> Network {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenes/quickstart");
    let file = read_weights(&folder.join(format!("{name}.safetensors"))).expect("the file is whole");
    let description = file.description.expect("the file describes its network");
    assert_eq!(description.n_classes, 10);
    assert_eq!(description.preprocessing.n_channels(), 3);
    Network::new(description.graph, file.weights).expect("graph and weights fit")
}

fn n_convolutions(network: &Network) -> usize {
    network.graph().nodes().iter().filter(|n| matches!(n.op, Op::Conv2d(_))).count()
}

#[test]
fn shapes_is_residual() {
    let network = read("shapes");
    assert_eq!(n_convolutions(&network), 8);
    assert!(network.graph().nodes().iter().any(|n| n.op == Op::Add));
}

#[test]
fn textures_concatenates_and_is_partly_depthwise() {
    let network = read("textures");
    assert_eq!(n_convolutions(&network), 10);
    let any = |wanted: fn(&Op) -> bool| network.graph().nodes().iter().any(|n| wanted(&n.op));
    assert!(any(|op| matches!(op, Op::Concat)));
    assert!(any(|op| matches!(op, Op::Conv2d(c) if c.is_depthwise())));
}
