//! Shapes of what operations make.

use super::extents::{axis_of, broadcast, elements};
use super::known::{Fact, NodeFacts};
use super::movement::{Movement, axes};
use super::numbers::{NUMBERS_MAX, ShapeNumbers, concat, fold};
use super::windows::Pads;
use crate::unknown::unknown;

/// Operations on each element.
pub const ELEMENTWISE: [&str; 38] = [
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Clip",
    "Erf",
    "Gelu",
    "Elu",
    "Selu",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "Softplus",
    "Softsign",
    "Mish",
    "Cast",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Round",
    "Celu",
    "Swish",
    "ThresholdedRelu",
    "Sin",
    "Cos",
    "Tan",
    "Sign",
    "Not",
    "IsNaN",
    "Shrink",
    "CastLike",
    "Atan",
    "Sinh",
    "Cosh",
];

/// Operations whose (first) output has the shape of their first input, though they are not element by element.
const KEEPS_SHAPE: [&str; 11] = [
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "LRN",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "CumSum",
    "LpNormalization",
    "MeanVarianceNormalization",
];

/// Operations on each pair of elements, after broadcasting.
pub const BINARY: [&str; 18] = [
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Where", "Equal", "Less", "Greater",
    "And", "Or", "Xor", "Mod",
];

/// What is known of a node's outputs.
///
/// # Errors
/// An operation that is not known, inputs that it cannot have: a predicate without the node's name.
pub fn outputs(facts: &NodeFacts<'_>) -> Result<Vec<Fact>, String> {
    let node = facts.node();
    let op = node.op_type();
    if let Some(movement) = Movement::of(node, facts)? {
        let shape = movement.shape(facts.shape(0)?)?;
        let numbers = facts.numbers(0).filter(|_| shape.iter().product::<usize>() <= NUMBERS_MAX);
        let moved = numbers.map(|n| movement.apply(n.array.view()).map(|array| ShapeNumbers { array, ..n.clone() }));
        return Ok(vec![Fact { shape: Some(shape), numbers: moved.transpose()?, is_constant: false }]);
    }
    let whole = |shape: Vec<usize>| Ok(vec![Fact { shape: Some(shape), ..Fact::default() }]);
    match op {
        "Shape" => return shape_of(facts).map(|numbers| vec![of_numbers(numbers)]),
        "Size" => {
            let n = elements(facts.shape(0)?)? as f64;
            let array = ndarray::arr0(n).into_dyn();
            return Ok(vec![of_numbers(ShapeNumbers { array, is_integer: true, is_of_shapes: true })]);
        }
        "Constant" => return constant_list(facts).map(|numbers| vec![of_numbers(numbers)]),
        "Split" => return split(facts).map(|all| all.into_iter().map(of_shape).collect()),
        "Concat" => return concatenated(facts).map(|fact| vec![fact]),
        _ => {}
    }
    let inputs: Vec<Option<&ShapeNumbers>> = (0..node.input.len()).map(|i| facts.numbers(i)).collect();
    if let Some(numbers) = fold(node, &inputs) {
        return Ok(vec![of_numbers(numbers)]);
    }
    if ELEMENTWISE.contains(&op) || KEEPS_SHAPE.contains(&op) {
        return whole(facts.shape(0)?.to_vec());
    }
    if BINARY.contains(&op) {
        let given = (0..node.input.len()).filter(|&i| facts.is_given(i));
        let shapes: Vec<&[usize]> = given.map(|i| facts.shape(i)).collect::<Result<_, _>>()?;
        return whole(broadcast(&shapes)?);
    }
    let shape = match op {
        "Conv" => convolution(facts)?,
        "ConvTranspose" => transposed(facts)?,
        "MaxPool" | "AveragePool" | "LpPool" => {
            let shape = facts.shape(0)?;
            let windows = Pads::of(facts, None)?.over(&shape[2..])?;
            [&shape[..2], &windows].concat()
        }
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
            let shape = facts.shape(0)?;
            shape.iter().enumerate().map(|(axis, &d)| if axis < 2 { d } else { 1 }).collect()
        }
        "ConstantOfShape" => of_integers(&facts.integers(0)?)?,
        "Gemm" => gemm(facts)?,
        "MatMul" => matmul(facts.shape(0)?, facts.shape(1)?)?,
        "Pad" => padded(facts)?,
        "Resize" | "Upsample" => resized(facts)?,
        "DepthToSpace" | "SpaceToDepth" => blocks(facts)?,
        "ArgMax" | "ArgMin" => reduced(facts, Some(vec![node.int("axis", 0)]))?,
        _ if op.starts_with("Reduce") => reduced(facts, axes(node, facts)?)?,
        _ => return Err(unknown(node, &[])),
    };
    elements(&shape)?;
    whole(shape)
}

