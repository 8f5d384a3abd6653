//! Users' own images as NumPy arrays: `.npy` files, and `.npz` archives of several.

mod archive;
pub(crate) mod choices;
pub(crate) mod command_line;
mod images;
mod labels;
mod npy;

use std::path::{Path, PathBuf};

use crate::data::images::split::held_out;
use crate::data::pixels::Pixels;
use crate::{Dataset, FormatError, Split};
use archive::{ArrayPlace, names_in};
use choices::{ArrayLayout, FloatRange};
pub(crate) use images::ImageReading;
use images::{extents, read_images};
use labels::read_labels;

/// How public archives call their arrays: images and labels of the training split, then those of the test split.
const USUAL_NAMES: [[&str; 4]; 4] = [
    ["x_train", "y_train", "x_test", "y_test"],
    ["train_images", "train_labels", "test_images", "test_labels"],
    ["images", "labels", "", ""],
    ["x", "y", "", ""],
];

/// A data set of arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArraySource<'a> {
    pub(crate) images: &'a str,
    pub(crate) labels: Option<&'a str>,
    pub(crate) test_images: Option<&'a str>,
    pub(crate) test_labels: Option<&'a str>,
    pub(crate) layout: ArrayLayout,
    pub(crate) floats: FloatRange,
    pub(crate) test_percent: u8,
}

/// Where the arrays of a data set are.
struct ArrayPlaces {
    images: ArrayPlace,
    labels: Option<ArrayPlace>,
    /// Those of the test split, where it has arrays of its own.
    test: Option<(ArrayPlace, Option<ArrayPlace>)>,
}

impl ArraySource<'_> {
    /// Reads one split.
    ///
    /// # Errors
    /// Files that are missing or are no arrays, arrays of another type or shape, labels that do not fit the images.
    pub(crate) fn read(&self, data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
        let places = self.places(data_root)?;
        places.check_labels()?;
        let ArrayPlaces { images, labels, test } = places;
        let (own, images, labels) = match (test, split) {
            (Some((images, labels)), Split::Test) => (true, images, labels),
            (test, _) => (test.is_some(), images, labels),
        };
        let (n, shape, _) = extents(&images, self.reading())?;
        let labels = labels.map(|place| Ok((read_labels(&place, n)?, place))).transpose()?;
        if let Some((labels, place)) = &labels
            && labels.iter().all(|label| *label == labels[0])
        {
            return Err(place.fail(format!(
                "has the label {} for every image, expected at least two classes; for images without labels leave `labels` out",
                labels[0]
            )));
        }
        let labels = labels.map(|(labels, _)| labels);
        let is_test = match own {
            true => None,
            false => Some(self.is_test(&images, n, labels.as_deref())),
        };
        let is_wanted = |index: usize| is_test.as_ref().is_none_or(|is_test| is_test[index] == (split == Split::Test));
        let read = read_images(&images, self.reading(), is_wanted)?;
        let labels: Option<Vec<u16>> = labels.map(|labels| {
            labels.into_iter().enumerate().filter(|(index, _)| is_wanted(*index)).map(|(_, label)| label).collect()
        });
        if read.len() == 0 {
            return Err(images.fail(format!(
                "has no image left for the {} split; add images, or name other arrays: `test_images`",
                split.name()
            )));
        }
        let n_classes = labels.iter().flatten().max().map_or(0, |&label| usize::from(label) + 1);
        let name = images.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Dataset { name, shape, n_classes, images: Pixels::InArrays(read.into()), labels })
    }

    fn reading(&self) -> ImageReading {
        ImageReading { layout: self.layout, floats: self.floats }
    }

    /// Which images are held out: those whose numbers hash lowest, of every class.
    fn is_test(&self, images: &ArrayPlace, n: usize, labels: Option<&[u16]>) -> Vec<bool> {
        let array = images.name.as_deref().unwrap_or("");
        let names = (0..n).map(|index| format!("{array}{index}"));
        held_out(names, |index| labels.map_or(0, |labels| labels[index]), self.test_percent)
    }

    /// The arrays that the scene names; of an archive that is named alone, those that are usual.
    fn places(&self, data_root: &Path) -> Result<ArrayPlaces, FormatError> {
        let parse = |text: &str| ArrayPlace::parse(text, |file| locate(file, data_root));
        let mut places = ArrayPlaces {
            images: parse(self.images)?,
            labels: self.labels.map(parse).transpose()?,
            test: match self.test_images {
                Some(images) => Some((parse(images)?, self.test_labels.map(parse).transpose()?)),
                None => None,
            },
        };
        usual(&mut places.images, &mut places.labels, 0)?;
        match &mut places.test {
            Some((images, labels)) => usual(images, labels, 2)?,
            None if self.images.ends_with(ARCHIVE) => places.test = usual_test(&places)?,
            None => {}
        }
        Ok(places)
    }
}

