//! Gathering a tensor's elements from its storage, however they are strewn.

use std::borrow::Cow;

use secateur_net::Tensor;

use crate::FileProblem;
use crate::memory_budget::MemoryBudget;
use crate::pickle::TensorRef;

/// The elements of `tensor` in row-major order as f32. `storage` holds the whole storage.
///
/// # Errors
/// Elements outside the storage, an integer type, or more elements than the budget allows; `name` is the tensor's.
pub(crate) fn gather(
    name: &str,
    tensor: &TensorRef,
    storage: &[u8],
    budget: &mut MemoryBudget,
) -> Result<Tensor, FileProblem> {
    let fail = |problem: String| FileProblem::malformed("state dict", format!("tensor '{name}' {problem}"));
    let (shape, place) = (&tensor.shape, tensor.storage);
    let size = place.element.size();
    if place.n_elements.checked_mul(size) != Some(storage.len()) {
        return Err(fail(format!("expects a storage of {} elements, got {} bytes", place.n_elements, storage.len())));
    }
    let part = &storage[place.start * size..(place.start + place.length) * size];
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let n = n.ok_or_else(|| fail(format!("of shape {shape:?} is larger than memory")))?;
    let end = end(tensor, n).filter(|&end| end <= place.length);
    let end = end.ok_or_else(|| {
        let TensorRef { offset, stride, .. } = tensor;
        fail(format!(
            "of shape {shape:?} with strides {stride:?} from {offset} exceeds its storage of {}",
            place.length
        ))
    })?;
    budget.spend(n.saturating_mul(4 + size), &format!("tensor '{name}'"))?;
    let elements = match n {
        0 => Cow::Borrowed(&part[..0]),
        _ if is_dense(tensor) => Cow::Borrowed(&part[tensor.offset * size..end * size]),
        _ => Cow::Owned(copy_strided(tensor, part, n)),
    };
    let data = place.element.decode(&elements).map_err(|element| {
        fail(format!("holds {element}; expected floating-point parameters (F64, F32, F16 or BF16)"))
    })?;
    Ok(Tensor::new(shape.clone(), data)?)
}

/// One past the last element read, of a tensor with `n` elements.
fn end(tensor: &TensorRef, n: usize) -> Option<usize> {
    if n == 0 {
        return Some(0);
    }
    let dimensions = tensor.shape.iter().zip(&tensor.stride);
    let last =
        dimensions.into_iter().try_fold(tensor.offset, |at, (&d, &s)| at.checked_add((d - 1).checked_mul(s)?))?;
    last.checked_add(1)
}

/// Whether the elements follow one another in row-major order.
fn is_dense(tensor: &TensorRef) -> bool {
    let mut expected = 1;
    tensor.shape.iter().zip(&tensor.stride).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected *= d;
        fits
    })
}

/// The bytes of `n` elements in row-major order; `end` has shown that all lie in `part`.
fn copy_strided(tensor: &TensorRef, part: &[u8], n: usize) -> Vec<u8> {
    let size = tensor.storage.element.size();
    let mut out = Vec::with_capacity(n * size);
    let mut index = vec![0; tensor.shape.len()];
    let mut at = tensor.offset;
    for _ in 0..n {
        out.extend_from_slice(&part[at * size..(at + 1) * size]);
        // Counts up like an odometer, the last dimension fastest; every product below is one that `end` has checked.
        for axis in (0..index.len()).rev() {
            let (d, stride) = (tensor.shape[axis], tensor.stride[axis]);
            if index[axis] + 1 < d {
                index[axis] += 1;
                at += stride;
                break;
            }
            index[axis] = 0;
            at -= (d - 1) * stride;
        }
    }
    out
}