/// A shape given by numbers.
fn of_integers(extents: &[i64]) -> Result<Vec<usize>, String> {
    let extent = |&n: &i64| usize::try_from(n).map_err(|_| format!("has the shape {extents:?}"));
    extents.iter().map(extent).collect()
}

fn of_shape(shape: Vec<usize>) -> Fact {
    Fact { shape: Some(shape), ..Fact::default() }
}

fn of_numbers(numbers: ShapeNumbers) -> Fact {
    Fact { shape: Some(numbers.array.shape().to_vec()), numbers: Some(numbers), is_constant: false }
}

fn shape_of(facts: &NodeFacts<'_>) -> Result<ShapeNumbers, String> {
    let (node, shape) = (facts.node(), facts.shape(0)?);
    let rank = shape.len() as i64;
    let place = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
    let (start, end) = (place(node.int("start", 0)), place(node.int("end", rank)));
    let part = shape.get(start..end).unwrap_or(&[]);
    Ok(ShapeNumbers { is_of_shapes: true, ..ShapeNumbers::integers(part.iter().map(|&d| d as i64)) })
}

/// A Constant node whose value is a list or a number.
fn constant_list(facts: &NodeFacts<'_>) -> Result<ShapeNumbers, String> {
    let node = facts.node();
    let of = |values: Vec<f64>, is_integer: bool| ShapeNumbers {
        array: ndarray::Array1::from(values).into_dyn(),
        is_integer,
        is_of_shapes: false,
    };
    let scalar = |value: f64, is_integer: bool| ShapeNumbers {
        array: ndarray::arr0(value).into_dyn(),
        is_integer,
        is_of_shapes: false,
    };
    if let Some(attribute) = node.attribute_named("value_ints") {
        return Ok(of(attribute.ints.iter().map(|&v| v as f64).collect(), true));
    }
    if let Some(attribute) = node.attribute_named("value_floats") {
        return Ok(of(attribute.floats.iter().map(|&v| f64::from(v)).collect(), false));
    }
    if let Some(attribute) = node.attribute_named("value_int") {
        return Ok(scalar(attribute.i() as f64, true));
    }
    let float = node.attribute_named("value_float").ok_or("has a value of a kind that is not read")?;
    Ok(scalar(f64::from(float.f()), false))
}

fn concatenated(facts: &NodeFacts<'_>) -> Result<Fact, String> {
    let node = facts.node();
    let shapes: Vec<&[usize]> = (0..node.input.len()).map(|i| facts.shape(i)).collect::<Result<_, _>>()?;
    let first = *shapes.first().ok_or("joins nothing")?;
    let axis = axis_of(node.int("axis", 1), first.len())?;
    let mut out = first.to_vec();
    for shape in &shapes[1..] {
        let is_like = shape.len() == first.len() && (0..first.len()).all(|a| a == axis || shape[a] == first[a]);
        if !is_like || first.is_empty() {
            return Err(format!("joins unlike shapes {shapes:?}"));
        }
        out[axis] = out[axis].checked_add(shape[axis]).ok_or("is too large")?;
    }
    let n = elements(&out)?;
    let parts: Option<Vec<&ShapeNumbers>> = (0..node.input.len()).map(|i| facts.numbers(i)).collect();
    let numbers = parts.filter(|_| n <= NUMBERS_MAX).and_then(|parts| concat(axis, &parts));
    Ok(Fact { shape: Some(out), numbers, is_constant: false })
}

