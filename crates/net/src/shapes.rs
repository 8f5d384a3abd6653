//! Shape inference and the structural rules of a graph.

use std::collections::HashSet;

use crate::graph_fields::shown;
use crate::maps::{
    broadcast_shape, channel_conv_shape, depth_to_space_shape, group_norm_shape, local_response_shape, part_shape,
    resized_shape,
};
use crate::{Conv2d, NetError, Node, Op, Shape};

/// Largest tensor (elements per image) and hence largest dimension a graph may have: a hostile file must not make us
/// allocate without bound.
const MAX_ELEMENTS: usize = 1 << 28;
/// Most nodes of a graph; the largest networks in use have a few thousand.
pub const MAX_NODES: usize = 1 << 18;
/// Most inputs of all nodes together.
pub const MAX_CONNECTIONS: usize = 1 << 20;

/// Output shape of every node.
///
/// # Errors
/// The first node that breaks a rule.
pub fn infer(input: Shape, nodes: &[Node]) -> Result<Vec<Shape>, NetError> {
    check_size(nodes)?;
    let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
    let mut names = HashSet::new();
    let mut macs = Some(0u64);
    for (id, node) in nodes.iter().enumerate() {
        let fail = |problem: String| NetError::Malformed { node: shown(&node.name), problem };
        if node.name.is_empty() || !names.insert(node.name.as_str()) {
            return Err(fail(format!("node {id} has an empty or repeated name")));
        }
        check_inputs(id, node).map_err(fail)?;
        let ins: Vec<Shape> = node.inputs.iter().map(|&i| shapes[i]).collect();
        let shape = if id == 0 { Ok(input) } else { output_shape(&node.op, &ins) };
        let shape = shape.map_err(|problem| fail(format!("{}: {problem}", node.op.name())))?;
        let n = shape.c.checked_mul(shape.h).and_then(|n| n.checked_mul(shape.w));
        if !n.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n)) {
            let problem = format!("output shape {shape} is empty or too large; expected 1 to {MAX_ELEMENTS} values");
            return Err(fail(problem));
        }
        macs = macs.zip(node_macs(&node.op, &ins, shape)).and_then(|(sum, macs)| sum.checked_add(macs));
        if macs.is_none() {
            return Err(fail("the multiply-accumulates up to here are more than 64 bits count".into()));
        }
        shapes.push(shape);
    }
    check_all_are_read(nodes)?;
    Ok(shapes)
}

fn check_size(nodes: &[Node]) -> Result<(), NetError> {
    let malformed = |problem: String| Err(NetError::Malformed { node: "graph".into(), problem });
    if nodes.len() < 2 {
        return malformed("has no operation after its input".into());
    }
    let n_connections: usize = nodes.iter().map(|node| node.inputs.len()).sum();
    if nodes.len() > MAX_NODES || n_connections > MAX_CONNECTIONS {
        let got = format!("got {} with {n_connections}", nodes.len());
        return malformed(format!("expected at most {MAX_NODES} nodes with {MAX_CONNECTIONS} inputs together, {got}"));
    }
    Ok(())
}

fn check_inputs(id: usize, node: &Node) -> Result<(), String> {
    if matches!(node.op, Op::Input) != (id == 0) {
        return Err("the input must be node 0 and only node 0".into());
    }
    let (fits, expected) = match node.op {
        Op::Input => (node.inputs.is_empty(), "no input"),
        Op::Add | Op::Mul | Op::Max | Op::Min | Op::Concat => (node.inputs.len() >= 2, "at least 2 inputs"),
        Op::Conv2d(_)
        | Op::BatchNorm { .. }
        | Op::Linear { .. }
        | Op::PRelu { .. }
        | Op::Pointwise(_)
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::FlattenPixels
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Resize { .. }
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::ConvTranspose2d(_)
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
        | Op::LocalResponseNorm { .. }
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => (node.inputs.len() == 1, "1 input"),
    };
    if !fits {
        return Err(format!("{} takes {expected}, got {}", node.op.name(), node.inputs.len()));
    }
    match node.inputs.iter().find(|&&i| i >= id) {
        Some(late) => Err(format!("reads node {late}, which does not come before it (it is node {id})")),
        None => Ok(()),
    }
}

fn check_all_are_read(nodes: &[Node]) -> Result<(), NetError> {
    let mut read = vec![false; nodes.len()];
    nodes.iter().flat_map(|n| &n.inputs).for_each(|&i| read[i] = true);
    match (0..nodes.len() - 1).find(|&i| !read[i]) {
        Some(dead) => {
            let node = shown(&nodes[dead].name);
            Err(NetError::Malformed { node, problem: "its output is read by no node".into() })
        }
        None => Ok(()),
    }
}

