//! NumPy arrays as data sets: what is read of every layout, type and archive, and what is refused.

use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use secateur_formats::{
    ArrayLayout, Dataset, DatasetSource, FloatRange, FormatError, ImageNeeds, Preprocessing, Split,
};
use secateur_net::Shape;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A `.npy` file as NumPy 2 writes it.
pub(crate) fn npy(descr: &str, shape: &[usize], elements: &[u8]) -> Vec<u8> {
    let extents: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    while !(11 + header.len()).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), elements].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn npz(arrays: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A folder of arrays.
struct Arrays(tempfile::TempDir);

impl Arrays {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, bytes)| fs::write(folder.0.path().join(name), bytes).unwrap());
        folder
    }

    fn read(&self, text: &str, split: Split) -> Result<Dataset, FormatError> {
        text.parse::<DatasetSource>().unwrap().read(self.0.path(), split)
    }

    fn refusal(&self, text: &str) -> String {
        let message = self.read(text, Split::Train).unwrap_err().to_string();
        assert!(message.contains(self.0.path().to_str().unwrap()) && !message.contains('\n'), "{message}");
        message
    }
}

/// What a network reads of all images, `[N, H, W, C]`.
fn values(data: &Dataset) -> Vec<f32> {
    let prep = Preprocessing::new(vec![0.5; data.shape.c], vec![0.5; data.shape.c]).unwrap();
    data.normalised_nhwc(&(0..data.len()).collect::<Vec<_>>(), &prep)
}

fn normalised(pixel: u8) -> f32 {
    (f32::from(pixel) / 255.0 - 0.5) / 0.5
}

const SHAPE: Shape = Shape { c: 3, h: 2, w: 4 };

/// Six images in both orders of the axes: pixel `[n][h][w][c]` is 24 n + 12 h + 3 w + c.
fn both_orders() -> [Vec<u8>; 2] {
    let channels_last: Vec<u8> = (0..6 * SHAPE.len()).map(|x| x as u8).collect();
    let mut channels_first = Vec::new();
    for image in channels_last.chunks(SHAPE.len()) {
        (0..3).for_each(|c| channels_first.extend(image.iter().skip(c).step_by(3)));
    }
    [channels_last, channels_first]
}

#[test]
fn images_of_every_order_and_type_are_what_a_network_reads() {
    let [last, first] = both_orders();
    let expected: Vec<f32> = last.iter().map(|&x| normalised(x)).collect();
    let unit = |pixels: &[u8]| f32s(&pixels.iter().map(|&x| f32::from(x) / 255.0).collect::<Vec<_>>());
    let of_255 = f32s(&last.iter().map(|&x| f32::from(x)).collect::<Vec<_>>());
    let as_read = f32s(&expected);
    let double: Vec<u8> = first.iter().flat_map(|&x| (f64::from(x) / 255.0).to_be_bytes()).collect();
    let (hwc, chw) = ([6, 2, 4, 3], [6, 3, 2, 4]);
    for (file, choices) in [
        (npy("|u1", &hwc, &last), ""),
        (npy("|u1", &chw, &first), ""),
        (npy("|u1", &chw, &first), ",layout=nchw"),
        (npy("<f4", &chw, &unit(&first)), ""),
        (npy("<f4", &hwc, &unit(&last)), ",layout=nhwc"),
        (npy(">f8", &chw, &double), ""),
        (npy("<f4", &hwc, &of_255), ",floats=bytes"),
        (npy("<f4", &hwc, &as_read), ",floats=normalised"),
    ] {
        let folder = Arrays::new(&[("x.npy", file)]);
        let data = folder.read(&format!("arrays:x.npy,test=x.npy{choices}"), Split::Train).unwrap();
        assert_eq!((data.name.as_str(), data.shape, data.labels.as_ref()), ("x", SHAPE, None));
        let got = values(&data);
        let error = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(got.len() == expected.len() && error <= 1e-6, "{choices}: {error}");
        // Bytes are looked up, as those of the other data sets.
        if choices.is_empty() && data.bytes().is_empty() && error == 0.0 {
            assert_eq!(got, expected);
        }
    }
    let grey = Arrays::new(&[("x.npy", npy("|u1", &[6, 4, 6], &last)), ("four.npy", npy("|u1", &[6, 4, 6, 1], &last))]);
    for file in ["x.npy", "four.npy"] {
        let data = grey.read(&format!("arrays:{file},test={file}"), Split::Test).unwrap();
        assert_eq!((data.shape, values(&data)), (Shape { c: 1, h: 4, w: 6 }, expected.clone()));
    }
}

