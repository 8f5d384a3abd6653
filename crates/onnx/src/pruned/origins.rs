//! What a document says of the modules that its layers were in PyTorch.

use std::collections::{BTreeMap, HashMap};

use secateur_net::Graph;

use super::DocumentNetwork;
use crate::module_path::module_path;
use crate::names::makers;
use crate::schema::NodeProto;

/// Where a layer of an imported network stands in its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOrigin {
    /// Name of the document's node; empty where it has none.
    pub node: String,
    /// Its operation, such as `Conv`.
    pub operation: String,
    /// Names of the stored tensors that it reads.
    pub parameters: Vec<String>,
    /// Path of the PyTorch module that it was exported from, as far as names tell.
    pub module: Option<String>,
    /// What of the document is folded into the layer's weights, and is neither BatchNorm nor the layer's own bias:
    /// products with constants and sums with them.
    pub absorbed: Vec<AbsorbedConstant>,
}

/// A node that scales or shifts channels by constants, and was folded into a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsorbedConstant {
    /// `Mul`, `Add`, `Sub` or `Div`.
    pub operation: String,
    /// Names of the stored tensors that it reads.
    pub parameters: Vec<String>,
}

impl DocumentNetwork {
    /// Where the layers of `network` come from, by their names: the imported network with or without BatchNorm, whole
    /// or pruned.
    pub fn origins(&self, network: &Graph) -> BTreeMap<String, LayerOrigin> {
        let graph = self.document.graph();
        let made_by = makers(graph);
        let absorbed = self.absorbed(network);
        let of_layer = |name: &str| {
            let node = &graph.node[self.origin(name)?];
            let parameters = self.stored(node, &made_by);
            let module = module_path(node, &parameters);
            let own_bias = module.as_ref().map(|module| vec![format!("{module}.bias")]);
            let behind = absorbed.get(name).into_iter().flatten().map(|&number| &graph.node[number]);
            let constants = behind.filter(|node| node.op_type() != "BatchNormalization").map(|node| AbsorbedConstant {
                operation: node.op_type().to_owned(),
                parameters: self.stored(node, &made_by),
            });
            let absorbed = constants.filter(|constant| Some(&constant.parameters) != own_bias.as_ref()).collect();
            let (node, operation) = (node.name().to_owned(), node.op_type().to_owned());
            Some(LayerOrigin { node, operation, parameters, module, absorbed })
        };
        network.nodes().iter().filter_map(|node| Some((node.name.clone(), of_layer(&node.name)?))).collect()
    }

    /// Names of the stored tensors that a node reads, those that other nodes only hand on or turn included.
    fn stored(&self, node: &NodeProto, made_by: &HashMap<&str, usize>) -> Vec<String> {
        let graph = self.document.graph();
        let is_stored = |name: &str| graph.initializer.iter().any(|tensor| tensor.name() == name);
        let mut found = Vec::new();
        for input in node.input.iter().filter(|input| self.facts.is_constant(input)) {
            let mut name = input.as_str();
            // Every step leads to an earlier node.
            while let Some(&number) = made_by.get(name).filter(|_| !is_stored(name)) {
                let Some(before) = graph.node[number].input.first() else { break };
                name = before;
            }
            found.push(name.to_owned());
        }
        found
    }
}
