//! Changes beyond the channels that go: other numbers, nodes that are no longer needed.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::tensors::set_floats;
use super::{Edit, StoredAt};
use crate::OnnxError;
use crate::schema::tensor_proto::DataType;
use crate::schema::{NodeProto, TensorProto};
use crate::tensor::ElementType;

/// A change of a document whose channels are already cut. Nodes are numbered as in the document before.
#[derive(Clone, Debug)]
pub enum Change {
    /// An input of a node has these numbers.
    Input {
        /// The node.
        node: usize,
        /// Which of its inputs; it may be absent so far.
        input: usize,
        /// The numbers, in the shape in which the node reads them.
        values: ArrayD<f32>,
    },
    /// An attribute has this value, if it is given.
    Attribute {
        /// The node.
        node: usize,
        /// Name of the attribute.
        name: &'static str,
        /// The value.
        value: f32,
    },
    /// A node hands its input on, and is left out.
    Bypass {
        /// The node.
        node: usize,
        /// The input.
        input: usize,
    },
    /// These numbers are added to what a node makes, by a new node behind it.
    Added {
        /// The node.
        node: usize,
        /// The numbers, in a shape that broadcasts to the node's output.
        values: ArrayD<f32>,
    },
}

/// What becomes of the list of nodes when all else is done, so that numbers stay valid until then.
#[derive(Default)]
struct NodeList {
    gone: Vec<usize>,
    /// By the node in front.
    added: BTreeMap<usize, NodeProto>,
}