#[test]
fn labels_are_integers_of_any_width_and_number_the_outputs_of_the_network() {
    let images = npy("|u1", &[4, 2, 2], &[0; 16]);
    let with = |write: fn(i16) -> Vec<u8>| [7, 0, 258, 7].into_iter().flat_map(write).collect::<Vec<u8>>();
    for (descr, shape, elements) in [
        ("<i2", &[4][..], with(|x| x.to_le_bytes().to_vec())),
        (">u2", &[4, 1], with(|x| x.to_be_bytes().to_vec())),
        ("<i4", &[4], with(|x| i32::from(x).to_le_bytes().to_vec())),
        ("<u4", &[4, 1], with(|x| (x as u32).to_le_bytes().to_vec())),
        (">i8", &[4], with(|x| i64::from(x).to_be_bytes().to_vec())),
        ("<u8", &[4], with(|x| (x as u64).to_le_bytes().to_vec())),
    ] {
        let folder = Arrays::new(&[("x.npy", images.clone()), ("y.npy", npy(descr, shape, &elements))]);
        let data = folder.read("arrays:x.npy,labels=y.npy,test=x.npy,test_labels=y.npy", Split::Train).unwrap();
        assert_eq!((data.labels().unwrap(), data.n_classes), (&[7, 0, 258, 7][..], 259), "{descr}");
        let needs = |outputs| ImageNeeds { input: data.shape, outputs, cache: None };
        assert_eq!(data.for_network(&needs(1000)).unwrap().n_classes, 1000);
        let message = data.for_network(&needs(258)).unwrap_err().to_string();
        assert!(message.contains("labels up to 258, the network has 258 outputs, 0 to 257"), "{message}");
    }
}

#[test]
fn archives_are_read_by_the_names_of_their_arrays() {
    let image = |x: u8| npy("|u1", &[2, 1, 2], &[x, x, x + 1, x + 1]);
    let label = |a: u8, b: u8| npy("|u1", &[2], &[a, b]);
    let keras = [
        ("x_train", image(10)),
        ("y_train", label(0, 1)),
        ("x_test", image(20)),
        ("y_test", label(2, 0)),
        ("z", label(1, 1)),
    ];
    let med = [
        ("train_images", image(10)),
        ("train_labels", label(0, 1)),
        ("test_images", image(20)),
        ("test_labels", label(2, 0)),
    ];
    let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
    let folder = Arrays::new(&[("k.npz", npz(&keras, deflated)), ("m.npz", npz(&med, stored))]);
    let named = "arrays:k.npz:x_train,labels=k.npz:y_train,test=k.npz:x_test,test_labels=k.npz:y_test";
    for text in ["arrays:k.npz", "arrays:m.npz", named, "arrays:m.npz,test=k.npz:x_test,test_labels=k.npz:y_test"] {
        for (split, first, labels) in [(Split::Train, 10, [0, 1]), (Split::Test, 20, [2, 0])] {
            let data = folder.read(text, split).unwrap();
            assert_eq!((values(&data)[0], data.labels().unwrap()), (normalised(first), &labels[..]), "{text}");
        }
    }
    let one = Arrays::new(&[("one.npz", npz(&[("only", image(30))], deflated)), ("none.npz", npz(&[], stored))]);
    assert_eq!(values(&one.read("arrays:one.npz", Split::Train).unwrap()).len(), 2, "one of two images is held out");
    assert!(one.refusal("arrays:none.npz").contains("archive without an array"), "{}", one.refusal("arrays:none.npz"));
    let message = folder.refusal("arrays:k.npz:x_val");
    assert!(message.contains("has no array 'x_val'; it has 'x_test', 'x_train'"), "{message}");
    let message = folder.refusal("arrays:k.npz,test=k.npz:x_test");
    assert!(message.contains("has no labels of one split: `labels` is given, `test_labels` is not"), "{message}");
    let several = Arrays::new(&[("s.npz", npz(&[("a", image(1)), ("b", image(2))], stored))]);
    let message = several.refusal("arrays:s.npz");
    assert!(
        message.contains("has several arrays: 'a', 'b'; say which, as in") && message.contains("s.npz:a'"),
        "{message}"
    );
    let whole = npz(&keras, deflated);
    let cut = Arrays::new(&[("k.npz", whole[..whole.len() / 2].to_vec())]);
    assert!(cut.refusal("arrays:k.npz").contains("is the file truncated?"), "{}", cut.refusal("arrays:k.npz"));
}

