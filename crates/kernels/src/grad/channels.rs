//! Loops over the channels of pixels, on vectors whose lanes are images: sums of BatchNorm and what follows from them.
//! Everything here is `[pixels, channels, LANES]`, and what belongs to a channel is `[channels]`.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "the index is a channel, and also makes up addresses")]

use std::ops::Range;

use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};

/// Makes of a function over `Lanes` one for an instruction set chosen at run time, which this processor has
/// (`Arithmetic::checked`, where plans are compiled).
macro_rules! on_lanes {
    ($(#[$doc:meta])* $name:ident = $generic:ident($($arg:ident: $of:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name(isa: Isa, $($arg: $of),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($arg: $of),*) {
                // SAFETY: this function enables the instructions.
                unsafe { $generic::<Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $of),*) {
                // SAFETY: this function enables the instructions.
                unsafe { $generic::<Avx2>($($arg),*) }
            }
            // SAFETY: the instruction set was checked where the plan was compiled.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2($($arg),*),
                    _ => $generic::<Portable>($($arg),*),
                }
            }
        }
    };
}

pub(crate) use on_lanes;

/// What becomes of BatchNorm's input in training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalising<'a> {
    /// Factor of each channel.
    pub scale: &'a [f32],
    /// Addend of each channel.
    pub shift: &'a [f32],
    /// Added to the result, same layout.
    pub residual: Option<&'a [f32]>,
    /// Smallest and largest result.
    pub clamp: [f32; 2],
}

/// The gradient of BatchNorm's input, `of_gradient * g + of_input * x + shift`, channel by channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GradientCoefficients<'a> {
    /// Of the output's gradient.
    pub of_gradient: &'a [f32],
    /// Of the input.
    pub of_input: &'a [f32],
    /// Addend.
    pub shift: &'a [f32],
}

on_lanes! {
    /// Adds to `sums` `[2, channels, LANES]` the differences of `x` from `centre`, and their squares.
    add_moments = moments(x: &[f32], centre: &[f32], sums: &mut [f32])
}

#[inline(always)]
unsafe fn moments<L: Lanes>(x: &[f32], centre: &[f32], sums: &mut [f32]) {
    let pixel_len = centre.len() * L::LANES;
    assert_eq!(sums.len(), 2 * pixel_len, "sums of channels");
    let (first, second) = sums.split_at_mut(pixel_len);
    for pixel in x.chunks_exact(pixel_len) {
        for c in 0..centre.len() {
            let at = c * L::LANES;
            // SAFETY: `pixel`, `first` and `second` hold a vector for each channel.
            unsafe {
                let difference = L::sub(L::load(pixel.as_ptr().add(at)), L::splat(centre[c]));
                let [one, two] = [first.as_mut_ptr().add(at), second.as_mut_ptr().add(at)];
                L::store(one, L::add(L::load(one), difference));
                L::store(two, L::fma(difference, difference, L::load(two)));
            }
        }
    }
}

on_lanes! {
    /// Adds to `sums` `[2, channels, LANES]` the gradient `g`, and its products with the differences of `x` from
    /// `centre`.
    add_gradient_sums = gradient_sums(g: &[f32], x: &[f32], centre: &[f32], sums: &mut [f32])
}

#[inline(always)]
unsafe fn gradient_sums<L: Lanes>(g: &[f32], x: &[f32], centre: &[f32], sums: &mut [f32]) {
    let pixel_len = centre.len() * L::LANES;
    assert_eq!((sums.len(), g.len()), (2 * pixel_len, x.len()), "sums of channels");
    let (first, second) = sums.split_at_mut(pixel_len);
    for (g, x) in g.chunks_exact(pixel_len).zip(x.chunks_exact(pixel_len)) {
        for c in 0..centre.len() {
            let at = c * L::LANES;
            // SAFETY: `g`, `x`, `first` and `second` hold a vector for each channel.
            unsafe {
                let difference = L::sub(L::load(x.as_ptr().add(at)), L::splat(centre[c]));
                let g = L::load(g.as_ptr().add(at));
                let [one, two] = [first.as_mut_ptr().add(at), second.as_mut_ptr().add(at)];
                L::store(one, L::add(L::load(one), g));
                L::store(two, L::fma(g, difference, L::load(two)));
            }
        }
    }
}

