//! CIFAR-10 and CIFAR-100 in their official binary layout: records of one or two label bytes and 3,072 pixels
//! `[C, H, W]`.

use std::path::{Path, PathBuf};

use secateur_net::Shape;

use crate::file_bytes::read_regular_file;
use crate::{Dataset, FileProblem, FormatError, Split};

/// One of the two data sets.
pub(super) struct CifarFiles {
    /// Name for listings.
    pub(super) name: &'static str,
    /// Folder of its files under the data root.
    pub(super) folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    n_classes: usize,
    /// Bytes in front of the pixels, the last of which is the label.
    label_bytes: usize,
    expected: &'static str,
}

pub(super) static CIFAR_10: CifarFiles = CifarFiles {
    name: "cifar10",
    folder: "cifar-10-batches-bin",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    n_classes: 10,
    label_bytes: 1,
    expected: "the binary version of CIFAR-10 belongs there (data_batch_1.bin to data_batch_5.bin and test_batch.bin)",
};
/// Its first label byte is the coarse one.
pub(super) static CIFAR_100: CifarFiles = CifarFiles {
    name: "cifar100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    n_classes: 100,
    label_bytes: 2,
    expected: "the binary version of CIFAR-100 belongs there (train.bin and test.bin)",
};
const SHAPE: Shape = Shape { c: 3, h: 32, w: 32 };
/// The official files have up to 50,000 records; ten times as many are not theirs.
const MAX_FILE_BYTES: u64 = 500_000 * (2 + SHAPE.len()) as u64;

/// Reads one split from the folder `cifar-10-batches-bin` under `data_root`, in the order of the files. A file may hold
/// any number of records.
///
/// # Errors
/// A missing, empty or truncated file, or a label above 9, by file and record.
pub fn read_cifar10(data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
    read_cifar(&CIFAR_10, data_root, split)
}

/// As [`read_cifar10`].
pub(super) fn read_cifar(of: &CifarFiles, data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
    let files: &[&str] = match split {
        Split::Train => of.train,
        Split::Test => &[of.test],
    };
    // All of them are looked for before the first is read.
    let paths = files.iter().map(|file| locate(of, data_root, file)).collect::<Result<Vec<_>, _>>()?;
    let mut records = Records::default();
    for path in paths {
        records.append(of, &path)?;
    }
    let Records { images, labels } = records;
    Ok(Dataset {
        name: of.name.into(),
        shape: SHAPE,
        n_classes: of.n_classes,
        images: images.into(),
        labels: Some(labels),
    })
}

fn locate(of: &CifarFiles, data_root: &Path, file: &str) -> Result<PathBuf, FormatError> {
    let folder = data_root.join(of.folder);
    let path = folder.join(file);
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(FormatError::MissingDataset { file: file.into(), folder, expected: of.expected }),
        Err(source) => Err(FormatError::io("look for", &path, source)),
    }
}

#[derive(Default)]
struct Records {
    images: Vec<u8>,
    labels: Vec<u16>,
}

