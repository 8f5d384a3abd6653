//! Shapes by themselves: axes, elements, broadcasting.

/// An axis counted from the end where it is negative.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let wanted = if axis < 0 { axis + rank as i64 } else { axis };
    let found = usize::try_from(wanted).ok().filter(|&a| a < rank.max(1));
    found.ok_or_else(|| format!("has no axis {axis}: its input has {rank}"))
}

/// More axes than this has no network.
const RANK_MAX: usize = 16;

/// Number of elements, if memory can hold as many.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    if shape.len() > RANK_MAX {
        return Err(format!("has {} axes, more than {RANK_MAX}", shape.len()));
    }
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|n| n.checked_mul(8).is_some());
    n.ok_or_else(|| format!("has a shape {shape:?} that no tensor has"))
}

/// The shape that shapes are broadcast to.
///
/// # Errors
/// Extents that differ where neither is one.
pub fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (axis, &extent) in shape.iter().enumerate() {
            let at = &mut out[rank - shape.len() + axis];
            if *at == 1 {
                *at = extent;
            } else if extent != 1 && extent != *at {
                return Err(format!("combines unlike shapes {shapes:?}"));
            }
        }
    }
    elements(&out).map(|_| out)
}
