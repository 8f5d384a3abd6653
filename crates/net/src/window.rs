//! Windows of pooling: where they lie, how many there are, and what an average divides by.

use std::ops::Range;

use serde::{Serialize, Serializer};

use crate::Shape;

/// A pooling window. The first begins with the padding in front of the image, the next a stride further.
///
/// # Example
/// ```
/// use secateur_net::{GraphBuilder, Op, Shape, Window};
///
/// // A row of six pixels, in windows of three with a step of two, one pixel of padding at both ends.
/// let window = Window::new([1, 3], [1, 2], [0, 1]);
/// assert_eq!([0, 1, 2].map(|at| window.inside(1, at, 6)), [0..2, 1..4, 3..6]);
/// // The last pixel of padding makes a fourth window where a part of one is enough.
/// let window = Window { ceil: true, ..window };
/// let mut builder = GraphBuilder::new(Shape { c: 1, h: 1, w: 6 });
/// let pool = builder.push("pool", Op::AvgPool(window.clone()), &[0]);
/// assert_eq!(builder.finish()?.shape(pool).w, 4);
/// assert_eq!((window.inside(1, 3, 6), window.n_counted(1, 3, 6)), (5..6, 2));
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Rows and columns.
    pub kernel: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Padding: rows above and below, columns left and right; each less than the kernel. Maxima never choose it. Files
    /// have one number for both sides where they are the same.
    #[serde(serialize_with = "write_padding")]
    pub padding: [[usize; 2]; 2],
    /// Whether a last window that ends beyond the padding is there too, if it begins before the padding behind the
    /// image: PyTorch's and ONNX's `ceil_mode`.
    #[serde(skip_serializing_if = "is_false")]
    pub ceil: bool,
    /// Whether averages count pixels of the padding, as zeros (PyTorch's default, ONNX's `count_include_pad`); those
    /// beyond the padding never count.
    #[serde(skip_serializing_if = "is_true")]
    pub counts_padding: bool,
}

impl Window {
    /// With the same padding at both ends, in rows and in columns, and PyTorch's defaults for the rest.
    pub const fn new(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Self {
        let padding = [[padding[0]; 2], [padding[1]; 2]];
        Self { kernel, stride, padding, ceil: false, counts_padding: true }
    }

    /// The rows (`axis` 0) or columns (1) of window number `at` that are pixels of an image with `size` of them.
    pub fn inside(&self, axis: usize, at: usize, size: usize) -> Range<usize> {
        let (start, before) = (at * self.stride[axis], self.padding[axis][0]);
        let end = start.saturating_add(self.kernel[axis]).saturating_sub(before).min(size);
        start.saturating_sub(before).min(end)..end
    }

    /// How many rows (`axis` 0) or columns (1) of window number `at` an average over an image with `size` of them
    /// counts.
    pub fn n_counted(&self, axis: usize, at: usize, size: usize) -> usize {
        if !self.counts_padding {
            return self.inside(axis, at, size).len();
        }
        let [before, behind] = self.padding[axis];
        (before.saturating_add(size).saturating_add(behind) - at * self.stride[axis]).min(self.kernel[axis])
    }

    /// Rows and columns of what comes out of an image of shape `x`.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn over(&self, x: Shape) -> Result<[usize; 2], String> {
        let Self { kernel, stride, padding, ceil, .. } = self;
        for (key, values) in [("kernel", kernel), ("stride", stride)] {
            if values.contains(&0) {
                return Err(format!("{key} {values:?}: expected at least 1 in both directions"));
            }
        }
        let too_large = || format!("kernel {kernel:?}, padding {padding:?}: more pixels than 64 bits count");
        // The window's area is what averages are divided by.
        kernel[0].checked_mul(kernel[1]).ok_or_else(too_large)?;
        let mut out = [0; 2];
        for (axis, (size, lines)) in [(x.h, "rows"), (x.w, "columns")].into_iter().enumerate() {
            let [before, behind] = padding[axis];
            let image_end = size.checked_add(before).ok_or_else(too_large)?;
            let padded = image_end.checked_add(behind).ok_or_else(too_large)?;
            let spare = if *ceil { stride[axis] - 1 } else { 0 };
            let Some(room) = padded.checked_add(spare).ok_or_else(too_large)?.checked_sub(kernel[axis]) else {
                let window = format!("kernel {kernel:?} spans {} {lines}", kernel[axis]);
                return Err(format!("{window}, its input {x} with padding {padding:?} has {padded}"));
            };
            let last = room / stride[axis];
            out[axis] = if last * stride[axis] < image_end { last + 1 } else { last };
        }
        // More padding would leave windows without a pixel.
        if (0..2).any(|axis| padding[axis].iter().any(|&p| p >= kernel[axis])) {
            return Err(format!("padding {padding:?}: expected less than the kernel {kernel:?} on every side"));
        }
        Ok(out)
    }
}

