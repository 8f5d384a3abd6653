//! Sums of products of columns: what Gram matrices are made of. A row holds a vector per column, whose lanes are
//! different images, so products need neither transposing nor packing.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are columns, and also make up addresses")]

use std::mem::MaybeUninit;

use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};

/// Most rows whose products should be summed in f32 before they go into f64 sums: each may lose half a unit in the last
/// place.
pub(crate) const F32_ROWS: usize = 128;

/// Some columns of rows of vectors, and the way through the rows: three nested loops, as over images, rows and columns
/// of pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    /// `[rows, row_len, LANES]`
    pub values: &'a [f32],
    /// Columns of a row, those not meant included.
    pub row_len: usize,
    /// First column meant.
    pub first: usize,
    /// Number of columns meant.
    pub n: usize,
    /// First row.
    pub start: usize,
    /// Rows from one turn of each loop to the next, the outermost loop first.
    pub steps: [usize; 3],
}

impl<'a> Columns<'a> {
    /// Columns of all rows, one row after the other in the innermost loop.
    pub(crate) const fn of_rows(values: &'a [f32], row_len: usize, first: usize, n: usize) -> Self {
        Self { values, row_len, first, n, start: 0, steps: [0, 0, 1] }
    }
    /// Checks that all rows are there, and returns where the first begins and the steps, in values.
    fn place(&self, counts: [usize; 3], lanes: usize) -> (*const f32, [usize; 3]) {
        assert!(self.first + self.n <= self.row_len, "columns of a row");
        let last = self.start + self.steps.iter().zip(counts).map(|(step, n)| step * (n - 1)).sum::<usize>();
        let row = self.row_len * lanes;
        assert!((last + 1) * row <= self.values.len(), "rows of columns");
        (self.values[self.start * row + self.first * lanes..].as_ptr(), self.steps.map(|step| step * row))
    }
}

/// Steps in values.
struct ProductJob {
    a: *const f32,
    a_steps: [usize; 3],
    b: *const f32,
    b_steps: [usize; 3],
    counts: [usize; 3],
    sums: *mut f64,
    pitch: usize,
}

/// Adds the products of `I` by `J` columns.
///
/// # Safety
/// The processor must have the function's instruction set. In every turn of the loops, the row of `a` must be valid for
/// reads of `I` vectors and that of `b` for reads of `J`; each of `I` rows of sums, `pitch` apart, for reads and writes
/// of `J` values that nothing else touches meanwhile.
type ProductFn = unsafe fn(&ProductJob);

/// Most sums of a tile, and most lanes of a vector.
const TILE_MAX: usize = 24;
const LANES_MAX: usize = 16;
/// Vectors that a tile's sums take: their lanes are added up for as many vectors at a time as there are lanes.
const TILE_ROOM: usize = TILE_MAX.next_multiple_of(LANES_MAX);

/// The vectors of a tile's sums, one after the other.
#[repr(C, align(64))]
struct TileSums(MaybeUninit<[f32; LANES_MAX * TILE_ROOM]>);

#[inline(always)]
unsafe fn sum_rows<L: Lanes, const I: usize, const J: usize>(job: &ProductJob, sums: &mut TileSums) {
    // SAFETY: the caller's promise (`ProductFn`) covers the rows of every turn; where the innermost loop ends, the
    // pointers may leave the columns, and are not read. `sums` has room for I * J vectors and those that fill them up
    // to a multiple of the lanes (`TILE_ROOM` vectors of the most lanes; `product_table` checks that I * J is no more
    // than `TILE_MAX`).
    unsafe {
        let to = sums.0.as_mut_ptr().cast::<f32>();
        let mut acc = [[L::splat(0.0); J]; I];
        for outer in 0..job.counts[0] {
            for middle in 0..job.counts[1] {
                let mut a = job.a.add(outer * job.a_steps[0] + middle * job.a_steps[1]);
                let mut b = job.b.add(outer * job.b_steps[0] + middle * job.b_steps[1]);
                for _ in 0..job.counts[2] {
                    let mut av = [L::splat(0.0); I];
                    for i in 0..I {
                        av[i] = L::load(a.add(i * L::LANES));
                    }
                    for j in 0..J {
                        let bv = L::load(b.add(j * L::LANES));
                        for i in 0..I {
                            acc[i][j] = L::fma(av[i], bv, acc[i][j]);
                        }
                    }
                    a = a.wrapping_add(job.a_steps[2]);
                    b = b.wrapping_add(job.b_steps[2]);
                }
            }
        }
        for i in 0..I {
            for j in 0..J {
                L::store(to.add((i * J + j) * L::LANES), acc[i][j]);
            }
        }
        for tail in I * J..(I * J).next_multiple_of(L::LANES) {
            L::store(to.add(tail * L::LANES), L::splat(0.0));
        }
    }
}

