//! Arrays of images: their elements as pixels, one image at a time.

use half::f16;
use secateur_net::Shape;

use super::archive::ArrayPlace;
use super::choices::{ArrayLayout, FloatRange, ImageAxes};
use super::npy::NpyHeader;
use crate::FormatError;
use crate::data::pixels::{ArrayImages, ArrayValues};

/// How far floats may lie outside of their range, as a share of it: resizing overshoots.
const OVERSHOOT: f32 = 0.5;
/// Largest value that a normalised float may have; the engine sums squares of them.
const NORMALISED_MAX: f32 = 1e6;

/// How an array becomes images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageReading {
    pub(crate) layout: ArrayLayout,
    pub(crate) floats: FloatRange,
}

/// Types of elements that images may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PixelType {
    Byte,
    /// Of so many bytes, the first being the lowest unless `is_big_endian`.
    Float {
        n_bytes: usize,
        is_big_endian: bool,
    },
}

impl PixelType {
    fn of(header: &NpyHeader) -> Result<Self, String> {
        let is_big_endian = header.dtype.starts_with('>');
        match header.dtype.trim_start_matches(['<', '>', '|', '=']) {
            "u1" => Ok(Self::Byte),
            "f2" => Ok(Self::Float { n_bytes: 2, is_big_endian }),
            "f4" => Ok(Self::Float { n_bytes: 4, is_big_endian }),
            "f8" => Ok(Self::Float { n_bytes: 8, is_big_endian }),
            _ => Err(format!(
                "is {}; images are read of uint8 (0 to 255) and of floats: convert it, array.astype(numpy.uint8)",
                header.described()
            )),
        }
    }

    const fn n_bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Float { n_bytes, .. } => n_bytes,
        }
    }

    /// Bytes that an element takes in memory.
    const fn n_bytes_held(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Float { .. } => 4,
        }
    }
}

/// Number of images and shape of one, and the bytes that all take in memory, by the header alone.
///
/// # Errors
/// A file that cannot be read, an array that is none of images.
pub(super) fn extents(place: &ArrayPlace, reading: ImageReading) -> Result<(usize, Shape, u64), FormatError> {
    place.read(stored_bytes, |header, _| {
        let of = PixelType::of(header)?;
        let ImageAxes { n, h, w, c, .. } = reading.layout.axes(&header.shape)?;
        let held = header.n_elements()?.saturating_mul(of.n_bytes_held() as u64);
        Ok((n, Shape { c, h, w }, held))
    })
}

fn stored_bytes(header: &NpyHeader) -> Result<u64, String> {
    let n_bytes = PixelType::of(header)?.n_bytes() as u64;
    let declared = || format!("declares {}, more bytes than there can be", header.described());
    header.n_elements()?.checked_mul(n_bytes).ok_or_else(declared)
}

