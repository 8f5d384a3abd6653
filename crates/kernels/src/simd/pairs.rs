//! bf16 in pairs: rounding, and whole buffers to and from f32.
#![allow(unsafe_code)]

/// The upper half of an f32, rounded to nearest, ties to even, as the processor's own instruction does it: denormals
/// become zero, NaN stays NaN.
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let upper = |bits: u32| (bits >> 16) as u16;
    if x.is_nan() {
        upper(bits) | 0x40
    } else if x.is_subnormal() {
        upper(bits) & 0x8000
    } else {
        upper(bits + 0x7fff + ((bits >> 16) & 1))
    }
}

/// Two channels of one image in a word: `even` in the low half.
pub(crate) fn pair(even: f32, odd: f32) -> f32 {
    f32::from_bits(u32::from(round(even)) | u32::from(round(odd)) << 16)
}

/// `[filters, in, taps]` to words `[taps, in words, filters]`.
pub(crate) fn pack_filters(filters: &[f32], [n_in, n_taps]: [usize; 2], n_filters: usize, packed: &mut [f32]) {
    let n_words = n_in.div_ceil(2);
    for word in 0..n_words {
        for t in 0..n_taps {
            let to = packed[(t * n_words + word) * n_filters..].iter_mut();
            for (to, filter) in to.zip(filters.chunks_exact(n_in * n_taps)).take(n_filters) {
                let odd = filter.get((2 * word + 1) * n_taps + t);
                *to = pair(filter[2 * word * n_taps + t], odd.copied().unwrap_or(0.0));
            }
        }
    }
}

/// Rounds `values` `[pixels, channels, 16]` to `words` `[pixels, channels / 2, 16]`.
pub(crate) fn pack(values: &[f32], channels: usize, words: &mut [f32]) {
    check(values, channels, words);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: only plans in bf16 come here, which are made on processors that have the instructions only
    // (`Precision::checked`); `check` has seen that both buffers hold the same number of pixels.
    unsafe {
        x86::pack_all(values, channels, words);
    }
}

/// The values of `words`: the inverse of [`pack`].
pub(crate) fn unpack(words: &[f32], channels: usize, values: &mut [f32]) {
    check(values, channels, words);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `pack`.
    unsafe {
        x86::unpack_all(words, channels, values);
    }
}

