//! Users' own images: folders of files that are listed first and decoded when they are used.

mod cache;
pub(crate) mod choices;
pub(crate) mod command_line;
pub(crate) mod decode;
pub(crate) mod files;
pub(crate) mod list_file;
pub(crate) mod listing;
pub(crate) mod split;
pub(crate) mod transform;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secateur_net::Shape;

use crate::data::pixels::Pixels;
use crate::{Dataset, FormatError, Split};
use choices::{ImageLabels, OnError};
use files::{ImageFiles, ImageListing};
use list_file::{Listed, read_list};
use listing::{FoundImages, class_names, list_all, list_classes, list_named_classes, split_folders};
use split::{FolderPart, part_of};
use transform::Transform;

/// Sub-folders that hold the two splits, where both are there.
const TRAIN_FOLDERS: [&str; 2] = ["train", "training"];
const TEST_FOLDERS: [&str; 4] = ["val", "valid", "validation", "test"];

/// Classes that a note names.
const TOLD_MAX: usize = 5;

/// A data set of image files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageSource<'a> {
    pub(crate) dir: &'a str,
    pub(crate) test: Option<&'a str>,
    pub(crate) labels: &'a ImageLabels,
    pub(crate) transform: Transform,
    pub(crate) on_error: OnError,
    pub(crate) test_percent: u8,
    pub(crate) cache: bool,
}

impl ImageSource<'_> {
    /// Lists one split; nothing is decoded.
    ///
    /// # Errors
    /// Folders that are missing or hold no image, one class only, a list that cannot be read.
    pub(crate) fn read(&self, data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
        let (folder, part) = self.folder(data_root, split)?;
        let Listed { found, is_numbered } = self.list(&folder)?;
        let found = match (split, part) {
            (Split::Test, FolderPart::All) => {
                self.as_trained(found, &self.folder(data_root, Split::Train)?.0, &folder)?
            }
            _ => found,
        };
        self.check_found(&found, &folder)?;
        let fail = |problem: String| Err(FormatError::ImageFolder { folder: folder.clone(), problem });
        let left_out = found.left_out();
        let single = if part == FolderPart::All { None } else { single_images(&found) };
        if let (Some(single), OnError::Stop) = (&single, self.on_error) {
            return fail(format!("has {single}; add images of them, or say `on_error: Skip` to go on without"));
        }
        let mut notes = Vec::new();
        notes.extend((!left_out.is_empty()).then(|| format!("left out: {}", left_out.join("; "))));
        notes.extend(self.numbering(&found.classes));
        notes.extend(single.filter(|_| part == FolderPart::Train).map(|told| format!("{told}: for training only")));
        let FoundImages { paths, labels, classes, .. } = part_of(found, part, self.test_percent);
        if paths.len() == 0 {
            return fail(format!(
                "has no image left for the {} split; add images, or name another folder",
                split.name()
            ));
        }
        let n_classes = match &labels {
            Some(labels) if is_numbered => labels.iter().max().map_or(0, |&label| usize::from(label) + 1),
            _ => classes.len(),
        };
        let name = self.name(data_root)?;
        let (transform, on_error, cache) = (self.transform, self.on_error, self.cache);
        let listing = ImageListing { folder, paths, transform, on_error, cache, is_numbered, notes };
        let images = Pixels::InFiles(ImageFiles::new(listing));
        Ok(Dataset { name, shape: Shape { c: 0, h: 0, w: 0 }, n_classes, images, labels })
    }

    /// There are images, and where folders are classes at least two of these.
    fn check_found(&self, found: &FoundImages, folder: &Path) -> Result<(), FormatError> {
        let fail = |problem: String| Err(FormatError::ImageFolder { folder: folder.to_owned(), problem });
        let left_out = found.left_out();
        if found.paths.len() == 0 {
            let besides = if left_out.is_empty() { String::new() } else { format!(" ({})", left_out.join("; ")) };
            let expected = match self.labels {
                ImageLabels::Folders | ImageLabels::Classes(_) => {
                    "a sub-folder for each class, with JPEG, PNG, WebP or BMP files in it, belongs there; \
                                    for images without labels say `labels: None`"
                }
                ImageLabels::None | ImageLabels::List(_) => "JPEG, PNG, WebP or BMP files belong there",
            };
            return fail(format!("holds no image{besides}; {expected}"));
        }
        if *self.labels == ImageLabels::Folders && found.classes.len() < 2 {
            let class = found.classes.first().map_or("", String::as_str);
            return fail(format!(
                "has one class folder, '{class}', expected at least two; for images without labels say `labels: None`"
            ));
        }
        Ok(())
    }

    /// Name of the data set: that of its whole folder, not of a split's; of `.` the folder's own.
    fn name(&self, data_root: &Path) -> Result<String, FormatError> {
        let whole = locate(self.dir, data_root)?;
        let known = whole.file_name().map(ToOwned::to_owned);
        let own = || whole.canonicalize().ok().and_then(|path| path.file_name().map(ToOwned::to_owned));
        Ok(known.or_else(own).map_or_else(|| self.dir.to_owned(), |name| name.to_string_lossy().into_owned()))
    }

    /// The folder of a split, and which part of its images belong to it.
    fn folder(&self, data_root: &Path, split: Split) -> Result<(PathBuf, FolderPart), FormatError> {
        let whole = locate(self.dir, data_root)?;
        if let Some(test) = self.test {
            let folder = if split == Split::Train { whole } else { locate(test, data_root)? };
            return Ok((folder, FolderPart::All));
        }
        Ok(match (split_folders(&whole, &TRAIN_FOLDERS, &TEST_FOLDERS), split) {
            (Some([train, _]), Split::Train) => (train, FolderPart::All),
            (Some([_, test]), Split::Test) => (test, FolderPart::All),
            (None, Split::Train) => (whole, FolderPart::Train),
            (None, Split::Test) => (whole, FolderPart::Test),
        })
    }

    /// Classes of a test folder are numbered as those of the training folder.
    fn as_trained(&self, mut found: FoundImages, trained: &Path, folder: &Path) -> Result<FoundImages, FormatError> {
        if found.classes.is_empty() {
            return Ok(found);
        }
        let classes = match self.labels {
            ImageLabels::List(file) => read_list(&trained.join(file))?.found.classes,
            ImageLabels::Folders => class_names(trained)?,
            ImageLabels::Classes(_) | ImageLabels::None => return Ok(found),
        };
        let numbers: Vec<Option<u16>> = found
            .classes
            .iter()
            .map(|class| classes.binary_search(class).ok().and_then(|number| u16::try_from(number).ok()))
            .collect();
        for label in found.labels.iter_mut().flatten() {
            let class = usize::from(*label);
            *label = numbers[class].ok_or_else(|| FormatError::ImageFolder {
                folder: folder.to_owned(),
                problem: format!(
                    "has the class '{}', which '{}' has not; name the classes of both splits alike",
                    found.classes[class],
                    trained.display()
                ),
            })?;
        }
        found.classes = classes;
        Ok(found)
    }

    /// Which class is which output of a network, where the names decide.
    fn numbering(&self, classes: &[String]) -> Option<String> {
        let otherwise = match self.labels {
            ImageLabels::Folders => "`labels: Classes([...])` tells another order",
            ImageLabels::List(_) => "numbers in the list tell another order",
            ImageLabels::Classes(_) | ImageLabels::None => return None,
        };
        let quoted: Vec<String> = classes.iter().take(TOLD_MAX).map(|class| format!("'{class}'")).collect();
        let more = if classes.len() > TOLD_MAX { ", …" } else { "" };
        let quoted = quoted.join(", ");
        (!classes.is_empty())
            .then(|| format!("classes are the network's outputs in alphabetical order, {quoted}{more}; {otherwise}"))
    }

    fn list(&self, folder: &Path) -> Result<Listed, FormatError> {
        match self.labels {
            ImageLabels::Folders => Ok(Listed { found: list_classes(folder)?, is_numbered: false }),
            ImageLabels::Classes(names) => Ok(Listed { found: list_named_classes(folder, names)?, is_numbered: false }),
            ImageLabels::None => Ok(Listed { found: list_all(folder)?, is_numbered: false }),
            ImageLabels::List(file) => read_list(&folder.join(file)),
        }
    }
}

