//! From an image of any size to what a network reads, as torchvision's `Resize` and `CenterCrop` do it on PIL images.

use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use secateur_net::Shape;
use serde::{Deserialize, Serialize};

use super::decode::DecodedImage;

/// How images of any size become images of the size that a network reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transform {
    /// Size before the crop.
    pub resize: Resize,
    /// Weights of neighbouring pixels; antialiased where images become smaller.
    pub interpolation: Interpolation,
    /// Order of the channels.
    pub channels: ChannelOrder,
}

/// What images are resized to, before their middle is cut out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Resize {
    /// The shorter side becomes 256/224 of the network's: 256 for 224.
    #[default]
    Proportional,
    /// The shorter side becomes so many pixels, at least the network's size.
    Shorter(usize),
    /// Exactly the network's size, whatever that does to the proportions: nothing is cut off.
    Exact,
}

/// How values between pixels are found; those of the same name in PIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Triangle, torchvision's default.
    #[default]
    Bilinear,
    /// Cubic with a = -0.5, the default of many models of timm.
    Bicubic,
    /// Lanczos over three lobes.
    Lanczos,
}

/// Order of the channels of an image that has three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChannelOrder {
    /// Red first, as PyTorch's models read them.
    #[default]
    Rgb,
    /// Blue first, as models trained with Caffe or OpenCV may.
    Bgr,
}

impl Transform {
    /// Rows and columns that an image of the shape `of` is resized to for a network that reads `to`.
    fn resized(&self, of: Shape, to: Shape) -> Shape {
        let Shape { c, h, w } = of;
        let grown = |side: usize| ((side as f64) * 256.0 / 224.0).round() as usize;
        let least = match self.resize {
            Resize::Exact => return Shape { c, ..to },
            Resize::Shorter(n) => (n.max(to.h), n.max(to.w)),
            Resize::Proportional => (grown(to.h), grown(to.w)),
        };
        // The side that needs more of the image decides; the other follows, rounded down as torchvision does.
        let follows = |side: usize, of: usize, by: usize| ((side as u128 * of as u128 / by as u128) as usize).max(1);
        if least.0 * w <= least.1 * h {
            Shape { c, h: follows(least.1, h, w).max(to.h), w: least.1 }
        } else {
            Shape { c, h: least.0, w: follows(least.0, w, h).max(to.w) }
        }
    }

    /// `image` as a network expects it that reads `to`, one or three channels: `[H, W, C]`, put into `out` in place of
    /// what was there.
    ///
    /// # Errors
    /// A size that cannot be resized.
    pub(crate) fn apply(
        &self,
        image: &DecodedImage,
        to: Shape,
        resizer: &mut Resizer,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let image = if to.c == 1 { grey(image) } else { Cow::Borrowed(image) };
        let c = image.shape.c;
        self.middle(&image, to, resizer, out)?;
        match (c, to.c, self.channels) {
            (1, 3, _) => *out = out.iter().flat_map(|&x| [x; 3]).collect(),
            (3, 3, ChannelOrder::Bgr) => out.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.swap(0, 2)),
            _ => {}
        }
        Ok(())
    }

    /// The middle, of the rows and columns of `to`, of what `image` is when it is resized; nothing else of that is
    /// computed.
    fn middle(&self, image: &DecodedImage, to: Shape, resizer: &mut Resizer, out: &mut Vec<u8>) -> Result<(), String> {
        let DecodedImage { shape, pixels, .. } = image;
        let (shape, size) = (*shape, self.resized(*shape, to));
        let corner = [middle_of(size.h, to.h), middle_of(size.w, to.w)];
        out.clear();
        if shape == size {
            out.extend(part(pixels, shape, corner, to));
            return Ok(());
        }
        let kind = if shape.c == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let side = |n: usize| u32::try_from(n).map_err(|_| format!("resizing to {} x {}: too large", size.h, size.w));
        let source = ImageRef::new(side(shape.w)?, side(shape.h)?, pixels, kind).map_err(|e| e.to_string())?;
        let algorithm = match self.interpolation {
            Interpolation::Nearest => ResizeAlg::Nearest,
            Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        };
        let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        // Which pixel is the nearest may depend on the last digit of a place: all of them are found as PIL finds them.
        let is_whole = self.interpolation == Interpolation::Nearest;
        let computed = if is_whole { size } else { Shape { c: shape.c, ..to } };
        let options = if computed == size { options } else { places_of(options, [shape, size, to], corner) };
        out.resize(computed.len(), 0);
        let (w, h) = (side(computed.w)?, side(computed.h)?);
        let mut target = Image::from_slice_u8(w, h, out, kind).map_err(|e| e.to_string())?;
        resizer.resize(&source, &mut target, &options).map_err(|e| e.to_string())?;
        if computed == size {
            *out = part(out, size, corner, to);
        }
        Ok(())
    }
}

/// The places of an image of the shape `of` that become the rows and columns of `to` from `corner` on, when it is
/// resized to `resized`. The pixels around them still count, as they do when all of it is resized.
fn places_of(options: ResizeOptions, [of, resized, to]: [Shape; 3], corner: [usize; 2]) -> ResizeOptions {
    let places = |of: usize, resized: usize, first: usize, n: usize| {
        let scale = of as f64 / resized as f64;
        let first = first as f64 * scale;
        (first, (n as f64 * scale).min(of as f64 - first))
    };
    let (top, height) = places(of.h, resized.h, corner[0], to.h);
    let (left, width) = places(of.w, resized.w, corner[1], to.w);
    options.crop(left, top, width, height)
}

/// Luma of ITU-R 601, as PIL's `convert("L")` computes it.
fn grey(image: &DecodedImage) -> Cow<'_, DecodedImage> {
    if image.shape.c == 1 {
        return Cow::Borrowed(image);
    }
    let luma = |&[r, g, b]: &[u8; 3]| {
        ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
    };
    let pixels = image.pixels.as_chunks::<3>().0.iter().map(luma).collect();
    Cow::Owned(DecodedImage { shape: Shape { c: 1, ..image.shape }, pixels, mode: image.mode })
}

/// Where the middle begins; of two middles the one that Python's `round` takes, which rounds halves to even.
fn middle_of(have: usize, want: usize) -> usize {
    (have.saturating_sub(want) as f64 / 2.0).round_ties_even() as usize
}

/// The rows and columns of `to` from `corner` on.
fn part(pixels: &[u8], of: Shape, [top, left]: [usize; 2], to: Shape) -> Vec<u8> {
    if (of.h, of.w) == (to.h, to.w) {
        return pixels.to_vec();
    }
    let rows = pixels.chunks_exact(of.w * of.c).skip(top).take(to.h);
    rows.flat_map(|row| &row[left * of.c..(left + to.w) * of.c]).copied().collect()
}