fn check(values: &[f32], channels: usize, words: &[f32]) {
    let pixels = values.len() / (channels * 16);
    assert_eq!(values.len(), pixels * channels * 16, "values of a group of images");
    assert_eq!(words.len(), pixels * channels.div_ceil(2) * 16, "words of a group of images");
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Interleave;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Rounds two vectors of f32 to one of pairs; holds the constant that this takes.
    #[derive(Clone, Copy)]
    pub(crate) struct Interleave(__m512i);

    impl Interleave {
        /// # Safety
        /// The processor must have AVX-512F, AVX512BW and AVX512-BF16; so for all methods.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            // SAFETY: the caller's promise. Result word 2i is word i, result word 2i + 1 is word 16 + i.
            unsafe {
                let low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
                Self(_mm512_or_si512(low, _mm512_slli_epi32::<16>(_mm512_add_epi32(low, _mm512_set1_epi32(16)))))
            }
        }
        /// `even` in the low halves.
        ///
        /// # Safety
        /// As [`Interleave::new`].
        #[inline(always)]
        pub(crate) unsafe fn pack(self, even: __m512, odd: __m512) -> __m512 {
            // SAFETY: the caller's promise; vectors of one size.
            unsafe {
                let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(odd, even));
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(self.0, halves))
            }
        }
        /// The even and the odd channel.
        ///
        /// # Safety
        /// As [`Interleave::new`].
        #[inline(always)]
        pub(crate) unsafe fn unpack(words: __m512) -> [__m512; 2] {
            // SAFETY: the caller's promise.
            unsafe {
                let words = _mm512_castps_si512(words);
                let odd = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)), _mm512_castsi512_ps(odd)]
            }
        }
    }

    /// # Safety
    /// The processor must have the instructions; `words` must hold the pixels that `values` does.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn pack_all(values: &[f32], channels: usize, words: &mut [f32]) {
        // SAFETY: chunks hold all vectors of a pixel; the function has the instructions.
        unsafe {
            let interleave = Interleave::new();
            let pixels = values.chunks_exact(channels * 16).zip(words.chunks_exact_mut(channels.div_ceil(2) * 16));
            for (from, to) in pixels {
                for c in (0..channels).step_by(2) {
                    let even = _mm512_loadu_ps(from.as_ptr().add(c * 16));
                    let is_last = c + 1 == channels;
                    let odd =
                        if is_last { _mm512_setzero_ps() } else { _mm512_loadu_ps(from.as_ptr().add((c + 1) * 16)) };
                    _mm512_storeu_ps(to.as_mut_ptr().add(c / 2 * 16), interleave.pack(even, odd));
                }
            }
        }
    }

    /// # Safety
    /// As [`pack_all`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn unpack_all(words: &[f32], channels: usize, values: &mut [f32]) {
        // SAFETY: chunks hold all vectors of a pixel; the function has the instructions.
        unsafe {
            let pixels = values.chunks_exact_mut(channels * 16).zip(words.chunks_exact(channels.div_ceil(2) * 16));
            for (to, from) in pixels {
                for c in (0..channels).step_by(2) {
                    let [even, odd] = Interleave::unpack(_mm512_loadu_ps(from.as_ptr().add(c / 2 * 16)));
                    _mm512_storeu_ps(to.as_mut_ptr().add(c * 16), even);
                    if c + 1 < channels {
                        _mm512_storeu_ps(to.as_mut_ptr().add((c + 1) * 16), odd);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    #[test]
    fn rounding_is_to_nearest_ties_to_even() {
        let of = |bits: u32| round(f32::from_bits(bits));
        assert_eq!(round(1.0), 0x3f80);
        assert_eq!(
            [of(0x3f80_8000), of(0x3f81_8000), of(0x3f80_8001), of(0x3f80_7fff)],
            [0x3f80, 0x3f82, 0x3f81, 0x3f80]
        );
        assert_eq!(
            [round(f32::MAX), round(f32::INFINITY), round(-0.0), round(-1e-40)],
            [0x7f80, 0x7f80, 0x8000, 0x8000]
        );
        assert!(f32::from_bits(u32::from(of(0x7f80_0001)) << 16).is_nan());
    }

    #[test]
    fn buffers_are_rounded_as_single_values_are_and_come_back() {
        if !Precision::Bf16.is_available() {
            eprintln!("SKIPPED: this processor does not have AVX512-BF16");
            return;
        }
        for channels in 1..=5 {
            // Every exponent and sign, NaN and denormals among them, with mantissas near ties.
            let mantissas = [0, 1, 0x7fff, 0x8000, 0x8001, 0x1_8000, 0x7f_7fff, 0x7f_8000, 0x7f_ffff];
            let bits = (0..512u32).flat_map(|high| mantissas.map(|low| high << 23 | low));
            let mut values: Vec<f32> = bits.map(f32::from_bits).collect();
            values.resize(values.len().next_multiple_of(channels * 16), 1.0);
            let n_pixels = values.len() / (channels * 16);
            let mut words = vec![0.0; n_pixels * channels.div_ceil(2) * 16];
            pack(&values, channels, &mut words);
            for (pixel, word, lane) in (0..words.len()).map(|at| {
                let n_words = channels.div_ceil(2);
                (at / 16 / n_words, at / 16 % n_words, at % 16)
            }) {
                let value = |c: usize| if c < channels { values[(pixel * channels + c) * 16 + lane] } else { 0.0 };
                let expected = pair(value(2 * word), value(2 * word + 1));
                let got = words[(pixel * channels.div_ceil(2) + word) * 16 + lane];
                assert_eq!(got.to_bits(), expected.to_bits(), "{} {}", value(2 * word), value(2 * word + 1));
            }
            let mut back = vec![0.0; values.len()];
            unpack(&words, channels, &mut back);
            let rounded = values.iter().map(|&x| u32::from(round(x)) << 16);
            assert!(back.iter().map(|x| x.to_bits()).eq(rounded));
        }
    }

    #[test]
    fn filters_are_packed_by_pairs_of_inputs() {
        // Two filters of three inputs and two taps.
        let filters: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let mut packed = vec![0.0; 8];
        pack_filters(&filters, [3, 2], 2, &mut packed);
        let expected = [[1, 3], [7, 9], [5, 0], [11, 0], [2, 4], [8, 10], [6, 0], [12, 0]];
        let expected = expected.map(|[even, odd]| pair(even as f32, odd as f32).to_bits());
        assert_eq!(packed.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
    }
}
