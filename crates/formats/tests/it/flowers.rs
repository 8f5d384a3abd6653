//! Flowers-102 by its official lists: `setid.mat` and `imagelabels.mat`.

use std::fs;
use std::path::Path;

use image::RgbImage;
use secateur_formats::{
    DatasetSource, FlowersSplit, FormatError, ImageNeeds, OnError, Preprocessing, Split, Transform,
};
use secateur_net::Shape;

/// A MATLAB file of arrays of 16-bit numbers.
fn mat(arrays: &[(&str, &[u16])]) -> Vec<u8> {
    let element = |kind: u32, bytes: &[u8]| {
        let mut out = [&kind.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
        out.resize(out.len().next_multiple_of(8), 0);
        out
    };
    let mut out = b"MATLAB 5.0 MAT-file".to_vec();
    out.resize(126, b' ');
    out.extend(b"IM");
    for (name, numbers) in arrays {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let flags = [11, 0, 0, 0, 0, 0, 0, 0];
        let parts = [element(6, &flags), element(5, &[0; 8]), element(1, name.as_bytes()), element(4, &bytes)];
        out.extend(element(14, &parts.concat()));
    }
    out
}

/// A data root with `n` images of one colour each, image `i` of red `i`, in `folder` of the data set.
fn root(folder: &str, images: std::ops::RangeInclusive<u8>, lists: [Vec<u8>; 2]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let flowers = root.path().join("flowers-102");
    fs::create_dir_all(flowers.join(folder)).unwrap();
    for i in images {
        RgbImage::from_pixel(4, 4, image::Rgb([i, 0, 0]))
            .save(flowers.join(folder).join(format!("image_{i:05}.png")))
            .unwrap();
    }
    let [splits, labels] = lists;
    fs::write(flowers.join("setid.mat"), splits).unwrap();
    fs::write(flowers.join("imagelabels.mat"), labels).unwrap();
    root
}

fn lists() -> [Vec<u8>; 2] {
    let splits = [("trnid", &[3u16, 1][..]), ("valid", &[2]), ("tstid", &[6, 4, 5])];
    [mat(&splits), mat(&[("labels", &[102, 7, 1, 7, 102, 1])])]
}

fn source(train: &[FlowersSplit], test: &[FlowersSplit]) -> DatasetSource {
    let (train, test, transform) = (train.to_vec(), test.to_vec(), Transform::default());
    DatasetSource::Flowers102 { train, test, transform, on_error: OnError::Stop, cache: false }
}

/// Reds and labels, in order.
fn read(source: &DatasetSource, root: &Path, split: Split) -> Result<Vec<(u8, u16)>, FormatError> {
    let data = source.read(root, split)?;
    assert_eq!((data.name.as_str(), data.n_classes), ("flowers102", 102));
    let input = Shape { c: 3, h: 2, w: 2 };
    let data = data.for_network(&ImageNeeds { input, outputs: 102, cache: None })?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let order: Vec<usize> = (0..data.len()).collect();
    let prep = Preprocessing::new(vec![0.0; 3], vec![1.0; 3]).unwrap();
    let loaded = data.load_first(order.len(), &order, &prep, &pool)?;
    let reds = loaded.images.chunks(input.len()).map(|image| (image[0] * 255.0).round() as u8);
    Ok(reds.zip(data.labels()?.iter().copied()).collect())
}

#[test]
fn splits_and_labels_are_those_of_the_official_lists() {
    use FlowersSplit::{Trnid, Tstid, Valid};
    let root = root("jpg", 1..=6, lists());
    let default = "flowers102".parse::<DatasetSource>().unwrap();
    assert_eq!(read(&default, root.path(), Split::Train).unwrap(), [(3, 0), (1, 101)]);
    assert_eq!(read(&default, root.path(), Split::Test).unwrap(), [(6, 0), (4, 6), (5, 101)]);
    let both = source(&[Trnid, Valid], &[Tstid]);
    assert_eq!(read(&both, root.path(), Split::Train).unwrap(), [(3, 0), (1, 101), (2, 6)]);
    let told = |train: &[FlowersSplit], test: &[FlowersSplit]| format!("{:?}", source(train, test).check());
    assert_eq!(told(&[Trnid], &[Tstid]), "[]");
    assert!(told(&[], &[Tstid]).contains("is empty, expected some of Trnid"));
    assert!(told(&[Valid, Trnid], &[Trnid]).contains("has Trnid, which `train` has, too"));
}

#[test]
fn images_that_are_not_there_are_told_and_lists_that_do_not_fit_are_refused() {
    let default = "flowers102".parse::<DatasetSource>().unwrap();
    // In other folders, a few of them.
    let some = root("test/001-pink-primrose", 5..=6, lists());
    assert_eq!(read(&default, some.path(), Split::Test).unwrap(), [(6, 0), (5, 101)]);
    let notes = default.read(some.path(), Split::Test).unwrap().notes();
    assert_eq!(notes, ["1 of the 3 images of the split are not there: 'image_00004.jpg'"]);
    let message = default.read(some.path(), Split::Train).unwrap_err().to_string();
    assert!(
        message.contains("'image_00003.jpg' is not in") && message.contains("Flowers-102 belongs there"),
        "{message}"
    );
    let message = default.read(Path::new("nowhere"), Split::Train).unwrap_err().to_string();
    assert!(message.contains("'setid.mat' is not in 'nowhere"), "{message}");
    let [splits, labels] = lists();
    for (splits, labels, expected) in [
        (mat(&[("tstid", &[1])]), labels.clone(), "setid.mat': splits of Flowers-102: has no array 'trnid'"),
        (mat(&[("trnid", &[7])]), labels.clone(), "from 1 to 6, got 7"),
        (mat(&[("trnid", &[0])]), labels.clone(), "from 1 to 6, got 0"),
        (mat(&[("trnid", &[2, 2])]), labels.clone(), "expected different numbers"),
        (splits.clone(), mat(&[("labels", &[1, 103])]), "expected labels from 1 to 102, got 103"),
        (splits.clone(), mat(&[("label", &[1])]), "has no array 'labels'"),
        (b"MATLAB 7.3 MAT-file".to_vec(), labels.clone(), "save it with -v7"),
        (splits[..300].to_vec(), labels, "truncated"),
    ] {
        let root = root("jpg", 1..=6, [splits, labels]);
        let message = default.read(root.path(), Split::Train).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{expected}: {message}");
    }
}

/// The copy beside the checkout has class folders that begin with the official label.
#[test]
fn the_real_lists_agree_with_the_folders() {
    let Some(root) = std::env::var_os("SECATEUR_DATA") else {
        assert!(std::env::var_os("SECATEUR_REQUIRE_DATA").is_none());
        return eprintln!("SKIPPED: SECATEUR_DATA is not set");
    };
    let root = Path::new(&root);
    let by_lists = "flowers102".parse::<DatasetSource>().unwrap();
    let by_folders = "images:flowers-102".parse::<DatasetSource>().unwrap();
    for (split, n) in [(Split::Train, 1020), (Split::Test, 1020)] {
        let [a, b] = [&by_lists, &by_folders].map(|source| source.read(root, split).unwrap());
        assert_eq!((a.len(), b.len()), (n, n));
        let count =
            |labels: &[u16]| (0..102).map(|class| labels.iter().filter(|l| **l == class).count()).collect::<Vec<_>>();
        assert_eq!(count(a.labels().unwrap()), vec![10; 102]);
        assert_eq!(count(b.labels().unwrap()), vec![10; 102]);
    }
    let test = by_lists.read(root, Split::Test).unwrap();
    assert!(test.notes()[0].starts_with("5129 of the 6149 images of the split are not there"), "{:?}", test.notes());
}
