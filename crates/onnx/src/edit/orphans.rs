//! Weights that only nodes that are gone, or inputs that read others now, had needed.

use std::collections::HashSet;

use super::Edit;
use crate::schema::{GraphProto, NodeProto, TensorProto};
use crate::tensor::ElementType;

impl Edit<'_> {
    /// Drops initialisers that were read in the document and are not read any more, and nodes that hold or hand on
    /// weights nobody reads any more; what nobody read there stays, and so do other nodes.
    pub(super) fn drop_orphans(&mut self) {
        let document = self.removal.document.graph();
        let was_read: HashSet<&str> = read_names(document).into_iter().collect();
        let of_weights = names_of_weights(document);
        let graph = self.model.graph.get_or_insert_default();
        loop {
            let is_read: HashSet<String> = read_names(graph).into_iter().map(str::to_owned).collect();
            let is_orphan = |name: &str| was_read.contains(name) && !is_read.contains(name);
            let before = (graph.node.len(), graph.initializer.len());
            graph.node.retain(|node| {
                let output = node.output.first().map_or("", String::as_str);
                !(is_orphan(output) && of_weights.contains(output))
            });
            let names = graph.initializer.iter().map(TensorProto::name);
            let gone: HashSet<String> = names.filter(|name| is_orphan(name)).map(str::to_owned).collect();
            graph.initializer.retain(|tensor| !gone.contains(tensor.name()));
            graph.input.retain(|value| !gone.contains(value.name()));
            if before == (graph.node.len(), graph.initializer.len()) {
                break;
            }
        }
        // Nothing is declared of values that there are no longer.
        let mut made: HashSet<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        made.extend(graph.initializer.iter().map(TensorProto::name));
        made.extend(graph.input.iter().map(|value| value.name()));
        graph.value_info.retain(|value| made.contains(value.name()) || !was_read.contains(value.name()));
    }
}

/// Values that nodes or the network's outputs read, those of subgraphs included.
fn read_names(graph: &GraphProto) -> Vec<&str> {
    let mut names: Vec<&str> = graph.output.iter().map(|value| value.name()).collect();
    for node in &graph.node {
        names.extend(node.input.iter().map(String::as_str));
        let subgraphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        names.extend(subgraphs.flat_map(read_names));
    }
    names
}

/// Values of floating point that are stored, or computed from such values alone.
fn names_of_weights(graph: &GraphProto) -> HashSet<String> {
    let is_float = |tensor: &TensorProto| ElementType::of(tensor).is_ok_and(ElementType::is_float);
    let stored = graph.initializer.iter().filter(|tensor| is_float(tensor));
    let mut names: HashSet<String> = stored.map(|tensor| tensor.name().to_owned()).collect();
    for node in &graph.node {
        let is_held = node.constant().is_some_and(is_float);
        let hands_on = |node: &NodeProto| node.input.first().is_some_and(|name| names.contains(name));
        if let Some(output) = node.output.first()
            && (is_held || hands_on(node))
        {
            names.insert(output.clone());
        }
    }
    names
}