/// Reads the images for which `is_wanted` holds by their number; others are passed over.
///
/// # Errors
/// As [`extents`]; floats that are not finite, or are out of the range that the scene gives them.
pub(super) fn read_images(
    place: &ArrayPlace,
    reading: ImageReading,
    is_wanted: impl Fn(usize) -> bool,
) -> Result<ArrayImages, FormatError> {
    place.read(stored_bytes, |header, reader| {
        let of = PixelType::of(header)?;
        let axes = reading.layout.axes(&header.shape)?;
        let shape = Shape { c: axes.c, h: axes.h, w: axes.w };
        let mut stored = vec![0; shape.len() * of.n_bytes()];
        // There are as many bytes in the file: what it takes follows from its size.
        let n_values = (0..axes.n).filter(|&index| is_wanted(index)).count() * shape.len();
        let mut values = match (of, reading.floats) {
            (PixelType::Byte, _) => ArrayValues::Bytes(Vec::with_capacity(n_values)),
            (_, FloatRange::Normalised) => ArrayValues::Normalised(Vec::with_capacity(n_values)),
            (PixelType::Float { .. }, _) => ArrayValues::Unit(Vec::with_capacity(n_values)),
        };
        let mut largest = 0f32;
        for index in 0..axes.n {
            reader.read_exact(&mut stored).map_err(|error| format!("cannot be read at image {index}: {error}"))?;
            if !is_wanted(index) {
                continue;
            }
            match &mut values {
                ArrayValues::Bytes(out) => channels_last(&stored, axes, out),
                ArrayValues::Unit(out) | ArrayValues::Normalised(out) => {
                    let pixels = floats(&stored, of);
                    let most = in_range(&pixels, reading.floats).map_err(|problem| format!("image {index} {problem}"))?;
                    largest = largest.max(most);
                    let scale = if reading.floats == FloatRange::Bytes { 255.0 } else { 1.0 };
                    channels_last(&pixels.iter().map(|x| x / scale).collect::<Vec<f32>>(), axes, out);
                }
            }
        }
        if reading.floats == FloatRange::Bytes && of != PixelType::Byte && largest > 0.0 && largest <= 1.0 {
            return Err(format!(
                "has floats up to {largest}, which are no pixels of 0 to 255 (`floats: Bytes`); say `floats: Unit` for 0 to 1"
            ));
        }
        Ok(ArrayImages::new(shape, values))
    })
}

/// Adds one image to `out`, as `[H, W, C]`.
fn channels_last<T: Copy>(image: &[T], axes: ImageAxes, out: &mut Vec<T>) {
    if !axes.is_channels_first || axes.c == 1 {
        return out.extend_from_slice(image);
    }
    let plane = axes.h * axes.w;
    out.extend((0..plane).flat_map(|pixel| (0..axes.c).map(move |channel| image[channel * plane + pixel])));
}

fn floats(stored: &[u8], of: PixelType) -> Vec<f32> {
    let PixelType::Float { n_bytes, is_big_endian } = of else { return stored.iter().map(|&x| f32::from(x)).collect() };
    let bits = |element: &[u8]| {
        let with = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        if is_big_endian { element.iter().fold(0, with) } else { element.iter().rev().fold(0, with) }
    };
    let value = |element: &[u8]| match n_bytes {
        2 => f16::from_bits(bits(element) as u16).to_f32(),
        4 => f32::from_bits(bits(element) as u32),
        _ => f64::from_bits(bits(element)) as f32,
    };
    stored.chunks_exact(n_bytes).map(value).collect()
}

/// The largest of them; what is wrong with the first that cannot be a pixel.
fn in_range(pixels: &[f32], range: FloatRange) -> Result<f32, String> {
    if let Some(odd) = pixels.iter().find(|x| !x.is_finite()) {
        return Err(format!(
            "holds {odd}, expected finite numbers; repair the array, for example with numpy.nan_to_num"
        ));
    }
    let (low, high) = match range {
        FloatRange::Unit => (-OVERSHOOT, 1.0 + OVERSHOOT),
        FloatRange::Bytes => (-OVERSHOOT * 255.0, (1.0 + OVERSHOOT) * 255.0),
        FloatRange::Normalised => (-NORMALISED_MAX, NORMALISED_MAX),
    };
    match pixels.iter().find(|x| !(low..=high).contains(*x)) {
        None => Ok(pixels.iter().copied().fold(0.0, f32::max)),
        Some(odd) => Err(match range {
            FloatRange::Unit => format!(
                "holds {odd}, and floats are taken for pixels of 0 to 1; say `floats: Bytes` for 0 to 255, `floats: Normalised` for \
                 what the network reads as it stands"
            ),
            FloatRange::Bytes => format!(
                "holds {odd}, and `floats: Bytes` are pixels of 0 to 255; say `floats: Normalised` for what the network reads as it \
                 stands"
            ),
            FloatRange::Normalised => {
                format!("holds {odd}, expected values up to {NORMALISED_MAX:e} of normalised pixels")
            }
        }),
    }
}
