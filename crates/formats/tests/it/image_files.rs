//! Image files of every kind that users' folders hold, and what is made of them for a network.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::png::PngEncoder};
use secateur_formats::{
    Dataset, DatasetSource, DecodedImage, ImageLabels, ImageNeeds, Interpolation, OnError, Preprocessing, Resize,
    Split, Transform, decode_image,
};
use secateur_net::Shape;

/// Grey levels that decoders of JPEG may differ by in the mean.
const JPEG_TOLERANCE: f64 = 1.5;

fn odd_images() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("SECATEUR_DATA") else {
        assert!(std::env::var("SECATEUR_REQUIRE_DATA").as_deref() != Ok("1"), "SECATEUR_DATA is not set");
        eprintln!("SKIPPED: set SECATEUR_DATA to the folder that holds odd-images");
        return None;
    };
    Some(Path::new(&data).join("odd-images"))
}

fn means(image: &DecodedImage) -> [f64; 3] {
    let (c, n) = (image.shape.c, (image.shape.h * image.shape.w) as f64);
    let mean = |channel: usize| image.pixels.iter().skip(channel).step_by(c).map(|&x| f64::from(x)).sum::<f64>() / n;
    [0, 1, 2].map(|channel| mean(channel.min(c - 1)))
}

/// Modes, sizes and means are those that Pillow reads; what Pillow refuses is refused, in a sentence.
#[test]
fn odd_images_are_read_as_pillow_reads_them() {
    let Some(folder) = odd_images() else { return };
    let expected: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (mut n_read, mut n_refused) = (0, 0);
    for (name, expected) in expected.as_object().unwrap() {
        let read = decode_image(&fs::read(folder.join(name)).unwrap());
        let Some(mode) = expected.get("mode") else {
            // Pillow reads the one with too few rows, the missing ones black.
            let problem = read.expect_err(name).to_string();
            assert!(!problem.contains('\n') && problem.len() > 10, "{name}: {problem}");
            n_refused += 1;
            continue;
        };
        let image = read.unwrap_or_else(|problem| panic!("{name}: {problem}"));
        let size = serde_json::json!([image.shape.w, image.shape.h]);
        assert_eq!((image.mode, &size), (mode.as_str().unwrap(), &expected["size"]), "{name}");
        let tolerance = if expected["format"] == "JPEG" { JPEG_TOLERANCE } else { 0.006 };
        for (mean, expected) in means(&image).into_iter().zip(expected["mean"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((mean - expected).abs() <= tolerance, "{name}: mean {mean}, expected {expected}");
        }
        n_read += 1;
    }
    assert_eq!((n_read, n_refused), (35, 17));
}

/// One scene, stored in each of the eight ways that a camera may be held.
#[test]
fn images_are_turned_as_their_orientation_says() {
    let Some(folder) = odd_images() else { return };
    let read = |n: usize| {
        let file = folder.join(format!("orient/landscape_{n}_tag_{n}.jpg"));
        decode_image(&fs::read(file).unwrap()).unwrap()
    };
    let first = read(0);
    for n in 1..=8 {
        let other = read(n);
        let squared = |(&a, &b): (&u8, &u8)| f64::from(a.abs_diff(b)).powi(2);
        let error = first.pixels.iter().zip(&other.pixels).map(squared).sum::<f64>() / first.pixels.len() as f64;
        assert!(first.shape == other.shape && error <= 40.0, "tag {n}: {}, mean squared error {error}", other.shape);
    }
}

/// The picture of tests/image_files/make.py.
fn picture(w: usize, h: usize) -> RgbImage {
    let value = |x: i64, y: i64, c: i64| {
        let noise = ((x * 7919 + y * 104_729 + c * 1_299_709).wrapping_mul(2_654_435_761) >> 7).rem_euclid(61);
        let edge = if (x / 9 + y / 7) % 2 == 0 { 30 } else { 0 };
        ((x * (3 + c) + y * (5 - c)) % 160 + noise + edge) as u8
    };
    RgbImage::from_fn(w as u32, h as u32, |x, y| image::Rgb([0, 1, 2].map(|c| value(x.into(), y.into(), c))))
}

fn write_png(path: &Path, picture: &RgbImage) {
    let file = fs::File::create(path).unwrap();
    let (w, h) = picture.dimensions();
    PngEncoder::new(file).write_image(picture, w, h, ExtendedColorType::Rgb8).unwrap();
}

/// Every image of a folder.
fn all_of(folder: &Path, transform: Transform, input: Shape) -> Dataset {
    let source = DatasetSource::Images {
        dir: folder.to_str().unwrap().into(),
        test: Some(folder.to_str().unwrap().into()),
        labels: ImageLabels::None,
        transform,
        on_error: OnError::Stop,
        test_percent: 20,
        cache: false,
    };
    let data = source.read(folder, Split::Test).unwrap();
    data.for_network(&ImageNeeds { input, outputs: 7, cache: None }).unwrap().into_owned()
}

/// Pixels `[H, W, C]` that a network reading `input` gets of the images at `places`, one thread decoding all.
fn read_at(data: &Dataset, places: &[usize], input: Shape) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let prep = Preprocessing::new(vec![0.0; input.c], vec![1.0; input.c]).unwrap();
    let loaded = data.load_first(places.len(), places, &prep, &pool).unwrap();
    loaded.images.iter().map(|x| (x * 255.0).round() as u8).collect()
}