fn split(facts: &NodeFacts<'_>) -> Result<Vec<Vec<usize>>, String> {
    let (node, shape) = (facts.node(), facts.shape(0)?);
    let axis = axis_of(node.int("axis", 0), shape.len())?;
    let extent = *shape.get(axis).ok_or("splits a single number")?;
    let n = node.output.len();
    let given = match node.ints("split") {
        Some(sizes) => Some(sizes.to_vec()),
        None if facts.is_given(1) => Some(facts.integers(1)?),
        None => None,
    };
    let sizes: Vec<usize> = match given {
        Some(sizes) => sizes
            .iter()
            .map(|&s| usize::try_from(s).map_err(|_| "has a part of negative size"))
            .collect::<Result<_, _>>()?,
        None => {
            // The last part is smaller where the parts do not come out even.
            let size = extent.div_ceil(n.max(1));
            (0..n).map(|i| size.min(extent.saturating_sub(i * size))).collect()
        }
    };
    if sizes.len() != n || sizes.iter().sum::<usize>() != extent {
        return Err(format!("splits {extent} places into {n} parts of {sizes:?}"));
    }
    Ok(sizes
        .iter()
        .map(|&size| shape.iter().enumerate().map(|(a, &d)| if a == axis { size } else { d }).collect())
        .collect())
}

fn convolution(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let (shape, weight) = (facts.shape(0)?, facts.shape(1)?);
    let groups = usize::try_from(facts.node().int("group", 1)).unwrap_or(0);
    if weight.len() != shape.len() || shape.len() < 3 {
        return Err(format!("has a weight of shape {weight:?} for an input of shape {shape:?}"));
    }
    let fits = groups > 0 && weight[1].checked_mul(groups) == Some(shape[1]) && weight[0].is_multiple_of(groups);
    if !fits {
        return Err(format!("has a weight of shape {weight:?} in {groups} groups for an input of shape {shape:?}"));
    }
    let windows = Pads::of(facts, Some(&weight[2..]))?;
    if windows.kernel != weight[2..] {
        return Err(format!("has a kernel {:?} and a weight of shape {weight:?}", windows.kernel));
    }
    Ok([&[shape[0], weight[0]][..], &windows.over(&shape[2..])?].concat())
}

fn transposed(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let (shape, weight) = (facts.shape(0)?, facts.shape(1)?);
    let groups = usize::try_from(facts.node().int("group", 1)).unwrap_or(0);
    let fits = weight.len() == shape.len() && shape.len() >= 3 && groups > 0 && weight[0] == shape[1];
    if !fits || !weight[0].is_multiple_of(groups) {
        return Err(format!("has a weight of shape {weight:?} in {groups} groups for an input of shape {shape:?}"));
    }
    let n_out = weight[1].checked_mul(groups).ok_or("is too large")?;
    Ok([&[shape[0], n_out][..], &Pads::of(facts, Some(&weight[2..]))?.transposed(facts)?].concat())
}

fn gemm(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let (a, b) = (facts.shape(0)?, facts.shape(1)?);
    let turned = |shape: &[usize], is_turned: bool| match *shape {
        [rows, cols] if is_turned => Ok([cols, rows]),
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!("multiplies what is no matrix: {shape:?}")),
    };
    let (a, b) = (turned(a, facts.node().int("transA", 0) != 0)?, turned(b, facts.node().int("transB", 0) != 0)?);
    if a[1] != b[0] {
        return Err(format!("multiplies {a:?} by {b:?}"));
    }
    Ok(vec![a[0], b[1]])
}

fn matmul(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let (wide_a, wide_b) = (
        if a.len() == 1 { [&[1], a].concat() } else { a.to_vec() },
        if b.len() == 1 { [b, &[1]].concat() } else { b.to_vec() },
    );
    let (na, nb) = (wide_a.len(), wide_b.len());
    if na < 2 || nb < 2 || wide_a[na - 1] != wide_b[nb - 2] {
        return Err(format!("multiplies {a:?} by {b:?}"));
    }
    let mut out = broadcast(&[&wide_a[..na - 2], &wide_b[..nb - 2]])?;
    out.extend((a.len() > 1).then_some(wide_a[na - 2]));
    out.extend((b.len() > 1).then_some(wide_b[nb - 1]));
    Ok(out)
}

