//! What leaves the network: one vector, of all outputs one after the other.

use std::collections::HashMap;

use secateur_net::{Graph, GraphTail, Network, Node, NodeId, Op, Weights};

use super::layout::Layout;
use super::{Carried, Import, ImportedNetwork};
use crate::OnnxError;
use crate::schema::NodeProto;

impl Import<'_> {
    /// Joins the outputs, and leaves out what none of them needs.
    pub(super) fn finish(mut self) -> Result<ImportedNetwork, OnnxError> {
        let document = self.document;
        self.current = None;
        let mut outputs: Vec<String> = Vec::new();
        for output in document.graph().output.iter().map(|output| output.name()) {
            if self.carried.contains_key(output) {
                outputs.push(output.to_owned());
            } else if !self.beyond.contains(output) {
                return Err(OnnxError::graph(format!(
                    "has an output '{output}' that does not depend on the image: export it without"
                )));
            }
        }
        outputs.append(&mut self.ends);
        let tail = self.tail()?;
        let mut ends: Vec<NodeId> = Vec::new();
        for name in &outputs {
            let end = self.end(name, self.carried[name]);
            ends.push(end.map_err(|why| OnnxError::graph(format!("has an output '{name}' that {why}")))?);
        }
        let joined = NodeProto { name: Some("outputs".into()), ..NodeProto::default() };
        let output = match ends.as_slice() {
            [] => return Err(OnnxError::graph("has no output: export it again")),
            [only] => *only,
            _ => self.push(&joined, Op::Concat, &ends).map_err(OnnxError::graph)?,
        };
        self.keep_needed(output, outputs, tail)
    }

    /// An output as a vector, in the order in which the document has it.
    fn end(&mut self, name: &str, x: Carried) -> Result<NodeId, String> {
        let shape = self.shapes[x.node];
        let flat = NodeProto { name: Some(format!("{name} flat")), ..NodeProto::default() };
        match x.layout {
            _ if shape.h * shape.w == 1 => Ok(x.node),
            layout if layout.is_by_channel() => self.push(&flat, Op::Flatten, &[x.node]),
            _ => self.push(&flat, Op::FlattenPixels, &[x.node]),
        }
    }

    /// What the nodes cost that are not computed. A parameter that others read, too, is theirs.
    ///
    /// # Errors
    /// Layers whose cost is not known, or two thirds of all that is multiplied: what were pruned would not be the
    /// network.
    fn tail(&self) -> Result<GraphTail, OnnxError> {
        let Some(why) = &self.ends_early else { return Ok(GraphTail::default()) };
        let (document, facts) = (self.document, self.facts);
        let (all, behind) =
            (facts.macs(document), facts.macs_of(document, |number| self.beyond_nodes.contains(&number)));
        let graph = document.graph();
        let is_uncounted = |&number: &usize| {
            let node = &graph.node[number];
            is_layer(node)
                && node.input.iter().any(|name| facts.is_constant(name))
                && facts.shape(&node.output[0]).is_none()
        };
        if self.beyond_nodes.iter().any(is_uncounted) {
            return Err(OnnxError::NotComputed { problem: why.clone() });
        }
        if 3 * u128::from(behind) >= 2 * u128::from(all) {
            let share = 100 * u128::from(behind) / u128::from(all.max(1));
            let problem = match behind {
                0 => why.clone(),
                _ => format!("{why}, and {share} % of the multiply-accumulates come from there on"),
            };
            return Err(OnnxError::NotComputed { problem });
        }
        let batch = facts.inputs().first().and_then(|input| input.shape.first()).map_or(1, |&n| n as u64);
        let computed = facts.params_of(document, |number| !self.beyond_nodes.contains(&number));
        Ok(GraphTail { macs: behind / batch.max(1), params: facts.params(document) - computed })
    }

    fn keep_needed(
        mut self,
        output: NodeId,
        outputs: Vec<String>,
        tail: GraphTail,
    ) -> Result<ImportedNetwork, OnnxError> {
        let mut is_needed = vec![false; self.nodes.len()];
        is_needed[output] = true;
        is_needed[0] = true;
        for id in (0..self.nodes.len()).rev().filter(|&id| id <= output) {
            if is_needed[id] {
                self.nodes[id].inputs.iter().for_each(|&input| is_needed[input] = true);
            }
        }
        let mut values: HashMap<NodeId, String> = HashMap::new();
        // Of several values of one node, which only other layouts tell apart, the first by name. Where channels are in
        // groups they may be in another order.
        let is_plain = |carried: &Carried| !matches!(carried.layout, Layout::Grouped(_) | Layout::Folded(_));
        let mut carried: Vec<(&String, &Carried)> = self.carried.iter().filter(|(_, at)| is_plain(at)).collect();
        carried.sort_by_key(|(name, _)| *name);
        for (name, at) in carried {
            values.entry(at.node).or_insert_with(|| name.clone());
        }
        let mut place = vec![0; self.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let mut kept_values: Vec<Option<String>> = Vec::new();
        let mut origins: Vec<Option<usize>> = Vec::new();
        for (id, node) in self.nodes.into_iter().enumerate().filter(|(id, _)| is_needed[*id]) {
            place[id] = nodes.len();
            let inputs = node.inputs.iter().map(|&input| place[input]).collect();
            nodes.push(Node { inputs, ..node });
            kept_values.push(values.remove(&id));
            origins.push(self.origins[id]);
        }
        let names: std::collections::HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.weights.retain(|name, _| name.rsplit_once('.').is_some_and(|(node, _)| names.contains(node)));
        let weights: Weights = self.weights;
        let graph = Graph::new(self.shapes[0], nodes).map_err(|e| OnnxError::graph(e.to_string()))?.with_tail(tail);
        let network = Network::new(graph, weights).map_err(|e| OnnxError::graph(e.to_string()))?;
        Ok(ImportedNetwork { network, values: kept_values, nodes: origins, outputs, ends_early: self.ends_early })
    }
}

/// Whether a node multiplies by its parameters.
fn is_layer(node: &NodeProto) -> bool {
    matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul")
}
