//! The transforms of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016), on vectors whose lanes are images.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are rows and columns of tiles, and also make up addresses")]

use crate::arithmetic::Arithmetic;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Isa, Lanes, Portable};
use crate::tile::Finish;
use crate::winograd::{POINTS, TILE};
#[cfg(target_arch = "x86_64")]
use crate::winograd_bf16;

/// The input of one tile; steps in values.
pub struct InputJob {
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
pub struct OutputJob {
    /// First channel of the first point.
    pub sums: *const f32,
    /// From one point to the next.
    pub point_step: usize,
    /// Channels of each point.
    pub n_channels: usize,
    /// `[n_channels]`
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
/// The processor must have the function's instruction set, and every address the job names must be valid for all its channels:
/// reads of pixels, writes of 36 points.
pub type InputFn = unsafe fn(&InputJob);

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its channels:
/// reads of 36 points, bias and residual, writes of `size` pixels. Output must not overlap the rest.
pub type OutputFn = unsafe fn(&OutputJob);

/// The transforms for one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Transforms {
    /// Of a tile's input.
    pub input: InputFn,
    /// Of a tile's sums.
    pub output: OutputFn,
}

impl Transforms {
    /// Those for `arithmetic`.
    pub fn of(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            #[cfg(target_arch = "x86_64")]
            Arithmetic::F32(Isa::Avx512) => Self { input: input_avx512, output: output_avx512 },
            #[cfg(target_arch = "x86_64")]
            Arithmetic::F32(Isa::Avx2) => Self { input: input_avx2, output: output_avx2 },
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Bf16 => Self { input: winograd_bf16::transform_input, output: winograd_bf16::transform_output },
            _ => Self { input: input_portable, output: output_portable },
        }
    }
}

/// Filters transformed together.
pub const FILTERS: usize = 8;

