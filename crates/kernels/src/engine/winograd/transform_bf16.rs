//! The transforms of F(4x4, 3x3) on pairs of bf16, at the points 0, 3/4, -3/4, 3/2, -3/2 and infinity: rounded between
//! the transforms, their sums are half as far from exact ones as at 0, 1, -1, 2, -2.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are rows and columns of tiles, and also make up addresses")]

use std::arch::x86_64::*;

use super::geometry::{POINTS, TILE};
use super::jobs::{InputJob, InputRowsJob, OutputJob, OutputRowsJob};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::tile_bf16::FinishPair;
use crate::simd::pairs::Interleave;

/// The finite points other than 0, which come with either sign.
const A: f32 = Arithmetic::Bf16.finite_points()[0] as f32;
const B: f32 = Arithmetic::Bf16.finite_points()[1] as f32;

/// Lanes of a vector.
const LANES: usize = 16;

/// B^T d of one line.
#[inline(always)]
unsafe fn input_line(d: [__m512; 6]) -> [__m512; 6] {
    // SAFETY: arithmetic only; the caller's function has the instructions.
    unsafe {
        // As many additions as can be: they have pipes of their own.
        let (product, sum) = (_mm512_set1_ps(A * A * B * B), _mm512_set1_ps(A * A + B * B));
        let (a2, b2) = (_mm512_set1_ps(A * A), _mm512_set1_ps(B * B));
        let (a, ab2) = (_mm512_set1_ps(A), _mm512_set1_ps(A * B * B));
        let (b, ba2) = (_mm512_set1_ps(B), _mm512_set1_ps(B * A * A));
        let (even_a, even_b) = (_mm512_fnmadd_ps(b2, d[2], d[4]), _mm512_fnmadd_ps(a2, d[2], d[4]));
        let odd_a = _mm512_fmsub_ps(a, d[3], _mm512_mul_ps(ab2, d[1]));
        let odd_b = _mm512_fmsub_ps(b, d[3], _mm512_mul_ps(ba2, d[1]));
        [
            _mm512_fmadd_ps(product, d[0], _mm512_fnmadd_ps(sum, d[2], d[4])),
            _mm512_add_ps(even_a, odd_a),
            _mm512_sub_ps(even_a, odd_a),
            _mm512_add_ps(even_b, odd_b),
            _mm512_sub_ps(even_b, odd_b),
            _mm512_fmadd_ps(product, d[1], _mm512_fnmadd_ps(sum, d[3], d[5])),
        ]
    }
}

/// A^T m of one line, plus `bias`, which `m[0]` and `m[5]` hold already: so it costs nothing.
#[inline(always)]
unsafe fn output_line(m: [__m512; 6], bias: __m512) -> [__m512; TILE] {
    // SAFETY: arithmetic only; the caller's function has the instructions.
    unsafe {
        let (s, d) = (_mm512_add_ps(m[1], m[2]), _mm512_sub_ps(m[1], m[2]));
        let (u, v) = (_mm512_add_ps(m[3], m[4]), _mm512_sub_ps(m[3], m[4]));
        let (a, b) = (_mm512_set1_ps(A), _mm512_set1_ps(B));
        let (a2, b2) = (_mm512_set1_ps(A * A), _mm512_set1_ps(B * B));
        let (a3, b3) = (_mm512_set1_ps(A * A * A), _mm512_set1_ps(B * B * B));
        [
            _mm512_add_ps(m[0], _mm512_add_ps(s, u)),
            _mm512_fmadd_ps(v, b, _mm512_fmadd_ps(d, a, bias)),
            _mm512_fmadd_ps(u, b2, _mm512_fmadd_ps(s, a2, bias)),
            _mm512_fmadd_ps(v, b3, _mm512_fmadd_ps(d, a3, m[5])),
        ]
    }
}