/// What is wrong with classes that a scene names.
pub(crate) fn check_labels(labels: &ImageLabels) -> Option<(&'static str, String)> {
    let ImageLabels::Classes(names) = labels else { return None };
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match (names.len(), twice) {
        (0 | 1, _) => Some(("labels", format!("names {} classes, expected at least two", names.len()))),
        (_, Some((_, name))) => Some(("labels", format!("names the class '{name}' twice"))),
        _ => None,
    }
}

/// Classes of a single image, of which none is left for the other split.
fn single_images(found: &FoundImages) -> Option<String> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    found.labels.iter().flatten().for_each(|&label| *counts.entry(label).or_default() += 1);
    let mut single = listing::LeftOut::default();
    for (&label, _) in counts.iter().filter(|(_, n)| **n == 1) {
        single.add(found.classes.get(usize::from(label)).cloned().unwrap_or_else(|| label.to_string()));
    }
    single.told("classes with one image only")
}

/// An absolute path, else one below the data root, else one below the working directory.
fn locate(dir: &str, data_root: &Path) -> Result<PathBuf, FormatError> {
    let is_relative = dir.starts_with("./") || dir.starts_with("../");
    let candidates = if is_relative { vec![dir.into()] } else { vec![data_root.join(dir), PathBuf::from(dir)] };
    let is_there = |path: &&PathBuf| path.is_dir();
    candidates.iter().find(is_there).cloned().ok_or_else(|| {
        let of_file = if candidates[0].is_file() { ", but a file" } else { "" };
        FormatError::ImageFolder {
            folder: candidates[0].clone(),
            problem: format!("is no folder{of_file}; name the folder that holds the images"),
        }
    })
}
