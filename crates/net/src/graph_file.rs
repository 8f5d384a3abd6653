//! A graph as files write it. Every key is read, or refused by the name of its node and its own: a key that were passed
//! over would be a network that computes something else.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::graph_fields::{Fields, Refusal, shown};
use crate::graph_function::function;
use crate::graph_tree::{Tree, TreeSeed};
use crate::shapes::{MAX_CONNECTIONS, MAX_NODES};
use crate::{Conv2d, ConvTranspose2d, Graph, GraphTail, Node, Op, Shape, Window};

/// Values (numbers, texts, lists, objects) that one node may be written with.
const MAX_VALUES_OF_NODE: usize = 1 << 17;

const CONV2D: &[&str] = &["in_channels", "out_channels", "kernel", "stride", "padding", "dilation", "groups", "bias"];
const CONV_TRANSPOSE2D: &[&str] =
    &["in_channels", "out_channels", "kernel", "stride", "padding", "output_padding", "dilation", "groups", "bias"];
const WINDOW: &[&str] = &["kernel", "stride", "padding", "ceil", "counts_padding"];
pub const OPERATIONS: [&str; 33] = [
    "Input",
    "Conv2d",
    "BatchNorm",
    "Linear",
    "PRelu",
    "Pointwise",
    "Add",
    "Concat",
    "MaxPool",
    "AvgPool",
    "GlobalAvgPool",
    "Flatten",
    "Pad",
    "Slice",
    "Softmax",
    "Identity",
    "Mul",
    "FlattenPixels",
    "ChannelShuffle",
    "DepthToSpace",
    "Resize",
    "LayerNorm",
    "GlobalMaxPool",
    "ConvTranspose2d",
    "ChannelConv",
    "GroupNorm",
    "LocalResponseNorm",
    "Max",
    "Min",
    "ChannelMean",
    "ChannelMax",
    "BranchSum",
    "BranchSoftmax",
];
impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let WrittenGraph { input, nodes, tail } = from.deserialize_map(GraphVisitor)?;
        Ok(Self::new(input, nodes).map_err(Error::custom)?.with_tail(tail))
    }
}

/// The outermost object.
struct WrittenGraph {
    input: Shape,
    nodes: Vec<Node>,
    tail: GraphTail,
}

/// Reads the outermost object.
struct GraphVisitor;

impl<'de> Visitor<'de> for GraphVisitor {
    type Value = WrittenGraph;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a graph: an object with the keys input and nodes, and perhaps tail")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut input, mut nodes, mut tail) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let is_repeated = match key.as_str() {
                "input" => {
                    let tree = map.next_value_seed(TreeSeed(&Cell::new(MAX_VALUES_OF_NODE)))?;
                    input.replace(image(tree).map_err(Error::custom)?).is_some()
                }
                "nodes" => nodes.replace(map.next_value_seed(NodesSeed)?).is_some(),
                "tail" => {
                    let tree = map.next_value_seed(TreeSeed(&Cell::new(MAX_VALUES_OF_NODE)))?;
                    tail.replace(costs(tree).map_err(Error::custom)?).is_some()
                }
                _ => {
                    let key = shown(&key);
                    return Err(Error::custom(format!("graph: unknown key `{key}`; known: input, nodes, tail")));
                }
            };
            if is_repeated {
                return Err(Error::custom(format!("graph: key `{key}` stands there twice")));
            }
        }
        let missing = |key: &str| Error::custom(format!("graph: key `{key}` is missing; expected input, nodes"));
        Ok(WrittenGraph {
            input: input.ok_or_else(|| missing("input"))?,
            nodes: nodes.ok_or_else(|| missing("nodes"))?,
            tail: tail.unwrap_or_default(),
        })
    }
}

/// Reads the nodes one by one, so that no more than one is held as it was written.
struct NodesSeed;

