//! How dense convolutions are cut into workgroups: which shader, how many pixels, how many outputs together.
//!
//! The table of [`ConvVariant::shape`] is what `bench kernels --device gpu --all-isas --all-tiles` and `bench eval`
//! found best on an H100, whose limits are those of most cards: strips of one quad (52 to 59 % of the peak on layers of
//! 16 channels and more, two quads 45 to 56 %), and for other layers workgroups of 32 with two quads (38 to 49 %),
//! but for Linear of 64 with four (33 %, where two reach 19).

use wgpu::Limits;

use crate::layout::Uniforms;
use crate::pipelines::StripConstants;

/// How dense convolutions are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvVariant {
    /// Weights straight from memory, no barrier.
    Direct,
    /// Weights in workgroup memory.
    Staged,
    /// As `Staged`, and eight pixels of a column at once where the kernel has several rows and moves down by one.
    Strips,
}

impl ConvVariant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Staged, Self::Strips];

    /// As in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Staged => "staged",
            Self::Strips => "strips",
        }
    }

    /// The fastest one of its shapes on most layers.
    const fn shape(self) -> ConvShape {
        match self {
            Self::Direct => ConvShape { variant: self, tile: 64, block_max: 4 },
            Self::Staged => ConvShape { variant: self, tile: 32, block_max: 2 },
            Self::Strips => ConvShape { variant: self, tile: 64, block_max: 1 },
        }
    }
}

/// How one dense convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// The shader.
    pub variant: ConvVariant,
    /// Invocations of a workgroup.
    pub tile: u32,
    /// Most output quads that an invocation computes together.
    pub block_max: usize,
}

/// What is asked of all dense convolutions; where nothing is, each gets what suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvChoice {
    /// The shader; layers that [`ConvVariant::Strips`] does not suit are staged.
    pub variant: ConvVariant,
    /// Invocations of a workgroup, of [`CONV_TILES`].
    pub tile: Option<u32>,
    /// Most output quads that an invocation computes together, at most [`CONV_BLOCK_MAX`].
    pub block_max: Option<usize>,
}

/// Most output quads that the shaders compute together.
pub const CONV_BLOCK_MAX: usize = 4;
/// Sizes of a dense convolution's workgroup, largest first.
pub const CONV_TILES: [u32; 3] = [128, 64, 32];
/// Rows of a strip of conv_strips.wgsl.
pub const STRIP_ROWS: u32 = 8;
/// The most taps of its kernels.
const STRIP_TAPS_MAX: u32 = 36;

impl ConvChoice {
    /// How the layer is computed on an adapter with these limits.
    pub fn shape(&self, step: &Uniforms, limits: &Limits) -> ConvShape {
        let is_strips = self.variant == ConvVariant::Strips && fits_strips(step);
        let variant = match self.variant {
            ConvVariant::Strips if !is_strips => ConvVariant::Staged,
            variant => variant,
        };
        let best = match variant {
            ConvVariant::Staged if step.out_h * step.out_w == 1 => ConvShape { variant, tile: 64, block_max: 4 },
            variant => variant.shape(),
        };
        ConvShape {
            tile: tile(self.tile.unwrap_or(best.tile), limits),
            block_max: self.block_max.unwrap_or(best.block_max).clamp(1, CONV_BLOCK_MAX),
            ..best
        }
    }
}

impl ConvShape {
    /// How many of `out_quads` output quads are computed together: blocks as even as possible.
    pub const fn block(&self, out_quads: usize) -> usize {
        let n_blocks = out_quads.div_ceil(self.block_max);
        if n_blocks == 0 { 1 } else { out_quads.div_ceil(n_blocks) }
    }
}

/// The largest workgroup that is not larger than wanted, nor than the adapter allows.
fn tile(wanted: u32, limits: &Limits) -> u32 {
    let most = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x).min(wanted);
    *CONV_TILES.iter().find(|&&tile| tile <= most).unwrap_or(&CONV_TILES[CONV_TILES.len() - 1])
}

/// Whether a layer can be computed in strips, whose pixels are shared by several rows of taps, and so few of their rows
/// hang over that it is worth it.
const fn fits_strips(step: &Uniforms) -> bool {
    let shares = step.kernel_h > 1 && step.stride_h == 1 && step.dilation_h == 1;
    let n_rows = step.out_h.next_multiple_of(STRIP_ROWS);
    shares && step.kernel_h * step.kernel_w <= STRIP_TAPS_MAX && 4 * step.out_h >= 3 * n_rows
}