fn write_padding<S: Serializer>(padding: &[[usize; 2]; 2], to: S) -> Result<S::Ok, S::Error> {
    match padding {
        [[above, below], [left, right]] if above == below && left == right => [above, left].serialize(to),
        uneven => uneven.serialize(to),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_true(flag: &bool) -> bool {
    *flag
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every small window over every small row, against the definition: the places where a window may begin, tried one
    /// by one.
    #[test]
    fn windows_are_those_of_the_definition_and_each_has_a_pixel() {
        let cases =
            |n: usize| (0..n.pow(5)).map(move |i| [i % n, i / n % n, i / n / n % n, i / n.pow(3) % n, i / n.pow(4)]);
        for [k, s, before, behind, size] in cases(5) {
            let (k, s, size) = (k + 1, s + 1, size + 1);
            for ceil in [false, true] {
                let window =
                    Window { ceil, padding: [[0, 0], [before, behind]], ..Window::new([1, k], [1, s], [0, 0]) };
                let got = window.over(Shape { c: 1, h: 1, w: size });
                if before >= k || behind >= k {
                    assert!(got.is_err());
                    continue;
                }
                let (image_end, padded) = (before + size, before + size + behind);
                let is_whole = |start: usize| start + k <= padded;
                // One that ends beyond the padding follows the last that does not, or is the only one.
                let reached = |start: usize| is_whole(start) || start + k < padded + s;
                let starts: Vec<usize> = (0..image_end)
                    .step_by(s)
                    .take_while(|&start| if ceil { reached(start) } else { is_whole(start) })
                    .collect();
                let context = format!("kernel {k}, stride {s}, padding {before}, {behind}, size {size}, ceil {ceil}");
                assert_eq!(got.ok().map_or(0, |out| out[1]), starts.len(), "{context}");
                for (at, &start) in starts.iter().enumerate() {
                    let places = || start..start + k;
                    let pixels: Vec<usize> = places().filter(|p| (before..image_end).contains(p)).collect();
                    assert!(!pixels.is_empty(), "{context}");
                    assert!(window.inside(1, at, size).eq(pixels.iter().map(|p| p - before)), "{context}");
                    let counted = places().filter(|&p| p < padded).count();
                    assert_eq!(window.n_counted(1, at, size), counted, "{context}");
                    let image_only = Window { counts_padding: false, ..window.clone() };
                    assert_eq!(image_only.n_counted(1, at, size), pixels.len(), "{context}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = Shape { c: 1, h: 4, w: 4 };
        let most = usize::MAX;
        for (window, part) in [
            (Window::new([0, 1], [1, 1], [0, 0]), "kernel [0, 1]: expected at least 1"),
            (Window::new([1, 1], [1, 0], [0, 0]), "stride [1, 0]: expected at least 1"),
            (Window::new([6, 1], [1, 1], [0, 0]), "kernel [6, 1] spans 6 rows, its input 1x4x4 with padding"),
            (Window::new([2, 2], [1, 1], [2, 0]), "padding [[2, 2], [0, 0]]: expected less than the kernel"),
            (Window::new([most, 1], [1, 1], [most - 1, 0]), "64 bits"),
            (Window::new([1 << 33, 1 << 33], [1, 1], [1 << 32, 1 << 32]), "64 bits"),
            (Window { ceil: true, ..Window::new([1, 1], [most, 1], [0, 0]) }, "64 bits"),
        ] {
            let error = window.over(x).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
