//! Oxford's 102 flowers (Nilsback and Zisserman 2008): numbered images, with the official splits in `setid.mat` and the
//! labels in `imagelabels.mat`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use secateur_net::Shape;
use serde::{Deserialize, Serialize};

use super::images::files::{ImageFiles, ImageListing};
use super::images::listing::{LeftOut, PathList, list_all};
use super::images::transform::Transform;
use super::matlab::read_vectors;
use super::pixels::Pixels;
use crate::{Dataset, FileProblem, FormatError, OnError};

pub(super) const NAME: &str = "flowers102";
pub(super) const FOLDER: &str = "flowers-102";
const N_CLASSES: usize = 102;
const EXPECTED: &str = "Flowers-102 belongs there: setid.mat, imagelabels.mat, and the images image_00001.jpg to image_08189.jpg in jpg \
                        or other folders";
/// Files of the official lists.
const SPLITS: &str = "setid.mat";
const LABELS: &str = "imagelabels.mat";

/// One of the official splits, as `setid.mat` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FlowersSplit {
    /// 1,020 images, 10 of each class.
    Trnid,
    /// 1,020 images, 10 of each class.
    Valid,
    /// The other 6,149.
    Tstid,
}

impl FlowersSplit {
    const fn name(self) -> &'static str {
        match self {
            Self::Trnid => "trnid",
            Self::Valid => "valid",
            Self::Tstid => "tstid",
        }
    }
}

pub(super) fn default_train() -> Vec<FlowersSplit> {
    vec![FlowersSplit::Trnid]
}

pub(super) fn default_test() -> Vec<FlowersSplit> {
    vec![FlowersSplit::Tstid]
}

/// What is wrong with the lists of splits.
pub(super) fn check(train: &[FlowersSplit], test: &[FlowersSplit]) -> Vec<(&'static str, String)> {
    let empty = [("train", train), ("test", test)].into_iter().filter(|(_, splits)| splits.is_empty());
    let empty = empty.map(|(path, _)| (path, "is empty, expected some of Trnid, Valid and Tstid".to_owned()));
    let both = train.iter().find(|split| test.contains(split));
    let both = both.map(|split| ("test", format!("has {split:?}, which `train` has, too: no image may be in both")));
    empty.chain(both).collect()
}

/// Some of the official splits.
pub(super) struct FlowersSource<'a> {
    pub(super) splits: &'a [FlowersSplit],
    pub(super) transform: Transform,
    pub(super) on_error: OnError,
    pub(super) cache: bool,
}

impl FlowersSource<'_> {
    /// Lists the images of the splits, in the order of `setid.mat`; nothing is decoded. Images that are not there are
    /// left out and told.
    ///
    /// # Errors
    /// Missing files or folders, lists that are none of this data set, no image at all.
    pub(super) fn read(&self, data_root: &Path) -> Result<Dataset, FormatError> {
        let folder = data_root.join(FOLDER);
        for file in [SPLITS, LABELS] {
            if !folder.join(file).is_file() {
                return Err(FormatError::MissingDataset { file: file.into(), folder, expected: EXPECTED });
            }
        }
        let all = read_labels(&folder.join(LABELS))?;
        let wanted = self.read_numbers(&folder.join(SPLITS), all.len())?;
        let found = list_all(&folder)?.paths;
        let mut places: BTreeMap<usize, &str> = BTreeMap::new();
        for path in found.iter() {
            if let Some(number) = number(path) {
                places.entry(number).or_insert(path);
            }
        }
        let (mut paths, mut labels, mut missing) = (PathList::default(), Vec::new(), LeftOut::default());
        for number in &wanted {
            match places.get(number) {
                Some(path) => {
                    paths.push(path);
                    labels.push(all[number - 1]);
                }
                None => missing.add(format!("image_{number:05}.jpg")),
            }
        }
        if paths.len() == 0 {
            let file = format!("image_{:05}.jpg", wanted.first().copied().unwrap_or(1));
            return Err(FormatError::MissingDataset { file, folder, expected: EXPECTED });
        }
        let notes = missing.told(&format!("of the {} images of the split are not there", wanted.len()));
        let (transform, on_error, cache) = (self.transform, self.on_error, self.cache);
        let notes = notes.into_iter().collect();
        let listing = ImageListing { folder, paths, transform, on_error, cache, is_numbered: false, notes };
        Ok(Dataset {
            name: NAME.into(),
            shape: Shape { c: 0, h: 0, w: 0 },
            n_classes: N_CLASSES,
            images: Pixels::InFiles(ImageFiles::new(listing)),
            labels: Some(labels),
        })
    }

    /// Numbers of the images of the splits, which must be from 1 to `n` and different.
    fn read_numbers(&self, file: &Path, n: usize) -> Result<Vec<usize>, FormatError> {
        let mut vectors = read_vectors(file)?;
        let fail = |problem: String| FileProblem::malformed("splits of Flowers-102", problem).at(file);
        let (mut numbers, mut seen) = (Vec::new(), BTreeSet::new());
        for split in self.splits {
            let of_split = vectors.remove(split.name()).unwrap_or_default();
            if of_split.is_empty() {
                return Err(fail(format!("has no array '{}'", split.name())));
            }
            for number in of_split {
                let whole = number as usize;
                if whole as f64 != number || !(1..=n).contains(&whole) || !seen.insert(whole) {
                    return Err(fail(format!(
                        "'{}': expected different numbers of images from 1 to {n}, got {number}",
                        split.name()
                    )));
                }
                numbers.push(whole);
            }
        }
        Ok(numbers)
    }
}

/// Classes of all images, counted from 0.
fn read_labels(file: &Path) -> Result<Vec<u16>, FormatError> {
    let vectors = read_vectors(file)?;
    let fail = |problem: String| FileProblem::malformed("labels of Flowers-102", problem).at(file);
    let labels = vectors.get("labels").ok_or_else(|| fail("has no array 'labels'".into()))?;
    let label = |&label: &f64| {
        let is_class = label.fract() == 0.0 && (1.0..=N_CLASSES as f64).contains(&label);
        is_class
            .then(|| label as u16 - 1)
            .ok_or_else(|| fail(format!("expected labels from 1 to {N_CLASSES}, got {label}")))
    };
    labels.iter().map(label).collect()
}

/// That in the name of the image at `path`.
fn number(path: &str) -> Option<usize> {
    let name = path.rsplit('/').next()?;
    name.strip_prefix("image_")?.rsplit_once('.')?.0.parse().ok()
}
