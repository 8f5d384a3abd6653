//! Which images a folder holds, without opening one of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::FormatError;

/// Endings of the names of images, in lower case; what format a file really has is told by its content.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib"];
/// Folders inside each other that are followed: links may lead in a circle.
const DEPTH_MAX: usize = 16;
/// Files that are named of those that were left out.
const NAMED_MAX: usize = 3;

/// Paths relative to a folder, one behind the other: a million of them take little more than their letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathList {
    text: String,
    ends: Vec<usize>,
}

impl PathList {
    pub(crate) fn push(&mut self, path: &str) {
        self.text.push_str(path);
        self.ends.push(self.text.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The path at `index`, which must be below [`Self::len`].
    pub(crate) fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// Files that were passed over for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    n: usize,
    first: Vec<String>,
}

impl LeftOut {
    pub(crate) fn add(&mut self, path: impl Into<String>) {
        self.n += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(path.into());
        }
    }

    /// `3 <what>: 'a', 'b', …`; none if there is none.
    pub(crate) fn told(&self, what: &str) -> Option<String> {
        let names: Vec<String> = self.first.iter().map(|name| format!("'{name}'")).collect();
        let more = if self.n > names.len() { ", …" } else { "" };
        (self.n > 0).then(|| format!("{} {what}: {}{more}", self.n, names.join(", ")))
    }
}

/// What lies in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundImages {
    /// Images, relative to the folder, in alphabetical order of every folder on the way.
    pub(crate) paths: PathList,
    /// Class of each, by its place in `classes`; none for a folder without classes.
    pub(crate) labels: Option<Vec<u16>>,
    /// Names of the class folders, in alphabetical order, those without an image, too.
    pub(crate) classes: Vec<String>,
    left_out: AllLeftOut,
}

/// What was passed over, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AllLeftOut {
    hidden: LeftOut,
    foreign: LeftOut,
    beside: LeftOut,
    not_unicode: LeftOut,
}

impl FoundImages {
    /// What a folder holds of which nothing was passed over.
    pub(crate) fn new(paths: PathList, labels: Option<Vec<u16>>, classes: Vec<String>) -> Self {
        Self { paths, labels, classes, left_out: AllLeftOut::default() }
    }

    /// What was passed over, a phrase for each reason.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let AllLeftOut { hidden, foreign, beside, not_unicode } = &self.left_out;
        let reasons = [
            hidden.told("hidden files or folders"),
            foreign.told("files that are no images by name"),
            beside.told("images beside the class folders"),
            not_unicode.told("names that are not Unicode"),
        ];
        reasons.into_iter().flatten().collect()
    }
}

/// Every image below `folder`.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn list_all(folder: &Path) -> Result<FoundImages, FormatError> {
    let mut found = FoundImages::default();
    walk(folder, "", DEPTH_MAX, &mut found)?;
    Ok(found)
}

/// Every image below the sub-folders of `folder`, each of which is a class.
///
/// # Errors
/// A folder that cannot be read; more classes than labels can tell apart.
pub(crate) fn list_classes(folder: &Path) -> Result<FoundImages, FormatError> {
    let mut found = FoundImages::default();
    let Entries { folders, files } = entries(folder, "", &mut found)?;
    files.into_iter().for_each(|file| found.left_out.beside.add(file));
    let mut labels = Vec::new();
    for (class, name) in folders.iter().enumerate() {
        let class = u16::try_from(class).map_err(|_| FormatError::ImageFolder {
            folder: folder.to_owned(),
            problem: format!("has {} class folders, at most {} can be told apart", folders.len(), u16::MAX),
        })?;
        walk(&folder.join(name), &format!("{name}/"), DEPTH_MAX, &mut found)?;
        labels.resize(found.paths.len(), class);
    }
    found.labels = Some(labels);
    found.classes = folders;
    Ok(found)
}

/// Every image below the sub-folders `classes` of `folder`, which are numbered in this order; one that is not there has
/// no image.
///
/// # Errors
/// As [`list_classes`], and a sub-folder that `classes` does not name.
pub(crate) fn list_named_classes(folder: &Path, classes: &[String]) -> Result<FoundImages, FormatError> {
    let mut found = list_classes(folder)?;
    let fail = |problem: String| FormatError::ImageFolder { folder: folder.to_owned(), problem };
    let number = |class: &String| {
        let number = classes.iter().position(|known| known == class).and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| {
            fail(format!("has the class '{class}', which `labels: Classes([...])` does not name; add or move it"))
        })
    };
    let numbers = found.classes.iter().map(number).collect::<Result<Vec<u16>, FormatError>>()?;
    found.labels.iter_mut().flatten().for_each(|label| *label = numbers[usize::from(*label)]);
    found.classes = classes.to_vec();
    Ok(found)
}

/// Names of the class folders of `folder`, in alphabetical order.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn class_names(folder: &Path) -> Result<Vec<String>, FormatError> {
    entries(folder, "", &mut FoundImages::default()).map(|entries| entries.folders)
}

fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut FoundImages) -> Result<(), FormatError> {
    let Entries { folders, files } = entries(folder, prefix, found)?;
    files.iter().for_each(|file| found.paths.push(&format!("{prefix}{file}")));
    for name in folders {
        if depth == 0 {
            let problem = format!("has over {DEPTH_MAX} folders inside each other; does a link lead in a circle?");
            return Err(FormatError::ImageFolder { folder: folder.to_owned(), problem });
        }
        walk(&folder.join(&name), &format!("{prefix}{name}/"), depth - 1, found)?;
    }
    Ok(())
}

/// Names in one folder, in alphabetical order.
struct Entries {
    folders: Vec<String>,
    /// Images by their names.
    files: Vec<String>,
}

fn entries(folder: &Path, prefix: &str, found: &mut FoundImages) -> Result<Entries, FormatError> {
    let fail = |source| FormatError::io("list the images of", folder, source);
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = match entry.file_name().into_string() {
            Ok(name) => name,
            Err(name) => {
                found.left_out.not_unicode.add(format!("{prefix}{}", name.to_string_lossy()));
                continue;
            }
        };
        if name.starts_with('.') {
            found.left_out.hidden.add(format!("{prefix}{name}"));
        } else if is_folder(&entry) {
            folders.push(name);
        } else if is_image(&name) {
            files.push(name);
        } else {
            found.left_out.foreign.add(format!("{prefix}{name}"));
        }
    }
    folders.sort_unstable();
    files.sort_unstable();
    Ok(Entries { folders, files })
}

/// Links are followed; nothing else is asked of the system, which takes long for a million files.
fn is_folder(entry: &fs::DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => fs::metadata(entry.path()).is_ok_and(|kind| kind.is_dir()),
        Ok(kind) => kind.is_dir(),
        Err(_) => false,
    }
}

/// Whether a file is an image by its name.
pub(crate) fn is_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// The sub-folders of one folder that have one of two sets of names, the first that is there of each.
pub(crate) fn split_folders(folder: &Path, train: &[&str], test: &[&str]) -> Option<[PathBuf; 2]> {
    let first = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_dir());
    Some([first(train)?, first(test)?])
}
