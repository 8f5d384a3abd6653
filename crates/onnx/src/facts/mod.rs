//! What is known of every value before anything is run: its shape, and its numbers where shapes are computed from them.

mod macs;
mod movement;
mod numbers;
mod shapes;
mod windows;

use std::collections::HashMap;

pub(crate) use movement::{Movement, axes, axis_of, elements, part};
pub(crate) use numbers::Numbers;
use numbers::{ALL_NUMBERS_MAX, NUMBERS_MAX};
pub(crate) use shapes::pads;

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::names::node_name;
use crate::schema::tensor_shape_proto::dimension::Value;
use crate::schema::{NodeProto, TensorProto, ValueInfoProto, type_proto};
use crate::tensor::{ElementType, dims, floats, integers};

/// Rows and columns where a document leaves them open: what most classifiers are trained on, and what the strides of
/// most detectors divide.
const OPEN_SIZE: usize = 224;

/// Characters of a problem that are kept.
const PROBLEM_MAX: usize = 200;

/// An input of the network, and the extents that were chosen where the document leaves them open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Its name.
    pub name: String,
    /// The shape that everything is derived for.
    pub shape: Vec<usize>,
    /// Axes whose extent the document leaves open.
    pub open: Vec<usize>,
}

/// Of one value.
#[derive(Clone, Debug, Default)]
struct Fact {
    shape: Option<Vec<usize>>,
    numbers: Option<Numbers>,
    /// Follows from initialisers and Constant nodes alone.
    is_constant: bool,
}

/// Shapes of all values, and numbers that follow from shapes and constants.
#[derive(Clone, Debug)]
pub struct Facts {
    known: HashMap<String, Fact>,
    inputs: Vec<InputShape>,
    /// By node, why its outputs are not known.
    problems: HashMap<usize, String>,
    opset: i64,
    /// Of all values together.
    n_numbers: usize,
}

/// What is known of the inputs of one node.
#[derive(Clone, Copy)]
pub struct NodeFacts<'a> {
    facts: &'a Facts,
    node: &'a NodeProto,
}

impl Facts {
    /// Follows shapes through the document. Where it leaves sizes open, the batch is one image, and rows and columns are
    /// those of `size`, or else 224.
    ///
    /// # Errors
    /// An initialiser or an input whose shape no tensor has, an input of unknown rank.
    pub fn of(document: &OnnxDocument, size: Option<[usize; 2]>) -> Result<Self, OnnxError> {
        let opset = document.opset();
        let mut facts =
            Self { known: HashMap::new(), inputs: Vec::new(), problems: HashMap::new(), opset, n_numbers: 0 };
        let graph = document.graph();
        for tensor in &graph.initializer {
            facts.learn(tensor.name(), constant(tensor, document)?);
        }
        for value in &graph.input {
            if !facts.known.contains_key(value.name()) {
                let input = input_shape(value, size)?;
                let fact = Fact { shape: Some(input.shape.clone()), ..Fact::default() };
                facts.known.insert(input.name.clone(), fact);
                facts.inputs.push(input);
            }
        }
        let declared = declared(document);
        for (number, node) in graph.node.iter().enumerate() {
            facts.follow(number, node, document, &declared)?;
        }
        Ok(facts)
    }

    /// The network's own inputs.
    pub fn inputs(&self) -> &[InputShape] {
        &self.inputs
    }

    /// Rows and columns of an image input, wherever its channels are.
    pub(crate) fn rows_and_columns(&self, input: &InputShape) -> [usize; 2] {
        let shape = &input.shape;
        let channels_last = shape[3] <= 4 && shape[1] > 4;
        if channels_last { [shape[1], shape[2]] } else { [shape[2], shape[3]] }
    }

    /// Shape of a value, if it is known.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.known.get(name)?.shape.as_deref()
    }

    /// Why the outputs of a node are not known.
    pub fn problem(&self, number: usize) -> Option<&str> {
        self.problems.get(&number).map(String::as_str)
    }

    /// Whether a value follows from initialisers and Constant nodes alone.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|fact| fact.is_constant)
    }

    pub(crate) fn numbers(&self, name: &str) -> Option<&Numbers> {
        self.known.get(name)?.numbers.as_ref()
    }

    pub(crate) const fn at<'a>(&'a self, node: &'a NodeProto) -> NodeFacts<'a> {
        NodeFacts { facts: self, node }
    }

    pub(crate) const fn opset(&self) -> i64 {
        self.opset
    }

    fn follow(
        &mut self,
        number: usize,
        node: &NodeProto,
        document: &OnnxDocument,
        declared: &HashMap<&str, Vec<usize>>,
    ) -> Result<(), OnnxError> {
        if let Some(tensor) = node.constant() {
            let fact = constant(tensor, document)?;
            if let Some(output) = node.output.first() {
                self.learn(output, fact);
            }
            return Ok(());
        }
        let is_constant = self.is_constant_node(node);
        let made = if node.is_standard() {
            shapes::outputs(&self.at(node))
        } else {
            Err(format!("is of the operator set '{}', which is not known", node.domain()))
        };
        let (mut facts, problem) = match made {
            Ok(made) => (made, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        facts.resize(node.output.len(), Fact::default());
        for (output, mut fact) in node.output.iter().zip(facts) {
            fact.is_constant = is_constant;
            if fact.shape.is_none() {
                fact.shape = declared.get(output.as_str()).cloned();
            }
            self.learn(output, fact);
        }
        if let Some(problem) = problem {
            let problem: String = problem.chars().take(PROBLEM_MAX).collect();
            self.problems.insert(number, format!("{} {problem}", node_name(number, node)));
        }
        Ok(())
    }

    fn learn(&mut self, value: &str, mut fact: Fact) {
        self.n_numbers += fact.numbers.as_ref().map_or(0, |numbers| numbers.array.len());
        if self.n_numbers > ALL_NUMBERS_MAX {
            fact.numbers = None;
        }
        self.known.insert(value.to_owned(), fact);
    }
}

impl<'a> NodeFacts<'a> {
    /// Shape of the node's input.
    ///
    /// # Errors
    /// An input that is missing or whose shape is not known.
    pub fn shape(&self, i: usize) -> Result<&'a [usize], String> {
        let name = self.node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        self.facts.shape(name).ok_or_else(|| format!("reads '{name}', whose shape is not known"))
    }

    /// Whole numbers of the node's input.
    ///
    /// # Errors
    /// An input that is missing or whose numbers are not known before the network runs.
    pub fn integers(&self, i: usize) -> Result<Vec<i64>, String> {
        let name = self.node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        let numbers = self.facts.numbers(name);
        let unknown = || format!("reads '{name}', which is not known before the network runs");
        numbers.map(Numbers::to_integers).ok_or_else(unknown)
    }

    pub(crate) fn numbers(&self, i: usize) -> Option<&'a Numbers> {
        self.node.input.get(i).and_then(|name| self.facts.numbers(name))
    }

    /// Whether the node has this input.
    pub fn is_given(&self, i: usize) -> bool {
        self.node.input.get(i).is_some_and(|name| !name.is_empty())
    }

    pub(crate) const fn node(&self) -> &'a NodeProto {
        self.node
    }

    pub(crate) const fn opset(&self) -> i64 {
        self.facts.opset
    }
}

