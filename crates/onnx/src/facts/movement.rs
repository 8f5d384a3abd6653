//! Operations that only move elements: carried out alike on numbers, on channel labels, and on shapes.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice, concatenate};

use super::extents::{axis_of, broadcast, elements};
use super::known::NodeFacts;
use crate::schema::NodeProto;

/// What a node does to the places of its first input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Movement {
    /// Reshape, Flatten, Squeeze, Unsqueeze: the same elements in rows of other lengths; the new shape.
    Reshape(Vec<usize>),
    /// Axes in another order.
    Transpose(Vec<usize>),
    /// Parts of some axes.
    Slice(Vec<AxisRange>),
    /// Chosen places of an axis, which becomes as many axes as the indices have.
    Gather {
        /// Along which axis.
        axis: usize,
        /// Shape of the indices.
        extents: Vec<usize>,
        /// The indices.
        indices: Vec<usize>,
    },
    /// Axes of one element repeated; the new shape.
    Expand(Vec<usize>),
    /// All axes repeated so many times.
    Tile(Vec<usize>),
}

/// `count` places of an axis, from `start` in steps of `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisRange {
    /// The axis.
    pub axis: usize,
    /// The first place.
    pub start: usize,
    /// From place to place; negative where it goes backwards.
    pub step: isize,
    /// How many places.
    pub count: usize,
}

impl Movement {
    /// What the node does, if it only moves elements.
    ///
    /// # Errors
    /// An axis that is not there, positions that are not known.
    pub fn of(node: &NodeProto, facts: &NodeFacts<'_>) -> Result<Option<Self>, String> {
        let moves = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand", "Tile"];
        if matches!(node.op_type(), "Identity" | "Dropout") {
            return Ok(Some(Self::Reshape(facts.shape(0)?.to_vec())));
        }
        if !moves.contains(&node.op_type()) {
            return Ok(None);
        }
        let shape = facts.shape(0)?;
        Ok(Some(match node.op_type() {
            "Reshape" => Self::Reshape(reshape(shape, &facts.integers(1)?, node.int("allowzero", 0) == 1)?),
            "Flatten" => {
                let axis = node.int("axis", 1);
                let at = if axis == shape.len() as i64 { shape.len() } else { axis_of(axis, shape.len())? };
                Self::Reshape(vec![shape[..at].iter().product(), shape[at..].iter().product()])
            }
            "Squeeze" => Self::Reshape(squeeze(shape, axes(node, facts)?)?),
            "Unsqueeze" => Self::Reshape(unsqueeze(shape, &axes(node, facts)?.ok_or("lacks its axes")?)?),
            "Transpose" => {
                let rank = shape.len();
                let backwards = || (0..rank as i64).rev().collect::<Vec<_>>();
                let perm = node.ints("perm").map_or_else(backwards, <[i64]>::to_vec);
                let perm: Vec<usize> = perm.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
                let is_order = (0..rank).all(|axis| perm.contains(&axis));
                if perm.len() != rank || !is_order {
                    return Err(format!("has the order {perm:?} for {rank} axes"));
                }
                Self::Transpose(perm)
            }
            "Slice" => Self::Slice(slice(node, facts, shape)?),
            "Gather" => {
                let axis = axis_of(node.int("axis", 0), shape.len())?;
                let n = *shape.get(axis).ok_or("has no axis to choose from")?;
                let wrap = |i: &i64| axis_of(*i, n).map_err(|_| format!("has no place {i}: its axis has {n}"));
                let indices = facts.integers(1)?.iter().map(wrap).collect::<Result<_, _>>()?;
                Self::Gather { axis, extents: facts.shape(1)?.to_vec(), indices }
            }
            "Expand" => {
                let wanted: Vec<usize> = positive(&facts.integers(1)?)?;
                Self::Expand(broadcast(&[shape, &wanted])?)
            }
            _ => Self::Tile(positive(&facts.integers(1)?)?),
        }))
    }

    /// Shape of what comes out.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn shape(&self, shape: &[usize]) -> Result<Vec<usize>, String> {
        let mut out = shape.to_vec();
        match self {
            Self::Reshape(to) if elements(to)? == elements(shape)? => out.clone_from(to),
            Self::Reshape(to) => return Err(format!("makes {to:?} of {shape:?}, which has other elements")),
            Self::Transpose(perm) => out = perm.iter().map(|&axis| shape[axis]).collect(),
            Self::Slice(ranges) => ranges.iter().for_each(|range| out[range.axis] = range.count),
            Self::Gather { axis, extents, .. } => {
                out.splice(axis..=axis, extents.iter().copied());
            }
            Self::Expand(to) => out.clone_from(to),
            Self::Tile(times) if times.len() == shape.len() => {
                out = shape
                    .iter()
                    .zip(times)
                    .map(|(&d, &t)| d.checked_mul(t))
                    .collect::<Option<_>>()
                    .ok_or("is too large")?;
            }
            Self::Tile(times) => return Err(format!("repeats {} axes of {}", times.len(), shape.len())),
        }
        elements(&out).map(|_| out)
    }

    /// Moves the elements of an array whose axes are all whole.
    pub fn apply<T: Clone>(&self, x: ArrayViewD<'_, T>) -> Result<ArrayD<T>, String> {
        let fail = |e: ndarray::ShapeError| e.to_string();
        Ok(match self {
            Self::Reshape(to) => x.as_standard_layout().into_owned().into_shape_with_order(IxDyn(to)).map_err(fail)?,
            Self::Transpose(perm) => x.permuted_axes(IxDyn(perm)).as_standard_layout().into_owned(),
            Self::Slice(ranges) => {
                let mut x = x.to_owned();
                for range in ranges {
                    x = x.select(Axis(range.axis), &range.places());
                }
                x
            }
            Self::Gather { axis, extents, indices } => {
                let mut shape = x.shape().to_vec();
                shape.splice(*axis..=*axis, extents.iter().copied());
                // What is chosen along a later axis does not lie row by row.
                let chosen = x.select(Axis(*axis), indices).as_standard_layout().into_owned();
                chosen.into_shape_with_order(IxDyn(&shape)).map_err(fail)?
            }
            Self::Expand(to) => x.broadcast(IxDyn(to)).ok_or("cannot be broadcast")?.to_owned(),
            Self::Tile(times) => {
                let mut x = x.to_owned();
                for (axis, &n) in times.iter().enumerate().filter(|&(_, &n)| n != 1) {
                    let copies = vec![x.view(); n];
                    x = concatenate(Axis(axis), &copies).map_err(fail)?;
                }
                x
            }
        })
    }
}