/// Multiply-accumulates per image of an operation with this output; `None` when 64 bits are too few.
fn node_macs(op: &Op, inputs: &[Shape], output: Shape) -> Option<u64> {
    let product = |factors: &[usize]| factors.iter().try_fold(1u64, |n, &factor| n.checked_mul(factor as u64));
    match op {
        Op::Conv2d(c) => product(&[output.len(), c.in_channels / c.groups, c.kernel[0], c.kernel[1]]),
        Op::Linear { in_features, out_features, .. } => product(&[*in_features, *out_features]),
        Op::ConvTranspose2d(c) => product(&[inputs[0].len(), c.out_channels / c.groups, c.kernel[0], c.kernel[1]]),
        Op::ChannelConv { taps, .. } => product(&[output.len(), *taps]),
        Op::Input
        | Op::BatchNorm { .. }
        | Op::PRelu { .. }
        | Op::Pointwise(_)
        | Op::Add
        | Op::Concat
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Mul
        | Op::FlattenPixels
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Resize { .. }
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::GroupNorm { .. }
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => Some(0),
    }
}

fn list(shapes: &[Shape]) -> String {
    let shown = shapes.iter().take(8).map(Shape::to_string).collect::<Vec<_>>().join(", ");
    if shapes.len() > 8 { format!("{shown} and {} more", shapes.len() - 8) } else { shown }
}

/// What slides over rows and columns.
struct Sliding<'a> {
    kernel: &'a [usize; 2],
    stride: &'a [usize; 2],
    padding: &'a [usize; 2],
    dilation: &'a [usize; 2],
}

impl Sliding<'_> {
    /// Rows and columns of what comes out.
    fn over(&self, x: Shape) -> Result<[usize; 2], String> {
        let Self { kernel, stride, padding, dilation } = self;
        for (key, values) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if values.contains(&0) {
                return Err(format!("{key} {values:?}: expected at least 1 in both directions"));
            }
        }
        let extent = |axis: usize, size: usize| {
            let reach = dilation[axis].checked_mul(kernel[axis] - 1)?.checked_add(1)?;
            let padded = padding[axis].checked_mul(2)?.checked_add(size)?;
            Some((padded, reach))
        };
        // As many weights as that make a filter.
        let (Some(rows), Some(cols), Some(_)) = (extent(0, x.h), extent(1, x.w), kernel[0].checked_mul(kernel[1]))
        else {
            let window = format!("kernel {kernel:?}, padding {padding:?}, dilation {dilation:?}");
            return Err(format!("{window}: more pixels than 64 bits count"));
        };
        for (axis, (padded, reach)) in [("rows", rows), ("columns", cols)] {
            if padded < reach {
                let window = format!("kernel {kernel:?} (dilation {dilation:?}) spans {reach} {axis}");
                return Err(format!("{window}, its input {x} with padding {padding:?} has {padded}"));
            }
        }
        Ok([(rows.0 - rows.1) / stride[0] + 1, (cols.0 - cols.1) / stride[1] + 1])
    }
}

fn conv_shape(conv: &Conv2d, x: Shape) -> Result<Shape, String> {
    let Conv2d { in_channels, out_channels, kernel, stride, padding, dilation, groups, .. } = conv;
    if x.c != *in_channels {
        return Err(format!("reads {in_channels} channels, its input {x} has {}", x.c));
    }
    if *groups == 0 || !in_channels.is_multiple_of(*groups) || !out_channels.is_multiple_of(*groups) {
        return Err(format!("{groups} groups do not divide {in_channels} input and {out_channels} output channels"));
    }
    let [h, w] = Sliding { kernel, stride, padding, dilation }.over(x)?;
    Ok(Shape { c: *out_channels, h, w })
}