/// Places added in front of and behind every axis; negative where they are taken away.
pub fn pads(facts: &NodeFacts<'_>) -> Result<Vec<[i64; 2]>, String> {
    let (node, rank) = (facts.node(), facts.shape(0)?.len());
    let list = match node.ints("pads") {
        Some(pads) => pads.to_vec(),
        None => facts.integers(1)?,
    };
    let axes: Vec<usize> = if facts.is_given(3) {
        facts.integers(3)?.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?
    } else {
        (0..rank).collect()
    };
    if list.len() != 2 * axes.len() {
        return Err(format!("has {} pads for {} axes", list.len(), axes.len()));
    }
    let mut out = vec![[0; 2]; rank];
    axes.iter().enumerate().for_each(|(i, &axis)| out[axis] = [list[i], list[i + axes.len()]]);
    Ok(out)
}

fn padded(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let shape = facts.shape(0)?;
    let grown = shape.iter().zip(pads(facts)?).map(|(&d, [front, behind])| {
        let n = i64::try_from(d).ok()?.checked_add(front)?.checked_add(behind)?;
        usize::try_from(n).ok()
    });
    grown.collect::<Option<_>>().ok_or_else(|| "has pads that leave nothing".into())
}

fn resized(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let (node, shape) = (facts.node(), facts.shape(0)?);
    let whole: Vec<usize> = (0..shape.len()).collect();
    let axes = match node.ints("axes") {
        Some(axes) => axes.iter().map(|&a| axis_of(a, shape.len())).collect::<Result<_, _>>()?,
        None => whole,
    };
    let at_scales = if node.op_type() == "Upsample" || facts.opset() < 11 { 1 } else { 2 };
    let mut out = shape.to_vec();
    if facts.is_given(3) && facts.shape(3)?.first() != Some(&0) {
        let sizes = facts.integers(3)?;
        for (&axis, &size) in axes.iter().zip(&sizes) {
            out[axis] = usize::try_from(size).map_err(|_| "has a negative size")?;
        }
        return Ok(out);
    }
    let attribute =
        node.attribute_named("scales").map(|a| a.floats.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>());
    let given = facts.numbers(at_scales).map(|n| n.array.iter().copied().collect());
    let scales = attribute.or(given).ok_or("has scales that are not known before the network runs")?;
    for (&axis, &scale) in axes.iter().zip(&scales) {
        out[axis] = (shape[axis] as f64 * scale).floor() as usize;
    }
    Ok(out)
}

fn blocks(facts: &NodeFacts<'_>) -> Result<Vec<usize>, String> {
    let (node, shape) = (facts.node(), facts.shape(0)?);
    let block = usize::try_from(node.int("blocksize", 0)).ok().filter(|&b| b > 0 && b < 1 << 16);
    let (&[n, c, h, w], Some(b)) = (shape, block) else {
        return Err(format!("has blocks of {} for an input of shape {shape:?}", node.int("blocksize", 0)));
    };
    let (to_space, fits) = if node.op_type() == "DepthToSpace" {
        (true, c.is_multiple_of(b * b))
    } else {
        (false, h.is_multiple_of(b) && w.is_multiple_of(b))
    };
    match (fits, to_space) {
        (false, _) => Err(format!("has blocks of {b} for an input of shape {shape:?}")),
        (true, true) => {
            Ok(vec![n, c / (b * b), h.checked_mul(b).ok_or("is too large")?, w.checked_mul(b).ok_or("is too large")?])
        }
        (true, false) => Ok(vec![n, c.checked_mul(b * b).ok_or("is too large")?, h / b, w / b]),
    }
}

fn reduced(facts: &NodeFacts<'_>, axes: Option<Vec<i64>>) -> Result<Vec<usize>, String> {
    let shape = facts.shape(0)?;
    let rank = shape.len();
    let nothing = facts.node().int("noop_with_empty_axes", 0) == 1;
    let gone: Vec<usize> = match axes {
        Some(axes) if !axes.is_empty() => axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?,
        _ if nothing => return Ok(shape.to_vec()),
        _ => (0..rank).collect(),
    };
    let keeps = facts.node().int("keepdims", 1) != 0;
    let of = |axis: usize| match (gone.contains(&axis), keeps) {
        (true, true) => Some(1),
        (true, false) => None,
        (false, _) => Some(shape[axis]),
    };
    Ok((0..rank).filter_map(of).collect())
}
