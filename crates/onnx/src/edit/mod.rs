//! A document with fewer channels: what its author wrote, except for slices of parameters and the numbers that count
//! channels.

mod changes;
mod files;
mod nodes;
mod orphans;
mod parameters;
mod settle;
mod tensors;

use std::collections::{HashMap, HashSet};

pub(crate) use changes::Change;
pub use files::{DataFile, WrittenModel};
use tensors::{KeptPlaces, of_integers, set_integers};

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::facts::{Facts, declared_extents};
use crate::labels::{DocumentGroups, KeptFlags, RowLabels, varying};
use crate::names::{captured, makers};
use crate::schema::tensor_proto::DataType;
use crate::schema::tensor_shape_proto::dimension::Value;
use crate::schema::{GraphProto, ModelProto, TensorProto, ValueInfoProto, type_proto};

/// Which channels of a document go.
#[derive(Clone, Copy, Debug)]
pub struct Removal<'a> {
    /// The document.
    pub document: &'a OnnxDocument,
    /// What is known of it.
    pub facts: &'a Facts,
    /// Its groups.
    pub groups: &'a DocumentGroups,
    /// Of every group, which channels stay.
    pub kept: &'a KeptFlags,
}

/// Where a constant is stored.
#[derive(Clone, Copy, Debug)]
enum StoredAt {
    Initialiser(usize),
    ConstantNode(usize),
}

/// A document while it is edited.
struct Edit<'a> {
    removal: Removal<'a>,
    model: ModelProto,
    places: HashMap<String, StoredAt>,
    /// How many inputs (and outputs of the network) read the numbers of a value.
    readers: HashMap<String, usize>,
    names: HashSet<String>,
    /// Which node of the document makes a value.
    makers: HashMap<String, usize>,
    n_forks: usize,
}

impl Removal<'_> {
    /// The document without the channels that go.
    ///
    /// # Errors
    /// Kept channels that are not those of the groups, elements that cannot be read, and sizes that depend on channels
    /// in a way that cannot be written down.
    pub fn cut(&self) -> Result<OnnxDocument, OnnxError> {
        self.cut_and_change(|_| Ok(Vec::new()))
    }

    /// As [`Removal::cut`], with changes that follow from the facts of the cut document.
    pub(crate) fn cut_and_change(
        &self,
        changes: impl FnOnce(&Facts) -> Result<Vec<Change>, OnnxError>,
    ) -> Result<OnnxDocument, OnnxError> {
        self.check()?;
        let mut edit = Edit::new(*self);
        edit.parameters(false)?;
        edit.nodes()?;
        let facts = edit.settle()?;
        edit.declared_shapes(&facts);
        edit.apply(changes(&facts)?)?;
        edit.drop_orphans();
        Ok(self.document.with_model(edit.model))
    }

    /// The document as it was, but with zeros for the weights that read channels that go: what [`Removal::cut`] must
    /// agree with.
    ///
    /// # Errors
    /// As [`Removal::cut`].
    pub fn masked(&self) -> Result<OnnxDocument, OnnxError> {
        self.check()?;
        let mut edit = Edit::new(*self);
        edit.parameters(true)?;
        Ok(self.document.with_model(edit.model))
    }

    fn check(&self) -> Result<(), OnnxError> {
        let groups = self.groups.groups();
        let fits = |i: usize| {
            let (group, flags) = (&groups[i], &self.kept[i]);
            let is_whole = flags.iter().all(|&kept| kept);
            flags.len() == group.n_channels && flags.contains(&true) && (is_whole || group.frozen.is_none())
        };
        if groups.len() == self.kept.len() && (0..groups.len()).all(fits) {
            return Ok(());
        }
        Err(OnnxError::graph(
            "cannot lose these channels: some are frozen, a group would be empty, or they are others'",
        ))
    }

    /// Kept places of labels along an axis; none where all stay.
    fn places(&self, labels: Option<&[u32]>) -> Option<Vec<usize>> {
        let labels = labels?;
        let kept: Vec<usize> = (0..labels.len()).filter(|&i| self.groups.is_kept(labels[i], self.kept)).collect();
        (kept.len() < labels.len()).then_some(kept)
    }

    fn places_of(&self, axes: &[RowLabels]) -> KeptPlaces {
        axes.iter().map(|labels| self.places(labels.as_deref())).collect()
    }

    /// Kept places of a value along an axis; none where all stay.
    fn axis(&self, value: &str, axis: usize) -> Option<Vec<usize>> {
        let array = self.groups.array(value)?;
        let on_axis = varying(array) == [axis];
        on_axis.then(|| self.places(Some(&array.iter().copied().collect::<Vec<u32>>()))).flatten()
    }

    /// The axis along which a value's channels lie.
    fn channel_axis(&self, value: &str) -> Option<usize> {
        varying(self.groups.array(value)?).first().copied()
    }

    /// The shape that a value then has.
    fn shape(&self, value: &str) -> Option<Vec<usize>> {
        let mut shape = self.facts.shape(value)?.to_vec();
        if let Some(axis) = self.channel_axis(value)
            && let Some(kept) = self.axis(value, axis)
        {
            shape[axis] = kept.len();
        }
        Some(shape)
    }
}

