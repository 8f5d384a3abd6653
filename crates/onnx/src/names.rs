//! Names of values: each is made once, before it is read.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::OnnxError;
use crate::schema::{GraphProto, NodeProto};

/// A node as errors call it: nodes need not have names.
pub fn node_name(number: usize, node: &NodeProto) -> String {
    match node.name() {
        "" => format!("node {number} ({})", node.op_type()),
        name => format!("node '{name}' ({})", node.op_type()),
    }
}

/// Whether graphs are among a node's attributes: branches of If, bodies of Loop and Scan.
pub fn has_graphs(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
}

/// Values that the graphs in a node's attributes take from around it.
pub fn captured(node: &NodeProto) -> BTreeSet<&str> {
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    graphs.flat_map(taken_from_around).collect()
}

fn taken_from_around(graph: &GraphProto) -> BTreeSet<&str> {
    let own = graph.input.iter().map(|value| value.name());
    let own = own.chain(graph.initializer.iter().map(|tensor| tensor.name()));
    let own: HashSet<&str> = own.chain(graph.node.iter().flat_map(|node| &node.output).map(String::as_str)).collect();
    let read = graph.node.iter().flat_map(|node| node.input.iter().map(String::as_str).chain(captured(node)));
    let read = read.chain(graph.output.iter().map(|value| value.name()));
    read.filter(|name| !name.is_empty() && !own.contains(name)).collect()
}

/// Everything that a node reads: its inputs, and what its graphs take from around it.
pub fn reads(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).chain(captured(node))
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
        if let Some(input) = reads(node).find(|input| !made.contains(input)) {
            return Err(OnnxError::graph(match makers.get(input) {
                Some(&later) => format!(
                    "has a circle or is out of order: {} reads '{input}', which {} makes: export it again",
                    name(),
                    node_name(later, &graph.node[later])
                ),
                None => format!("lacks the value '{input}', which {} reads: export it again", name()),
            }));
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if !made.insert(output) {
                return Err(OnnxError::graph(format!(
                    "has '{output}' twice: {} makes it again: export it again",
                    name()
                )));
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