/// What conv_strips.wgsl is compiled with.
pub const fn strip_constants(step: &Uniforms) -> StripConstants {
    // Strips that end with the image reach past it by the padding only.
    let n_rows = STRIP_ROWS + step.kernel_h - 1;
    let edge = if step.out_h.is_multiple_of(STRIP_ROWS) { step.pad_h } else { n_rows };
    StripConstants { kernel_h: step.kernel_h, in_w: step.in_w, edge }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_are_as_large_as_wanted_and_allowed() {
        let allowed = |n: u32| Limits { max_compute_invocations_per_workgroup: n, ..Limits::default() };
        let tiles =
            [(64, 256), (128, 256), (128, 127), (1000, 1024), (64, 63), (1, 256)].map(|(w, n)| tile(w, &allowed(n)));
        assert_eq!(tiles, [64, 128, 64, 128, 32, 32]);
        let narrow = Limits { max_compute_workgroup_size_x: 40, ..Limits::default() };
        assert_eq!(tile(128, &narrow), 32);
    }

    fn layer(kernel: u32, stride: u32, out_h: u32) -> Uniforms {
        let (pad_h, in_h) = (kernel / 2, out_h * stride);
        Uniforms {
            in_h,
            in_w: 20,
            out_h,
            kernel_h: kernel,
            kernel_w: kernel,
            stride_h: stride,
            pad_h,
            dilation_h: 1,
            ..Uniforms::default()
        }
    }

    #[test]
    fn strips_are_for_kernels_of_several_rows_that_move_down_by_one() {
        let choice = ConvChoice { variant: ConvVariant::Strips, tile: None, block_max: None };
        let variant = |step: Uniforms| choice.shape(&step, &Limits::default()).variant;
        for step in [layer(3, 1, 32), layer(3, 1, 6), layer(5, 1, 14), layer(2, 1, 7)] {
            assert_eq!(variant(step), ConvVariant::Strips, "{step:?}");
        }
        let dilated = Uniforms { dilation_h: 2, ..layer(3, 1, 32) };
        for step in [layer(1, 1, 32), layer(3, 2, 32), layer(7, 1, 32), layer(3, 1, 5), layer(3, 1, 9), dilated] {
            assert_eq!(variant(step), ConvVariant::Staged, "{step:?}");
        }
    }

    #[test]
    fn a_single_pixel_is_computed_in_larger_workgroups() {
        let choice = ConvChoice { variant: ConvVariant::Strips, tile: None, block_max: None };
        let shape = |out_w| {
            let step = Uniforms { out_w, ..layer(1, 1, 1) };
            let ConvShape { variant, tile, block_max } = choice.shape(&step, &Limits::default());
            (variant, tile, block_max)
        };
        assert_eq!([shape(1), shape(2)], [(ConvVariant::Staged, 64, 4), (ConvVariant::Staged, 32, 2)]);
    }

    #[test]
    fn what_is_asked_for_goes_before_what_suits_a_layer() {
        let shape = |choice: ConvChoice| choice.shape(&layer(3, 1, 32), &Limits::default());
        let strips = ConvChoice { variant: ConvVariant::Strips, tile: None, block_max: None };
        assert_eq!(shape(strips), ConvVariant::Strips.shape());
        let asked = shape(ConvChoice { tile: Some(128), block_max: Some(9), ..strips });
        assert_eq!(asked, ConvShape { variant: ConvVariant::Strips, tile: 128, block_max: CONV_BLOCK_MAX });
        assert_eq!([0, 1, 4, 5, 9].map(|n| asked.block(n)), [1, 1, 4, 3, 3]);
    }

    /// Rows from `edge` to `edge` before the last are read without asking whether they lie inside the image.
    #[test]
    fn rows_between_the_edges_of_every_strip_lie_inside_the_image() {
        for kernel in 2..=6 {
            for pad_h in 0..kernel {
                for in_h in 1..40u32 {
                    let Some(out_h) = (in_h + 2 * pad_h + 1).checked_sub(kernel).filter(|&n| n > 0) else { continue };
                    let step = Uniforms { in_h, pad_h, ..layer(kernel, 1, out_h) };
                    let StripConstants { edge, .. } = strip_constants(&step);
                    for first in (0..out_h).step_by(STRIP_ROWS as usize) {
                        for row in edge..(STRIP_ROWS + kernel - 1).saturating_sub(edge) {
                            let y = i64::from(first + row) - i64::from(pad_h);
                            assert!((0..i64::from(in_h)).contains(&y), "{step:?}: row {row} of strip {first}");
                        }
                    }
                }
            }
        }
    }
}