/// One channel of all points, `columns[j][i]` being row `i` of column `j` of the tile.
#[inline(always)]
unsafe fn input_rows(columns: &[[__m512; 6]; 6], i: usize) -> [__m512; 6] {
    // SAFETY: arithmetic only; the caller's function has the instructions.
    unsafe {
        let mut d = [_mm512_setzero_ps(); 6];
        for j in 0..6 {
            d[j] = columns[j][i];
        }
        input_line(d)
    }
}

/// # Safety
/// As [`super::jobs::InputFn`], in words of AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn transform_input(job: &InputJob) {
    // SAFETY: the caller's promise (`InputFn`) covers each word of all pixels and points.
    unsafe {
        let interleave = Interleave::new();
        for at in (0..job.n_words).map(|word| word * LANES) {
            // Plain loops: within closures the vector instructions would not be inlined.
            let mut even = [[_mm512_setzero_ps(); 6]; 6];
            let mut odd = [[_mm512_setzero_ps(); 6]; 6];
            for j in 0..6 {
                let mut d = [[_mm512_setzero_ps(); 6]; 2];
                for i in 0..6 {
                    let x = job.pixels[i * 6 + j].wrapping_add(at);
                    _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(LANES).cast());
                    let [e, o] = Interleave::unpack(_mm512_loadu_ps(x));
                    d[0][i] = e;
                    d[1][i] = o;
                }
                even[j] = input_line(d[0]);
                odd[j] = input_line(d[1]);
            }
            for i in 0..6 {
                let (even, odd) = (input_rows(&even, i), input_rows(&odd, i));
                for j in 0..6 {
                    let to = job.out.add((i * 6 + j) * job.point_step + at);
                    _mm512_storeu_ps(to, interleave.pack(even[j], odd[j]));
                }
            }
        }
    }
}

/// # Safety
/// As [`super::jobs::OutputFn`], in words of AVX512-BF16; sums are f32.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn transform_output(job: &OutputJob) {
    // SAFETY: the caller's promise (`OutputFn`). The sizes given are the job's, as constants where the tile is whole.
    unsafe {
        if job.size == [TILE, TILE] {
            transform_output_of(job, [TILE, TILE]);
        } else {
            transform_output_of(job, job.size);
        }
    }
}

#[inline(always)]
unsafe fn output_columns(job: &OutputJob, channel: usize) -> [[__m512; TILE]; 6] {
    // SAFETY: the caller's promise (`OutputFn`) covers this channel of all points.
    unsafe {
        let nothing = _mm512_setzero_ps();
        let mut columns = [[_mm512_setzero_ps(); TILE]; 6];
        for j in 0..6 {
            let mut m = [_mm512_setzero_ps(); 6];
            for i in 0..6 {
                m[i] = _mm512_loadu_ps(job.sums.add((i * 6 + j) * job.point_step + channel * LANES));
            }
            columns[j] = output_line(m, nothing);
        }
        columns
    }
}

#[inline(always)]
unsafe fn output_row(columns: &[[__m512; TILE]; 6], i: usize, bias: __m512) -> [__m512; TILE] {
    // SAFETY: arithmetic only; the caller's function has the instructions.
    unsafe {
        let mut m = [_mm512_setzero_ps(); 6];
        for j in 0..6 {
            m[j] = columns[j][i];
        }
        m[0] = _mm512_add_ps(m[0], bias);
        m[5] = _mm512_add_ps(m[5], bias);
        output_line(m, bias)
    }
}