/// Shape of what an operation makes of inputs of these shapes.
///
/// # Errors
/// Why it cannot read them: a predicate without the node's name.
pub fn output_shape(op: &Op, ins: &[Shape]) -> Result<Shape, String> {
    let x = *ins.first().ok_or("reads nothing")?;
    let too_large = || format!("64 bits are too few for its output, of input {x}");
    match op {
        Op::Input => Err("the input reads nothing".into()),
        Op::Conv2d(conv) => conv_shape(conv, x),
        Op::BatchNorm { channels, .. } if *channels != x.c => {
            Err(format!("normalises {channels} channels, its input {x} has {}", x.c))
        }
        Op::PRelu { channels } if *channels != x.c => {
            Err(format!("has slopes of {channels} channels, its input {x} has {}", x.c))
        }
        Op::BatchNorm { eps, .. } if !(*eps >= 0.0 && eps.is_finite()) => {
            Err(format!("eps is {eps}, expected a finite number from 0"))
        }
        Op::Linear { .. } if (x.h, x.w) != (1, 1) => {
            Err(format!("reads one pixel, its input is {x}; put a Flatten or GlobalAvgPool in front"))
        }
        Op::Linear { in_features, .. } if *in_features != x.c => {
            Err(format!("reads {in_features} features, its input has {}", x.c))
        }
        Op::Linear { out_features, .. } => Ok(Shape { c: *out_features, h: 1, w: 1 }),
        Op::Pointwise(function) => function.check().map(|()| x),
        Op::BatchNorm { .. } | Op::PRelu { .. } | Op::Softmax | Op::Identity => Ok(x),
        Op::Add => broadcast_shape(ins).map_err(|rule| format!("adds unlike shapes {}; {rule}", list(ins))),
        Op::Mul => broadcast_shape(ins).map_err(|rule| format!("multiplies unlike shapes {}; {rule}", list(ins))),
        Op::Max | Op::Min => {
            broadcast_shape(ins).map_err(|rule| format!("compares unlike shapes {}; {rule}", list(ins)))
        }
        Op::ChannelShuffle { groups } if *groups == 0 || !x.c.is_multiple_of(*groups) => {
            Err(format!("{groups} groups do not divide the {} channels of its input", x.c))
        }
        Op::DepthToSpace { block, .. } => depth_to_space_shape(*block, x),
        Op::Resize { rows, cols } => resized_shape(rows, cols, x),
        Op::LayerNorm { channels, .. } if *channels != x.c => {
            Err(format!("normalises {channels} channels, its input {x} has {}", x.c))
        }
        // A pixel whose channels are all the same has no variance.
        Op::LayerNorm { eps, .. } if !(*eps > 0.0 && eps.is_finite()) => {
            Err(format!("eps is {eps}, expected a finite number above 0"))
        }
        Op::LayerNorm { .. } | Op::ChannelShuffle { .. } => Ok(x),
        Op::Concat if ins.iter().any(|s| (s.h, s.w) != (x.h, x.w)) => {
            Err(format!("joins channels of unlike rows and columns {}", list(ins)))
        }
        Op::Concat => {
            let c = ins.iter().try_fold(0usize, |n, s| n.checked_add(s.c)).ok_or_else(too_large)?;
            Ok(Shape { c, ..x })
        }
        Op::MaxPool(window) | Op::AvgPool(window) => window.over(x).map(|[h, w]| Shape { c: x.c, h, w }),
        Op::ConvTranspose2d(conv) => conv.over(x),
        Op::ChannelConv { taps, front, .. } => channel_conv_shape(*taps, *front, x),
        Op::GroupNorm { channels, groups, eps } => group_norm_shape(*channels, *groups, *eps, x),
        Op::LocalResponseNorm { size, alpha, beta, bias } => local_response_shape(*size, [*alpha, *beta, *bias], x),
        Op::BranchSum { branches } => part_shape("branches", *branches, x),
        Op::BranchSoftmax { branches } => part_shape("branches", *branches, x).map(|_| x),
        Op::ChannelMean | Op::ChannelMax => Ok(Shape { c: 1, ..x }),
        Op::GlobalAvgPool | Op::GlobalMaxPool => Ok(Shape { c: x.c, h: 1, w: 1 }),
        Op::Flatten | Op::FlattenPixels => {
            let n = x.c.checked_mul(x.h).and_then(|n| n.checked_mul(x.w)).ok_or_else(too_large)?;
            Ok(Shape { c: n, h: 1, w: 1 })
        }
        Op::Pad { channels, rows, cols } => {
            let grow = |n: usize, by: &[usize; 2]| n.checked_add(by[0])?.checked_add(by[1]);
            let grown = grow(x.c, channels).zip(grow(x.h, rows)).zip(grow(x.w, cols));
            let ((c, h), w) = grown.ok_or_else(too_large)?;
            Ok(Shape { c, h, w })
        }
        Op::Slice { channels: [from, to], step } => {
            if from >= to || *to > x.c || step.contains(&0) {
                let expected = format!("expected a range within the {} channels and steps of at least 1", x.c);
                return Err(format!("takes channels {from} to {to} in steps {step:?}; {expected}"));
            }
            Ok(Shape { c: to - from, h: x.h.div_ceil(step[0]), w: x.w.div_ceil(step[1]) })
        }
    }
}
