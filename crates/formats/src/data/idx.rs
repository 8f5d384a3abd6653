//! MNIST and data sets in its form: IDX files (LeCun, Cortes and Burges 1998) of bytes, perhaps compressed with gzip.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use secateur_net::Shape;

use crate::file_bytes::read_regular_file;
use crate::{Dataset, FileProblem, FormatError, Split};

/// Where the four files of a data set lie.
pub(super) struct IdxFolders {
    /// Name for listings.
    pub(super) name: &'static str,
    /// Folders under the data root, the first of which is told where none is there.
    pub(super) folders: &'static [&'static str],
    pub(super) expected: &'static str,
}

pub(super) static MNIST: IdxFolders = IdxFolders {
    name: "mnist",
    folders: &["mnist", "MNIST/raw"],
    expected: "the four files of MNIST belong there (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, \
               t10k-labels-idx1-ubyte, with or without .gz)",
};
pub(super) static FASHION_MNIST: IdxFolders = IdxFolders {
    name: "fashion_mnist",
    folders: &["fashion-mnist", "FashionMNIST/raw"],
    expected: "the four files of Fashion-MNIST belong there (train-images-idx3-ubyte, train-labels-idx1-ubyte, \
               t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, with or without .gz)",
};

/// The official files have up to 60,000 images of 28 x 28; ten times as much is none of them.
const BYTES_MAX: u64 = 600_000 * 28 * 28;
/// Type code of bytes, in the third byte of a file.
const OF_BYTES: u8 = 8;
const N_CLASSES_MIN: usize = 10;

/// An IDX file: extents and bytes.
struct IdxArray {
    extents: Vec<usize>,
    bytes: Vec<u8>,
}

/// Reads one split.
///
/// # Errors
/// A missing, truncated or other file, and as many labels as there are no images, by file.
pub(super) fn read_idx(of: &IdxFolders, data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
    let part = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let (images_at, images) = array(&locate(of, data_root, &format!("{part}-images-idx3-ubyte"))?, 3)?;
    let (labels_at, labels) = array(&locate(of, data_root, &format!("{part}-labels-idx1-ubyte"))?, 1)?;
    let fail = |problem: String| Err(FileProblem::malformed("IDX", problem).at(&labels_at));
    let [n, h, w] = images.extents[..] else { return fail("has no images".into()) };
    if labels.bytes.len() != n {
        let got = labels.bytes.len();
        return fail(format!("expected {n} labels, as many as '{}' has images, got {got}", images_at.display()));
    }
    let n_classes = labels.bytes.iter().max().map_or(0, |&label| usize::from(label) + 1).max(N_CLASSES_MIN);
    let labels = labels.bytes.into_iter().map(u16::from).collect();
    Ok(Dataset {
        name: of.name.into(),
        shape: Shape { c: 1, h, w },
        n_classes,
        images: images.bytes.into(),
        labels: Some(labels),
    })
}

/// The file in the first folder that has it, plain or compressed, with a hyphen or a point before `idx`.
fn locate(of: &IdxFolders, data_root: &Path, file: &str) -> Result<PathBuf, FormatError> {
    let other = file.replace("-idx", ".idx");
    let names = [file.to_owned(), format!("{file}.gz"), other.clone(), format!("{other}.gz")];
    for folder in of.folders {
        for name in &names {
            let path = data_root.join(folder).join(name);
            if path.try_exists().map_err(|source| FormatError::io("look for", &path, source))? {
                return Ok(path);
            }
        }
    }
    Err(FormatError::MissingDataset { file: file.into(), folder: data_root.join(of.folders[0]), expected: of.expected })
}

fn array(path: &Path, rank: usize) -> Result<(PathBuf, IdxArray), FormatError> {
    let stored = read_regular_file(path, BYTES_MAX)?;
    let fail = |problem: String| FileProblem::malformed("IDX", problem).at(path);
    let bytes = if stored.starts_with(&[0x1f, 0x8b]) {
        let mut bytes = Vec::new();
        let decoder = MultiGzDecoder::new(stored.as_slice());
        let read = decoder.take(BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| fail(format!("is no whole gzip file: {error}")))?;
        bytes
    } else {
        stored
    };
    let parsed = parse(&bytes, rank).map_err(fail)?;
    Ok((path.to_owned(), parsed))
}