fn constant(tensor: &TensorProto, document: &OnnxDocument) -> Result<Fact, OnnxError> {
    let (shape, n) = dims(tensor)?;
    elements(&shape).map_err(|problem| OnnxError::tensor(tensor.name(), problem))?;
    let mut numbers = None;
    if n <= NUMBERS_MAX && shape.len() <= 2 {
        let values = match ElementType::of(tensor)? {
            ElementType::Int64 | ElementType::Int32 | ElementType::Bool => {
                let values = integers(tensor, document.external())?;
                Some((values.into_iter().map(|v| v as f64).collect(), true))
            }
            // Fractions that shapes are scaled by.
            _ if n <= 16 => {
                let values = floats(tensor, document.external())?;
                Some((values.into_iter().map(f64::from).collect::<Vec<f64>>(), false))
            }
            _ => None,
        };
        numbers = values.and_then(|(values, is_integer)| {
            let array = ndarray::ArrayD::from_shape_vec(shape.clone(), values).ok()?;
            Some(Numbers { array, is_integer, is_of_shapes: false })
        });
    }
    Ok(Fact { shape: Some(shape), numbers, is_constant: true })
}

/// Extents as declared; none where they are open.
pub(crate) fn declared_extents(value: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let Some(type_proto::Value::TensorType(tensor)) = &value.r#type.as_ref()?.value else { return None };
    let extent = |value: &Option<Value>| match value {
        Some(Value::DimValue(n)) if *n > 0 => Some(*n),
        _ => None,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|dim| extent(&dim.value)).collect())
}

fn input_shape(value: &ValueInfoProto, size: Option<[usize; 2]>) -> Result<InputShape, OnnxError> {
    let name = value.name().to_owned();
    let extents = declared_extents(value).ok_or_else(|| {
        OnnxError::graph(format!("does not say of which rank its input '{name}' is: export it again"))
    })?;
    let rank = extents.len();
    let [rows, cols] = size.unwrap_or([OPEN_SIZE; 2]);
    // Images with channels behind have few of them, and many columns.
    let is_few = |axis: usize| extents.get(axis).copied().flatten().is_some_and(|n| n <= 4);
    let channels_last = rank == 4 && is_few(3) && !is_few(1);
    let spatial = if channels_last { [1, 2] } else { [2, 3] };
    let mut shape = Vec::with_capacity(rank);
    for (axis, extent) in extents.iter().enumerate() {
        shape.push(match *extent {
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None if axis == 0 => 1,
            None if rank == 4 && axis == spatial[0] => rows,
            None if rank == 4 && axis == spatial[1] => cols,
            None if rank == 4 => 3,
            None => {
                let problem = format!("leaves axis {axis} of its input '{name}' open: export it with fixed sizes");
                return Err(OnnxError::graph(problem));
            }
        });
    }
    elements(&shape).map_err(|problem| OnnxError::graph(format!("has an input '{name}' that {problem}")))?;
    let open = (0..rank).filter(|&axis| extents[axis].is_none()).collect();
    Ok(InputShape { name, shape, open })
}

/// Shapes that the document itself gives for values; a batch that is left open is one image.
fn declared(document: &OnnxDocument) -> HashMap<&str, Vec<usize>> {
    let graph = document.graph();
    let whole = |value: &ValueInfoProto| {
        let extents = declared_extents(value)?;
        let extent = |(axis, n): (usize, &Option<i64>)| match n {
            Some(n) => usize::try_from(*n).ok(),
            None => (axis == 0).then_some(1),
        };
        extents.iter().enumerate().map(extent).collect::<Option<Vec<usize>>>()
    };
    let values = graph.value_info.iter().chain(&graph.output);
    values.filter_map(|value| Some((value.name(), whole(value)?))).collect()
}
