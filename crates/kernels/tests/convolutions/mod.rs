//! Convolutions of every kind, for tests that draw them.

use proptest::prelude::*;
use secateur_net::{Conv2d, Shape};

/// A convolution, and an input that its window fits.
pub fn any_conv() -> impl Strategy<Value = (Conv2d, Shape)> {
    let widths = (1..=3usize, 1..=6usize, 1..=20usize);
    let pair = |range: std::ops::RangeInclusive<usize>| [range.clone(), range];
    let window = (pair(1..=4), pair(1..=3), pair(0..=3), pair(1..=3), any::<bool>());
    (widths, window, 1..=12usize, 1..=12usize).prop_filter_map("the window fits", |(widths, window, h, w)| {
        let (groups, i, o) = widths;
        let (kernel, stride, padding, dilation, bias) = window;
        let (in_channels, out_channels) = (groups * i, groups * o);
        let fits = (0..2).all(|d| dilation[d] * (kernel[d] - 1) < [h, w][d] + 2 * padding[d]);
        let conv = Conv2d { in_channels, out_channels, kernel, stride, padding, dilation, groups, bias };
        fits.then_some((conv, Shape { c: in_channels, h, w }))
    })
}