on_lanes! {
    /// `out = clamp(x * scale + shift + residual)`
    normalise = normalised(x: &[f32], how: Normalising<'_>, out: &mut [f32])
}

#[inline(always)]
unsafe fn normalised<L: Lanes>(x: &[f32], how: Normalising<'_>, out: &mut [f32]) {
    let Normalising { scale, shift, residual, clamp } = how;
    let pixel_len = scale.len() * L::LANES;
    assert_eq!((x.len(), shift.len()), (out.len(), scale.len()), "normalised values");
    assert!(residual.is_none_or(|r| r.len() == x.len()), "residual length");
    for (pixel, (x, out)) in x.chunks_exact(pixel_len).zip(out.chunks_exact_mut(pixel_len)).enumerate() {
        let residual = residual.map(|r| &r[pixel * pixel_len..][..pixel_len]);
        for c in 0..scale.len() {
            let at = c * L::LANES;
            // SAFETY: `x`, `out` and the residual's pixel hold a vector for each channel.
            unsafe {
                let y = L::fma(L::load(x.as_ptr().add(at)), L::splat(scale[c]), L::splat(shift[c]));
                let y = match residual {
                    Some(r) => L::add(y, L::load(r.as_ptr().add(at))),
                    None => y,
                };
                L::store(out.as_mut_ptr().add(at), L::clamp(y, L::splat(clamp[0]), L::splat(clamp[1])));
            }
        }
    }
}

on_lanes! {
    /// `out = of_gradient * g + of_input * x + shift`
    combine_gradient = combined(g: &[f32], x: &[f32], by: GradientCoefficients<'_>, out: &mut [f32])
}

#[inline(always)]
unsafe fn combined<L: Lanes>(g: &[f32], x: &[f32], by: GradientCoefficients<'_>, out: &mut [f32]) {
    let n = by.of_gradient.len();
    let pixel_len = n * L::LANES;
    assert_eq!((g.len(), x.len()), (out.len(), out.len()), "gradient of normalised values");
    for ((g, x), out) in g.chunks_exact(pixel_len).zip(x.chunks_exact(pixel_len)).zip(out.chunks_exact_mut(pixel_len)) {
        for c in 0..n {
            let at = c * L::LANES;
            // SAFETY: `g`, `x` and `out` hold a vector for each channel.
            unsafe {
                let of_input = L::fma(L::load(x.as_ptr().add(at)), L::splat(by.of_input[c]), L::splat(by.shift[c]));
                let sum = L::fma(L::load(g.as_ptr().add(at)), L::splat(by.of_gradient[c]), of_input);
                L::store(out.as_mut_ptr().add(at), sum);
            }
        }
    }
}

on_lanes! {
    /// Sets the gradient `g` of a clamped output `y` to zero where `y` is at a bound.
    stop_at_bounds = stopped(y: &[f32], bounds: [f32; 2], g: &mut [f32])
}

#[inline(always)]
unsafe fn stopped<L: Lanes>(y: &[f32], bounds: [f32; 2], g: &mut [f32]) {
    assert_eq!(y.len(), g.len(), "gradient of a clamped output");
    assert!(g.len().is_multiple_of(L::LANES), "whole vectors");
    for (y, g) in y.chunks_exact(L::LANES).zip(g.chunks_exact_mut(L::LANES)) {
        // SAFETY: both hold a vector.
        unsafe {
            let kept = L::inside(L::load(g.as_ptr()), L::load(y.as_ptr()), L::splat(bounds[0]), L::splat(bounds[1]));
            L::store(g.as_mut_ptr(), kept);
        }
    }
}

on_lanes! {
    /// Adds to `sums` `[channels, LANES]` the products of pixels of `x` and `g`, `steps` channels further each time.
    add_products_of_channels = products_of_channels(x: &[f32], g: &[f32], steps: [usize; 2], sums: &mut [f32])
}

#[inline(always)]
unsafe fn products_of_channels<L: Lanes>(x: &[f32], g: &[f32], steps: [usize; 2], sums: &mut [f32]) {
    let pixels = x.chunks(steps[0] * L::LANES).zip(g.chunks(steps[1] * L::LANES));
    for (x, g) in pixels {
        assert!(x.len() >= sums.len() && g.len() >= sums.len(), "pixels of channels");
        for at in (0..sums.len()).step_by(L::LANES) {
            // SAFETY: all three hold a vector at `at` (asserted), and sums are whole vectors.
            unsafe {
                let sum = sums.as_mut_ptr().add(at);
                L::store(sum, L::fma(L::load(x.as_ptr().add(at)), L::load(g.as_ptr().add(at)), L::load(sum)));
            }
        }
    }
}

on_lanes! {
    /// Adds the pixels of `g` to `sums` `[channels, LANES]`.
    add_sums_of_channels = sums_of_channels(g: &[f32], sums: &mut [f32])
}

#[inline(always)]
unsafe fn sums_of_channels<L: Lanes>(g: &[f32], sums: &mut [f32]) {
    for pixel in g.chunks_exact(sums.len()) {
        for at in (0..sums.len()).step_by(L::LANES) {
            // SAFETY: both hold a vector at `at`: pixels are as long as sums, which are whole vectors.
            unsafe {
                let sum = sums.as_mut_ptr().add(at);
                L::store(sum, L::add(L::load(sum), L::load(pixel.as_ptr().add(at))));
            }
        }
    }
}

/// A clamped output and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clamped<'a> {
    /// The output.
    pub y: &'a [f32],
    /// Smallest and largest.
    pub bounds: [f32; 2],
}

/// Values, and one for each channel from which differences are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Centred<'a> {
    /// The values.
    pub x: &'a [f32],
    /// `[channels]`
    pub centre: &'a [f32],
}

