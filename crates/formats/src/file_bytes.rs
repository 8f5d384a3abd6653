//! Reading a whole file with clear errors.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::{FormatError, Problem};

/// All bytes of the regular file `path`, which must hold at least one and at most `limit`.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FormatError> {
    // Before opening: opening a pipe would wait for its writer.
    let kind = fs::metadata(path).map_err(|e| FormatError::io("read", path, e))?;
    if kind.is_dir() {
        return Err(Problem::Folder.at(path));
    }
    if !kind.is_file() {
        return Err(Problem::UnknownFormat("expected a regular file, got a device or a pipe").at(path));
    }
    let n_bytes = kind.len();
    if n_bytes > limit {
        return Err(Problem::TooLarge { got: n_bytes, limit }.at(path));
    }
    let file = File::open(path).map_err(|e| FormatError::io("open", path, e))?;
    let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes).map_err(|e| FormatError::io("read", path, e))?;
    if bytes.is_empty() {
        return Err(Problem::Empty.at(path));
    }
    Ok(bytes)
}
