//! Vectors of f32 lanes: one small trait, three implementations.
#![allow(unsafe_code)]

/// Operations on one vector. All methods are inlined into a function compiled for the instruction set.
///
/// # Safety
/// Every method may be called only on a processor with the instruction set. `load` and `store` touch `LANES` values at
/// `p`, which must be valid for reads or writes, and `sums` reads `LANES * LANES` values at `vectors`. No alignment is
/// asked for.
pub(crate) unsafe trait Lanes: Copy {
    /// Values per vector.
    const LANES: usize;
    /// The vector.
    type V: Copy;
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self::V;
    /// All lanes.
    unsafe fn load(p: *const f32) -> Self::V;
    /// All lanes.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a * b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// For each of `LANES` vectors, one after the other at `vectors`, the sum of its lanes, added up in a fixed order;
    /// all at once, since that takes a third of the instructions.
    unsafe fn sums(vectors: *const f32) -> Self::V;
    /// `low` where `v < low`, `high` where `v > high`, else `v`: NaN stays NaN.
    unsafe fn clamp(v: Self::V, low: Self::V, high: Self::V) -> Self::V;
    /// `v` where `low < x < high`, else 0.
    unsafe fn inside(v: Self::V, x: Self::V, low: Self::V, high: Self::V) -> Self::V;
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// 16 lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    // SAFETY: each method is one or two intrinsics of AVX-512F, whose presence and whose pointers are the caller's
    // promise (see the trait).
    unsafe impl Lanes for Avx512 {
        const LANES: usize = 16;
        type V = __m512;
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: trait contract.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: trait contract.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            // SAFETY: trait contract.
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: trait contract.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: trait contract.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            // SAFETY: trait contract.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sums(vectors: *const f32) -> __m512 {
            // SAFETY: trait contract.
            unsafe {
                let mut fours = [_mm512_setzero_ps(); 4];
                for (i, four) in fours.iter_mut().enumerate() {
                    let at = vectors.add(4 * i * Self::LANES);
                    let [a, b] = [Self::load(at), Self::load(at.add(Self::LANES))];
                    let [c, d] = [Self::load(at.add(2 * Self::LANES)), Self::load(at.add(3 * Self::LANES))];
                    let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
                    let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
                    let [low, high] = [_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd)];
                    // In each quarter of the vector: what the quarters of a, b, c and d add up to.
                    *four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
                }
                let [p, q, r, s] = fours;
                let pq = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(p, q), _mm512_shuffle_f32x4::<0xdd>(p, q));
                let rs = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(r, s), _mm512_shuffle_f32x4::<0xdd>(r, s));
                _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(pq, rs), _mm512_shuffle_f32x4::<0xdd>(pq, rs))
            }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m512, low: __m512, high: __m512) -> __m512 {
            // SAFETY: trait contract. max and min return their second operand when either is NaN.
            unsafe { _mm512_min_ps(high, _mm512_max_ps(low, v)) }
        }
        #[inline(always)]
        unsafe fn inside(v: __m512, x: __m512, low: __m512, high: __m512) -> __m512 {
            // SAFETY: trait contract.
            unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, low);
                _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, x, high), v)
            }
        }
    }

    /// 8 lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY: as for `Avx512`, with AVX2 and FMA.
    unsafe impl Lanes for Avx2 {
        const LANES: usize = 8;
        type V = __m256;
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: trait contract.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: trait contract.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            // SAFETY: trait contract.
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: trait contract.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: trait contract.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            // SAFETY: trait contract.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sums(vectors: *const f32) -> __m256 {
            // SAFETY: trait contract.
            unsafe {
                let mut fours = [_mm256_setzero_ps(); 2];
                for (i, four) in fours.iter_mut().enumerate() {
                    let at = vectors.add(4 * i * Self::LANES);
                    let ab = _mm256_hadd_ps(Self::load(at), Self::load(at.add(Self::LANES)));
                    let cd = _mm256_hadd_ps(Self::load(at.add(2 * Self::LANES)), Self::load(at.add(3 * Self::LANES)));
                    *four = _mm256_hadd_ps(ab, cd);
                }
                let [p, q] = fours;
                _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(p, q), _mm256_permute2f128_ps::<0x31>(p, q))
            }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m256, low: __m256, high: __m256) -> __m256 {
            // SAFETY: trait contract. max and min return their second operand when either is NaN.
            unsafe { _mm256_min_ps(high, _mm256_max_ps(low, v)) }
        }
        #[inline(always)]
        unsafe fn inside(v: __m256, x: __m256, low: __m256, high: __m256) -> __m256 {
            // SAFETY: trait contract.
            unsafe {
                let within = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, low), _mm256_cmp_ps::<_CMP_LT_OQ>(x, high));
                _mm256_and_ps(v, within)
            }
        }
    }
}

/// 8 lanes of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

// SAFETY: plain Rust; accesses exactly the values the trait's contract names.
unsafe impl Lanes for Portable {
    const LANES: usize = 8;
    type V = [f32; 8];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 8] {
        // SAFETY: trait contract.
        unsafe { p.cast::<[f32; 8]>().read() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 8]) {
        // SAFETY: trait contract.
        unsafe { p.cast::<[f32; 8]>().write(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn sums(vectors: *const f32) -> [f32; 8] {
        // SAFETY: trait contract.
        unsafe { std::array::from_fn(|i| Self::load(vectors.add(i * Self::LANES)).iter().sum()) }
    }
    #[inline(always)]
    unsafe fn clamp(v: [f32; 8], low: [f32; 8], high: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| {
            let raised = if v[i] < low[i] { low[i] } else { v[i] };
            if raised > high[i] { high[i] } else { raised }
        })
    }
    #[inline(always)]
    unsafe fn inside(v: [f32; 8], x: [f32; 8], low: [f32; 8], high: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if low[i] < x[i] && x[i] < high[i] { v[i] } else { 0.0 })
    }
}