impl Edit<'_> {
    /// Applies changes in their order.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Result<(), OnnxError> {
        let mut list = NodeList::default();
        for change in changes {
            match change {
                Change::Input { node, input, values } => self.set_input(node, input, &values)?,
                Change::Attribute { node, name, value } => {
                    if let Some(attribute) = self.graph().node[node].attribute_mut(name) {
                        attribute.f = Some(value);
                    }
                }
                Change::Bypass { node, input } => {
                    if self.bypass(node, input) {
                        list.gone.push(node);
                    }
                }
                Change::Added { node, values } => {
                    let added = self.added(node, &values)?;
                    list.added.insert(node, added);
                }
            }
        }
        let mut nodes = Vec::new();
        for (number, node) in std::mem::take(&mut self.graph().node).into_iter().enumerate() {
            if !list.gone.contains(&number) {
                nodes.push(node);
            }
            nodes.extend(list.added.remove(&number));
        }
        self.graph().node = nodes;
        Ok(())
    }

    /// The numbers of an input: where they are stored if nobody else reads them, else in a new initialiser.
    fn set_input(&mut self, node: usize, input: usize, values: &ArrayD<f32>) -> Result<(), OnnxError> {
        let name = self.graph().node[node].input.get(input).cloned().unwrap_or_default();
        if let Some((place, values)) = self.stored_for(name, values.clone()) {
            return set_floats(self.tensor(place), &values);
        }
        let tensor = self.new_floats(node, values)?;
        self.fork(node, input, tensor);
        Ok(())
    }

    /// Where a value is stored that nobody else reads, perhaps in another shape or turned, and its numbers as they are
    /// stored.
    fn stored_for(&self, mut name: String, mut values: ArrayD<f32>) -> Option<(StoredAt, ArrayD<f32>)> {
        let graph = self.removal.document.graph();
        let mut is_reshaped = false;
        // Exporters put one or two nodes between; more than nodes there are, no name is made.
        for _ in 0..=graph.node.len() {
            if self.readers.get(&name) != Some(&1) {
                return None;
            }
            if let Some(&place) = self.places.get(&name) {
                let tensor = self.stored(place);
                let n: i64 = tensor.dims.iter().product();
                return (n == values.len() as i64 || !is_reshaped).then_some((place, values));
            }
            let node = &graph.node[*self.makers.get(&name)?];
            match node.op_type() {
                "Identity" => {}
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => is_reshaped = true,
                "Transpose" if !is_reshaped => {
                    let given = node.ints("perm").map(<[i64]>::to_vec);
                    let perm = given.unwrap_or_else(|| (0..values.ndim() as i64).rev().collect());
                    let place = |axis: i64| perm.iter().position(|&p| p == axis);
                    let back: Vec<usize> = (0..values.ndim() as i64).map(place).collect::<Option<_>>()?;
                    values = values.permuted_axes(back).as_standard_layout().into_owned();
                }
                _ => return None,
            }
            name.clone_from(node.input.first()?);
        }
        None
    }

    /// A new tensor of the type that the node's other numbers have.
    pub(super) fn new_floats(&mut self, node: usize, values: &ArrayD<f32>) -> Result<TensorProto, OnnxError> {
        let inputs = self.graph().node[node].input.clone();
        let stored: Vec<_> = inputs.iter().filter_map(|name| self.places.get(name).copied()).collect();
        let is_float = |tensor: &TensorProto| ElementType::of(tensor).is_ok_and(ElementType::is_float);
        let own = stored.into_iter().map(|place| self.tensor(place).clone()).find(is_float);
        let other = || self.removal.document.graph().initializer.iter().find(|tensor| is_float(tensor)).cloned();
        let data_type = own.or_else(other).map_or_else(|| DataType::Float.into(), |tensor| tensor.data_type());
        let mut tensor = TensorProto {
            dims: values.shape().iter().map(|&n| n as i64).collect(),
            data_type: Some(data_type),
            raw_data: Some(bytes::Bytes::new()),
            ..TensorProto::default()
        };
        set_floats(&mut tensor, values)?;
        Ok(tensor)
    }

    /// Readers of the node's output read its input instead; returns whether the node may go. A node between an input
    /// and an output of the network, whose names stay, becomes an Identity.
    fn bypass(&mut self, node: usize, input: usize) -> bool {
        let graph = self.graph();
        let (from, to) = (graph.node[node].input[input].clone(), graph.node[node].output[0].clone());
        let is_output = |name: &String| graph.output.iter().any(|value| value.name() == name);
        let is_made = graph.node.iter().any(|other| other.output.contains(&from));
        let (old, new) = match (is_output(&to), is_output(&from) || !is_made) {
            (false, _) => (to, from),
            (true, false) => (from, to),
            (true, true) => {
                let node = &mut graph.node[node];
                (node.op_type, node.domain) = (Some("Identity".into()), None);
                (node.input, node.attribute) = (vec![from], Vec::new());
                return false;
            }
        };
        graph.node[node].input.clear();
        graph.node[node].output.clear();
        for other in &mut graph.node {
            let names = other.input.iter_mut().chain(&mut other.output);
            names.filter(|name| **name == old).for_each(|name| name.clone_from(&new));
        }
        // What was declared of the value that stays is declared once.
        graph.value_info.retain(|value| value.name() != old);
        let n_moved = self.readers.remove(&old).unwrap_or(0);
        *self.readers.entry(new).or_default() += n_moved.saturating_sub(1);
        true
    }

    /// A node that adds `values` to what `node` makes, under the name that that had.
    fn added(&mut self, node: usize, values: &ArrayD<f32>) -> Result<NodeProto, OnnxError> {
        let output = self.graph().node[node].output[0].clone();
        let (before, bias) = (self.new_name(&output), self.new_name("bias"));
        let tensor = TensorProto { name: Some(bias.clone()), ..self.new_floats(node, values)? };
        if self.model.ir_version() < 4 {
            let value = super::value_of(&bias, &tensor);
            self.graph().input.push(value);
        }
        self.graph().initializer.push(tensor);
        self.graph().node[node].output[0].clone_from(&before);
        let name = self.new_name("add_bias");
        Ok(NodeProto {
            name: Some(name),
            op_type: Some("Add".into()),
            input: vec![before, bias],
            output: vec![output],
            ..NodeProto::default()
        })
    }
}
