//! Which images of a folder without sub-folders for the splits are held out.

use super::listing::{FoundImages, PathList};

/// Which images of a folder a split has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FolderPart {
    /// All: the other split has a folder of its own.
    All,
    /// Those that are not held out.
    Train,
    /// Those that are.
    Test,
}

/// The images of `found` that belong to `part`. Of every class `test_percent` of a hundred are held out, at least one
/// and not the last one; which depends on the hashes of their paths alone.
pub(super) fn part_of(found: FoundImages, part: FolderPart, test_percent: u8) -> FoundImages {
    if part == FolderPart::All {
        return found;
    }
    let n = found.paths.len();
    let label = |index: usize| found.labels.as_ref().map_or(0, |labels| labels[index]);
    let is_test = held_out(found.paths.iter(), label, test_percent);
    let chosen = (0..n).filter(|&index| is_test[index] == (part == FolderPart::Test));
    let (mut paths, mut labels) = (PathList::default(), Vec::new());
    for index in chosen {
        paths.push(found.paths.get(index));
        labels.push(label(index));
    }
    let labels = found.labels.as_ref().map(|_| labels);
    FoundImages::new(paths, labels, found.classes)
}

/// Which of the images with these names are held out: of every class (`label` gives that of an index) `test_percent` of
/// a hundred, at least one and not the last one. A name's hash decides.
pub(crate) fn held_out<N: AsRef<str>>(
    names: impl Iterator<Item = N>,
    label: impl Fn(usize) -> u16,
    test_percent: u8,
) -> Vec<bool> {
    let mut ranked: Vec<(u16, u64, usize)> =
        names.enumerate().map(|(index, name)| (label(index), rank(name.as_ref()), index)).collect();
    ranked.sort_unstable();
    let mut is_test = vec![false; ranked.len()];
    for class in ranked.chunk_by(|a, b| a.0 == b.0) {
        let share = (class.len() * usize::from(test_percent)).div_ceil(100).min(class.len() - 1);
        class[..share].iter().for_each(|&(_, _, index)| is_test[index] = true);
    }
    is_test
}

fn rank(path: &str) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes))
}