/// Pixels of the only image of a folder.
fn read_through(folder: &Path, transform: Transform, input: Shape) -> Vec<u8> {
    read_at(&all_of(folder, transform, input), &[0], input)
}

/// Memory is used again for the next image: nothing of one may show in another, of whatever size and kind they are.
#[test]
fn images_decoded_one_after_the_other_are_those_decoded_alone() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/images");
    for c in [1, 3] {
        let input = Shape { c, h: 20, w: 24 };
        let data = all_of(&seeds, Transform::default(), input);
        let forth: Vec<usize> = (0..data.len()).collect();
        let back: Vec<usize> = forth.iter().rev().copied().collect();
        let alone: Vec<Vec<u8>> = forth.iter().map(|&place| read_at(&data, &[place], input)).collect();
        assert!(alone.len() == 9 && alone.iter().collect::<std::collections::BTreeSet<_>>().len() > 6);
        assert_eq!(read_at(&data, &forth, input), alone.concat());
        assert_eq!(read_at(&data, &back, input), alone.iter().rev().flatten().copied().collect::<Vec<u8>>());
    }
}

#[test]
fn resizing_and_cropping_are_those_of_torchvision() {
    let golden = include_bytes!("../image_files/resized.bin");
    let (mut rest, mut n) = (&golden[..], 0);
    while !rest.is_empty() {
        let (head, behind) = rest.split_at(14);
        let [w, h, side, rows, cols, method, is_grey] =
            [0, 1, 2, 3, 4, 5, 6].map(|i| usize::from(u16::from_le_bytes([head[2 * i], head[2 * i + 1]])));
        let input = Shape { c: if is_grey == 1 { 1 } else { 3 }, h: rows, w: cols };
        let (expected, behind) = behind.split_at(input.len());
        rest = behind;
        let methods = [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Nearest, Interpolation::Lanczos];
        let transform =
            Transform { resize: Resize::Shorter(side), interpolation: methods[method], ..Transform::default() };
        let folder = tempfile::tempdir().unwrap();
        write_png(&folder.path().join("picture.png"), &picture(w, h));
        let got = read_through(folder.path(), transform, input);
        assert_eq!(got.len(), expected.len());
        let differences = || got.iter().zip(expected).map(|(&a, &b)| a.abs_diff(b));
        let mean = differences().map(f64::from).sum::<f64>() / got.len() as f64;
        let largest = differences().max().unwrap();
        assert!(
            mean <= 1.0 && largest <= 3,
            "{w} x {h} to {side}, {:?}: {mean} on average, {largest}",
            methods[method]
        );
        n += 1;
    }
    assert_eq!(n, 12);
}

#[test]
fn channels_and_proportions_are_those_that_the_scene_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    write_png(&folder.path().join("picture.png"), &RgbImage::from_pixel(64, 32, image::Rgb([200, 100, 0])));
    let input = Shape { c: 3, h: 8, w: 8 };
    let bgr = Transform { channels: secateur_formats::ChannelOrder::Bgr, ..Transform::default() };
    assert_eq!(read_through(folder.path(), bgr, input)[..3], [0, 100, 200]);
    // PIL's luma of it: (200 * 19595 + 100 * 38470 + 32768) >> 16.
    let grey = read_through(folder.path(), Transform::default(), Shape { c: 1, ..input });
    assert_eq!(grey, [118; 64]);
    // The left half is black: exactly resized, half of the columns are.
    let halves = RgbImage::from_fn(64, 32, |x, _| image::Rgb([if x < 32 { 0 } else { 255 }; 3]));
    write_png(&folder.path().join("picture.png"), &halves);
    let exact = Transform { resize: Resize::Exact, ..Transform::default() };
    let row: Vec<u8> = read_through(folder.path(), exact, input)[..24].iter().step_by(3).copied().collect();
    assert_eq!((&row[..3], &row[5..]), (&[0; 3][..], &[255; 3][..]));
}

#[test]
fn files_of_other_kinds_are_told_by_what_they_are() {
    let told = |bytes: &[u8]| decode_image(bytes).unwrap_err().to_string();
    for (bytes, expected) in [
        (&b""[..], "the file is empty"),
        (b"GIF89a....", "convert it to JPEG"),
        (b"II\x2a\0....", "a TIFF"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\n<!DOCTYPE html>", "download the file again"),
        (b"hello", "no image of a known format"),
    ] {
        let message = told(bytes);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // A header of a few bytes that declares 60,000 x 60,000 pixels.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    png.extend([0x9b, 0xa9, 0x2f, 0x2c]);
    assert!(decode_image(&png).is_err());
}