#[inline(always)]
unsafe fn add_sums<L: Lanes, const I: usize, const J: usize>(job: &ProductJob, tile: &TileSums) {
    let mut sums = [0.0f32; TILE_ROOM];
    for first in (0..I * J).step_by(L::LANES) {
        // SAFETY: `sum_rows` stored the tile's vectors up to a multiple of the lanes, so that LANES of them begin at
        // `first`; the array has room for as many sums (`TILE_ROOM`).
        unsafe {
            L::store(sums.as_mut_ptr().add(first), L::sums(tile.0.as_ptr().cast::<f32>().add(first * L::LANES)));
        }
    }
    for i in 0..I {
        for j in 0..J {
            // SAFETY: the caller's promise (`ProductFn`) covers I rows of J sums.
            unsafe { *job.sums.add(i * job.pitch + j) += f64::from(sums[i * J + j]) };
        }
    }
}

macro_rules! product_table {
    ($name:ident, $run:ident, $add:ident, $lanes:ty, $([$feature:literal],)? $( $i:literal: [$($j:literal),*] ),*) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $run<const I: usize, const J: usize>(job: &ProductJob) {
            const { assert!(I * J <= TILE_MAX && <$lanes>::LANES <= LANES_MAX) };
            let mut sums = TileSums(MaybeUninit::uninit());
            // SAFETY: same contract, and this function enables the instructions.
            unsafe {
                sum_rows::<$lanes, I, J>(job, &mut sums);
                $add::<I, J>(job, &sums);
            }
        }
        // On its own: the instructions that add up lanes reach only half of the registers, and would keep the loop over
        // rows to them.
        $(#[target_feature(enable = $feature)])?
        #[inline(never)]
        unsafe fn $add<const I: usize, const J: usize>(job: &ProductJob, sums: &TileSums) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { add_sums::<$lanes, I, J>(job, sums) }
        }
        /// `(I, J, function)` for all `I` and `J` up to the largest.
        static $name: &[(usize, usize, ProductFn)] = &[$($(($i, $j, $run::<$i, $j>)),*),*];
    };
}

// 32 registers hold I * J sums, I vectors and one.
#[cfg(target_arch = "x86_64")]
product_table!(AVX512, run_avx512, add_avx512, Avx512, ["avx512f"],
    1: [1, 2, 3, 4, 5, 6], 2: [1, 2, 3, 4, 5, 6], 3: [1, 2, 3, 4, 5, 6], 4: [1, 2, 3, 4, 5, 6]);
// 16 registers.
#[cfg(target_arch = "x86_64")]
product_table!(AVX2, run_avx2, add_avx2, Avx2, ["avx2,fma"], 1: [1, 2, 3, 4], 2: [1, 2, 3, 4], 3: [1, 2, 3, 4]);
product_table!(PORTABLE, run_portable, add_portable, Portable, 1: [1, 2, 3], 2: [1, 2, 3]);

const fn products(isa: Isa) -> &'static [(usize, usize, ProductFn)] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2,
        _ => PORTABLE,
    }
}

