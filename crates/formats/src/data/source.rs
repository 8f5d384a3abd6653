//! Where data sets come from, as scenes write it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arrays::{self, ArraySource, ImageReading};
use super::flowers::{self, FlowersSource};
use super::images::{self, ImageSource};
use super::{cifar, idx, procedural};
use crate::{
    ArrayLayout, Dataset, FloatRange, FlowersSplit, FormatError, ImageLabels, OnError, Resize, Split, Transform,
};

/// Most images of one drawn data set: about 3 GB at 32 x 32 pixels.
const IMAGES_MAX: usize = 1_000_000;

/// Most rows (columns) of a drawn image.
const DRAWN_SIDE_MAX: usize = 2048;
/// Largest side that images are resized to.
const SIDE_MAX: usize = 16_384;
/// Images of each class, in a hundred, that are held out unless a scene says otherwise.
const TEST_PERCENT: u8 = 20;

pub(super) const fn default_test_percent() -> u8 {
    TEST_PERCENT
}

pub(super) const fn default_cache() -> bool {
    true
}

/// Where a data set comes from, as scenes write it.
///
/// # Example
/// ```
/// use std::path::Path;
///
/// use secateur_formats::{DatasetSource, Split};
///
/// let source: DatasetSource = "shapes:7".parse()?;
/// let test = source.read(Path::new("no files are needed"), Split::Test)?;
/// assert_eq!((test.len(), test.n_classes), (2000, 10));
/// # Ok::<(), secateur_formats::FormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum DatasetSource {
    /// `cifar-10-batches-bin` under the data root.
    Cifar10,
    /// `cifar-100-binary` under the data root, with its 100 fine labels.
    Cifar100,
    /// `mnist` (or `MNIST/raw`) under the data root.
    Mnist,
    /// `fashion-mnist` (or `FashionMNIST/raw`) under the data root.
    FashionMnist,
    /// Image files in a folder, decoded when they are used.
    Images {
        /// The folder: an absolute path, `./x` or `../x` beside the scene, or one below the data root. If it has
        /// sub-folders `train` and `val` (or `test`), these are the splits.
        dir: String,
        /// Folder of the test split, `dir` being that of the training split.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<String>,
        /// Where labels come from.
        #[serde(default)]
        labels: ImageLabels,
        /// How images become what a network reads.
        #[serde(default)]
        transform: Transform,
        /// What becomes of images that cannot be read.
        #[serde(default)]
        on_error: OnError,
        /// Images of each class, in a hundred, that are held out where one folder has both splits; 1..=99.
        #[serde(default = "default_test_percent")]
        test_percent: u8,
        /// Whether decoded images are kept on disk for the next run.
        #[serde(default = "default_cache")]
        cache: bool,
    },
    /// NumPy arrays: `.npy` files, or arrays of a `.npz` archive. Files are looked for as image folders are.
    Arrays {
        /// Images: `FILE.npy`, `FILE.npz:NAME`, or `FILE.npz` whose arrays are named as usual (`x_train`, `y_train`,
        /// `x_test` and `y_test`, for example), or that has one array only.
        images: String,
        /// Labels, the numbers of the network's outputs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<String>,
        /// Images of the test split; where there are none, a share of `images` is held out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_images: Option<String>,
        /// Labels of the test split.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_labels: Option<String>,
        /// Order of the axes.
        #[serde(default)]
        layout: ArrayLayout,
        /// What floats mean.
        #[serde(default)]
        floats: FloatRange,
        /// Images of each class, in a hundred, that are held out where one array has both splits; 1..=99.
        #[serde(default = "default_test_percent")]
        test_percent: u8,
    },
    /// `flowers-102` under the data root: Oxford's 102 flowers, with `setid.mat` and `imagelabels.mat`.
    Flowers102 {
        /// Official splits that training images come from.
        #[serde(default = "flowers::default_train")]
        train: Vec<FlowersSplit>,
        /// Official splits that test images come from.
        #[serde(default = "flowers::default_test")]
        test: Vec<FlowersSplit>,
        /// How images become what a network reads.
        #[serde(default)]
        transform: Transform,
        /// What becomes of images that cannot be read.
        #[serde(default)]
        on_error: OnError,
        /// Whether decoded images are kept on disk for the next run.
        #[serde(default = "default_cache")]
        cache: bool,
    },
    /// Drawn from a seed; needs no file.
    Procedural {
        /// Which pictures.
        kind: procedural::Kind,
        /// Seed of the pictures.
        seed: u64,
        /// Number of training images.
        train: usize,
        /// Number of test images.
        test: usize,
        /// Rows and columns that the pictures, drawn on 32 of each, are stretched to; 32 where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<[usize; 2]>,
    },
}

