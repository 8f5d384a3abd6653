//! What leaves the network: one vector, of all outputs one after the other.

use std::collections::HashMap;

use secateur_net::{Graph, Network, Node, NodeId, Op, Weights};

use super::{Carried, Import, ImportedNetwork, Layout};
use crate::OnnxError;
use crate::schema::NodeProto;

impl Import<'_> {
    /// Joins the outputs, and leaves out what none of them needs.
    pub(super) fn finish(mut self) -> Result<ImportedNetwork, OnnxError> {
        let document = self.document;
        let mut outputs: Vec<String> = Vec::new();
        for output in document.graph().output.iter().map(|output| output.name()) {
            if self.carried.contains_key(output) {
                outputs.push(output.to_owned());
            } else if !self.beyond.contains(output) {
                return Err(OnnxError::graph(format!("has an output '{output}' that does not depend on the image")));
            }
        }
        outputs.append(&mut self.ends);
        let mut ends: Vec<NodeId> = Vec::new();
        for name in &outputs {
            let end = self.end(name, self.carried[name]);
            ends.push(end.map_err(|why| OnnxError::graph(format!("has an output '{name}' that {why}")))?);
        }
        let joined = NodeProto { name: Some("outputs".into()), ..NodeProto::default() };
        let output = match ends.as_slice() {
            [] => return Err(OnnxError::graph("has no output")),
            [only] => *only,
            _ => self.push(&joined, Op::Concat, &ends).map_err(OnnxError::graph)?,
        };
        self.keep_needed(output, outputs)
    }

    /// An output as a vector, in the order in which the document has it.
    fn end(&mut self, name: &str, x: Carried) -> Result<NodeId, String> {
        let shape = self.shapes[x.node];
        let flat = NodeProto { name: Some(format!("{name} flat")), ..NodeProto::default() };
        match x.layout {
            Layout::Grouped { .. } => Err("has channels in groups, which is not computed".into()),
            _ if shape.h * shape.w == 1 => Ok(x.node),
            Layout::Image | Layout::Flat => self.push(&flat, Op::Flatten, &[x.node]),
            Layout::ChannelsLast => self.push(&flat, Op::FlattenPixels, &[x.node]),
        }
    }

    fn keep_needed(mut self, output: NodeId, outputs: Vec<String>) -> Result<ImportedNetwork, OnnxError> {
        let mut is_needed = vec![false; self.nodes.len()];
        is_needed[output] = true;
        is_needed[0] = true;
        for id in (0..self.nodes.len()).rev().filter(|&id| id <= output) {
            if is_needed[id] {
                self.nodes[id].inputs.iter().for_each(|&input| is_needed[input] = true);
            }
        }
        let mut values: HashMap<NodeId, String> = HashMap::new();
        // Of several values of one node, which only other layouts tell apart, the first by name.
        let mut carried: Vec<(&String, &Carried)> = self.carried.iter().collect();
        carried.sort_by_key(|(name, _)| *name);
        for (name, at) in carried {
            values.entry(at.node).or_insert_with(|| name.clone());
        }
        let mut place = vec![0; self.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let mut kept_values: Vec<Option<String>> = Vec::new();
        for (id, node) in self.nodes.into_iter().enumerate().filter(|(id, _)| is_needed[*id]) {
            place[id] = nodes.len();
            let inputs = node.inputs.iter().map(|&input| place[input]).collect();
            nodes.push(Node { inputs, ..node });
            kept_values.push(values.remove(&id));
        }
        let names: std::collections::HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.weights.retain(|name, _| name.rsplit_once('.').is_some_and(|(node, _)| names.contains(node)));
        let weights: Weights = self.weights;
        let graph = Graph::new(self.shapes[0], nodes).map_err(|e| OnnxError::graph(e.to_string()))?;
        let network = Network::new(graph, weights).map_err(|e| OnnxError::graph(e.to_string()))?;
        Ok(ImportedNetwork { network, values: kept_values, outputs, ends_early: self.ends_early })
    }
}
