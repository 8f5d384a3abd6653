//! CIFAR-10 in its official binary layout: records of one label byte and 3,072 pixels `[C, H, W]`.

use std::path::{Path, PathBuf};

use secateur_net::Shape;

use crate::file_bytes::read_regular_file;
use crate::{Dataset, FileProblem, FormatError, Split};

/// Folder of its files under the data root.
pub(super) const FOLDER: &str = "cifar-10-batches-bin";
const SHAPE: Shape = Shape { c: 3, h: 32, w: 32 };
const N_CLASSES: usize = 10;
const RECORD_BYTES: usize = 1 + SHAPE.len();
/// The official files have 10,000 records; ten times as many is not CIFAR-10.
const MAX_FILE_BYTES: u64 = 100_000 * RECORD_BYTES as u64;

/// Reads one split from the folder `cifar-10-batches-bin` under `data_root`, in the order of the files. A file may hold
/// any number of records.
///
/// # Errors
/// A missing, empty or truncated file, or a label above 9, by file and record.
pub fn read_cifar10(data_root: &Path, split: Split) -> Result<Dataset, FormatError> {
    let folder = data_root.join(FOLDER);
    let files: &[&str] = match split {
        Split::Train => {
            &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
        }
        Split::Test => &["test_batch.bin"],
    };
    // All of them are looked for before the first is read.
    let paths = files.iter().map(|file| locate(&folder, file)).collect::<Result<Vec<_>, _>>()?;
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for path in paths {
        append_records(&path, &mut images, &mut labels)?;
    }
    Ok(Dataset { name: "cifar10".into(), shape: SHAPE, n_classes: N_CLASSES, images, labels })
}

fn locate(folder: &Path, file: &str) -> Result<PathBuf, FormatError> {
    let path = folder.join(file);
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(FormatError::MissingDataset {
            file: file.into(),
            folder: folder.into(),
            expected: "the binary version of CIFAR-10 belongs there (data_batch_1.bin to data_batch_5.bin and test_batch.bin)",
        }),
        Err(source) => Err(FormatError::io("look for", &path, source)),
    }
}

fn append_records(path: &Path, images: &mut Vec<u8>, labels: &mut Vec<u16>) -> Result<(), FormatError> {
    let bytes = read_regular_file(path, MAX_FILE_BYTES)?;
    let fail = |problem: String| FileProblem::malformed("CIFAR-10", problem).at(path);
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        let (n, whole) = (bytes.len(), records.len());
        return Err(fail(format!(
            "expected a multiple of {RECORD_BYTES} bytes, got {n}: truncated after {whole} whole records"
        )));
    }
    images.reserve(records.len() * SHAPE.len());
    labels.reserve(records.len());
    for (number, [label, pixels @ ..]) in records.iter().enumerate() {
        if usize::from(*label) >= N_CLASSES {
            return Err(fail(format!("record {number}: expected a label from 0 to 9, got {label}")));
        }
        labels.push(u16::from(*label));
        images.extend_from_slice(pixels);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(label: u8, first: u8) -> Vec<u8> {
        let mut out = vec![label, first];
        out.resize(RECORD_BYTES, 7);
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
        assert_eq!(data.labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
        assert_eq!((data.len(), data.n_classes, data.shape), (10, 10, SHAPE));
        assert_eq!(data.images.len(), 10 * 3072);
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
}