impl<'de> DeserializeSeed<'de> for NodesSeed {
    type Value = Vec<Node>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Node>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for NodesSeed {
    type Value = Vec<Node>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the list of nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Node>, A::Error> {
        let (mut nodes, mut n_connections) = (Vec::new(), 0);
        while let Some(tree) = seq.next_element_seed(TreeSeed(&Cell::new(MAX_VALUES_OF_NODE)))? {
            let node = node(nodes.len(), tree).map_err(Error::custom)?;
            n_connections += node.inputs.len();
            if nodes.len() == MAX_NODES || n_connections > MAX_CONNECTIONS {
                return Err(Error::custom(format!(
                    "graph: at most {MAX_NODES} nodes with {MAX_CONNECTIONS} inputs together are read"
                )));
            }
            nodes.push(node);
        }
        Ok(nodes)
    }
}

fn image(tree: Tree) -> Result<Shape, Refusal> {
    let mut fields = Fields::new("graph input".into(), tree, &["c", "h", "w"])?;
    Ok(Shape { c: fields.count("c")?, h: fields.count("h")?, w: fields.count("w")? })
}

/// Costs that are added to others: 64 bits must hold the sums.
fn costs(tree: Tree) -> Result<GraphTail, Refusal> {
    let mut fields = Fields::new("graph tail".into(), tree, &["macs", "params"])?;
    let tail = GraphTail { macs: fields.count("macs")? as u64, params: fields.count("params")? as u64 };
    if tail.macs.max(tail.params) >= 1 << 60 {
        return Err(Refusal::of("graph tail", "counts more than any network has"));
    }
    Ok(tail)
}

fn node(id: usize, tree: Tree) -> Result<Node, Refusal> {
    let name = match tree.get("name") {
        Some(Tree::Text(name)) => format!("`{}`", shown(name)),
        _ => id.to_string(),
    };
    let op = match tree.get("op") {
        Some(Tree::Text(op)) => format!(" ({})", shown(op)),
        Some(Tree::Map(entries)) if entries.len() == 1 => format!(" ({})", shown(&entries[0].0)),
        _ => String::new(),
    };
    let at = format!("graph node {name}{op}");
    let mut fields = Fields::new(at.clone(), tree, &["name", "op", "inputs"])?;
    let name = fields.text("name")?;
    let inputs = fields.counts("inputs")?;
    Ok(Node { name, op: operation(at, fields.take("op")?)?, inputs })
}

/// `"Flatten"` or `{"Conv2d": {…}}`.
fn operation(at: String, tree: Tree) -> Result<Op, Refusal> {
    let (name, body) = match tree {
        Tree::Text(name) => (name, Tree::Nothing),
        Tree::Map(mut entries) if entries.len() == 1 => entries.remove(0),
        other => {
            let expected = r#"one operation, such as "Add" or {"Pointwise": "Relu"}"#;
            return Err(Refusal::of_key(&at, "op", format!("expected {expected}, got {other}")));
        }
    };
    let keys: &[&str] = match name.as_str() {
        "Pointwise" => return function(&at, body).map(Op::Pointwise),
        "Conv2d" => CONV2D,
        "BatchNorm" | "LayerNorm" => &["channels", "eps"],
        "PRelu" => &["channels"],
        "Linear" => &["in_features", "out_features", "bias"],
        "MaxPool" | "AvgPool" => WINDOW,
        "Pad" => &["channels", "rows", "cols"],
        "Slice" => &["channels", "step"],
        "ChannelShuffle" => &["groups"],
        "DepthToSpace" => &["block", "columns_rows_depth"],
        "Resize" => &["rows", "cols"],
        "ConvTranspose2d" => CONV_TRANSPOSE2D,
        "ChannelConv" => &["taps", "front", "bias"],
        "GroupNorm" => &["channels", "groups", "eps"],
        "LocalResponseNorm" => &["size", "alpha", "beta", "bias"],
        "BranchSum" | "BranchSoftmax" => &["branches"],
        name if OPERATIONS.contains(&name) => &[],
        _ => {
            let known = OPERATIONS.join(", ");
            return Err(Refusal::of(&at, format!("unknown operation `{}`; known: {known}", shown(&name))));
        }
    };
    with_keys(&name, Fields::new(at, body, keys)?)
}

fn with_keys(name: &str, mut fields: Fields) -> Result<Op, Refusal> {
    Ok(match name {
        "Conv2d" => Op::Conv2d(Conv2d {
            in_channels: fields.count("in_channels")?,
            out_channels: fields.count("out_channels")?,
            kernel: fields.pair("kernel", "[rows, columns]")?,
            stride: fields.pair("stride", "[rows, columns]")?,
            padding: fields.padding(
                "put a Pad node in front for other numbers on opposite sides, {\"Pad\": {\"channels\": [0, 0], \
                 \"rows\": [above, below], \"cols\": [left, right]}}",
            )?,
            dilation: fields.pair("dilation", "[rows, columns]")?,
            groups: fields.count("groups")?,
            bias: fields.flag("bias")?,
        }),
        "BatchNorm" => Op::BatchNorm { channels: fields.count("channels")?, eps: fields.number("eps")? },
        "PRelu" => Op::PRelu { channels: fields.count("channels")? },
        "Linear" => Op::Linear {
            in_features: fields.count("in_features")?,
            out_features: fields.count("out_features")?,
            bias: fields.flag("bias")?,
        },
        "MaxPool" => Op::MaxPool(window(fields)?),
        "AvgPool" => Op::AvgPool(window(fields)?),
        "Pad" => Op::Pad {
            channels: fields.pair("channels", "[in front, behind]")?,
            rows: fields.pair("rows", "[above, below]")?,
            cols: fields.pair("cols", "[left, right]")?,
        },
        "Slice" => Op::Slice {
            channels: fields.pair("channels", "[first, end]")?,
            step: fields.pair("step", "[rows, columns]")?,
        },
        "ChannelShuffle" => Op::ChannelShuffle { groups: fields.count("groups")? },
        "DepthToSpace" => {
            Op::DepthToSpace { block: fields.count("block")?, columns_rows_depth: fields.flag("columns_rows_depth")? }
        }
        "Resize" => Op::Resize { rows: fields.taps("rows")?, cols: fields.taps("cols")? },
        "LayerNorm" => Op::LayerNorm { channels: fields.count("channels")?, eps: fields.number("eps")? },
        "ConvTranspose2d" => Op::ConvTranspose2d(transposed(fields)?),
        "ChannelConv" => {
            Op::ChannelConv { taps: fields.count("taps")?, front: fields.count("front")?, bias: fields.flag("bias")? }
        }
        "GroupNorm" => Op::GroupNorm {
            channels: fields.count("channels")?,
            groups: fields.count("groups")?,
            eps: fields.number("eps")?,
        },
        "LocalResponseNorm" => Op::LocalResponseNorm {
            size: fields.count("size")?,
            alpha: fields.number("alpha")?,
            beta: fields.number("beta")?,
            bias: fields.number("bias")?,
        },
        "BranchSum" => Op::BranchSum { branches: fields.count("branches")? },
        "BranchSoftmax" => Op::BranchSoftmax { branches: fields.count("branches")? },
        "Max" => Op::Max,
        "Min" => Op::Min,
        "ChannelMean" => Op::ChannelMean,
        "ChannelMax" => Op::ChannelMax,
        "Mul" => Op::Mul,
        "FlattenPixels" => Op::FlattenPixels,
        "GlobalMaxPool" => Op::GlobalMaxPool,
        "Input" => Op::Input,
        "Add" => Op::Add,
        "Concat" => Op::Concat,
        "GlobalAvgPool" => Op::GlobalAvgPool,
        "Flatten" => Op::Flatten,
        "Softmax" => Op::Softmax,
        _ => Op::Identity,
    })
}

fn transposed(mut fields: Fields) -> Result<ConvTranspose2d, Refusal> {
    Ok(ConvTranspose2d {
        in_channels: fields.count("in_channels")?,
        out_channels: fields.count("out_channels")?,
        kernel: fields.pair("kernel", "[rows, columns]")?,
        stride: fields.pair("stride", "[rows, columns]")?,
        padding: fields.padding_of_sides()?,
        output_padding: fields.pair("output_padding", "[rows, columns]")?,
        dilation: fields.pair("dilation", "[rows, columns]")?,
        groups: fields.count("groups")?,
        bias: fields.flag("bias")?,
    })
}

fn window(mut fields: Fields) -> Result<Window, Refusal> {
    Ok(Window {
        kernel: fields.pair("kernel", "[rows, columns]")?,
        stride: fields.pair("stride", "[rows, columns]")?,
        padding: fields.padding_of_sides()?,
        ceil: fields.flag_or("ceil", false)?,
        counts_padding: fields.flag_or("counts_padding", true)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_that_is_known_can_be_read() {
        for name in OPERATIONS {
            let error = operation("graph node `n`".into(), Tree::Text(name.into())).map(|op| op.name());
            match error {
                Ok(read) => assert_eq!(read, name),
                Err(refusal) => assert!(!refusal.to_string().contains("unknown"), "{refusal}"),
            }
        }
    }
}