/// G g of one line of some filters' taps at the points 0, a, -a, b, -b and infinity.
pub fn filter_line<const N: usize>(taps: [&[f64; N]; 3], [a, b]: [f64; 2]) -> [[f64; N]; 6] {
    let (a2, b2) = (a * a, b * b);
    let (of_zero, of_a, of_b) = (a2 * b2, 2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
    let mut out = [[0.0; N]; 6];
    for f in 0..N {
        let [g0, g1, g2] = taps.map(|tap| tap[f]);
        let (even_a, odd_a) = (g0 + a2 * g2, a * g1);
        let (even_b, odd_b) = (g0 + b2 * g2, b * g1);
        out[0][f] = g0 / of_zero;
        out[1][f] = (even_a + odd_a) / of_a;
        out[2][f] = (even_a - odd_a) / of_a;
        out[3][f] = (even_b + odd_b) / of_b;
        out[4][f] = (even_b - odd_b) / of_b;
        out[5][f] = g2;
    }
    out
}

/// G g G^T of some 3x3 filters, `[tap][filter]` to `[point][filter]`.
pub fn transform_filters(g: &[[f32; FILTERS]; 9], points: [f64; 2]) -> [[f32; FILTERS]; POINTS] {
    let g = g.map(|tap| tap.map(f64::from));
    let columns: [_; 3] = std::array::from_fn(|j| filter_line([&g[j], &g[3 + j], &g[6 + j]], points));
    let mut out = [[0.0; FILTERS]; POINTS];
    for i in 0..6 {
        let row = filter_line([&columns[0][i], &columns[1][i], &columns[2][i]], points);
        for (j, values) in row.into_iter().enumerate() {
            out[i * 6 + j] = values.map(|value| value as f32);
        }
    }
    out
}

/// B^T d of one line.
#[inline(always)]
unsafe fn input_line<L: Lanes>(d: [L::V; 6]) -> [L::V; 6] {
    // SAFETY: arithmetic only; the caller's function has the instructions of `L`.
    unsafe {
        let (two, four, minus_two) = (L::splat(2.0), L::splat(4.0), L::splat(-2.0));
        let (minus_four, minus_five) = (L::splat(-4.0), L::splat(-5.0));
        let (a, b) = (L::fma(d[2], minus_four, d[4]), L::fma(d[1], minus_four, d[3]));
        let (c, e) = (L::sub(d[4], d[2]), L::sub(d[3], d[1]));
        [
            L::fma(d[0], four, L::fma(d[2], minus_five, d[4])),
            L::add(a, b),
            L::sub(a, b),
            L::fma(e, two, c),
            L::fma(e, minus_two, c),
            L::fma(d[1], four, L::fma(d[3], minus_five, d[5])),
        ]
    }
}

/// A^T m of one line.
#[inline(always)]
unsafe fn output_line<L: Lanes>(m: [L::V; 6]) -> [L::V; TILE] {
    // SAFETY: arithmetic only; the caller's function has the instructions of `L`.
    unsafe {
        let (s, d) = (L::add(m[1], m[2]), L::sub(m[1], m[2]));
        let (u, v) = (L::add(m[3], m[4]), L::sub(m[3], m[4]));
        [
            L::add(m[0], L::add(s, u)),
            L::fma(v, L::splat(2.0), d),
            L::fma(u, L::splat(4.0), s),
            L::add(L::fma(v, L::splat(8.0), d), m[5]),
        ]
    }
}

#[inline(always)]
unsafe fn transform_input<L: Lanes>(job: &InputJob) {
    for channel in 0..job.n_words {
        let at = channel * L::LANES;
        // SAFETY: the caller's promise (`InputFn`) covers this channel of all pixels and points.
        unsafe {
            // Plain loops: within closures the vector instructions would not be inlined.
            let mut columns = [[L::splat(0.0); 6]; 6];
            for j in 0..6 {
                let mut d = [L::splat(0.0); 6];
                for i in 0..6 {
                    d[i] = L::load(job.pixels[i * 6 + j].add(at));
                }
                columns[j] = input_line::<L>(d);
            }
            for i in 0..6 {
                let mut d = [L::splat(0.0); 6];
                for j in 0..6 {
                    d[j] = columns[j][i];
                }
                let row = input_line::<L>(d);
                for j in 0..6 {
                    L::store(job.out.add((i * 6 + j) * job.point_step + at), row[j]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn transform_output<L: Lanes>(job: &OutputJob) {
    // SAFETY: the caller's promise (`OutputFn`). The sizes given are the job's, as constants where the tile is whole.
    unsafe {
        if job.size == [TILE, TILE] {
            transform_output_of::<L>(job, [TILE, TILE]);
        } else {
            transform_output_of::<L>(job, job.size);
        }
    }
}

#[inline(always)]
unsafe fn transform_output_of<L: Lanes>(job: &OutputJob, size: [usize; 2]) {
    for channel in 0..job.n_channels {
        let at = channel * L::LANES;
        // SAFETY: the caller's promise (`OutputFn`) covers this channel of all points and of `size` output pixels.
        unsafe {
            let mut columns = [[L::splat(0.0); TILE]; 6];
            for j in 0..6 {
                let mut m = [L::splat(0.0); 6];
                for i in 0..6 {
                    m[i] = L::load(job.sums.add((i * 6 + j) * job.point_step + at));
                }
                columns[j] = output_line::<L>(m);
            }
            let bias = L::splat(*job.bias.add(channel));
            for i in 0..size[0] {
                let mut m = [L::splat(0.0); 6];
                for j in 0..6 {
                    m[j] = columns[j][i];
                }
                let row = output_line::<L>(m);
                for j in 0..size[1] {
                    let to = i * job.row_step + j * job.n_channels * L::LANES + at;
                    L::store(job.out.add(to), job.finish.apply::<L>(L::add(row[j], bias), to));
                }
            }
        }
    }
}

macro_rules! transforms {
    ($input:ident, $output:ident, $lanes:ty $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $input(job: &InputJob) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { transform_input::<$lanes>(job) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $output(job: &OutputJob) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { transform_output::<$lanes>(job) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
transforms!(input_avx512, output_avx512, Avx512, "avx512f");
#[cfg(target_arch = "x86_64")]
transforms!(input_avx2, output_avx2, Avx2, "avx2,fma");
transforms!(input_portable, output_portable, Portable);