#[test]
fn a_share_of_every_class_is_held_out_where_one_array_has_both_splits() {
    let pixels: Vec<u8> = (0..40).collect();
    let labels: Vec<u8> = (0..40).map(|i| i % 4).collect();
    let folder = Arrays::new(&[("x.npy", npy("|u1", &[40, 1, 1], &pixels)), ("y.npy", npy("|i1", &[40], &labels))]);
    let [train, test] = [Split::Train, Split::Test].map(|split| {
        let data = folder.read("arrays:x.npy,labels=y.npy", split).unwrap();
        let pixels = values(&data).into_iter().map(|x| ((x * 0.5 + 0.5) * 255.0).round() as u16);
        pixels.zip(data.labels().unwrap().to_vec()).collect::<Vec<_>>()
    });
    assert_eq!((train.len(), test.len()), (32, 8));
    let mut all: Vec<u16> = train.iter().chain(&test).map(|(x, _)| *x).collect();
    all.sort_unstable();
    assert_eq!(all, (0..40).collect::<Vec<u16>>());
    assert!(train.iter().chain(&test).all(|&(x, label)| label == x % 4));
    assert!((0..4).all(|class| test.iter().filter(|(_, label)| *label == class).count() == 2));
}

#[test]
fn arrays_that_are_no_images_are_refused_with_what_to_do() {
    let order = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2, 3), }";
    let fortran = [b"\x93NUMPY\x01\0", &(order.len() as u16).to_le_bytes()[..], order.as_bytes(), &[0; 12]].concat();
    let one_nan = f32s(&[0.0, 0.5, 1.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]);
    for (file, choices, expected) in [
        (npy("<i8", &[2, 2, 2], &[0; 64]), "", "is int64 of shape (2, 2, 2); images are read of uint8"),
        (npy("|b1", &[2, 2, 2], &[0; 8]), "", "is bool"),
        (npy("<c8", &[2, 2, 2], &[0; 64]), "", "is complex64"),
        (npy("<U3", &[2, 2, 2], &[0; 96]), "", "is type '<U3'"),
        (npy("|O", &[2, 2, 2], &[0; 96]), "", "holds Python objects"),
        (fortran, "", "is in Fortran's order; save numpy.ascontiguousarray(array)"),
        (npy("|u1", &[8], &[0; 8]), "", "has 1 axes, expected images x rows x columns"),
        (npy("|u1", &[2, 2, 2, 1, 1], &[0; 8]), "", "has 5 axes"),
        (npy("|u1", &[2, 2, 2], &[0; 8]), ",layout=nhwc", "has 3 axes, `layout: Nhwc` has 4"),
        (npy("|u1", &[2, 3, 2, 3], &[0; 36]), "", "cannot be told which are the channels; say `layout: Nhwc`"),
        (npy("|u1", &[2, 4, 2, 4], &[0; 64]), "", "cannot be told which are the channels"),
        (npy("|u1", &[0, 2, 2], &[]), "", "an axis has extent 0"),
        (npy("|u1", &[2, 2, 3], &[0; 11]), "", "is truncated: uint8 of shape (2, 2, 3) takes 12 bytes, 11 are there"),
        (npy("|u1", &[1 << 40, 1 << 20, 1], &[0; 9]), "", "is truncated"),
        (npy("|u1", &[1 << 62, 1 << 62, 9], &[0; 9]), "", "more elements than there can be"),
        (npy("<f8", &[1 << 61, 1, 1], &[0; 9]), "", "more bytes than there can be"),
        (npy("<f4", &[2, 2, 2], &one_nan), "", "image 1 holds NaN, expected finite numbers"),
        (npy("<f4", &[1, 1, 2], &f32s(&[0.5, f32::INFINITY])), ",floats=normalised", "image 0 holds inf"),
        (npy("<f4", &[1, 1, 2], &f32s(&[0.5, 254.0])), "", "holds 254, and floats are taken for pixels of 0 to 1"),
        (npy("<f4", &[1, 1, 2], &f32s(&[0.5, -254.0])), ",floats=bytes", "say `floats: Normalised`"),
        (npy("<f4", &[1, 1, 2], &f32s(&[0.5, 0.25])), ",floats=bytes", "say `floats: Unit`"),
        (npy("<f4", &[1, 1, 2], &f32s(&[0.5, 1e9])), ",floats=normalised", "expected values up to 1e6"),
        (b"\x80\x04K\x01.\x00\x00\x00".to_vec(), "", "is a pickle"),
        (b"hello".to_vec(), "", "is no array of NumPy's"),
        (Vec::new(), "", "the file is empty"),
    ] {
        let folder = Arrays::new(&[("x.npy", file)]);
        let message = folder.refusal(&format!("arrays:x.npy,test=x.npy{choices}"));
        assert!(message.contains(expected) && message.contains("x.npy"), "{expected}: {message}");
    }
    let folder = Arrays::new(&[("x.npy", npy("|u1", &[2, 1, 1], &[1, 2]))]);
    let message = folder.refusal("arrays:y.npy");
    assert!(message.contains("there is no file") && message.contains("y.npy"), "{message}");
    assert!(folder.refusal("arrays:x.npz:a").contains("there is no file"));
    fs::write(folder.0.path().join("x.npz"), npy("|u1", &[2, 1, 1], &[1, 2])).unwrap();
    assert!(folder.refusal("arrays:x.npz:a").contains("is no .npz archive, so that it has no array 'a'"));
    let lone = Arrays::new(&[("x.npy", npy("|u1", &[1, 1, 1], &[1]))]);
    let message = lone.read("arrays:x.npy", Split::Test).unwrap_err().to_string();
    assert!(message.contains("has no image left for the test split; add images, or name other arrays"), "{message}");
}

