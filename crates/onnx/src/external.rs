//! Data that tensors keep in other files, which must lie in the document's own folder.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::OnnxError;
use crate::schema::TensorProto;

/// Where the other files of a document lie.
///
/// Data are read when a tensor is asked for, by range: a file that is cut off meanwhile is an error, where a mapped one
/// would end the program.
#[derive(Clone, Debug)]
pub struct ExternalData {
    folder: PathBuf,
}

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
struct FileRange {
    location: String,
    offset: u64,
    /// To the end if there is none.
    length: Option<u64>,
}

impl ExternalData {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub const fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// The `n_bytes` of a tensor that are kept in another file.
    ///
    /// # Errors
    /// A file outside the folder (also through a link), one that is missing or no regular file, a range past its end
    /// or of another length, all with the tensor's name.
    pub fn read(&self, tensor: &TensorProto, n_bytes: usize) -> Result<Vec<u8>, OnnxError> {
        let fail = |problem: String| OnnxError::tensor(tensor.name(), problem);
        let range = range(tensor)?;
        let path = self.confined(&range.location).map_err(fail)?;
        let there = fs::metadata(&path).map_err(|e| OnnxError::io(&path, e))?;
        if !there.is_file() {
            return Err(fail(format!(
                "its data file '{}' is no regular file: put its data beside the model",
                range.location
            )));
        }
        let left = there.len().checked_sub(range.offset);
        let length = range.length.or(left).unwrap_or(0);
        if left.is_none_or(|left| length > left) {
            let (FileRange { location, offset, .. }, n) = (range, there.len());
            return Err(fail(format!(
                "bytes {offset} to {offset} + {length} lie past the {n} bytes of '{location}': is it the file that was written with the model?"
            )));
        }
        if length != n_bytes as u64 {
            return Err(fail(format!("its shape takes {n_bytes} bytes, its data file has {length}: export it again")));
        }
        let mut bytes = vec![0; n_bytes];
        let mut file = File::open(&path).map_err(|e| OnnxError::io(&path, e))?;
        let read = file.seek(SeekFrom::Start(range.offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|e| OnnxError::io(&path, e))
    }

    /// All of a data file.
    pub(crate) fn whole(&self, location: &str) -> Result<Vec<u8>, OnnxError> {
        let path = self.confined(location).map_err(|problem| OnnxError::tensor(location, problem))?;
        fs::read(&path).map_err(|e| OnnxError::io(&path, e))
    }

    /// Bytes of the file that a tensor is kept in, which bound what it can hold; 0 where it cannot be read.
    pub(crate) fn n_bytes(&self, tensor: &TensorProto) -> u64 {
        let path = range(tensor).ok().and_then(|range| self.confined(&range.location).ok());
        path.and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len())
    }

    /// The file of a location, if it lies in the folder.
    fn confined(&self, location: &str) -> Result<PathBuf, String> {
        let outside = || format!("its data file '{location}' lies outside the folder of the model: put it beside it");
        if location.is_empty() {
            return Err("is said to be kept in another file, which is not named: export it again".into());
        }
        let is_plain = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain || location.contains('\\') {
            return Err(outside());
        }
        let path = self.folder.join(location);
        let real = path.canonicalize().map_err(|e| {
            format!("its data file '{location}' is not there ({e}): put it beside the model, under this very name")
        })?;
        let folder = self.folder.canonicalize().map_err(|e| format!("its folder cannot be read: {e}"))?;
        if real.starts_with(folder) { Ok(real) } else { Err(outside()) }
    }
}

fn range(tensor: &TensorProto) -> Result<FileRange, OnnxError> {
    let value = |key: &str| tensor.external_data.iter().find(|entry| entry.key() == key).map(|entry| entry.value());
    let number = |key: &str| match value(key) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            OnnxError::tensor(tensor.name(), format!("its {key} '{text}' is no number of bytes: export it again"))
        }),
    };
    let location = value("location").unwrap_or_default().to_owned();
    Ok(FileRange { location, offset: number("offset")?.unwrap_or(0), length: number("length")? })
}