impl ArrayPlaces {
    /// Both splits have labels, or neither has.
    fn check_labels(&self) -> Result<(), FormatError> {
        let labelled = self.labels.is_some();
        if let Some((images, labels)) = &self.test
            && labels.is_some() != labelled
        {
            let (with, without) = if labelled { ("labels", "test_labels") } else { ("test_labels", "labels") };
            return Err(images.fail(format!("has no labels of one split: `{with}` is given, `{without}` is not")));
        }
        Ok(())
    }
}

/// Bytes that the images of both splits take in memory, told by the headers of their files alone; none where they
/// cannot be read.
pub(crate) fn bytes_held(
    images: &str,
    test_images: Option<&str>,
    reading: ImageReading,
    data_root: &Path,
) -> Option<u64> {
    let (labels, test_labels, test_percent) = (None, None, 1);
    let ImageReading { layout, floats } = reading;
    let source = ArraySource { images, labels, test_images, test_labels, layout, floats, test_percent };
    let places = source.places(data_root).ok()?;
    let of = |place: &ArrayPlace| extents(place, reading).map_or(0, |(_, _, bytes)| bytes);
    Some(of(&places.images).saturating_add(places.test.map_or(0, |(images, _)| of(&images))))
}

/// What the names of archives end in.
const ARCHIVE: &str = ".npz";

/// Gives arrays of an archive that is named alone their usual names; `at` is the place of the images among these.
fn usual(images: &mut ArrayPlace, labels: &mut Option<ArrayPlace>, at: usize) -> Result<(), FormatError> {
    if images.name.is_some() {
        return Ok(());
    }
    let names = names_in(&images.file)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    // An archive of one split calls its images as that of both calls those of the training split, or shortly.
    let usual = USUAL_NAMES.iter().flat_map(|of| [[of[at], of[at + 1]], [of[0], of[1]]]);
    let Some([x, y]) = usual.into_iter().find(|[x, _]| !x.is_empty() && has(x)) else { return Ok(()) };
    images.name = Some(x.into());
    if labels.is_none() && has(y) {
        *labels = Some(ArrayPlace { file: images.file.clone(), name: Some(y.into()) });
    }
    Ok(())
}

/// The test split of an archive that has both.
fn usual_test(of: &ArrayPlaces) -> Result<Option<(ArrayPlace, Option<ArrayPlace>)>, FormatError> {
    let file = &of.images.file;
    let names = names_in(file)?;
    let place = |name: &str| {
        let is_there = !name.is_empty() && names.iter().any(|known| known == name);
        is_there.then(|| ArrayPlace { file: file.clone(), name: Some(name.into()) })
    };
    let train = of.images.name.as_deref();
    let Some([_, _, x, y]) = USUAL_NAMES.iter().find(|names| Some(names[0]) == train) else { return Ok(None) };
    Ok(place(x).map(|images| (images, place(y))))
}

/// An absolute path, else one below the data root, else one below the working directory.
fn locate(file: &str, data_root: &Path) -> Result<PathBuf, FormatError> {
    let is_relative = file.starts_with("./") || file.starts_with("../");
    let candidates = if is_relative { vec![file.into()] } else { vec![data_root.join(file), PathBuf::from(file)] };
    candidates
        .iter()
        .find(|path| path.exists())
        .cloned()
        .ok_or_else(|| FormatError::ArrayMissing { file: candidates[0].clone() })
}