#[test]
fn labels_that_do_not_fit_the_images_are_refused() {
    let images = npy("|u1", &[3, 1, 1], &[1, 2, 3]);
    for (file, expected) in [
        (npy("|u1", &[2], &[0, 1]), "has 2 labels for 3 images"),
        (npy("<f4", &[3], &f32s(&[0.0, 1.0, 2.0])), "is float32 of shape (3,); labels are integers"),
        (npy("|u1", &[3, 2], &[0; 6]), "expected its class; for one-hot labels save array.argmax(axis=1)"),
        (npy("|u1", &[], &[0]), "has 0 axes"),
        (npy("|i1", &[3], &[0, 255, 1]), "image 1: expected a label from 0 to 65534, got -1"),
        (npy("<u8", &[3], &[0xff; 24]), "image 0: expected a label from 0 to 65534, got 18446744073709551615"),
        (npy("<i4", &[3], &[0; 11]), "is truncated"),
        (npy("|u1", &[3], &[4; 3]), "has the label 4 for every image, expected at least two classes"),
    ] {
        let folder = Arrays::new(&[("x.npy", images.clone()), ("y.npy", file)]);
        let message = folder.refusal("arrays:x.npy,labels=y.npy");
        assert!(message.contains(expected) && message.contains("y.npy"), "{expected}: {message}");
    }
}

#[test]
fn the_command_line_says_what_a_scene_says() {
    let parse = |text: &str| text.parse::<DatasetSource>();
    let expected = DatasetSource::Arrays {
        images: "a.npz:x".into(),
        labels: Some("b.npy".into()),
        test_images: Some("c.npy".into()),
        test_labels: Some("d.npy".into()),
        layout: ArrayLayout::Nchw,
        floats: FloatRange::Bytes,
        test_percent: 20,
    };
    let text = "arrays:a.npz:x,labels=b.npy,test=c.npy,test_labels=d.npy,layout=nchw,floats=bytes";
    assert_eq!(parse(text).unwrap(), expected);
    for (bad, expected) in [
        ("arrays", "expected arrays:FILE"),
        ("arrays:", "expected arrays:FILE"),
        ("arrays:x.npy,layout=nwh", "unknown choice 'layout=nwh'"),
        ("arrays:x.npy,test_labels=y.npy", "given without `test_images`"),
    ] {
        let message = parse(bad).unwrap_err().to_string();
        assert!(message.contains(expected), "{bad}: {message}");
    }
    // Paths beside the scene.
    let DatasetSource::Arrays { images, labels, .. } =
        parse("arrays:./a.npz:x,labels=../y.npy").unwrap().beside(Path::new("/scenes/one"))
    else {
        unreachable!()
    };
    assert_eq!((images.as_str(), labels.as_deref()), ("/scenes/one/a.npz:x", Some("/scenes/one/../y.npy")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever is changed in files, they are read or refused, in little time and memory.
    #[test]
    fn changed_bytes_are_read_or_refused(
        which in 0usize..3, changes in proptest::collection::vec((0usize..4096, 0u8..=255), 1..6), cut in 0usize..4096,
    ) {
        let image = npy("<f4", &[2, 3, 4, 5], &[0; 480]);
        let files = [image.clone(), npz(&[("x", image.clone())], CompressionMethod::Deflated), npz(&[("x", image)], CompressionMethod::Stored)];
        let mut bytes = files[which].clone();
        let n = bytes.len();
        changes.iter().for_each(|&(at, byte)| bytes[at % n] = byte);
        if cut.is_multiple_of(3) {
            bytes.truncate(cut % n);
        }
        let folder = Arrays::new(&[("x.npy", bytes)]);
        for split in Split::ALL {
            let read = folder.read("arrays:x.npy", split);
            prop_assert!(read.is_ok_and(|data| data.len() == 1 || data.len() < 4096) || folder.read("arrays:x.npy", split).is_err());
        }
    }
}
