//! What each operation does to labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use ndarray::ArrayD;

use super::arrays::{LabelArray, along, compress, on_axis, varying};
use super::{DocumentLabels, FrozenNode, Started};
use crate::facts::{ELEMENTWISE, axis_of};
use crate::names::{node_name, reads};
use crate::schema::NodeProto;

/// Filters of one node: no network has as many.
const CHANNELS_MAX: usize = 1 << 20;
/// Filters of all nodes together: what a hostile file could multiply them to.
const FILTERS_MAX: usize = 1 << 19;
/// Labels of all tensors together: what a hostile file could multiply them to.
const ALL_PLACES_MAX: usize = 1 << 22;

impl DocumentLabels<'_> {
    /// Labels of the network's inputs, which stay.
    pub(super) fn start(&mut self) {
        for input in self.facts.inputs() {
            let shape = &input.shape;
            let axis = input.channel_axis();
            let array = if shape.is_empty() {
                ArrayD::from_elem(ndarray::IxDyn(&[]), self.classes.fresh(1, true)[0])
            } else {
                // Of an axis beyond all networks one label is enough: it stays.
                let n = if shape[axis] > CHANNELS_MAX { 1 } else { shape[axis] };
                along(self.classes.fresh(n, true), axis, shape.len())
            };
            self.classes.freeze(array.iter().copied(), "network input");
            self.set(&input.name, array);
        }
    }

    pub(super) fn set(&mut self, value: &str, labels: LabelArray) {
        if !value.is_empty() {
            let labels = compress(labels, &mut self.classes);
            self.n_places += labels.len();
            self.order.push(value.to_owned());
            self.arrays.insert(value.to_owned(), labels);
        }
    }

    /// Labels of a value, with axes that by now make no difference taken out.
    pub(super) fn get(&mut self, value: &str) -> Option<LabelArray> {
        let labels = self.arrays.get(value)?.clone();
        Some(compress(labels, &mut self.classes))
    }

    /// Labels of the node's input.
    ///
    /// # Errors
    /// A constant, or a value that nothing is known of.
    pub(super) fn input(&mut self, node: &NodeProto, i: usize) -> Result<LabelArray, String> {
        let name = node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        self.get(name).ok_or_else(|| format!("reads '{name}', which has no channels that could be followed"))
    }

    pub(super) fn shape(&self, node: &NodeProto, i: usize) -> Result<Vec<usize>, String> {
        self.facts.at(node).shape(i).map(<[usize]>::to_vec)
    }

    pub(super) fn out_shape(&self, node: &NodeProto, i: usize) -> Result<Vec<usize>, String> {
        let name = node.output.get(i).ok_or("makes nothing")?;
        self.facts.shape(name).map(<[usize]>::to_vec).ok_or_else(|| format!("makes '{name}', whose shape is not known"))
    }

    /// Labels along the input's axis, one for each place.
    pub(super) fn channels(&mut self, node: &NodeProto, i: usize, axis: usize) -> Result<Vec<u32>, String> {
        let n =
            *self.shape(node, i)?.get(axis).ok_or_else(|| format!("works on axis {axis}, which its input lacks"))?;
        let labels = self.input(node, i)?;
        on_axis(&labels, axis, n)
    }

    /// Follows one node; where that fails, what enters it is frozen, and so is what it makes.
    pub(super) fn node(&mut self, number: usize, node: &NodeProto) {
        if node.op_type() == "Constant" || (reads(node).next().is_some() && self.facts.is_constant_node(node)) {
            return;
        }
        let is_labelled = reads(node).any(|name| self.arrays.contains_key(name));
        if self.is_of_shapes(node) {
            self.follow_shapes(node);
            return;
        }
        let problem = self.facts.problem(number).map(str::to_owned);
        let followed = match problem {
            Some(problem) => Err(problem),
            None if self.n_places > ALL_PLACES_MAX => Err("network has more channels than can be followed".into()),
            None if is_labelled => {
                self.operation(number, node).map_err(|problem| format!("{} {problem}", node_name(number, node)))
            }
            None => Err(format!("{} reads nothing that could be followed", node_name(number, node))),
        };
        let Err(reason) = followed else { return };
        let started = self.produced.iter().filter(|started| started.node == number);
        let labels: Vec<u32> = started.flat_map(|started| started.labels.clone()).collect();
        self.classes.freeze(labels, &reason);
        for name in reads(node) {
            if let Some(labels) = self.arrays.get(name) {
                self.classes.freeze(labels.iter().copied(), &reason);
            }
            self.freeze_shapes(name, &reason);
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if let Some(shape) = self.facts.shape(output) {
                let labels = self.classes.fresh(1, true);
                self.classes.freeze(labels.iter().copied(), &reason);
                let array = ArrayD::from_elem(ndarray::IxDyn(&vec![1; shape.len()]), labels[0]);
                self.set(output, array);
            }
        }
        self.frozen_nodes.push(FrozenNode {
            node: number,
            name: node.name().to_owned(),
            operation: node.op_type().to_owned(),
            reason,
        });
    }

    /// Whether what the node makes depends on shapes and constants only.
    fn is_of_shapes(&self, node: &NodeProto) -> bool {
        let reads_shape = node.is_standard() && matches!(node.op_type(), "Shape" | "Size");
        let is_derived = |name: &str| self.facts.is_constant(name) || self.of_shapes.contains_key(name);
        reads_shape || reads(node).all(is_derived)
    }

    fn follow_shapes(&mut self, node: &NodeProto) {
        let mut tensors: BTreeSet<String> = BTreeSet::new();
        for name in reads(node) {
            match self.of_shapes.get(name) {
                Some(of) => tensors.extend(of.iter().cloned()),
                None if self.arrays.contains_key(name) => {
                    tensors.insert(name.to_owned());
                }
                None => {}
            }
        }
        for output in &node.output {
            self.of_shapes.insert(output.clone(), tensors.clone());
        }
    }

    /// A number computed from shapes enters where numbers matter: these shapes must stay.
    pub(super) fn freeze_shapes(&mut self, value: &str, reason: &str) {
        let Some(tensors) = self.of_shapes.get(value) else { return };
        for tensor in tensors {
            if let Some(labels) = self.arrays.get(tensor) {
                self.classes.freeze(labels.iter().copied(), reason);
            }
        }
    }

    fn operation(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let op = node.op_type();
        if !node.is_standard() {
            return Err("is not known".into());
        }
        match op {
            "Conv" => self.convolution(number, node),
            "ConvTranspose" => self.transposed(number, node),
            "Gemm" | "MatMul" => self.product(number, node),
            "BatchNormalization" | "InstanceNormalization" => self.normalisation(number, node),
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Pow" | "PRelu" | "Sum" | "Mean" => {
                self.combination(number, node)
            }
            "Concat" => self.concatenation(node),
            "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "LpPool" | "GlobalLpPool" => {
                let labels = self.channels(node, 0, 1)?;
                let rank = self.out_shape(node, 0)?.len();
                self.set(&node.output[0], along(labels, 1, rank));
                Ok(())
            }
            "Resize" | "Upsample" => self.resize(node),
            "Softmax" | "LogSoftmax" | "Hardmax" | "LayerNormalization" | "LpNormalization" => self.mixed(number, node),
            "LRN" | "GroupNormalization" | "CumSum" | "MeanVarianceNormalization" => Err("mixes channels".into()),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Gather" | "Expand" | "Tile"
            | "Identity" | "Dropout" => self.movement(node),
            "Split" => self.split(node),
            "Pad" => self.pad(node),
            "DepthToSpace" => self.depth_to_space(node),
            "SpaceToDepth" => self.space_to_depth(node),
            "ArgMax" | "ArgMin" => self.reduction(node),
            _ if op.starts_with("Reduce") => self.reduction(node),
            _ if ELEMENTWISE.contains(&op) => {
                let labels = self.input(node, 0)?;
                self.set(&node.output[0], labels);
                Ok(())
            }
            _ => Err("is not known".into()),
        }
    }

    /// Labels of filters, which the node starts.
    fn filters(&mut self, number: usize, n: usize) -> Result<Vec<u32>, String> {
        if n > CHANNELS_MAX {
            return Err(format!("has {n} filters; networks of at most {CHANNELS_MAX} in one node are pruned"));
        }
        if self.classes.len() + n > FILTERS_MAX {
            return Err(format!("has filters beyond the first {FILTERS_MAX} of a network, which are not followed"));
        }
        let first = self.classes.len() as u32;
        let labels = self.classes.fresh(n, true);
        self.produced.push(Started { node: number, labels: first..first + n as u32 });
        Ok(labels)
    }

    fn convolution(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let weight = self.constant_shape(node, 1)?;
        let x = self.channels(node, 0, 1)?;
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(1);
        let rank = weight.len();
        let mut axes = vec![None; rank];
        let out = if groups > 1 && groups == x.len() {
            x.iter().flat_map(|&label| std::iter::repeat_n(label, weight[0] / groups)).collect()
        } else {
            let out = self.filters(number, weight[0])?;
            self.join_groups(&x, groups);
            self.join_groups(&out, groups);
            axes[1] = Some(x[..weight[1]].into());
            out
        };
        let rows: Arc<[u32]> = out.as_slice().into();
        axes[0] = Some(rows.clone());
        self.parameter(number, 1, axes)?;
        self.bias(number, node, &rows)?;
        self.set(&node.output[0], along(out, 1, rank));
        Ok(())
    }

    fn bias(&mut self, number: usize, node: &NodeProto, out: &Arc<[u32]>) -> Result<(), String> {
        if node.input.get(2).is_some_and(|name| !name.is_empty()) {
            if self.constant_shape(node, 2)? != [out.len()] {
                return Err(format!("has a bias that is not of {} numbers", out.len()));
            }
            self.parameter(number, 2, vec![Some(out.clone())])?;
        }
        Ok(())
    }

    fn transposed(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let weight = self.constant_shape(node, 1)?;
        let x = self.channels(node, 0, 1)?;
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(1);
        let mut axes = vec![None; weight.len()];
        axes[0] = Some(x.as_slice().into());
        let out = if groups > 1 && groups == x.len() && weight[1] == 1 {
            x
        } else {
            let out = self.filters(number, weight[1] * groups)?;
            self.join_groups(&x, groups);
            self.join_groups(&out, groups);
            axes[1] = Some(out[..weight[1]].into());
            out
        };
        let rank = weight.len();
        self.parameter(number, 1, axes)?;
        self.bias(number, node, &out.as_slice().into())?;
        self.set(&node.output[0], along(out, 1, rank));
        Ok(())
    }

    /// In a grouped convolution, the same place of every group goes together, so that groups stay equal.
    fn join_groups(&mut self, labels: &[u32], groups: usize) {
        let n = labels.len() / groups.max(1);
        for place in n..labels.len() {
            self.classes.join(labels[place % n], labels[place]);
        }
    }

    /// Shape of a parameter.
    pub(super) fn constant_shape(&self, node: &NodeProto, i: usize) -> Result<Vec<usize>, String> {
        let is_constant = node.input.get(i).is_some_and(|name| self.facts.is_constant(name));
        if is_constant { self.shape(node, i) } else { Err(format!("has no constant as input {i}")) }
    }

    fn product(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let weight = self.constant_shape(node, 1)?;
        if weight.len() != 2 || node.int("transA", 0) != 0 {
            return Err("multiplies otherwise than rows of its input by a matrix of weights".into());
        }
        let rank = self.shape(node, 0)?.len();
        if rank < 2 {
            return Err("multiplies a single row".into());
        }
        let x = self.channels(node, 0, rank - 1)?;
        let is_turned = node.op_type() == "Gemm" && node.int("transB", 0) != 0;
        let out = self.filters(number, if is_turned { weight[0] } else { weight[1] })?;
        let (rows, cols) = if is_turned { (out.clone(), x) } else { (x, out.clone()) };
        self.parameter(number, 1, vec![Some(rows.into()), Some(cols.into())])?;
        let array = along(out, rank - 1, rank);
        if node.op_type() == "Gemm" && node.input.get(2).is_some_and(|name| !name.is_empty()) {
            if self.constant_shape(node, 2).is_err() {
                let added = self.input(node, 2)?;
                self.join_arrays(&array, &added)?;
            } else {
                self.constant_operand(number, node, 2, &array)?;
            }
        }
        self.set(&node.output[0], array);
        Ok(())
    }

    fn normalisation(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let x = self.channels(node, 0, 1)?;
        let rows: Arc<[u32]> = x.as_slice().into();
        for i in 1..node.input.len() {
            self.constant_shape(node, i)?;
            self.parameter(number, i, vec![Some(rows.clone())])?;
        }
        let rank = self.shape(node, 0)?.len();
        self.set(&node.output[0], along(x, 1, rank));
        Ok(())
    }

    /// Softmax and its like, along one axis or from one axis on.
    fn mixed(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let labels = self.input(node, 0)?;
        let op = node.op_type();
        let is_old = self.facts.opset() < 13 && matches!(op, "Softmax" | "LogSoftmax" | "Hardmax");
        let axis = axis_of(node.int("axis", if is_old { 1 } else { -1 }), labels.ndim())?;
        let from_there_on = is_old || op == "LayerNormalization";
        if varying(&labels).iter().any(|&a| a == axis || (from_there_on && a > axis)) {
            let reason = format!("{} mixes channels", node_name(number, node));
            self.classes.freeze(labels.iter().copied(), &reason);
        }
        self.set(&node.output[0], labels);
        Ok(())
    }
}
