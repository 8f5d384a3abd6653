//! Constants as arrays of floats, whatever they are computed from.

use std::collections::HashMap;

use ndarray::{ArrayD, Axis, IxDyn, Zip};

use crate::document::OnnxDocument;
use crate::facts::{Facts, Movement, axes, axis_of};
use crate::names::makers;
use crate::schema::tensor_proto::DataLocation;
use crate::schema::{NodeProto, TensorProto};
use crate::tensor::{dims, floats, integers};

/// Constants are computed from constants at most so many times: each may read two.
const DEPTH_MAX: usize = 8;

/// Numbers that constants may hold beyond twice those stored: nodes that share parameters get copies of them, and a few
/// bytes can say that a constant is filled.
const NUMBERS_BEYOND: usize = 1 << 20;

/// The constants of a document: those stored, and those that nodes compute from them.
pub struct Constants<'a> {
    document: &'a OnnxDocument,
    facts: &'a Facts,
    /// Which node makes a value.
    pub makers: HashMap<&'a str, usize>,
    stored: HashMap<&'a str, &'a TensorProto>,
    /// Numbers that all constants together may hold.
    pub numbers_max: usize,
}

impl<'a> Constants<'a> {
    /// Those of a document whose facts these are.
    pub fn new(document: &'a OnnxDocument, facts: &'a Facts) -> Self {
        let graph = document.graph();
        let stored = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        Self { document, facts, makers: makers(graph), stored, numbers_max: numbers_max(document) }
    }

    /// The elements of a constant.
    ///
    /// # Errors
    /// A value that is not constant or is computed in a way that is not known, as a predicate of who reads it.
    pub fn array(&self, name: &str) -> Result<ArrayD<f32>, String> {
        self.at_depth(name, 0)
    }

    fn at_depth(&self, name: &str, depth: usize) -> Result<ArrayD<f32>, String> {
        let graph = self.document.graph();
        if let Some(tensor) = self.stored.get(name) {
            return self.read(tensor);
        }
        let number = *self.makers.get(name).ok_or_else(|| format!("needs '{name}' to be constant"))?;
        let node = &graph.node[number];
        if let Some(tensor) = node.constant() {
            return self.read(tensor);
        }
        if let Some(numbers) = self.facts.numbers(name) {
            return Ok(numbers.array.mapv(|v| v as f32));
        }
        if !self.facts.is_constant(name) || !node.is_standard() || node.output[0] != name {
            return Err(format!("needs '{name}' to be constant"));
        }
        if depth > DEPTH_MAX {
            return Err(format!("needs '{name}', which more than {DEPTH_MAX} nodes compute from constants"));
        }
        let shape = self.facts.shape(name).ok_or("makes an unknown shape")?;
        if shape.iter().product::<usize>() > self.numbers_max {
            let n = self.numbers_max;
            return Err(format!(
                "needs '{name}', a constant of more than {n} numbers, which are not stored but computed"
            ));
        }
        self.computed(node, shape, depth)
    }

    /// What a node makes of constants.
    fn computed(&self, node: &NodeProto, shape: &[usize], depth: usize) -> Result<ArrayD<f32>, String> {
        let input = |i: usize| self.at_depth(node.input.get(i).map_or("", String::as_str), depth + 1);
        if node.op_type() == "ConstantOfShape" {
            return Ok(ArrayD::from_elem(IxDyn(shape), self.filling(node)?));
        }
        let x = input(0)?;
        let facts = self.facts.at(node);
        if let Some(movement) = Movement::of(node, &facts)? {
            return movement.apply(x.view());
        }
        let pair = |apply: fn(f32, f32) -> f32| -> Result<ArrayD<f32>, String> {
            let y = input(1)?;
            let unlike = || "combines unlike shapes".to_owned();
            let (x, y) = (x.broadcast(IxDyn(shape)).ok_or_else(unlike)?, y.broadcast(IxDyn(shape)).ok_or_else(unlike)?);
            Ok(Zip::from(&x).and(&y).map_collect(|&x, &y| apply(x, y)))
        };
        match node.op_type() {
            "Cast" | "CastLike" => Ok(x),
            "Sqrt" => Ok(x.mapv(f32::sqrt)),
            "Neg" => Ok(x.mapv(|v| -v)),
            "Exp" => Ok(x.mapv(f32::exp)),
            "Reciprocal" => Ok(x.mapv(f32::recip)),
            "Abs" => Ok(x.mapv(f32::abs)),
            "Add" => pair(|x, y| x + y),
            "Sub" => pair(|x, y| x - y),
            "Mul" => pair(|x, y| x * y),
            "Div" => pair(|x, y| x / y),
            "Pow" => pair(f32::powf),
            "Max" if node.input.len() == 2 => pair(f32::max),
            "ReduceMean" | "ReduceSum" | "ReduceL2" | "ReduceSumSquare" => {
                reduced(node, &x, axes(node, &facts)?, shape)
            }
            "BatchNormalization" => normalised(node, x, &input),
            op => Err(format!("needs '{}', a constant that {op} makes, which is not computed", node.output[0])),
        }
    }