on_lanes! {
    /// [`stop_at_bounds`] and [`add_gradient_sums`] in one go.
    stop_and_sum = stopped_and_summed(clamped: Clamped<'_>, g: &mut [f32], x: Centred<'_>, sums: &mut [f32])
}

#[inline(always)]
unsafe fn stopped_and_summed<L: Lanes>(
    Clamped { y, bounds }: Clamped<'_>,
    g: &mut [f32],
    Centred { x, centre }: Centred<'_>,
    sums: &mut [f32],
) {
    let pixel_len = centre.len() * L::LANES;
    assert_eq!((sums.len(), g.len(), y.len()), (2 * pixel_len, x.len(), x.len()), "sums of channels");
    let (first, second) = sums.split_at_mut(pixel_len);
    let pixels = g.chunks_exact_mut(pixel_len).zip(x.chunks_exact(pixel_len)).zip(y.chunks_exact(pixel_len));
    for ((g, x), y) in pixels {
        for c in 0..centre.len() {
            let at = c * L::LANES;
            // SAFETY: `g`, `x`, `y`, `first` and `second` hold a vector for each channel.
            unsafe {
                let difference = L::sub(L::load(x.as_ptr().add(at)), L::splat(centre[c]));
                let [low, high] = [L::splat(bounds[0]), L::splat(bounds[1])];
                let kept = L::inside(L::load(g.as_ptr().add(at)), L::load(y.as_ptr().add(at)), low, high);
                L::store(g.as_mut_ptr().add(at), kept);
                let [one, two] = [first.as_mut_ptr().add(at), second.as_mut_ptr().add(at)];
                L::store(one, L::add(L::load(one), kept));
                L::store(two, L::fma(kept, difference, L::load(two)));
            }
        }
    }
}

/// Values of one channel of a group of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapSize {
    /// Pixels of an image.
    pub n_pixels: usize,
    /// Images that there is room for.
    pub lanes: usize,
    /// Images.
    pub n_present: usize,
}

/// Sums over pixels of two values of each channel, in f64 and by channel, from those of lanes in f32.
#[derive(Debug, Default)]
pub(crate) struct ChannelSums {
    lanes: Vec<f32>,
}

/// Pixels whose values are summed in f32 before the sums go into f64 ones.
const F32_PIXELS: usize = 256;

impl ChannelSums {
    /// Room for `channels` channels.
    pub(crate) fn with_room(channels: usize, lanes: usize) -> Self {
        Self { lanes: vec![0.0; 2 * channels * lanes] }
    }

    /// Writes `[2, channels]` sums of what `add(pixels, sums)` adds up for ranges of pixels, of the lanes below
    /// `n_present`.
    pub(crate) fn sum(
        &mut self,
        MapSize { n_pixels, lanes, n_present }: MapSize,
        out: &mut [f64],
        mut add: impl FnMut(Range<usize>, &mut [f32]),
    ) {
        out.fill(0.0);
        let sums = &mut self.lanes[..out.len() * lanes];
        for start in (0..n_pixels).step_by(F32_PIXELS) {
            sums.fill(0.0);
            add(start..(start + F32_PIXELS).min(n_pixels), sums);
            for (total, lanes) in out.iter_mut().zip(sums.chunks_exact(lanes)) {
                *total += lanes[..n_present].iter().map(|&x| f64::from(x)).sum::<f64>();
            }
        }
    }
}
