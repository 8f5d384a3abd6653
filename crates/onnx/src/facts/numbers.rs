//! Numbers that follow from shapes and constants alone: what exporters compute shapes from.

use std::path::Path;

use ndarray::{ArrayD, Axis, IxDyn, Zip};

use super::extents::broadcast;
use crate::external::ExternalData;
use crate::schema::NodeProto;
use crate::tensor::{floats, integers};

/// More elements are weights, not shapes.
pub const NUMBERS_MAX: usize = 4096;
/// As many numbers are kept of all values together: what a hostile file could multiply them to.
pub const ALL_NUMBERS_MAX: usize = 1 << 21;

/// A few numbers. Integers are exact up to 2^53; larger ones, which stand for "to the end", stay as large.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeNumbers {
    pub array: ArrayD<f64>,
    /// Whether a division rounds towards zero.
    pub is_integer: bool,
    /// Whether some Shape was read, so that they are computed when the network runs.
    pub is_of_shapes: bool,
}

impl ShapeNumbers {
    pub fn integers(values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<f64> = values.into_iter().map(|v| v as f64).collect();
        Self { array: ndarray::Array1::from(values).into_dyn(), is_integer: true, is_of_shapes: false }
    }

    /// As whole numbers, one after the other.
    pub fn to_integers(&self) -> Vec<i64> {
        self.array.iter().map(|&v| v as i64).collect()
    }

    fn map(&self, f: impl FnMut(f64) -> f64) -> Self {
        Self { array: self.array.mapv(f), ..self.clone() }
    }
}

/// What a node makes of numbers, where it is one of the operations that shapes are computed with.
pub fn fold(node: &NodeProto, inputs: &[Option<&ShapeNumbers>]) -> Option<ShapeNumbers> {
    let x = *inputs.first()?.as_ref()?;
    let is_of_shapes = inputs.iter().flatten().any(|n| n.is_of_shapes);
    let folded = match node.op_type() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Mod" | "Equal" | "Less" | "Greater" | "And" | "Or" => {
            let mut all = inputs.iter().copied();
            let first = all.next()??.clone();
            all.try_fold(first, |a, b| binary(node.op_type(), &a, b?))?
        }
        "Where" => select(x, inputs.get(1).copied()??, inputs.get(2).copied()??)?,
        "Floor" => x.map(f64::floor),
        "Ceil" => x.map(f64::ceil),
        "Round" => x.map(f64::round_ties_even),
        "Sqrt" => x.map(f64::sqrt),
        "Neg" => x.map(|v| -v),
        "Abs" => x.map(f64::abs),
        "Not" => x.map(|v| f64::from(v == 0.0)),
        "Relu" => x.map(|v| v.max(0.0)),
        "Clip" => {
            let bound = |i: usize, name: &str, default: f64| {
                let given = inputs.get(i).copied().flatten().and_then(|n| n.array.first().copied());
                given.unwrap_or_else(|| f64::from(node.float(name, default as f32)))
            };
            let (low, high) = (bound(1, "min", f64::MIN), bound(2, "max", f64::MAX));
            x.map(|v| v.max(low).min(high))
        }
        "Cast" => cast(x, node.int("to", 1)),
        "CastLike" => cast(x, if inputs.get(1).copied().flatten()?.is_integer { 7 } else { 1 }),
        "Range" => range(x, inputs.get(1).copied()??, inputs.get(2).copied()??)?,
        "ConstantOfShape" => {
            let extents: Vec<usize> =
                x.to_integers().iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
            let n = extents.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            let value = filled(node)?;
            let array = (n <= NUMBERS_MAX).then(|| ArrayD::from_elem(IxDyn(&extents), value.number))?;
            ShapeNumbers { array, is_integer: value.is_integer, is_of_shapes }
        }
        "ReduceProd" if x.array.ndim() <= 1 => {
            let array = ArrayD::from_elem(IxDyn(&vec![1; x.array.ndim()]), x.array.product());
            let is_flat = node.int("keepdims", 1) == 0;
            let array = if is_flat { array.into_shape_with_order(IxDyn(&[])).ok()? } else { array };
            ShapeNumbers { array, ..x.clone() }
        }
        _ => return None,
    };
    Some(ShapeNumbers { is_of_shapes, ..folded })
}