#[inline(always)]
unsafe fn transform_output_of(job: &OutputJob, size: [usize; 2]) {
    let n_words = job.n_channels.div_ceil(2);
    // SAFETY: the caller's promise (`OutputFn`) covers each channel of all points and of `size` output pixels.
    unsafe {
        let finish = FinishPair::new(job.finish);
        for word in 0..n_words {
            let has_odd = 2 * word + 1 < job.n_channels;
            // Without an odd channel, the even one's sums stand in for it and are dropped.
            let odd_channel = 2 * word + usize::from(has_odd);
            let even = output_columns(job, 2 * word);
            let odd = output_columns(job, odd_channel);
            let bias = [2 * word, odd_channel].map(|c| *job.bias.add(c));
            for i in 0..size[0] {
                let even = output_row(&even, i, _mm512_set1_ps(bias[0]));
                let odd = output_row(&odd, i, _mm512_set1_ps(bias[1]));
                for j in 0..size[1] {
                    let at = i * job.row_step + (j * n_words + word) * LANES;
                    _mm512_storeu_ps(job.out.add(at), finish.apply(even[j], odd[j], at, has_odd));
                }
            }
        }
    }
}

/// # Safety
/// As [`super::jobs::InputRowsFn`] and [`super::jobs::OutputRowsFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn transform_input_rows(job: &InputRowsJob) {
    // SAFETY: the caller's promise covers each word of all rows, pixels and points.
    unsafe {
        let interleave = Interleave::new();
        for row in 0..job.n_rows {
            let out = job.out.add(row * job.n_words * LANES);
            for at in (0..job.n_words).map(|word| word * LANES) {
                let (mut even, mut odd) = ([_mm512_setzero_ps(); 6], [_mm512_setzero_ps(); 6]);
                for j in 0..6 {
                    let x = job.pixels[j].add(row * job.row_steps[j] + at);
                    [even[j], odd[j]] = Interleave::unpack(_mm512_loadu_ps(x));
                }
                let (even, odd) = (input_line(even), input_line(odd));
                for j in 0..6 {
                    _mm512_storeu_ps(out.add(j * job.point_step + at), interleave.pack(even[j], odd[j]));
                }
            }
        }
    }
}

/// # Safety
/// As [`super::jobs::InputRowsFn`] and [`super::jobs::OutputRowsFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn transform_output_rows(job: &OutputRowsJob) {
    // SAFETY: the caller's promise. The number of columns is the job's, as a constant where the tile is whole.
    unsafe {
        if job.n_columns == TILE {
            transform_output_columns(job, TILE);
        } else {
            transform_output_columns(job, job.n_columns);
        }
    }
}

/// The sums of a row at all points, of one channel.
#[inline(always)]
unsafe fn sums_of_row(job: &OutputRowsJob, row: usize, channel: usize) -> [__m512; 6] {
    // SAFETY: the caller's promise covers this channel of all points.
    unsafe {
        let mut m = [_mm512_setzero_ps(); 6];
        for j in 0..6 {
            m[j] = _mm512_loadu_ps(job.sums.add(j * job.point_step + (row * job.n_channels + channel) * LANES));
        }
        m
    }
}

#[inline(always)]
unsafe fn transform_output_columns(job: &OutputRowsJob, n_columns: usize) {
    let n_words = job.n_channels.div_ceil(2);
    // SAFETY: the caller's promise covers each channel of all rows and points, and `n_columns` output pixels of each
    // row.
    unsafe {
        let finish = FinishPair::new(job.finish);
        for (row, word) in (0..job.n_rows).flat_map(|row| (0..n_words).map(move |word| (row, word))) {
            let has_odd = 2 * word + 1 < job.n_channels;
            // Without an odd channel, the even one's sums stand in for it and are dropped.
            let odd_channel = 2 * word + usize::from(has_odd);
            let bias = [2 * word, odd_channel].map(|c| *job.bias.add(c));
            let even = output_line(sums_of_row(job, row, 2 * word), _mm512_set1_ps(bias[0]));
            let odd = output_line(sums_of_row(job, row, odd_channel), _mm512_set1_ps(bias[1]));
            for j in 0..n_columns {
                let at = row * job.row_step + j * job.pixel_step + word * LANES;
                _mm512_storeu_ps(job.out.add(at), finish.apply(even[j], odd[j], at, has_odd));
            }
        }
    }
}

const _: () = assert!(POINTS == (TILE + 2) * (TILE + 2), "lines of six");
