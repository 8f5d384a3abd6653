//! The transforms of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016), on vectors whose
//! lanes are images.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are rows and columns of tiles, and also make up addresses")]

use super::geometry::TILE;
use super::jobs::{InputJob, OutputJob};
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};

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

/// Lanes are images, to which one bias is common, or, `BY_CHANNEL`, channels, each with its own.
#[inline(always)]
unsafe fn transform_output<L: Lanes, const BY_CHANNEL: bool>(job: &OutputJob) {
    // SAFETY: the caller's promise (`OutputFn`). The sizes given are the job's, as constants where the tile is whole.
    unsafe {
        if job.size == [TILE, TILE] {
            transform_output_of::<L, BY_CHANNEL>(job, [TILE, TILE]);
        } else {
            transform_output_of::<L, BY_CHANNEL>(job, job.size);
        }
    }
}

#[inline(always)]
unsafe fn transform_output_of<L: Lanes, const BY_CHANNEL: bool>(job: &OutputJob, size: [usize; 2]) {
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
            let bias = if BY_CHANNEL { L::load(job.bias.add(at)) } else { L::splat(*job.bias.add(channel)) };
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
    ($input:ident, $output:ident, $output_by_channel:ident, $lanes:ty $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        pub(super) unsafe fn $input(job: &InputJob) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { transform_input::<$lanes>(job) }
        }
        $(#[target_feature(enable = $feature)])?
        pub(super) unsafe fn $output(job: &OutputJob) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { transform_output::<$lanes, false>(job) }
        }
        $(#[target_feature(enable = $feature)])?
        pub(super) unsafe fn $output_by_channel(job: &OutputJob) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { transform_output::<$lanes, true>(job) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
transforms!(input_avx512, output_avx512, output_by_channel_avx512, Avx512, "avx512f");
#[cfg(target_arch = "x86_64")]
transforms!(input_avx2, output_avx2, output_by_channel_avx2, Avx2, "avx2,fma");
transforms!(input_portable, output_portable, output_by_channel_portable, Portable);