impl Records {
    fn append(&mut self, of: &CifarFiles, path: &Path) -> Result<(), FormatError> {
        let bytes = read_regular_file(path, MAX_FILE_BYTES)?;
        let fail = |problem: String| FileProblem::malformed("CIFAR", problem).at(path);
        let record_bytes = of.label_bytes + SHAPE.len();
        if !bytes.len().is_multiple_of(record_bytes) {
            let (n, whole) = (bytes.len(), bytes.len() / record_bytes);
            return Err(fail(format!(
                "expected a multiple of {record_bytes} bytes, got {n}: truncated after {whole} whole records"
            )));
        }
        self.images.reserve(bytes.len());
        self.labels.reserve(bytes.len() / record_bytes);
        for (number, record) in bytes.chunks_exact(record_bytes).enumerate() {
            let (labels, pixels) = record.split_at(of.label_bytes);
            let label = labels[of.label_bytes - 1];
            if usize::from(label) >= of.n_classes {
                let last = of.n_classes - 1;
                return Err(fail(format!("record {number}: expected a label from 0 to {last}, got {label}")));
            }
            self.labels.push(u16::from(label));
            self.images.extend_from_slice(pixels);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FOLDER: &str = CIFAR_10.folder;

    fn record(label: u8, first: u8) -> Vec<u8> {
        let mut out = vec![label, first];
        out.resize(1 + SHAPE.len(), 7);
        out
    }

    fn root_with(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(FOLDER)).unwrap();
        for (name, bytes) in files {
            fs::write(root.path().join(FOLDER).join(name), bytes).unwrap();
        }
        root
    }

    fn test_error(bytes: Vec<u8>) -> String {
        let root = root_with(&[("test_batch.bin", bytes)]);
        let message = read_cifar10(root.path(), Split::Test).unwrap_err().to_string();
        assert!(message.contains("test_batch.bin"), "{message}");
        message
    }

    #[test]
    fn training_files_are_joined_in_order() {
        let names: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}.bin")).collect();
        let files: Vec<_> = names
            .iter()
            .zip(0u8..)
            .map(|(n, i)| (n.as_str(), [record(i, 10 + i), record(9, 20 + i)].concat()))
            .collect();
        let root = root_with(&files);
        let data = read_cifar10(root.path(), Split::Train).unwrap();
        assert_eq!(data.labels().unwrap(), [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
        assert_eq!((data.len(), data.n_classes, data.shape), (10, 10, SHAPE));
        assert_eq!(data.bytes().len(), 10 * 3072);
        assert_eq!((data.image(3)[0], data.image(3)[3071]), (21, 7));
    }

    #[test]
    fn a_missing_file_is_named_with_its_folder_and_what_belongs_there() {
        let root = root_with(&[("data_batch_1.bin", record(0, 0))]);
        let message = read_cifar10(root.path(), Split::Train).unwrap_err().to_string();
        for part in ["data_batch_2.bin", FOLDER, "the binary version of CIFAR-10"] {
            assert!(message.contains(part), "{message}");
        }
        let nowhere = read_cifar10(&root.path().join("absent"), Split::Test).unwrap_err().to_string();
        assert!(nowhere.contains("absent") && nowhere.contains("test_batch.bin"), "{nowhere}");
    }

    #[test]
    fn truncated_files_bad_labels_and_empty_files_are_refused() {
        let truncated = test_error([record(1, 1), record(2, 2)].concat()[..4000].to_vec());
        assert!(truncated.contains("3073") && truncated.contains("4000"), "{truncated}");
        let label = test_error([record(9, 1), record(10, 2)].concat());
        assert!(label.contains("record 1") && label.contains("got 10"), "{label}");
        assert!(test_error(Vec::new()).contains("empty"));
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_refused() {
        let root = root_with(&[]);
        fs::create_dir(root.path().join(FOLDER).join("test_batch.bin")).unwrap();
        let message = read_cifar10(root.path(), Split::Test).unwrap_err().to_string();
        assert!(message.contains("folder"), "{message}");
    }

    #[test]
    fn fine_labels_stand_behind_coarse_ones() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(CIFAR_100.folder)).unwrap();
        let file = root.path().join(CIFAR_100.folder).join("test.bin");
        fs::write(&file, [vec![19], record(99, 5), vec![0], record(0, 6)].concat()).unwrap();
        let data = read_cifar(&CIFAR_100, root.path(), Split::Test).unwrap();
        assert_eq!((data.labels().unwrap(), data.n_classes), (&[99, 0][..], 100));
        assert_eq!((data.image(0)[0], data.image(1)[0]), (5, 6));
        fs::write(&file, [vec![0], record(100, 5)].concat()).unwrap();
        let message = read_cifar(&CIFAR_100, root.path(), Split::Test).unwrap_err().to_string();
        assert!(message.contains("expected a label from 0 to 99, got 100"), "{message}");
    }
}
