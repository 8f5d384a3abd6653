//! Transposed convolutions.

use serde::Serialize;

use crate::Shape;

/// Most values of the input with zeros between its pixels and around.
const SPREAD_MAX: usize = 1 << 28;

/// A transposed 2-D convolution: every input pixel adds its kernel to the output, a stride further than the pixel
/// before. Weight `<node>.weight` is `[in, out / groups, kh, kw]`, bias `<node>.bias` is `[out]`.
///
/// # Example
/// ```
/// use secateur_net::{ConvTranspose2d, GraphBuilder, Op, Shape};
///
/// let mut builder = GraphBuilder::new(Shape { c: 8, h: 5, w: 5 });
/// let op = Op::ConvTranspose2d(ConvTranspose2d { output_padding: [1, 0], ..ConvTranspose2d::square(8, 4, 3, 2, 1) });
/// let up = builder.push("up", op, &[0]);
/// assert_eq!(builder.finish()?.shape(up), Shape { c: 4, h: 10, w: 9 });
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConvTranspose2d {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Kernel rows and columns.
    pub kernel: [usize; 2],
    /// Rows and columns of the output from one input pixel to the next.
    pub stride: [usize; 2],
    /// What is cut off the output: rows above and below, columns left and right.
    pub padding: [[usize; 2]; 2],
    /// Rows below and columns on the right that the output has besides.
    pub output_padding: [usize; 2],
    /// Spacing of kernel taps, rows and columns.
    pub dilation: [usize; 2],
    /// Convolution groups; `groups == in_channels == out_channels` is depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl ConvTranspose2d {
    /// A dense (`groups = 1`) square one without bias and dilation.
    pub const fn square(in_channels: usize, out_channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [[padding; 2]; 2],
            output_padding: [0; 2],
            dilation: [1; 2],
            groups: 1,
            bias: false,
        }
    }
    /// Whether every channel has one filter of its own.
    pub const fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups == self.out_channels && self.groups > 1
    }
    /// Shape of the weight.
    pub const fn weight_shape(&self) -> [usize; 4] {
        [self.in_channels, self.out_channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// Shape of what comes out.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn over(&self, x: Shape) -> Result<Shape, String> {
        let Self { in_channels, out_channels, kernel, stride, padding, output_padding, dilation, groups, .. } = self;
        if *in_channels != x.c {
            return Err(format!("reads {in_channels} channels, its input {x} has {}", x.c));
        }
        if *groups == 0 || !in_channels.is_multiple_of(*groups) || !out_channels.is_multiple_of(*groups) {
            return Err(format!(
                "{groups} groups do not divide {in_channels} input and {out_channels} output channels"
            ));
        }
        for (key, values) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if values.contains(&0) {
                return Err(format!("{key} {values:?}: expected at least 1 in both directions"));
            }
        }
        let along = |axis: usize, size: usize| {
            let last = size.checked_sub(1)?.checked_mul(stride[axis])?;
            let reach = (kernel[axis] - 1).checked_mul(dilation[axis])?.checked_add(1)?;
            let cut = padding[axis][0].checked_add(padding[axis][1])?;
            last.checked_add(reach)?.checked_add(output_padding[axis])?.checked_sub(cut).filter(|&n| n > 0)
        };
        let sizes = along(0, x.h).zip(along(1, x.w));
        let (h, w) = sizes.ok_or_else(|| {
            format!("padding {padding:?} leaves nothing of its input {x}, or its output is larger than 64 bits count")
        })?;
        // It is computed as a convolution of the input with zeros between its pixels, as far as the kernel reaches.
        let reach = |axis: usize, n: usize| (kernel[axis] - 1).saturating_mul(dilation[axis]).saturating_add(n);
        let n_values = reach(0, h).saturating_mul(reach(1, w)).saturating_mul(x.c);
        if n_values > SPREAD_MAX {
            return Err(format!("kernel {kernel:?} with dilation {dilation:?} reaches over {n_values} values"));
        }
        Ok(Shape { c: *out_channels, h, w })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let x = Shape { c: 4, h: 3, w: 3 };
        let square = |kernel, stride, padding| ConvTranspose2d::square(4, 2, kernel, stride, padding);
        let far = ConvTranspose2d { dilation: [1 << 40, 1], padding: [[1 << 40, 0], [0, 0]], ..square(2, 1, 0) };
        for (conv, part) in [
            (ConvTranspose2d::square(3, 2, 2, 2, 0), "reads 3 channels"),
            (ConvTranspose2d { groups: 3, ..square(2, 2, 0) }, "3 groups do not divide 4 input"),
            (square(0, 1, 0), "kernel [0, 0]: expected at least 1"),
            (square(2, 1, 2), "leaves nothing"),
            (square(2, usize::MAX, 0), "leaves nothing of its input 4x3x3, or its output is larger"),
            (far, "reaches over"),
        ] {
            let error = conv.over(x).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(square(3, 2, 1).over(x), Ok(Shape { c: 2, h: 5, w: 5 }));
    }
}
