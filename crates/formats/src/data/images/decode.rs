//! Image files as pixels: which format they have is told by their first bytes, whatever they are named.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, Limits, RgbImage};
use secateur_net::Shape;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::FileProblem;

/// Pixels of one image at most, as PIL has it: a header of a few bytes can declare 4,000,000,000 of them.
const PIXELS_MAX: u64 = 178_956_970;
/// Pixels that a file of any length may have, about 50 MB, and beyond them for every byte of the file: a white page of
/// one bit a pixel takes a byte for 8,000.
const PIXELS_OF_ANY: u64 = 1 << 24;
const PIXELS_PER_BYTE: u64 = 10_000;
/// Bytes that a decoder may take for a pixel: 16 bits for each of four channels, and as much again while it works.
const BYTES_PER_PIXEL_MAX: u64 = 16;

/// One image, turned as its EXIF orientation says.
///
/// # Example
/// ```
/// use secateur_formats::decode_image;
///
/// let grey_pixel = b"BM\x3e\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0\
///     \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\x80\x80\0";
/// let image = decode_image(grey_pixel)?;
/// assert_eq!((image.mode, image.pixels.as_slice()), ("RGB", &[128, 128, 128][..]));
/// assert!(decode_image(b"<!DOCTYPE html>").is_err());
/// # Ok::<_, secateur_formats::FileProblem>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedImage {
    /// One channel of a grey file, three (red, green, blue) of any other; alpha is dropped, not blended.
    pub shape: Shape,
    /// `[H, W, C]`, 0..=255.
    pub pixels: Vec<u8>,
    /// Kind of the stored pixels as PIL names it: `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK` or `I;16`.
    pub mode: &'static str,
}

/// The image in `bytes`: JPEG, PNG, WebP or BMP. Of 16 bits a channel the upper 8 are kept, CMYK becomes RGB as PIL
/// converts it, palettes are looked up.
///
/// # Errors
/// Bytes of another format, damaged or truncated ones, an image of no or of too many pixels.
pub fn decode_image(bytes: &[u8]) -> Result<DecodedImage, FileProblem> {
    decode_reusing(Vec::new(), bytes)
}

/// As [`decode_image`]; pixels may be put where those of an image before lay, whose values do not matter: memory that
/// is given back to the system and taken anew for every photograph costs about as much as resizing it.
pub(crate) fn decode_reusing(memory: Vec<u8>, bytes: &[u8]) -> Result<DecodedImage, FileProblem> {
    match bytes {
        [] => Err(FileProblem::Empty),
        [0xff, 0xd8, ..] => jpeg(memory, bytes),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), Limits::no_limits());
            by_image("PNG", bytes.len(), decoder, |_| png_mode(bytes))
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            by_image("WebP", bytes.len(), WebPDecoder::new(Cursor::new(bytes)), mode_of_pixels)
        }
        [b'B', b'M', ..] => by_image("BMP", bytes.len(), BmpDecoder::new(Cursor::new(bytes)), mode_of_pixels),
        _ => Err(not_an_image(bytes)),
    }
}

/// What the bytes are instead, as far as users' folders have shown it.
fn not_an_image(bytes: &[u8]) -> FileProblem {
    let unsupported = |what, advice| FileProblem::Unsupported { what, advice };
    let convert = "convert it to JPEG, PNG, WebP or BMP";
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => unsupported("a GIF", convert),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => unsupported("a TIFF", convert),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => unsupported("an AVIF, HEIC or video file", convert),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            unsupported("the pointer of a Git LFS file, not the file", "fetch the files with `git lfs pull`")
        }
        _ if bytes.trim_ascii_start().starts_with(b"<") => {
            unsupported("a text in HTML or XML, perhaps of a failed download", "download the file again")
        }
        _ => FileProblem::UnknownFormat(
            "no image of a known format (JPEG, PNG, WebP or BMP): its first bytes are those of none",
        ),
    }
}

/// Refuses sizes that no image in use has.
fn check_size(format: &'static str, size: [u64; 2], n_bytes: usize) -> Result<(), FileProblem> {
    let [width, height] = size;
    let n = width.saturating_mul(height);
    let most = PIXELS_MAX.min(PIXELS_OF_ANY.max(PIXELS_PER_BYTE.saturating_mul(n_bytes as u64)));
    if n == 0 || n > most {
        let problem = format!(
            "expected 1 to {most} pixels in a file of {n_bytes} bytes, its header declares {width} x {height}; is it damaged?"
        );
        return Err(FileProblem::malformed(format, problem));
    }
    Ok(())
}