/// What ConstantOfShape fills with.
struct Filling {
    number: f64,
    is_integer: bool,
}

fn filled(node: &NodeProto) -> Option<Filling> {
    let Some(attribute) = node.attribute_named("value") else {
        return Some(Filling { number: 0.0, is_integer: false });
    };
    let (tensor, nowhere) = (attribute.t.as_ref()?, ExternalData::new(Path::new("")));
    if let Ok(values) = integers(tensor, &nowhere) {
        return Some(Filling { number: *values.first()? as f64, is_integer: true });
    }
    let values = floats(tensor, &nowhere).ok()?;
    Some(Filling { number: f64::from(*values.first()?), is_integer: false })
}

fn binary(op: &str, a: &ShapeNumbers, b: &ShapeNumbers) -> Option<ShapeNumbers> {
    let is_integer = a.is_integer && b.is_integer;
    let apply = |a: f64, b: f64| match op {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" if is_integer => (a / b).trunc(),
        "Div" => a / b,
        "Pow" => a.powf(b),
        "Max" => a.max(b),
        "Min" => a.min(b),
        "Mod" => a - b * (a / b).floor(),
        "Equal" => f64::from(a == b),
        "Less" => f64::from(a < b),
        "Greater" => f64::from(a > b),
        "And" => f64::from(a != 0.0 && b != 0.0),
        _ => f64::from(a != 0.0 || b != 0.0),
    };
    let extents = broadcast(&[a.array.shape(), b.array.shape()]).ok()?;
    (extents.iter().product::<usize>() <= NUMBERS_MAX).then_some(())?;
    let (x, y) = (a.array.broadcast(IxDyn(&extents))?, b.array.broadcast(IxDyn(&extents))?);
    let array = Zip::from(x).and(y).map_collect(|&x, &y| apply(x, y));
    let is_integer = is_integer || matches!(op, "Equal" | "Less" | "Greater" | "And" | "Or");
    Some(ShapeNumbers { array, is_integer, is_of_shapes: false })
}

fn select(condition: &ShapeNumbers, yes: &ShapeNumbers, no: &ShapeNumbers) -> Option<ShapeNumbers> {
    let extents = broadcast(&[condition.array.shape(), yes.array.shape(), no.array.shape()]).ok()?;
    (extents.iter().product::<usize>() <= NUMBERS_MAX).then_some(())?;
    let of = |n: &ShapeNumbers| n.array.broadcast(IxDyn(&extents)).map(|view| view.to_owned());
    let (c, y, n) = (of(condition)?, of(yes)?, of(no)?);
    let array = Zip::from(&c).and(&y).and(&n).map_collect(|&c, &y, &n| if c == 0.0 { n } else { y });
    Some(ShapeNumbers { array, ..yes.clone() })
}

fn cast(x: &ShapeNumbers, to: i64) -> ShapeNumbers {
    // FLOAT, FLOAT16, DOUBLE and BFLOAT16 keep fractions.
    let is_integer = !matches!(to, 1 | 10 | 11 | 16);
    ShapeNumbers { is_integer, ..x.map(|v| if is_integer { v.trunc() } else { v }) }
}

fn range(from: &ShapeNumbers, to: &ShapeNumbers, step: &ShapeNumbers) -> Option<ShapeNumbers> {
    let [from, to, step] = [from, to, step].map(|n| n.array.first().copied());
    let (from, to, step) = (from?, to?, step?);
    let n = ((to - from) / step).ceil().max(0.0);
    let values = (n <= NUMBERS_MAX as f64).then(|| (0..n as i64).map(|i| (from + step * i as f64) as i64))?;
    Some(ShapeNumbers::integers(values))
}

/// The element types of several inputs behind each other, such as Concat of shapes.
pub fn concat(axis: usize, parts: &[&ShapeNumbers]) -> Option<ShapeNumbers> {
    let views: Vec<_> = parts.iter().map(|part| part.array.view()).collect();
    let array = ndarray::concatenate(Axis(axis), &views).ok()?;
    let is_integer = parts.iter().all(|part| part.is_integer);
    Some(ShapeNumbers { array, is_integer, is_of_shapes: parts.iter().any(|part| part.is_of_shapes) })
}
