//! Random parts of an ONNX network's channels removed.
use std::path::Path;

use secateur_onnx::{DocumentGroups, Facts, OnnxDocument};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let path = Path::new(&path);
    let document = OnnxDocument::from_bytes(std::fs::read(path).unwrap().into(), path.parent().unwrap()).unwrap();
    let facts = Facts::of(&document, None).unwrap();
    let groups = DocumentGroups::of(&document, &facts).unwrap();
    let prunable: Vec<_> = groups.groups().iter().filter(|g| g.frozen.is_none() && g.n_channels > 1).collect();
    println!("{}: {} groups, {} channels", path.display(), prunable.len(), prunable.iter().map(|g| g.n_channels).sum::<usize>());
    for node in groups.frozen_nodes() {
        println!("  {}", node.reason);
    }
}
