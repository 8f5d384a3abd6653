//! Slices of parameters.

use std::collections::{BTreeMap, HashMap};

use super::tensors::{KeptPlaces, take, zero};
use super::{Edit, Removal};
use crate::OnnxError;
use crate::constants::Constants;
use crate::labels::ParameterUse;
use crate::names::node_name;
use crate::schema::TensorProto;
use crate::schema::tensor_proto::DataType;

impl Edit<'_> {
    /// Cuts every parameter, or, for a masked network, sets to zero what reads channels that go.
    pub(super) fn parameters(&mut self, is_mask: bool) -> Result<(), OnnxError> {
        let removal = self.removal;
        let mut by_source: BTreeMap<&str, Vec<&ParameterUse>> = BTreeMap::new();
        for usage in removal.groups.uses() {
            by_source.entry(&usage.source).or_default().push(usage);
        }
        for (source, uses) in by_source {
            let masked: Vec<ParameterUse>;
            let uses: Vec<&ParameterUse> = if is_mask {
                masked = uses.iter().filter_map(|usage| self.reading_axes(usage)).collect();
                masked.iter().collect()
            } else {
                uses
            };
            self.source(source, &uses, is_mask)?;
        }
        Ok(())
    }

    /// The same use with only the axis that reads channels; none where there is no such axis.
    fn reading_axes(&self, usage: &ParameterUse) -> Option<ParameterUse> {
        let node = &self.removal.document.graph().node[usage.node];
        let axis = match node.op_type() {
            "Conv" if usage.input == 1 => 1,
            "ConvTranspose" if usage.input == 1 => 0,
            "MatMul" if usage.input == 1 => 0,
            "Gemm" if usage.input == 1 => usize::from(node.int("transB", 0) != 0),
            _ => return None,
        };
        // A depthwise convolution passes its channels on.
        usage.axes.get(axis)?.as_ref()?;
        let mut masked = usage.clone();
        masked.axes.iter_mut().enumerate().filter(|(i, _)| *i != axis).for_each(|(_, labels)| *labels = None);
        let labels = usage.axes[axis].as_ref()?;
        // The source's axes may be others than the reader's: those that hold the reader's labels.
        for source_axis in &mut masked.source_axes {
            if source_axis.as_ref().is_some_and(|on| !on.iter().all(|label| labels.contains(label))) {
                *source_axis = None;
            }
        }
        Some(masked)
    }

    /// All uses of one stored parameter.
    fn source(&mut self, source: &str, uses: &[&ParameterUse], is_mask: bool) -> Result<(), OnnxError> {
        let removal = self.removal;
        let Some(first) = uses.first() else { return Ok(()) };
        let kept = removal.places_of(&first.source_axes);
        let is_whole = |usage: &&&ParameterUse| removal.places_of(&usage.axes).iter().all(Option::is_none);
        if uses.iter().all(|usage| is_whole(&usage)) {
            return Ok(());
        }
        let is_alike = |usage: &&ParameterUse| removal.places_of(&usage.source_axes) == kept;
        let in_place = uses.iter().all(is_alike) && self.chains_agree(uses) && self.is_read_only_by(source, uses);
        let Some(&place) = self.places.get(source) else {
            let is_shape_enough = in_place && !is_mask && self.cut_filled(source, &kept);
            return if is_shape_enough {
                first_chains(uses).try_for_each(|usage| self.chain(usage))
            } else {
                self.computed(uses, is_mask)
            };
        };
        let external = removal.document.external();
        let change = |tensor: &TensorProto, kept: &KeptPlaces| {
            if is_mask { zero(tensor, kept, external) } else { take(tensor, kept, external) }
        };
        if in_place {
            if kept.iter().any(Option::is_some) {
                let tensor = change(self.tensor(place), &kept)?;
                *self.tensor(place) = tensor;
            }
            return if is_mask { Ok(()) } else { first_chains(uses).try_for_each(|usage| self.chain(usage)) };
        }
        for usage in uses.iter().filter(|usage| !is_whole(usage)) {
            let tensor = take(self.tensor(place), &vec![None; usage.source_axes.len()], external)?;
            let Some(tensor) = self.as_read(tensor, usage) else {
                return Err(OnnxError::graph(format!(
                    "has a parameter '{source}' that several nodes read in different ways: export it without sharing weights"
                )));
            };
            let tensor = change(&tensor, &removal.places_of(&usage.axes))?;
            self.fork(usage.node, usage.input, tensor);
        }
        Ok(())
    }

    /// Cuts a constant that is filled with one number by the shape that is written down; whether it is one.
    fn cut_filled(&mut self, source: &str, kept: &KeptPlaces) -> bool {
        let document = self.removal.document.graph();
        let Some(&maker) = self.makers.get(source) else { return false };
        if document.node[maker].op_type() != "ConstantOfShape" {
            return false;
        }
        let shape = self.removal.facts.shape(source).unwrap_or(&[]);
        let extents: Vec<i64> =
            shape.iter().zip(kept).map(|(&n, kept)| kept.as_ref().map_or(n, Vec::len) as i64).collect();
        self.set_numbers(maker, 0, &extents);
        true
    }

    /// A parameter that nodes compute from constants: every reader gets what is left of it as numbers of its own.
    fn computed(&mut self, uses: &[&ParameterUse], is_mask: bool) -> Result<(), OnnxError> {
        let Removal { document, facts, .. } = self.removal;
        let constants = Constants::new(document, facts);
        for usage in uses {
            let kept = self.removal.places_of(&usage.axes);
            if kept.iter().all(Option::is_none) {
                continue;
            }
            let node = &document.graph().node[usage.node];
            let values = constants.array(&node.input[usage.input]).map_err(|why| {
                OnnxError::graph(format!("cannot lose channels: {} {why}", node_name(usage.node, node)))
            })?;
            let tensor = self.new_floats(usage.node, &values)?;
            let external = document.external();
            let tensor = if is_mask { zero(&tensor, &kept, external) } else { take(&tensor, &kept, external) }?;
            self.fork(usage.node, usage.input, tensor);
        }
        Ok(())
    }

    /// Whether uses that pass through the same node need the same places behind it.
    fn chains_agree(&self, uses: &[&ParameterUse]) -> bool {
        let mut behind: HashMap<usize, KeptPlaces> = HashMap::new();
        uses.iter().flat_map(|usage| &usage.chain).all(|link| {
            let places = self.removal.places_of(&link.axes);
            *behind.entry(link.node).or_insert_with(|| places.clone()) == places
        })
    }

    /// A whole parameter as its reader has it behind the nodes between; none where they turn or convert it.
    fn as_read(&self, mut tensor: TensorProto, usage: &ParameterUse) -> Option<TensorProto> {
        let graph = self.removal.document.graph();
        let shape = self.removal.facts.shape(&graph.node[usage.node].input[usage.input])?;
        let is_float = tensor.data_type() == i32::from(DataType::Float);
        let n_read: usize = shape.iter().product();
        for link in &usage.chain {
            let node = &graph.node[link.node];
            let passes = match node.op_type() {
                "Transpose" => false,
                "Cast" => is_float && node.int("to", 0) == i64::from(i32::from(DataType::Float)),
                // What is like a parameter of floats is a float, too.
                "CastLike" => is_float,
                "Expand" => tensor.dims.iter().product::<i64>() == 1,
                _ => true,
            };
            if !passes {
                return None;
            }
        }
        if tensor.dims.iter().product::<i64>() == 1 {
            tensor.raw_data = tensor.raw_data.map(|raw| raw.repeat(n_read).into());
            tensor.float_data = tensor.float_data.repeat(n_read);
            tensor.double_data = tensor.double_data.repeat(n_read);
            tensor.int32_data = tensor.int32_data.repeat(n_read);
            tensor.int64_data = tensor.int64_data.repeat(n_read);
        }
        tensor.dims = shape.iter().map(|&n| n as i64).collect();
        Some(tensor)
    }

    /// Whether whoever reads the source is one of these uses, or a node between.
    fn is_read_only_by(&self, source: &str, uses: &[&ParameterUse]) -> bool {
        let graph = self.removal.document.graph();
        // Every value between the source and the uses, and how many of its readers are known.
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut counted = std::collections::HashSet::new();
        for usage in uses {
            let reader = &graph.node[usage.node];
            if counted.insert((usage.node, usage.input)) {
                *known.entry(reader.input[usage.input].as_str()).or_default() += 1;
            }
            for link in &usage.chain {
                if counted.insert((link.node, 0)) {
                    *known.entry(graph.node[link.node].input[0].as_str()).or_default() += 1;
                }
            }
        }
        known.contains_key(source) && known.iter().all(|(name, n)| self.readers.get(*name) == Some(n))
    }

    /// Shapes written down on the way of a parameter.
    fn chain(&mut self, usage: &ParameterUse) -> Result<(), OnnxError> {
        for link in &usage.chain {
            let node = &self.removal.document.graph().node[link.node];
            if matches!(node.op_type(), "Reshape" | "Expand") {
                let shape = self.removal.facts.shape(&node.output[0]).unwrap_or(&[]).to_vec();
                let places = self.removal.places_of(&link.axes);
                let wanted: Vec<usize> =
                    shape.iter().zip(&places).map(|(&n, kept)| kept.as_ref().map_or(n, Vec::len)).collect();
                self.shape_input(link.node, &shape, &wanted);
            }
        }
        Ok(())
    }
}

/// One use of every chain: nodes between are edited once.
fn first_chains<'a>(uses: &'a [&ParameterUse]) -> impl Iterator<Item = &'a ParameterUse> {
    let mut seen = std::collections::HashSet::new();
    uses.iter().copied().filter(move |usage| usage.chain.iter().any(|link| seen.insert(link.node)))
}