/// Adds to `sums[i * pitch + j]` the sum over rows (`counts` turns of the loops) and all lanes of column `i` of `a`
/// times column `j` of `b`. With `upper`, columns are counted from each row's start, and sums may be left out where `j
/// < i`.
pub(crate) fn add_products(
    isa: Isa,
    [a, b]: [Columns<'_>; 2],
    counts: [usize; 3],
    upper: bool,
    sums: &mut [f64],
    pitch: usize,
) {
    assert!(b.n <= pitch && a.n * pitch <= sums.len() + pitch - b.n, "sums of products");
    if counts.contains(&0) {
        return;
    }
    let lanes = isa.lanes();
    let [(a_first, a_steps), (b_first, b_steps)] = [a.place(counts, lanes), b.place(counts, lanes)];
    let table = products(isa);
    let &(most_a, most_b, _) = table.last().expect("the table has tiles");
    for j in (0..b.n).step_by(most_b) {
        for i in (0..a.n).step_by(most_a) {
            let (n_a, n_b) = (most_a.min(a.n - i), most_b.min(b.n - j));
            if upper && b.first + j + n_b <= a.first + i {
                continue;
            }
            let run = table[(n_a - 1) * most_b + n_b - 1].2;
            let [a, b] = [a_first.wrapping_add(i * lanes), b_first.wrapping_add(j * lanes)];
            let job = ProductJob { a, a_steps, b, b_steps, counts, sums: sums[i * pitch + j..].as_mut_ptr(), pitch };
            // SAFETY: the instruction set is checked where kernels are made (`Isa::detect` or `Isa::checked`). The
            // function is that of `n_a` by `n_b` columns, which `i` and `j` leave of those in use; `place` checked that
            // they lie in every row the loops come by, and the assertion above that the rows of sums hold them. `sums`
            // is borrowed exclusively.
            unsafe { run(&job) }
        }
    }
}

/// Adds to `sums[i]` the sum of the squares of column `i`.
pub(crate) fn add_squares(isa: Isa, columns: Columns<'_>, counts: [usize; 3], sums: &mut [f64]) {
    // A few columns at a time: one chain of sums alone would wait for itself.
    const SIDE: usize = 4;
    for (at, sums) in sums[..columns.n].chunks_mut(SIDE).enumerate() {
        let mut products = [0.0; SIDE * SIDE];
        let part = Columns { first: columns.first + at * SIDE, n: sums.len(), ..columns };
        add_products(isa, [part, part], counts, true, &mut products, SIDE);
        sums.iter_mut().zip(products.iter().step_by(SIDE + 1)).for_each(|(sum, square)| *sum += square);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_plain_loops() {
        for isa in Isa::available() {
            let lanes = isa.lanes();
            for (row_len, a_n, b_n, n_rows) in [(1, 1, 1, 1), (9, 9, 9, 5), (23, 11, 17, 7), (30, 5, 25, 0)] {
                let values: Vec<f32> = (0..n_rows * row_len * lanes).map(|i| (i * 7919 % 23) as f32 - 11.0).collect();
                let columns = |first, n| Columns::of_rows(&values, row_len, first, n);
                let (a, b) = (columns(0, a_n), columns(row_len - b_n, b_n));
                let pitch = b_n + 3;
                let mut sums = vec![0.5; a_n * pitch];
                add_products(isa, [a, b], [1, 1, n_rows], false, &mut sums, pitch);
                let mut upper = vec![0.5; a_n * pitch];
                add_products(isa, [a, b], [1, 1, n_rows], true, &mut upper, pitch);
                for i in 0..a_n {
                    for j in 0..pitch {
                        let at = |row: usize, c: usize, l: usize| f64::from(values[(row * row_len + c) * lanes + l]);
                        let pairs = (0..n_rows).flat_map(|row| (0..lanes).map(move |l| (row, l)));
                        let sum: f64 =
                            if j < b_n { pairs.map(|(r, l)| at(r, i, l) * at(r, b.first + j, l)).sum() } else { 0.0 };
                        assert_eq!(sums[i * pitch + j], 0.5 + sum, "{isa:?}: {i}, {j}");
                        if b.first + j >= i {
                            assert_eq!(upper[i * pitch + j], sums[i * pitch + j], "{isa:?}: {i}, {j}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_may_be_reached_in_steps() {
        for isa in Isa::available() {
            let lanes = isa.lanes();
            let (row_len, counts) = (5, [2, 3, 4]);
            let values: Vec<f32> = (0..60 * row_len * lanes).map(|i| (i * 7919 % 23) as f32 - 11.0).collect();
            let a = Columns { values: &values, row_len, first: 1, n: 4, start: 3, steps: [20, 6, 1] };
            let b = Columns { values: &values, row_len, first: 0, n: 5, start: 0, steps: [0, 7, 2] };
            let mut sums = vec![0.0; 20];
            add_products(isa, [a, b], counts, false, &mut sums, 5);
            for (at, sum) in sums.iter().enumerate() {
                let mut expected = 0.0;
                for turn in 0..24 {
                    let turns = [turn / 12, turn / 4 % 3, turn % 4];
                    let row = |c: &Columns<'_>| c.start + (0..3).map(|k| c.steps[k] * turns[k]).sum::<usize>();
                    let value =
                        |c: &Columns<'_>, i: usize| &values[(row(c) * row_len + c.first + i) * lanes..][..lanes];
                    let pairs = value(&a, at / 5).iter().zip(value(&b, at % 5));
                    expected += pairs.map(|(x, y)| f64::from(x * y)).sum::<f64>();
                }
                assert_eq!(*sum, expected, "{isa:?}: {at}");
            }
        }
    }
}
