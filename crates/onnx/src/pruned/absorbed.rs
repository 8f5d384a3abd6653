//! Which nodes of a document the engine has folded into which layer.

use std::collections::{BTreeMap, HashSet};

use secateur_net::{Graph, Op};

use super::DocumentNetwork;

/// Nodes of a document, by number, that were folded into the layer of another.
pub(super) type Absorbed = BTreeMap<String, Vec<usize>>;

impl DocumentNetwork {
    /// By name of the layer, in order.
    pub(super) fn absorbed(&self, folded: &Graph) -> Absorbed {
        let graph = &self.graph;
        let folded: HashSet<&str> = folded.nodes().iter().map(|node| node.name.as_str()).collect();
        let mut hosts: Vec<usize> = Vec::with_capacity(graph.nodes().len());
        let mut absorbed = Absorbed::new();
        for (id, node) in graph.nodes().iter().enumerate() {
            let is_gone = !folded.contains(node.name.as_str());
            let host = match node.inputs.first() {
                Some(&input) if is_gone => hosts[input],
                _ => id,
            };
            if let (true, Op::BatchNorm { .. }, Some(number)) = (is_gone, &node.op, self.nodes[id]) {
                absorbed.entry(graph.node(host).name.clone()).or_default().push(number);
            }
            hosts.push(host);
        }
        absorbed
    }

    /// The document's node of a layer.
    pub(super) fn origin(&self, layer: &str) -> Option<usize> {
        self.ids.get(layer).and_then(|&id| self.nodes[id])
    }
}
