//! Shape inference and the structural rules of a graph.

use std::collections::HashSet;

use crate::{Conv2d, NetError, Node, Op, Shape};

/// Largest tensor (elements per image) and largest dimension a graph may have: a hostile file must not make us allocate without bound.
const MAX_ELEMENTS: usize = 1 << 28;

/// Output shape of every node.
///
/// # Errors
/// The first node that breaks a rule.
pub fn infer(input: Shape, nodes: &[Node]) -> Result<Vec<Shape>, NetError> {
    let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
    let mut names = HashSet::new();
    if nodes.len() < 2 {
        return Err(malformed("graph", "has no operation after its input"));
    }
    for (id, node) in nodes.iter().enumerate() {
        let fail = |problem: String| NetError::Malformed { node: node.name.clone(), problem };
        if node.name.is_empty() || !names.insert(node.name.as_str()) {
            return Err(fail(format!("node {id} has an empty or repeated name")));
        }
        if matches!(node.op, Op::Input) != (id == 0) {
            return Err(fail("the input must be node 0 and only node 0".into()));
        }
        let arity = match node.op {
            Op::Input => 0..=0,
            Op::Add | Op::Concat => 2..=usize::MAX,
            _ => 1..=1,
        };
        if !arity.contains(&node.inputs.len()) {
            return Err(fail(format!("{} takes {arity:?} inputs, got {}", node.op.name(), node.inputs.len())));
        }
        if let Some(&late) = node.inputs.iter().find(|&&i| i >= id) {
            return Err(fail(format!("reads node {late}, which does not come before it")));
        }
        let ins: Vec<Shape> = node.inputs.iter().map(|&i| shapes[i]).collect();
        let shape = if id == 0 { Some(input) } else { output_shape(&node.op, &ins) };
        let shape = shape.ok_or_else(|| fail(format!("{:?} cannot read input of shape {}", node.op, list(&ins))))?;
        let n = shape.c.checked_mul(shape.h).and_then(|n| n.checked_mul(shape.w));
        if !n.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n)) {
            return Err(fail(format!("output shape {shape} is empty or too large")));
        }
        shapes.push(shape);
    }
    let mut read = vec![false; nodes.len()];
    nodes.iter().flat_map(|n| &n.inputs).for_each(|&i| read[i] = true);
    if let Some(dead) = (0..nodes.len() - 1).find(|&i| !read[i]) {
        return Err(malformed(&nodes[dead].name, "its output is read by no node"));
    }
    Ok(shapes)
}

fn malformed(node: &str, problem: &str) -> NetError {
    NetError::Malformed { node: node.into(), problem: problem.into() }
}

fn list(shapes: &[Shape]) -> String {
    shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ")
}

/// Extent after sliding a window; `None` when the window does not fit.
fn slide(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let reach = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let span = size.checked_add(padding.checked_mul(2)?)?.checked_sub(reach)?;
    (stride > 0 && dilation > 0).then(|| span / stride + 1)
}

fn conv_shape(c: &Conv2d, x: Shape) -> Option<Shape> {
    let divides = c.groups > 0 && c.in_channels.is_multiple_of(c.groups) && c.out_channels.is_multiple_of(c.groups);
    if x.c != c.in_channels || c.out_channels == 0 || !divides {
        return None;
    }
    let h = slide(x.h, c.kernel[0], c.stride[0], c.padding[0], c.dilation[0])?;
    let w = slide(x.w, c.kernel[1], c.stride[1], c.padding[1], c.dilation[1])?;
    Some(Shape { c: c.out_channels, h, w })
}

fn output_shape(op: &Op, ins: &[Shape]) -> Option<Shape> {
    let x = *ins.first()?;
    match op {
        Op::Input => None,
        Op::Conv2d(c) => conv_shape(c, x),
        Op::BatchNorm { channels, eps } => (*channels == x.c && *eps >= 0.0 && eps.is_finite()).then_some(x),
        Op::Linear { in_features, out_features, .. } => {
            (x.c == *in_features && x.h == 1 && x.w == 1).then_some(Shape { c: *out_features, h: 1, w: 1 })
        }
        Op::Pointwise(_) | Op::Softmax | Op::Identity => Some(x),
        Op::Add => ins.iter().all(|&s| s == x).then_some(x),
        Op::Concat => {
            let same = ins.iter().all(|s| (s.h, s.w) == (x.h, x.w));
            let c = ins.iter().try_fold(0usize, |n, s| n.checked_add(s.c))?;
            same.then_some(Shape { c, ..x })
        }
        Op::MaxPool(p) | Op::AvgPool(p) => {
            // Padding of more than half a window would leave windows without a pixel.
            let fits = (0..2).all(|i| p.padding[i] <= p.kernel[i] / 2);
            let h = slide(x.h, p.kernel[0], p.stride[0], p.padding[0], 1)?;
            let w = slide(x.w, p.kernel[1], p.stride[1], p.padding[1], 1)?;
            fits.then_some(Shape { c: x.c, h, w })
        }
        Op::GlobalAvgPool => Some(Shape { c: x.c, h: 1, w: 1 }),
        Op::Flatten => Some(Shape { c: x.c.checked_mul(x.h)?.checked_mul(x.w)?, h: 1, w: 1 }),
        Op::Pad { channels, rows, cols } => {
            let grow = |n: usize, by: &[usize; 2]| n.checked_add(by[0])?.checked_add(by[1]);
            Some(Shape { c: grow(x.c, channels)?, h: grow(x.h, rows)?, w: grow(x.w, cols)? })
        }
        Op::Slice { channels: [from, to], step } => (from < to && *to <= x.c && step[0] > 0 && step[1] > 0)
            .then(|| Shape { c: to - from, h: x.h.div_ceil(step[0]), w: x.w.div_ceil(step[1]) }),
    }
}
