//! Which way to compute a convolution, by the operations that each takes.

use secateur_net::{Conv2d, Shape};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::direct::taps_inside;
use crate::engine::winograd::geometry::{POINTS, ROW_POINTS, TILE};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConvWay {
    /// Tap by tap.
    Direct,
    /// Minimal filtering of square tiles.
    Tiles,
    /// Minimal filtering along rows.
    Rows,
}

impl ConvWay {
    /// The cheapest way for a convolution of these shapes of input and output. Costs are in cycles of two
    /// multiply-adds.
    pub(crate) fn cheapest(arithmetic: Arithmetic, conv: &Conv2d, [input, output]: [Shape; 2]) -> Self {
        let is_filtered = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
        if !is_filtered {
            return Self::Direct;
        }
        let channels = (input.c + output.c) as f64;
        let products = arithmetic.words(input.c) as f64 * output.c as f64 / 2.0;
        // Taps inside the image, of all outputs along an axis.
        let inside = |n_in: usize, n_out: usize, axis: usize| -> usize {
            taps_inside(conv, axis, n_in, n_out).map(|taps| taps.len()).sum()
        };
        let n_taps = (inside(input.h, output.h, 0) * inside(input.w, output.w, 1)) as f64;
        let n_across = output.w.div_ceil(TILE);
        let [of_tile, of_row] = arithmetic.transform_costs();
        let tile = POINTS as f64 * products + of_tile * channels;
        let row = 3.0 * ROW_POINTS as f64 * products + of_row * channels;
        let ways = [
            (Self::Direct, 0.95 * n_taps * products),
            (Self::Tiles, (output.h.div_ceil(TILE) * n_across) as f64 * tile),
            (Self::Rows, (output.h * n_across) as f64 * row),
        ];
        ways.into_iter().min_by(|x, y| x.1.total_cmp(&y.1)).expect("there are three ways").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn narrow_layers_go_by_rows_in_bf16_wide_ones_by_tiles_and_others_tap_by_tap() {
        let way = |arithmetic, conv: Conv2d, side: usize| {
            let of = |c, side| Shape { c, h: side, w: side };
            ConvWay::cheapest(
                arithmetic,
                &conv,
                [of(conv.in_channels, side), of(conv.out_channels, side / conv.stride[0])],
            )
        };
        let (f32, bf16) = (Arithmetic::F32(Isa::Portable), Arithmetic::Bf16);
        assert_eq!(way(bf16, Conv2d::square(16, 8, 3, 1, 1), 32), ConvWay::Rows);
        assert_eq!(way(bf16, Conv2d::square(64, 64, 3, 1, 1), 8), ConvWay::Tiles);
        assert_eq!(way(f32, Conv2d::square(16, 8, 3, 1, 1), 32), ConvWay::Tiles);
        for arithmetic in [f32, bf16] {
            assert_eq!(way(arithmetic, Conv2d::square(1, 1, 3, 1, 1), 32), ConvWay::Direct);
            assert_eq!(way(arithmetic, Conv2d::square(16, 8, 1, 1, 0), 32), ConvWay::Direct);
            assert_eq!(way(arithmetic, Conv2d::square(16, 8, 3, 2, 1), 32), ConvWay::Direct);
        }
    }
}