impl AxisRange {
    /// The places, in order.
    pub fn places(&self) -> Vec<usize> {
        (0..self.count as isize).map(|i| (self.start as isize + i * self.step) as usize).collect()
    }
}

/// Part of an array along one axis.
pub fn part<T: Clone>(x: &ArrayD<T>, axis: usize, from: usize, n: usize) -> ArrayD<T> {
    x.slice_axis(Axis(axis), Slice::from(from..from + n)).to_owned()
}

fn positive(values: &[i64]) -> Result<Vec<usize>, String> {
    let all = values.iter().map(|&v| usize::try_from(v).ok()).collect::<Option<_>>();
    all.ok_or_else(|| format!("has negative sizes {values:?}"))
}

/// Axes as an attribute, or, in later operator sets, as an input; none where neither is given.
pub fn axes(node: &NodeProto, facts: &NodeFacts<'_>) -> Result<Option<Vec<i64>>, String> {
    match node.ints("axes") {
        Some(axes) => Ok(Some(axes.to_vec())),
        None if facts.is_given(1) => facts.integers(1).map(Some),
        None => Ok(None),
    }
}

fn reshape(shape: &[usize], wanted: &[i64], allow_zero: bool) -> Result<Vec<usize>, String> {
    let mut out = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (axis, &extent) in wanted.iter().enumerate() {
        out.push(match extent {
            0 if !allow_zero => *shape.get(axis).ok_or("copies an extent that its input does not have")?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            n => usize::try_from(n).map_err(|_| format!("has the shape {wanted:?}"))?,
        });
    }
    if let Some(axis) = open {
        let (all, rest) = (elements(shape)?, elements(&out)?);
        out[axis] = all
            .checked_div(rest)
            .filter(|n| n * rest == all)
            .ok_or_else(|| format!("cannot make {wanted:?} of {shape:?}"))?;
    }
    Ok(out)
}

fn squeeze(shape: &[usize], axes: Option<Vec<i64>>) -> Result<Vec<usize>, String> {
    let Some(axes) = axes else { return Ok(shape.iter().copied().filter(|&d| d != 1).collect()) };
    let gone: Vec<usize> = axes.iter().map(|&a| axis_of(a, shape.len())).collect::<Result<_, _>>()?;
    if gone.iter().any(|&axis| shape[axis] != 1) {
        return Err(format!("squeezes axes {axes:?} of {shape:?}"));
    }
    Ok(shape.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, &d)| d).collect())
}

fn unsqueeze(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let rank = shape.len() + axes.len();
    let new: Vec<usize> = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?;
    let mut old = shape.iter();
    let out: Option<Vec<usize>> =
        (0..rank).map(|axis| if new.contains(&axis) { Some(1) } else { old.next().copied() }).collect();
    out.ok_or_else(|| format!("has an axis twice in {axes:?}"))
}

fn slice(node: &NodeProto, facts: &NodeFacts<'_>, shape: &[usize]) -> Result<Vec<AxisRange>, String> {
    let list = |i: usize, name: &str| match node.ints(name) {
        Some(values) => Ok(Some(values.to_vec())),
        None if facts.is_given(i) => facts.integers(i).map(Some),
        None => Ok(None),
    };
    let starts = list(1, "starts")?.ok_or("lacks its starts")?;
    let ends = list(2, "ends")?.ok_or("lacks its ends")?;
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("has unlike numbers of starts, ends, axes and steps".into());
    }
    let ranges = (0..starts.len()).map(|i| {
        let axis = axis_of(axes[i], shape.len())?;
        let n = *shape.get(axis).ok_or("has no axis to slice")?;
        axis_range(axis, n, [starts[i], ends[i], steps[i]])
    });
    ranges.collect()
}

/// Start, end and step as ONNX clamps them to an axis of `n` places.
fn axis_range(axis: usize, n: usize, [start, end, step]: [i64; 3]) -> Result<AxisRange, String> {
    let n = n as i64;
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    if step == 0 {
        return Err("has a step of 0".into());
    }
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, n), from_end(end).clamp(0, n))
    } else {
        (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1))
    };
    let span = if step > 0 { end - start } else { start - end };
    let by = i64::try_from(step.unsigned_abs()).unwrap_or(i64::MAX);
    let count = if span <= 0 { 0 } else { (span - 1) / by + 1 };
    // A single place needs no step, which then may be beyond any tensor.
    let step = if count > 1 { step as isize } else { 1 };
    Ok(AxisRange { axis, start: start.max(0) as usize, step, count: count as usize })
}