impl<'a> Edit<'a> {
    fn new(removal: Removal<'a>) -> Self {
        let model = removal.document.model().clone();
        let graph = removal.document.graph();
        let mut places = HashMap::new();
        for (i, tensor) in graph.initializer.iter().enumerate() {
            places.insert(tensor.name().to_owned(), StoredAt::Initialiser(i));
        }
        let mut readers: HashMap<String, usize> = HashMap::new();
        let mut names: HashSet<String> = places.keys().cloned().collect();
        for (i, node) in graph.node.iter().enumerate() {
            if let (Some(_), Some(output)) = (node.constant(), node.output.first()) {
                places.insert(output.clone(), StoredAt::ConstantNode(i));
            }
            // Who reads only a shape reads that of what is left.
            let is_shape = node.is_standard() && matches!(node.op_type(), "Shape" | "Size");
            let read = node.input.iter().filter(|_| !is_shape);
            let read = read.map(String::as_str).chain(captured(node));
            read.for_each(|name| *readers.entry(name.to_owned()).or_default() += 1);
            names.extend(node.output.iter().cloned());
        }
        names.extend(graph.input.iter().map(|value| value.name().to_owned()));
        graph.output.iter().for_each(|value| *readers.entry(value.name().to_owned()).or_default() += 1);
        let makers = makers(graph).into_iter().map(|(name, node)| (name.to_owned(), node)).collect();
        Self { removal, model, places, readers, names, makers, n_forks: 0 }
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().expect("a document without a graph is refused when it is read")
    }

    fn tensor(&mut self, place: StoredAt) -> &mut TensorProto {
        let graph = self.graph();
        match place {
            StoredAt::Initialiser(i) => &mut graph.initializer[i],
            StoredAt::ConstantNode(i) => {
                let value = graph.node[i].attribute_mut("value").and_then(|attribute| attribute.t.as_mut());
                value.expect("only Constant nodes with a tensor are places")
            }
        }
    }

    fn stored(&self, place: StoredAt) -> &TensorProto {
        let graph = self.model.graph.as_ref().expect("a document without a graph is refused when it is read");
        match place {
            StoredAt::Initialiser(i) => &graph.initializer[i],
            StoredAt::ConstantNode(i) => {
                graph.node[i].constant().expect("only Constant nodes with a tensor are places")
            }
        }
    }

    /// A name that no value has.
    fn new_name(&mut self, base: &str) -> String {
        loop {
            self.n_forks += 1;
            let name = format!("{base}_{}", self.n_forks);
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    /// The node's input becomes a new initialiser.
    fn fork(&mut self, node: usize, input: usize, tensor: TensorProto) {
        let old = self.graph().node[node].input.get(input).cloned().unwrap_or_default();
        let name = self.new_name(match (old.as_str(), tensor.data_type == Some(DataType::Int64.into())) {
            ("", true) => "sizes",
            ("", false) => "bias",
            (old, _) => old,
        });
        if let Some(n) = self.readers.get_mut(&old) {
            *n -= 1;
        }
        // Before IR 4, initialisers are inputs as well.
        if self.model.ir_version() < 4 {
            let value = value_of(&name, &tensor);
            self.graph().input.push(value);
        }
        self.readers.insert(name.clone(), 1);
        let graph = self.graph();
        graph.initializer.push(TensorProto { name: Some(name.clone()), ..tensor });
        let place = StoredAt::Initialiser(graph.initializer.len() - 1);
        self.places.insert(name.clone(), place);
        let graph = self.graph();
        let inputs = &mut graph.node[node].input;
        inputs.resize(inputs.len().max(input + 1), String::new());
        inputs[input] = name;
    }

    /// The node's input becomes these numbers: where they are stored if nobody else reads them, else in a new
    /// initialiser.
    fn set_numbers(&mut self, node: usize, input: usize, values: &[i64]) {
        let name = self.graph().node[node].input.get(input).cloned().unwrap_or_default();
        let place = self.places.get(&name).copied();
        match place.filter(|_| self.readers.get(&name) == Some(&1)) {
            Some(place) => set_integers(self.tensor(place), values),
            None => self.fork(node, input, of_integers("", values)),
        }
    }

    /// Declared shapes of values and of initialisers that are inputs as well.
    fn declared_shapes(&mut self, now: &Facts) {
        let before = self.removal.facts;
        let graph = self.graph();
        for value in graph.value_info.iter_mut().chain(&mut graph.input) {
            if let (Some(old), Some(new)) = (before.shape(value.name()), now.shape(value.name())) {
                declare(value, |axis| {
                    (old.get(axis) != new.get(axis)).then(|| new.get(axis).map(|&n| n as i64)).flatten()
                });
            }
        }
    }
}

/// Replaces numbers of a declared shape; what is open stays open.
fn declare(value: &mut ValueInfoProto, extent: impl Fn(usize) -> Option<i64>) {
    let Some(declared) = declared_extents(value) else { return };
    let kind = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    let Some(type_proto::Value::TensorType(tensor)) = kind else { return };
    let Some(shape) = tensor.shape.as_mut() else { return };
    for (axis, dim) in shape.dim.iter_mut().enumerate() {
        if let (Some(old), Some(new)) = (declared[axis], extent(axis))
            && old != new
        {
            dim.value = Some(Value::DimValue(new));
        }
    }
}

/// An initialiser as an input.
fn value_of(name: &str, tensor: &TensorProto) -> ValueInfoProto {
    use crate::schema::tensor_shape_proto::Dimension;
    let dim = tensor.dims.iter().map(|&n| Dimension { value: Some(Value::DimValue(n)), ..Dimension::default() });
    let shape = crate::schema::TensorShapeProto { dim: dim.collect() };
    let kind = type_proto::Tensor { elem_type: tensor.data_type, shape: Some(shape) };
    let r#type = crate::schema::TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..Default::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}
