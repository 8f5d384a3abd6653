//! What is known of every value before anything is run: its shape, and its numbers where shapes are computed from them.

mod costs;
mod extents;
mod known;
mod movement;
mod numbers;
mod shapes;
mod windows;

use std::collections::HashMap;

pub(crate) use extents::axis_of;
use extents::elements;
use known::{Fact, is_read_channels_first};
pub use known::{Facts, InputShape};
pub(crate) use movement::{AxisRange, Movement, axes, part};
pub(crate) use numbers::ShapeNumbers;
use numbers::{ALL_NUMBERS_MAX, NUMBERS_MAX};
pub(crate) use shapes::{ELEMENTWISE, pads};
pub(crate) use windows::Pads;

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::names::node_name;
use crate::schema::tensor_shape_proto::dimension::Value;
use crate::schema::{NodeProto, TensorProto, ValueInfoProto, type_proto};
use crate::tensor::{ElementType, dims, floats, integers};
use crate::unknown::unknown;

/// Rows and columns where a document leaves them open: what most classifiers are trained on, and what the strides of
/// most detectors divide.
const OPEN_SIZE: usize = 224;

/// Axes of whole numbers that are kept: places to be gathered have as many as what is gathered.
const RANK_MAX: usize = 8;

/// Characters of a problem that are kept.
const PROBLEM_MAX: usize = 200;

impl Facts {
    /// Follows shapes through the document. Where it leaves sizes open, the batch is one image, and rows and columns
    /// are those of `size`, or else 224.
    ///
    /// # Errors
    /// An initialiser or an input whose shape no tensor has, a sparse initialiser, an input of unknown rank.
    pub fn of(document: &OnnxDocument, size: Option<[usize; 2]>) -> Result<Self, OnnxError> {
        let opset = document.opset();
        let mut facts =
            Self { known: HashMap::new(), inputs: Vec::new(), problems: HashMap::new(), opset, n_numbers: 0 };
        let graph = document.graph();
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            return Err(OnnxError::tensor(
                name,
                "is stored sparsely, which is not read: export it with all of its values",
            ));
        }
        for tensor in &graph.initializer {
            facts.learn(tensor.name(), constant(tensor, document)?);
        }
        for value in &graph.input {
            if !facts.known.contains_key(value.name()) {
                let is_read_channels_first = is_read_channels_first(graph, value.name());
                let input = InputShape { is_read_channels_first, ..input_shape(value, size)? };
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
            Err(unknown(node, &document.model().functions))
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

fn constant(tensor: &TensorProto, document: &OnnxDocument) -> Result<Fact, OnnxError> {
    let (shape, n) = dims(tensor)?;
    elements(&shape).map_err(|problem| OnnxError::tensor(tensor.name(), format!("{problem}: export it again")))?;
    let mut numbers = None;
    if n <= NUMBERS_MAX && shape.len() <= RANK_MAX {
        let values = match ElementType::of(tensor) {
            // Who needs the numbers says that they are not read.
            Err(_) => None,
            Ok(ElementType::Int64 | ElementType::Int32 | ElementType::Bool) => {
                let values = integers(tensor, document.external())?;
                Some((values.into_iter().map(|v| v as f64).collect(), true))
            }
            // Fractions that shapes are scaled by.
            _ if n <= 16 && shape.len() <= 2 => {
                let values = floats(tensor, document.external())?;
                Some((values.into_iter().map(f64::from).collect::<Vec<f64>>(), false))
            }
            _ => None,
        };
        numbers = values.and_then(|(values, is_integer)| {
            let array = ndarray::ArrayD::from_shape_vec(shape.clone(), values).ok()?;
            Some(ShapeNumbers { array, is_integer, is_of_shapes: false })
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
    elements(&shape)
        .map_err(|problem| OnnxError::graph(format!("has an input '{name}' that {problem}: export it again")))?;
    let open = (0..rank).filter(|&axis| extents[axis].is_none()).collect();
    Ok(InputShape { name, shape, open, is_read_channels_first: false })
}

/// Shapes that the document itself gives for values; a batch that is left open is one image.
fn declared(document: &OnnxDocument) -> HashMap<&str, Vec<usize>> {
    let graph = document.graph();
    let whole = |value: &ValueInfoProto| {
        let extents = declared_extents(value)?;
        let extent = |axis: usize| match extents[axis] {
            Some(n) => usize::try_from(n).ok(),
            None => (axis == 0).then_some(1),
        };
        (0..extents.len()).map(extent).collect::<Option<Vec<usize>>>()
    };
    let values = graph.value_info.iter().chain(&graph.output);
    values.filter_map(|value| Some((value.name(), whole(value)?))).collect()
}
