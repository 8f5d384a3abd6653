//! Names of values: each is made once, before it is read.

use std::collections::{HashMap, HashSet};

use crate::OnnxError;
use crate::schema::{GraphProto, NodeProto};

/// A node as errors call it: nodes need not have names.
pub fn node_name(number: usize, node: &NodeProto) -> String {
    match node.name() {
        "" => format!("node {number} ({})", node.op_type()),
        name => format!("node '{name}' ({})", node.op_type()),
    }
}

/// Checks that every value is made once (initialisers may be listed among the inputs as well, as before IR 4), and that
/// nodes read only what is there before them.
///
/// # Errors
/// A name that is made twice, read before it is made, or never made; an output that nothing makes.
pub fn check_names(graph: &GraphProto) -> Result<(), OnnxError> {
    let mut made: HashSet<&str> = HashSet::new();
    for input in &graph.input {
        if !made.insert(input.name()) {
            return Err(OnnxError::graph(format!("has two inputs '{}': export it again", input.name())));
        }
    }
    let mut initialisers: HashSet<&str> = HashSet::new();
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    for tensor in graph.initializer.iter().chain(sparse) {
        if !initialisers.insert(tensor.name()) {
            return Err(OnnxError::graph(format!("has two initialisers '{}': export it again", tensor.name())));
        }
    }
    made.extend(initialisers);
    let makers: HashMap<&str, usize> = makers(graph);
    for (number, node) in graph.node.iter().enumerate() {
        let name = || node_name(number, node);
        let is_lacking = |input: &&String| !input.is_empty() && !made.contains(input.as_str());
        if let Some(input) = node.input.iter().find(is_lacking) {
            return Err(OnnxError::graph(match makers.get(input.as_str()) {
                Some(&later) => format!(
                    "has a circle or is out of order: {} reads '{input}', which {} makes",
                    name(),
                    node_name(later, &graph.node[later])
                ),
                None => format!("lacks the value '{input}', which {} reads: export it again", name()),
            }));
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if !made.insert(output) {
                return Err(OnnxError::graph(format!("has '{output}' twice: {} makes it again", name())));
            }
        }
    }
    match graph.output.iter().find(|output| !made.contains(output.name())) {
        Some(output) => Err(OnnxError::graph(format!("lacks its output '{}': export it again", output.name()))),
        None => Ok(()),
    }
}

/// Which node makes a value.
pub fn makers(graph: &GraphProto) -> HashMap<&str, usize> {
    let mut makers = HashMap::new();
    for (number, node) in graph.node.iter().enumerate() {
        for output in &node.output {
            makers.entry(output.as_str()).or_insert(number);
        }
    }
    makers
}