impl DatasetSource {
    /// Reads one split; `data_root` is the folder that the files of data sets lie under.
    ///
    /// # Errors
    /// Files that are missing or malformed; drawn data never fail.
    pub fn read(&self, data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
        match self {
            Self::Cifar10 => cifar::read_cifar10(data_root, split),
            Self::Cifar100 => cifar::read_cifar(&cifar::CIFAR_100, data_root, split),
            Self::Mnist => idx::read_idx(&idx::MNIST, data_root, split),
            Self::FashionMnist => idx::read_idx(&idx::FASHION_MNIST, data_root, split),
            Self::Images { dir, test, labels, transform, on_error, test_percent, cache } => {
                let (test, transform, on_error) = (test.as_deref(), *transform, *on_error);
                let (test_percent, cache) = (*test_percent, *cache);
                ImageSource { dir, test, labels, transform, on_error, test_percent, cache }.read(data_root, split)
            }
            Self::Flowers102 { train, test, transform, on_error, cache } => {
                let splits = if split == Split::Train { train } else { test };
                let (transform, on_error, cache) = (*transform, *on_error, *cache);
                FlowersSource { splits, transform, on_error, cache }.read(data_root)
            }
            Self::Arrays { images, labels, test_images, test_labels, layout, floats, test_percent } => {
                let (labels, test_images) = (labels.as_deref(), test_images.as_deref());
                let (test_labels, test_percent) = (test_labels.as_deref(), *test_percent);
                let (layout, floats) = (*layout, *floats);
                ArraySource { images, labels, test_images, test_labels, layout, floats, test_percent }
                    .read(data_root, split)
            }
            Self::Procedural { kind, seed, train, test, size } => {
                let n = if split == Split::Train { *train } else { *test };
                let drawn = procedural::generate(*kind, *seed, split, n);
                Ok(size.map_or_else(|| drawn.clone(), |size| procedural::stretched(&drawn, size)))
            }
        }
    }

    /// The same, `./x` and `../x` being relative to `folder` from now on.
    pub fn beside(mut self, folder: &Path) -> Self {
        let paths: Vec<&mut String> = match &mut self {
            Self::Images { dir, test, .. } => std::iter::once(dir).chain(test).collect(),
            Self::Arrays { images, labels, test_images, test_labels, .. } => {
                std::iter::once(images).chain(labels).chain(test_images).chain(test_labels).collect()
            }
            _ => Vec::new(),
        };
        for path in paths.into_iter().filter(|path| path.starts_with("./") || path.starts_with("../")) {
            let joined = folder.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned();
        }
        self
    }

    /// Bytes that it takes in memory, where these may be any number: of a drawn one those of its larger split, of
    /// arrays what the headers of the files say. None for data sets of a known size and images in files, and for
    /// arrays that cannot be read.
    pub fn chosen_bytes(&self, data_root: &Path) -> Option<u64> {
        match self {
            Self::Arrays { images, test_images, layout, floats, .. } => {
                let reading = ImageReading { layout: *layout, floats: *floats };
                arrays::bytes_held(images, test_images.as_deref(), reading, data_root)
            }
            Self::Procedural { train, test, size, .. } => {
                Some((*train.max(test) as u64).saturating_mul(procedural::bytes_per_image(*size)))
            }
            _ => None,
        }
    }

    /// Every setting that is out of its range: its path, and what is wrong with it.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Cifar10 | Self::Cifar100 | Self::Mnist | Self::FashionMnist => Vec::new(),
            Self::Flowers102 { train, test, transform, .. } => {
                flowers::check(train, test).into_iter().chain(check_resize(transform)).collect()
            }
            Self::Arrays { images, test_images, test_labels, test_percent, .. } => {
                let file = images.is_empty().then(|| ("images", "is empty, expected a file of arrays".to_owned()));
                let lone = (test_images.is_none() && test_labels.is_some())
                    .then(|| ("test_labels", "is given without `test_images`".to_owned()));
                file.into_iter().chain(lone).chain(check_percent(*test_percent)).collect()
            }
            Self::Images { dir, labels, test_percent, transform, .. } => {
                let dir = dir.is_empty().then(|| ("dir", "is empty, expected the folder of the images".to_owned()));
                dir.into_iter()
                    .chain(images::check_labels(labels))
                    .chain(check_percent(*test_percent))
                    .chain(check_resize(transform))
                    .collect()
            }
            Self::Procedural { train, test, size, .. } => {
                let is_bad = |(_, n): &(_, usize)| !(1..=IMAGES_MAX).contains(n);
                let counts = [("train", *train), ("test", *test)].into_iter().filter(is_bad);
                let counts = counts.map(|(path, n)| (path, format!("is {n}, expected 1..={IMAGES_MAX}")));
                let sides = size.filter(|size| size.iter().any(|side| !(1..=DRAWN_SIDE_MAX).contains(side)));
                let sides = sides.map(|size| ("size", format!("is {size:?}, expected two of 1..={DRAWN_SIDE_MAX}")));
                counts.chain(sides).collect()
            }
        }
    }
}

fn check_percent(percent: u8) -> Option<(&'static str, String)> {
    (!(1..=99).contains(&percent)).then(|| ("test_percent", format!("is {percent}, expected 1..=99")))
}

fn check_resize(transform: &Transform) -> Option<(&'static str, String)> {
    match transform.resize {
        Resize::Shorter(n) if !(1..=SIDE_MAX).contains(&n) => {
            Some(("transform.resize", format!("is Shorter({n}), expected 1..={SIDE_MAX}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedural::Kind;

    #[test]
    fn drawn_data_sets_are_of_the_size_that_was_asked_for() {
        let source = DatasetSource::Procedural { kind: Kind::Textures, seed: 4, train: 3, test: 2, size: None };
        let n = |split| source.read(Path::new("nowhere"), split).unwrap().len();
        assert_eq!((n(Split::Train), n(Split::Test)), (3, 2));
        assert_eq!(source.chosen_bytes(Path::new("nowhere")), Some(3 * 3074));
        let none =
            DatasetSource::Procedural { kind: Kind::Textures, seed: 4, train: 0, test: 1_000_001, size: Some([0, 9]) };
        let told: Vec<String> = none.check().iter().map(|(path, problem)| format!("{path} {problem}")).collect();
        let expected = [
            "train is 0, expected 1..=1000000",
            "test is 1000001, expected 1..=1000000",
            "size is [0, 9], expected two of 1..=2048",
        ];
        assert_eq!(told, expected);
    }
}
