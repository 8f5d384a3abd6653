//! Arrays in files: a `.npy` file holds one, a `.npz` archive several, each under its name.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::npy::NpyHeader;
use crate::file_bytes::RegularFile;
use crate::{FileProblem, FormatError};

/// What names of archives end in, wherever the name of an array follows.
const ARCHIVE: &str = ".npz:";
/// How entries of an archive are called, behind the array's name.
const ENTRY: &str = ".npy";
/// Entries of an archive that is looked at.
const ENTRIES_MAX: usize = 10_000;
/// Bytes that an array in an archive may have, whatever the archive's size, and beyond them for every byte of it.
const BYTES_OF_ANY: u64 = 64 << 20;
const BYTES_PER_BYTE: u64 = 100;
/// Arrays that a message names.
const NAMED_MAX: usize = 8;

/// One array: its file, and in an archive its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArrayPlace {
    pub(super) file: PathBuf,
    /// None for a `.npy` file, and for the only array of an archive.
    pub(super) name: Option<String>,
}

impl ArrayPlace {
    /// As scenes write it: `FILE.npy`, `FILE.npz` or `FILE.npz:NAME`; `locate` finds the file.
    pub(super) fn parse(
        text: &str,
        locate: impl Fn(&str) -> Result<PathBuf, FormatError>,
    ) -> Result<Self, FormatError> {
        let (file, name) = match text.rfind(ARCHIVE) {
            Some(at) => (&text[..at + ARCHIVE.len() - 1], Some(text[at + ARCHIVE.len()..].to_owned())),
            None => (text, None),
        };
        Ok(Self { file: locate(file)?, name })
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{}:{name}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// What is wrong with this array.
    pub(super) fn fail(&self, problem: impl Into<String>) -> FormatError {
        FileProblem::malformed("NumPy array", problem).at(Path::new(&self.shown()))
    }

    /// Hands `take` the header, and its elements' bytes, of which there are as many as `n_bytes` finds for the header.
    ///
    /// # Errors
    /// A file that cannot be read, no such array, fewer bytes than the header calls for; what `take` finds.
    pub(super) fn read<T>(
        &self,
        n_bytes: impl Fn(&NpyHeader) -> Result<u64, String>,
        take: impl FnOnce(&NpyHeader, &mut dyn Read) -> Result<T, String>,
    ) -> Result<T, FormatError> {
        let file = RegularFile::open(&self.file, u64::MAX)?;
        let n_file_bytes = file.n_bytes;
        let mut reader = BufReader::with_capacity(1 << 16, file.into_file());
        if !starts_archive(&mut reader).map_err(|source| FormatError::io("read", &self.file, source))? {
            if let Some(name) = &self.name {
                return Err(self.fail(format!("is no .npz archive, so that it has no array '{name}'")));
            }
            return take_array(&mut reader, n_file_bytes, n_bytes, take).map_err(|problem| self.fail(problem));
        }
        let mut archive = open_archive(reader).map_err(|problem| self.fail(problem))?;
        let entry = self.entry(&archive)?;
        let mut entry = archive.by_name(&entry).map_err(|error| self.fail(error.to_string()))?;
        let (size, compressed) = (entry.size(), entry.compressed_size().min(n_file_bytes));
        let most = BYTES_OF_ANY.max(compressed.saturating_mul(BYTES_PER_BYTE));
        if size > most {
            return Err(self.fail(format!(
                "unfolds to {size} bytes from {compressed}, at most {most} are read; save it with numpy.savez, uncompressed"
            )));
        }
        take_array(&mut entry, size, n_bytes, take).map_err(|problem| self.fail(problem))
    }

    /// Name of the entry of the archive that holds the array.
    fn entry(&self, archive: &ZipArchive<BufReader<File>>) -> Result<String, FormatError> {
        let names = array_names(archive);
        match (&self.name, names.as_slice()) {
            (Some(name), _) if archive.index_for_name(&format!("{name}{ENTRY}")).is_some() => {
                Ok(format!("{name}{ENTRY}"))
            }
            (Some(name), _) => Err(self.fail(format!("has no array '{name}'; it has {}", listed(&names)))),
            (None, [only]) => Ok(format!("{only}{ENTRY}")),
            (None, []) => Err(self.fail("is an archive without an array of NumPy's (.npy)")),
            (None, _) => Err(self.fail(format!(
                "has several arrays: {}; say which, as in '{}:{}'",
                listed(&names),
                self.file.display(),
                names[0]
            ))),
        }
    }
}

/// Names of the arrays of the archive `file`; none for a file that is no archive.
///
/// # Errors
/// A file that cannot be read, a broken archive.
pub(super) fn names_in(file: &Path) -> Result<Vec<String>, FormatError> {
    let mut reader = BufReader::new(RegularFile::open(file, u64::MAX)?.into_file());
    if !starts_archive(&mut reader).map_err(|source| FormatError::io("read", file, source))? {
        return Ok(Vec::new());
    }
    let archive = open_archive(reader).map_err(|problem| FileProblem::malformed("NumPy archive", problem).at(file))?;
    Ok(array_names(&archive))
}

/// Whether a file begins as zip archives do; nothing is taken from it.
fn starts_archive(reader: &mut BufReader<File>) -> std::io::Result<bool> {
    std::io::BufRead::fill_buf(reader).map(|start| start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06"))
}

fn open_archive(reader: BufReader<File>) -> Result<ZipArchive<BufReader<File>>, String> {
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let archive = ZipArchive::with_config(config, reader)
        .map_err(|error| format!("is no whole zip archive: {error}; is the file truncated?"))?;
    match archive.len() {
        n if n > ENTRIES_MAX => Err(format!("has {n} entries, at most {ENTRIES_MAX} are looked at")),
        _ => Ok(archive),
    }
}

fn array_names(archive: &ZipArchive<BufReader<File>>) -> Vec<String> {
    let array = |name: &str| name.strip_suffix(ENTRY).map(str::to_owned);
    let mut names: Vec<String> = archive.file_names().filter_map(|name| array(&name.ok()?)).collect();
    names.sort_unstable();
    names
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("'{name}'")).collect();
    match names.len() {
        0 => "none".into(),
        n if n > NAMED_MAX => format!("{}, …", quoted.join(", ")),
        _ => quoted.join(", "),
    }
}

/// Reads an array from what has `n_bytes_there` bytes, its header among them.
fn take_array<T>(
    mut reader: &mut dyn Read,
    n_bytes_there: u64,
    n_bytes: impl Fn(&NpyHeader) -> Result<u64, String>,
    take: impl FnOnce(&NpyHeader, &mut dyn Read) -> Result<T, String>,
) -> Result<T, String> {
    let header = NpyHeader::read(&mut reader)?;
    let (expected, got) = (n_bytes(&header)?, n_bytes_there.saturating_sub(header.n_header_bytes));
    if got < expected {
        let described = header.described();
        return Err(format!("is truncated: {described} takes {expected} bytes, {got} are there"));
    }
    take(&header, reader)
}