/// Read strictly: the missing half of a truncated file would be grey otherwise.
fn jpeg(memory: Vec<u8>, bytes: &[u8]) -> Result<DecodedImage, FileProblem> {
    let fail = |error: zune_jpeg::errors::DecodeErrors| {
        FileProblem::malformed("JPEG", error.to_string().trim_end().replace('\n', "; "))
    };
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(fail)?;
    let ((width, height), stored) = match (decoder.dimensions(), decoder.input_colorspace()) {
        (Some(size), Some(stored)) => (size, stored),
        _ => return Err(FileProblem::malformed("JPEG", "has no frame header")),
    };
    check_size("JPEG", [width as u64, height as u64], bytes.len())?;
    let (wanted, mode) = match stored {
        ColorSpace::Luma => (ColorSpace::Luma, "L"),
        ColorSpace::CMYK => (ColorSpace::CMYK, "CMYK"),
        ColorSpace::YCCK => (ColorSpace::RGB, "CMYK"),
        _ => (ColorSpace::RGB, "RGB"),
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let mut pixels = memory;
    // All of it is written anew: nothing of an image before may show where a decoder stops early.
    pixels.clear();
    pixels.resize(decoder.output_buffer_size().unwrap_or_default(), 0);
    decoder.decode_into(&mut pixels).map_err(fail)?;
    if wanted == ColorSpace::CMYK {
        pixels = pixels.as_chunks::<4>().0.iter().flat_map(|&[c, m, y, k]| [c, m, y].map(|x| times(x, k))).collect();
    }
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let size = (width as u32, height as u32);
    let image = match wanted {
        ColorSpace::Luma => GrayImage::from_raw(size.0, size.1, pixels).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(size.0, size.1, pixels).map(DynamicImage::ImageRgb8),
    };
    let image = image.ok_or_else(|| FileProblem::malformed("JPEG", "has another number of pixels than it declares"))?;
    Ok(turned(image, orientation, mode))
}

/// Of colours and black as Adobe stores them, inverted: `x * k / 255`, rounded as PIL does.
fn times(x: u8, k: u8) -> u8 {
    let product = u32::from(x) * u32::from(k) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// What the `image` crate reads.
fn by_image<D: ImageDecoder>(
    format: &'static str,
    n_bytes: usize,
    decoder: image::ImageResult<D>,
    mode: impl FnOnce(image::ColorType) -> &'static str,
) -> Result<DecodedImage, FileProblem> {
    let fail = |error: image::ImageError| FileProblem::malformed(format, error.to_string());
    let mut decoder = decoder.map_err(fail)?;
    let (width, height) = decoder.dimensions();
    check_size(format, [u64::from(width), u64::from(height)], n_bytes)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(
        (PIXELS_MAX * BYTES_PER_PIXEL_MAX).min(u64::from(width) * u64::from(height) * BYTES_PER_PIXEL_MAX + (1 << 20)),
    );
    decoder.set_limits(limits).map_err(fail)?;
    let mode = mode(decoder.color_type());
    // A file that says nothing stands upright.
    let orientation = decoder.orientation().ok();
    let image = DynamicImage::from_decoder(decoder).map_err(fail)?;
    Ok(turned(image, orientation, mode))
}

/// From the first chunk's bit depth and colour type.
fn png_mode(bytes: &[u8]) -> &'static str {
    match (bytes.get(24), bytes.get(25)) {
        (Some(1), Some(0)) => "1",
        (Some(16), Some(0)) => "I;16",
        (_, Some(0)) => "L",
        (_, Some(3)) => "P",
        (_, Some(4)) => "LA",
        (_, Some(6)) => "RGBA",
        _ => "RGB",
    }
}

fn mode_of_pixels(color: image::ColorType) -> &'static str {
    match (color.has_color(), color.has_alpha()) {
        (true, true) => "RGBA",
        (true, false) => "RGB",
        (false, true) => "LA",
        (false, false) => "L",
    }
}

fn turned(mut image: DynamicImage, orientation: Option<Orientation>, mode: &'static str) -> DecodedImage {
    if let Some(orientation) = orientation.filter(|&orientation| orientation != Orientation::NoTransforms) {
        image.apply_orientation(orientation);
    }
    let (w, h) = (image.width() as usize, image.height() as usize);
    let c = if image.color().has_color() { 3 } else { 1 };
    DecodedImage { shape: Shape { c, h, w }, pixels: eight_bits(image), mode }
}

/// Without alpha, the upper 8 bits of 16.
fn eight_bits(image: DynamicImage) -> Vec<u8> {
    let upper = |x: u16| (x >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(image) => image.into_raw(),
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLumaA8(image) => image.as_raw().as_chunks::<2>().0.iter().map(|&[l, _]| l).collect(),
        DynamicImage::ImageRgba8(image) => {
            image.as_raw().as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect()
        }
        DynamicImage::ImageLuma16(image) => image.into_raw().into_iter().map(upper).collect(),
        DynamicImage::ImageLumaA16(image) => image.as_raw().as_chunks::<2>().0.iter().map(|&[l, _]| upper(l)).collect(),
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(upper).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.as_raw().as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b].map(upper)).collect()
        }
        other if other.color().has_color() => other.into_rgb8().into_raw(),
        other => other.into_luma8().into_raw(),
    }
}