    /// What a ConstantOfShape fills with.
    fn filling(&self, node: &NodeProto) -> Result<f32, String> {
        let tensor = node.attribute_named("value").and_then(|value| value.t.as_ref());
        let value = tensor.map(|tensor| self.read(tensor)).transpose()?;
        Ok(value.and_then(|value| value.first().copied()).unwrap_or(0.0))
    }

    fn read(&self, tensor: &TensorProto) -> Result<ArrayD<f32>, String> {
        let (shape, _) = dims(tensor).map_err(|e| e.to_string())?;
        let external = self.document.external();
        let values = match floats(tensor, external) {
            Ok(values) => values,
            Err(problem) => match integers(tensor, external) {
                Ok(values) => values.into_iter().map(|v| v as f32).collect(),
                Err(_) => return Err(problem.to_string()),
            },
        };
        ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|e| e.to_string())
    }
}

/// Twice as many as the document stores, and some.
fn numbers_max(document: &OnnxDocument) -> usize {
    let graph = document.graph();
    let mut n = NUMBERS_BEYOND;
    for tensor in graph.initializer.iter().chain(graph.node.iter().filter_map(NodeProto::constant)) {
        // A tensor holds no more numbers than bytes, whatever its shape says.
        let lists =
            tensor.float_data.len() + tensor.double_data.len() + tensor.int32_data.len() + tensor.int64_data.len();
        let external = match tensor.data_location() {
            DataLocation::External => usize::try_from(document.external().n_bytes(tensor)).unwrap_or(usize::MAX),
            DataLocation::Default => 0,
        };
        let stored = tensor.raw_data.as_ref().map_or(lists, bytes::Bytes::len).max(external);
        let told = dims(tensor).map_or(0, |(_, n)| n);
        n = n.saturating_add(told.min(stored).saturating_mul(2));
    }
    n
}

/// A reduction of a constant to `shape`.
fn reduced(node: &NodeProto, x: &ArrayD<f32>, over: Option<Vec<i64>>, shape: &[usize]) -> Result<ArrayD<f32>, String> {
    let rank = x.ndim();
    let over = over.filter(|axes| !axes.is_empty());
    if over.is_none() && node.int("noop_with_empty_axes", 0) == 1 {
        return Err("reduces nothing".into());
    }
    let mut gone: Vec<usize> = match over {
        Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    gone.sort_unstable();
    gone.dedup();
    let is_squared = matches!(node.op_type(), "ReduceL2" | "ReduceSumSquare");
    let mut sums = x.mapv(|v| if is_squared { f64::from(v).powi(2) } else { f64::from(v) });
    let n: usize = gone.iter().map(|&axis| x.shape()[axis]).product();
    gone.iter().rev().for_each(|&axis| sums = sums.sum_axis(Axis(axis)));
    let values = sums.mapv(|sum| match node.op_type() {
        "ReduceMean" => (sum / n as f64) as f32,
        "ReduceL2" => sum.sqrt() as f32,
        _ => sum as f32,
    });
    values.into_shape_with_order(IxDyn(shape)).map_err(|e| e.to_string())
}

/// A constant whose channels are normalised, by their own mean and variance where the node is in training mode: how
/// weights are standardised.
fn normalised(
    node: &NodeProto,
    mut x: ArrayD<f32>,
    input: &dyn Fn(usize) -> Result<ArrayD<f32>, String>,
) -> Result<ArrayD<f32>, String> {
    let is_training = node.int("training_mode", 0) == 1;
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let [scale, shift, mean, variance] = [input(1)?, input(2)?, input(3)?, input(4)?];
    let fits = x.ndim() > 1 && [&scale, &shift, &mean, &variance].iter().all(|p| p.len() == x.shape()[1]);
    if !fits {
        return Err("normalises channels with another number of parameters".into());
    }
    let parameters = scale.iter().zip(&shift).zip(mean.iter().zip(&variance));
    for (mut channel, ((&scale, &shift), (&mean, &variance))) in x.axis_iter_mut(Axis(1)).zip(parameters) {
        let (mut mean, mut variance) = (f64::from(mean), f64::from(variance));
        if is_training {
            let n = channel.len() as f64;
            mean = channel.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            variance = channel.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        }
        let factor = f64::from(scale) / (variance + epsilon).sqrt();
        channel.mapv_inplace(|v| ((f64::from(v) - mean) * factor + f64::from(shift)) as f32);
    }
    Ok(x)
}
