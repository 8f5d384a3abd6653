//! Where a zip archive lies in its file, found as Python's `zipfile` finds it: from the end, by the sizes that the end
//! record gives. The library guesses by looking for signatures, and guesses wrong for one length of name among a
//! hundred.

use std::io::{Error, ErrorKind, Read, Result as IoResult, Seek, SeekFrom};

use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{ZipArchive, result::ZipResult};

/// Bytes of an end record without its comment, and the longest comment.
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = u16::MAX as usize;
const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
/// The end record is among so many last bytes of a file.
pub(crate) const TAIL_BYTES: u64 = (END_BYTES + COMMENT_BYTES_MAX) as u64;
/// Zip64's end record, and the locator that stands between it and the plain end record.
const END64_BYTES: usize = 56;
const END64_SIGNATURE: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_BYTES: usize = 20;
const LOCATOR_SIGNATURE: [u8; 4] = *b"PK\x06\x07";
const ENTRY_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
/// From here on a plain end record cannot say the number; no network has as many storages.
const ENTRIES_MAX: u64 = 0xffff;

/// An archive: its bytes up to the end of the directory, and what the end record says about them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EntryPlace<'a> {
    /// From the archive's first byte (behind whatever was put before it) to the directory's last.
    body: &'a [u8],
    /// Where the directory begins in `body`.
    directory: usize,
    /// Entries that the end record promises.
    pub(crate) n_entries: u64,
}

/// Finds the archive that ends in `bytes`; any bytes may precede it and a comment may follow.
///
/// # Errors
/// What is missing, or what the end record promises and the file does not have.
pub(crate) fn locate(bytes: &[u8]) -> Result<EntryPlace<'_>, String> {
    let from = bytes.len().saturating_sub(END_BYTES + COMMENT_BYTES_MAX);
    let mut found = None;
    // Backwards, as a comment may hold another archive's end record; that of the last archive in the file that fits is
    // it.
    for at in (from..(bytes.len() + 1).saturating_sub(END_BYTES)).rev() {
        if bytes[at..].starts_with(&END_SIGNATURE) {
            match at_end_record(bytes, at) {
                Ok(place) => return Ok(place),
                Err(problem) => found = found.or(Some(problem)),
            }
        }
    }
    Err(found.unwrap_or_else(|| "the directory at its end is missing: the file is truncated".into()))
}

/// Whether an end record, or something that looks like one, is among the last bytes of a file.
pub(crate) fn has_end_record(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(END_BYTES + COMMENT_BYTES_MAX)..];
    tail.len() >= END_BYTES && tail[..tail.len() - END_BYTES + 4].windows(4).any(|window| window == END_SIGNATURE)
}

/// The archive whose end record is at `at`.
fn at_end_record(bytes: &[u8], at: usize) -> Result<EntryPlace<'_>, String> {
    let (end, n_entries, size, offset) = match zip64_record(bytes, at) {
        Some(record) => {
            (record, number::<8>(bytes, record + 32), number::<8>(bytes, record + 40), number::<8>(bytes, record + 48))
        }
        None => (at, number::<2>(bytes, at + 10), number::<4>(bytes, at + 12), number::<4>(bytes, at + 16)),
    };
    let place = |n: u64| usize::try_from(n).ok();
    let directory = place(size).and_then(|size| end.checked_sub(size));
    let start = directory.zip(place(offset)).and_then(|(directory, offset)| directory.checked_sub(offset));
    let (Some(directory), Some(start)) = (directory, start) else {
        return Err(format!(
            "its end record (at byte {at}) promises a directory of {size} bytes at {offset}, which do not fit before it"
        ));
    };
    if n_entries > 0 && !bytes[directory..end].starts_with(&ENTRY_SIGNATURE) {
        return Err(format!("its end record (at byte {at}) promises a directory at {directory}; there is none"));
    }
    if n_entries >= ENTRIES_MAX {
        return Err(format!("its directory has {n_entries} entries; at most {} are read", ENTRIES_MAX - 1));
    }
    Ok(EntryPlace { body: &bytes[start..end], directory: directory - start, n_entries })
}

/// Where the zip64 record is that belongs to the end record at `at`.
fn zip64_record(bytes: &[u8], at: usize) -> Option<usize> {
    let locator = at.checked_sub(LOCATOR_BYTES)?;
    if !bytes[locator..].starts_with(&LOCATOR_SIGNATURE) {
        return None;
    }
    let is_record = |&record: &usize| {
        bytes.get(record..locator).is_some_and(|b| b.len() >= END64_BYTES && b.starts_with(&END64_SIGNATURE))
    };
    // Right before the locator, whatever precedes the archive; one with further fields is longer.
    let adjacent = locator.checked_sub(END64_BYTES).filter(is_record);
    adjacent.or_else(|| usize::try_from(number::<8>(bytes, locator + 8)).ok().filter(is_record))
}

/// A little-endian number of `N` bytes; 0 beyond the end, which callers have excluded.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + N).unwrap_or_default().iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// Opens the archive at `place`.
///
/// # Errors
/// A directory that is not one.
pub(crate) fn open(place: EntryPlace<'_>) -> ZipResult<ZipArchive<ArchiveView<'_>>> {
    let EntryPlace { body, directory, n_entries } = place;
    let too_large = |_| ZipError::UnsupportedArchive("larger than 4 GiB");
    let (size, offset) = (u32::try_from(body.len() - directory), u32::try_from(directory));
    let mut end = [0; END_BYTES];
    end[..4].copy_from_slice(&END_SIGNATURE);
    for at in [8, 10] {
        end[at..at + 2].copy_from_slice(&(n_entries as u16).to_le_bytes());
    }
    end[12..16].copy_from_slice(&size.map_err(too_large)?.to_le_bytes());
    end[16..20].copy_from_slice(&offset.map_err(too_large)?.to_le_bytes());
    // Nothing is left to guess: no prefix, no comment, and the directory ends where the end record begins.
    ZipArchive::with_config(Config { archive_offset: ArchiveOffset::Known(0) }, ArchiveView { body, end, at: 0 })
}

/// An archive's body, followed by an end record that says exactly where its directory is.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveView<'a> {
    body: &'a [u8],
    end: [u8; END_BYTES],
    at: u64,
}

impl Read for ArchiveView<'_> {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let rest = match at.checked_sub(self.body.len()) {
            None => &self.body[at..],
            Some(at) => self.end.get(at..).unwrap_or_default(),
        };
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for ArchiveView<'_> {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let n_bytes = (self.body.len() + END_BYTES) as u64;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => n_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
