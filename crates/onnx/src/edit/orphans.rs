//! What only nodes that are gone, or inputs that are no longer read, had needed.

use std::collections::HashSet;

use super::Edit;
use crate::schema::GraphProto;

impl Edit<'_> {
    /// Drops initialisers and nodes that were read in the document and are not read any more; what nobody read there
    /// stays.
    pub(super) fn drop_orphans(&mut self) {
        let was_read = read_names(self.removal.document.graph());
        let was_read: HashSet<String> = was_read.into_iter().map(str::to_owned).collect();
        let graph = self.graph();
        loop {
            let is_read: HashSet<String> = read_names(graph).into_iter().map(str::to_owned).collect();
            let is_orphan = |name: &str| was_read.contains(name) && !is_read.contains(name);
            let before = (graph.node.len(), graph.initializer.len());
            graph.node.retain(|node| {
                let mut outputs = node.output.iter().filter(|name| !name.is_empty());
                let are_unread = outputs.clone().all(|name| !is_read.contains(name));
                !(are_unread && outputs.any(|name| is_orphan(name)))
            });
            let gone: HashSet<String> = graph
                .initializer
                .iter()
                .map(|tensor| tensor.name())
                .filter(|name| is_orphan(name))
                .map(str::to_owned)
                .collect();
            graph.initializer.retain(|tensor| !gone.contains(tensor.name()));
            graph.input.retain(|value| !gone.contains(value.name()));
            if before == (graph.node.len(), graph.initializer.len()) {
                break;
            }
        }
        // Nothing is declared of values that there are no longer.
        let made: HashSet<&str> = graph
            .node
            .iter()
            .flat_map(|node| node.output.iter().map(String::as_str))
            .chain(graph.initializer.iter().map(|tensor| tensor.name()))
            .chain(graph.input.iter().map(|value| value.name()))
            .collect();
        let is_gone = |name: &str| was_read.contains(name) && !made.contains(name);
        let stale: HashSet<String> =
            graph.value_info.iter().map(|value| value.name()).filter(|name| is_gone(name)).map(str::to_owned).collect();
        graph.value_info.retain(|value| !stale.contains(value.name()));
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