fn parse(bytes: &[u8], rank: usize) -> Result<IdxArray, String> {
    let header = 4 + 4 * rank;
    match bytes {
        [0, 0, OF_BYTES, r, ..] if usize::from(*r) == rank && bytes.len() >= header => {}
        _ => {
            let start = &bytes[..bytes.len().min(4)];
            return Err(format!("expected bytes over {rank} axes (00 00 08 {rank:02x}), it begins with {start:02x?}"));
        }
    }
    let words = bytes[4..header].as_chunks::<4>().0;
    let extents: Vec<usize> = words.iter().map(|&word| u32::from_be_bytes(word) as usize).collect();
    let n = extents.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    let data = &bytes[header..];
    match n {
        Some(0) => Err("is empty".into()),
        Some(n) if n == data.len() => Ok(IdxArray { extents, bytes: data.to_vec() }),
        _ => Err(format!("expected {extents:?} bytes behind its header, got {}", data.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs;
    use std::io::Write;

    fn idx(extents: &[u32], bytes: &[u8]) -> Vec<u8> {
        let head = [0, 0, 8, extents.len() as u8].into_iter();
        head.chain(extents.iter().flat_map(|n| n.to_be_bytes())).chain(bytes.iter().copied()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn root_with(folder: &str, files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(folder)).unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(root.path().join(folder).join(name), bytes).unwrap());
        root
    }

    #[test]
    fn images_and_labels_are_read_plain_and_compressed_wherever_torchvision_puts_them() {
        let (images, labels) = (idx(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), idx(&[2], &[9, 3]));
        let plain = [("t10k-images.idx3-ubyte", images.clone()), ("t10k-labels-idx1-ubyte", labels.clone())];
        let packed = [("t10k-images-idx3-ubyte.gz", gzip(&images)), ("t10k-labels-idx1-ubyte.gz", gzip(&labels))];
        for (folder, files) in [("mnist", plain), ("MNIST/raw", packed)] {
            let root = root_with(folder, &files);
            let data = read_idx(&MNIST, root.path(), Split::Test).unwrap();
            assert_eq!((data.shape, data.n_classes), (Shape { c: 1, h: 2, w: 3 }, 10));
            assert_eq!((data.labels().unwrap(), data.image(1)), (&[9, 3][..], &[7, 8, 9, 10, 11, 12][..]));
            let missing = read_idx(&MNIST, root.path(), Split::Train).unwrap_err().to_string();
            assert!(missing.contains("train-images-idx3-ubyte") && missing.contains("mnist"), "{missing}");
        }
    }

    #[test]
    fn other_bytes_are_refused_by_file() {
        let labels = idx(&[2], &[9, 3]);
        let good = idx(&[2, 1, 1], &[1, 2]);
        let mut half = gzip(&good);
        half.truncate(half.len() / 2);
        let cases = [
            (good[..good.len() - 1].to_vec(), "expected [2, 1, 1] bytes"),
            (idx(&[2, 1, 1], &[1, 2, 3]), "got 3"),
            (idx(&[2], &[1, 2]), "over 3 axes"),
            (idx(&[3, 1, 1], &[1, 2, 3]), "expected 3 labels"),
            (idx(&[0, 28, 28], &[]), "is empty"),
            (idx(&[u32::MAX, u32::MAX, u32::MAX], &[1]), "bytes behind its header"),
            (half, "no whole gzip file"),
            (vec![0, 0], "it begins with [00, 00]"),
        ];
        for (images, expected) in cases {
            let files = [("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels.clone())];
            let root = root_with("fashion-mnist", &files);
            let message = read_idx(&FASHION_MNIST, root.path(), Split::Test).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("idx"), "{expected}: {message}");
        }
    }
}
