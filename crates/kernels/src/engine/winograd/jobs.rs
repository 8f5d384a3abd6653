//! What the transforms are called with: addresses of one tile, or of rows of tiles.

use super::geometry::{POINTS, ROW_POINTS};
use crate::engine::conv::tile::Finish;

/// The input of one tile; steps in values.
pub(crate) struct InputJob {
    /// First channel of each of the 6x6 pixels under the tile.
    pub pixels: [*const f32; POINTS],
    /// Words (f32 or pairs of channels) of each.
    pub n_words: usize,
    /// First channel of the first point.
    pub out: *mut f32,
    /// From one point to the next.
    pub point_step: usize,
}

/// The output of one tile; steps in values.
pub(crate) struct OutputJob {
    /// First channel of the first point.
    pub sums: *const f32,
    /// From one point to the next.
    pub point_step: usize,
    /// Channels of each point.
    pub n_channels: usize,
    /// `[n_channels]`, or `[n_channels, LANES]` where lanes are channels.
    pub bias: *const f32,
    /// Rows and columns of the tile that are part of the output.
    pub size: [usize; 2],
    /// First channel of the tile's first pixel.
    pub out: *mut f32,
    /// From one row to the next.
    pub row_step: usize,
    /// What becomes of the sums.
    pub finish: Finish,
}

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its
/// channels: reads of pixels, writes of 36 points.
pub(crate) type InputFn = unsafe fn(&InputJob);

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its
/// channels: reads of 36 points, bias and residual, writes of `size` pixels. Output must not overlap the rest.
pub(crate) type OutputFn = unsafe fn(&OutputJob);

/// Rows of input under one column of tiles.
pub(crate) struct InputRowsJob {
    /// First channel of the six pixels under the first row.
    pub pixels: [*const f32; ROW_POINTS],
    /// From one row to the next, each.
    pub row_steps: [usize; ROW_POINTS],
    /// Rows to transform.
    pub n_rows: usize,
    /// Pairs of channels.
    pub n_words: usize,
    /// First channel of the first point of the first row; rows follow each other.
    pub out: *mut f32,
    /// From one point to the next.
    pub point_step: usize,
}

/// Rows of output of one column of tiles.
pub(crate) struct OutputRowsJob {
    /// First channel of the first point of the first row; rows follow each other.
    pub sums: *const f32,
    /// From one point to the next.
    pub point_step: usize,
    /// Rows to transform.
    pub n_rows: usize,
    /// Columns of the tile that are part of the output.
    pub n_columns: usize,
    /// Channels of each point.
    pub n_channels: usize,
    /// `[n_channels]`
    pub bias: *const f32,
    /// First channel of the first row's first pixel.
    pub out: *mut f32,
    /// From one pixel to the next.
    pub pixel_step: usize,
    /// From one row to the next.
    pub row_step: usize,
    /// What becomes of the sums.
    pub finish: Finish,
}

/// # Safety
/// The processor must have AVX512-BF16, and every address the job names must be valid for all its words and rows: reads
/// of pixels, writes of six points.
pub(crate) type InputRowsFn = unsafe fn(&InputRowsJob);

/// # Safety
/// The processor must have AVX512-BF16, and every address the job names must be valid for all its channels and rows:
/// reads of six points, bias and residual, writes of `n_columns` pixels. Output must not overlap the rest.
pub(crate) type OutputRowsFn = unsafe fn(&OutputRowsJob);
