//! Labels of a tensor as an array of its own rank, in which axes that make no difference have extent one.

use ndarray::{ArrayD, Axis, IxDyn};

use super::Classes;

/// A label at every place of a tensor; axes along which it is the same have extent 1.
pub type LabelArray = ArrayD<u32>;

/// More places than this are not labelled one by one: what makes them is frozen instead.
pub const PLACES_MAX: usize = 1 << 24;

/// An array that varies along one axis at most.
pub fn along(labels: Vec<u32>, axis: usize, rank: usize) -> LabelArray {
    let mut shape = vec![1; rank];
    shape[axis] = labels.len();
    ArrayD::from_shape_vec(IxDyn(&shape), labels).expect("one axis holds all labels")
}

/// Axes along which labels differ.
pub fn varying(labels: &LabelArray) -> Vec<usize> {
    (0..labels.ndim()).filter(|&axis| labels.shape()[axis] > 1).collect()
}

/// With every axis at full extent.
pub fn whole(labels: &LabelArray, shape: &[usize]) -> Result<LabelArray, String> {
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= PLACES_MAX);
    n.ok_or_else(|| format!("has more than {PLACES_MAX} places to follow"))?;
    labels.broadcast(IxDyn(shape)).map(|all| all.to_owned()).ok_or_else(|| "has another shape than its labels".into())
}

/// Without axes along which labels are the same; labels become those of their classes.
pub fn compress(mut labels: LabelArray, classes: &mut Classes) -> LabelArray {
    labels.mapv_inplace(|label| classes.root(label));
    for axis in 0..labels.ndim() {
        if labels.shape()[axis] > 1 {
            let first = labels.index_axis(Axis(axis), 0);
            if labels.axis_iter(Axis(axis)).skip(1).all(|other| other == first) {
                labels = first.to_owned().insert_axis(Axis(axis));
            }
        }
    }
    labels
}

/// Joins labels until they differ along one axis only: what is removed from a tensor must be whole rows of one axis.
pub fn join_to_one_axis(labels: LabelArray, classes: &mut Classes) -> LabelArray {
    let labels = compress(labels, classes);
    let axes = varying(&labels);
    let Some(&longest) = axes.iter().max_by_key(|&&axis| labels.shape()[axis]) else { return labels };
    if axes.len() == 1 {
        return labels;
    }
    for axis in axes.into_iter().filter(|&axis| axis != longest) {
        let first = labels.index_axis(Axis(axis), 0);
        for other in labels.axis_iter(Axis(axis)).skip(1) {
            ndarray::Zip::from(&first).and(&other).for_each(|&a, &b| classes.join(a, b));
        }
    }
    compress(labels, classes)
}

/// Labels along one axis, one for each of its `n` places.
///
/// # Errors
/// Labels that differ along another axis.
pub fn on_axis(labels: &LabelArray, axis: usize, n: usize) -> Result<Vec<u32>, String> {
    if labels.len() == 1 && n > PLACES_MAX {
        return Err("has more channels than any network has".into());
    }
    let elsewhere = varying(labels).into_iter().any(|a| a != axis);
    if elsewhere {
        return Err("reads channels along another axis than it works on".into());
    }
    Ok(if labels.len() == 1 {
        vec![labels.iter().copied().next().unwrap_or(0); n]
    } else {
        labels.iter().copied().collect()
    })
}
