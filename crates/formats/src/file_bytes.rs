//! Reading files whose kind and size are looked at before anything is opened or allocated.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{FileProblem, FormatError};

/// All bytes of the regular file `path`, which must hold at least one and at most `limit`.
///
/// # Errors
/// A folder, a device, a pipe or a socket, none of which is opened; an empty or too large file; what the system
/// refused.
pub fn read_regular_file(path: &Path, limit: u64) -> Result<Vec<u8>, FormatError> {
    let mut file = RegularFile::open(path, limit)?;
    file.part(0, file.n_bytes)
}

/// An open file that is neither a folder nor a device, a pipe or a socket.
pub(crate) struct RegularFile {
    file: File,
    path: PathBuf,
    /// Size when it was opened; at least 1.
    pub(crate) n_bytes: u64,
}

impl RegularFile {
    /// Opens `path`, which must hold at least one byte and at most `limit`.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self, FormatError> {
        // Before opening: opening a pipe would wait for its writer.
        let kind = fs::metadata(path).map_err(|e| FormatError::io("read", path, e))?;
        if kind.is_dir() {
            return Err(FileProblem::Folder.at(path));
        }
        if !kind.is_file() {
            return Err(FileProblem::NotRegular.at(path));
        }
        let n_bytes = kind.len();
        if n_bytes > limit {
            return Err(FileProblem::TooLarge { got: n_bytes, limit }.at(path));
        }
        if n_bytes == 0 {
            return Err(FileProblem::Empty.at(path));
        }
        let file = File::open(path).map_err(|e| FormatError::io("open", path, e))?;
        Ok(Self { file, path: path.into(), n_bytes })
    }

    /// At most `n` bytes from byte `from` on.
    pub(crate) fn part(&mut self, from: u64, n: u64) -> Result<Vec<u8>, FormatError> {
        let n = n.min(self.n_bytes.saturating_sub(from));
        let mut bytes = Vec::with_capacity(usize::try_from(n).unwrap_or(0));
        let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| (&self.file).take(n).read_to_end(&mut bytes));
        read.map_err(|e| FormatError::io("read", &self.path, e))?;
        Ok(bytes)
    }

    /// The open file, to be read from its beginning.
    pub(crate) fn into_file(self) -> File {
        self.file
    }
}
