//! Vectors of numbers in MATLAB's files of level 5 (MATLAB 5 to 7, what SciPy writes), compressed or not. Everything
//! else in a file is passed over.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::file_bytes::read_regular_file;
use crate::{FileProblem, FormatError};

/// A larger file holds no lists of numbers.
const BYTES_MAX: u64 = 64 << 20;
const HEADER_BYTES: usize = 128;

/// Types of elements.
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Classes of arrays whose elements are numbers: double, single and the integers.
const NUMERIC: std::ops::RangeInclusive<u8> = 6..=15;

/// Every numeric array of a file, its elements in the order of the file, by name.
///
/// # Errors
/// A file that cannot be read, or is none of this format.
pub(super) fn read_vectors(path: &Path) -> Result<BTreeMap<String, Vec<f64>>, FormatError> {
    let bytes = read_regular_file(path, BYTES_MAX)?;
    vectors(&bytes).map_err(|problem| FileProblem::malformed("MATLAB file", problem).at(path))
}

fn vectors(bytes: &[u8]) -> Result<BTreeMap<String, Vec<f64>>, String> {
    if bytes.starts_with(b"MATLAB 7.3") {
        return Err("is of MATLAB 7.3, which is HDF5; save it with -v7".into());
    }
    let is_big_endian = match bytes.get(HEADER_BYTES - 2..HEADER_BYTES) {
        Some(b"IM") => false,
        Some(b"MI") => true,
        _ => return Err("has no header of MATLAB's files (level 5)".into()),
    };
    let mut elements = MatElements { bytes: &bytes[HEADER_BYTES..], is_big_endian, is_padded: false };
    let (mut found, mut left) = (BTreeMap::new(), BYTES_MAX);
    while let Some(element) = elements.next()? {
        let unfolded;
        let matrix = match element.kind {
            MATRIX => element.bytes,
            COMPRESSED => {
                unfolded = unfold(element.bytes, left)?;
                left -= unfolded.len() as u64;
                let mut inner = MatElements { bytes: &unfolded, is_big_endian, is_padded: false };
                match inner.next()?.filter(|inner| inner.kind == MATRIX) {
                    Some(inner) => inner.bytes,
                    None => continue,
                }
            }
            _ => continue,
        };
        found.extend(numbers(MatElements { bytes: matrix, is_big_endian, is_padded: true })?);
    }
    Ok(found)
}

/// A compressed element may have at most `most` bytes.
fn unfold(bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let mut unfolded = Vec::new();
    let read = ZlibDecoder::new(bytes).take(most + 1).read_to_end(&mut unfolded);
    read.map_err(|error| format!("has compressed data that cannot be read: {error}"))?;
    if unfolded.len() as u64 > most {
        return Err(format!("unfolds to more than {BYTES_MAX} bytes"));
    }
    Ok(unfolded)
}

/// Name and elements of one array; none for one that is not numeric.
fn numbers(mut parts: MatElements<'_>) -> Result<Option<(String, Vec<f64>)>, String> {
    let flags = parts.required("flags")?.bytes;
    // The class is the lowest byte of a word.
    let class = flags.get(if parts.is_big_endian { 3 } else { 0 }).copied().unwrap_or(0);
    parts.required("extents")?;
    let name = String::from_utf8_lossy(parts.required("name")?.bytes).into_owned();
    if !NUMERIC.contains(&class) {
        return Ok(None);
    }
    let MatElement { kind, bytes } = parts.required("numbers")?;
    let Some((size, value)) = number_type(kind) else {
        return Err(format!("array '{name}': numbers of type {kind} are not known"));
    };
    let little = |element: &[u8]| {
        let with = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        if parts.is_big_endian { element.iter().fold(0, with) } else { element.iter().rev().fold(0, with) }
    };
    Ok(Some((name, bytes.chunks_exact(size).map(|element| value(little(element))).collect())))
}

/// Bytes of a number of an element's type, and its value by its bits.
fn number_type(kind: u32) -> Option<(usize, fn(u64) -> f64)> {
    Some(match kind {
        1 => (1, |bits| f64::from(bits as i8)),
        2 => (1, |bits| f64::from(bits as u8)),
        3 => (2, |bits| f64::from(bits as i16)),
        4 => (2, |bits| f64::from(bits as u16)),
        5 => (4, |bits| f64::from(bits as i32)),
        6 => (4, |bits| f64::from(bits as u32)),
        7 => (4, |bits| f64::from(f32::from_bits(bits as u32))),
        9 => (8, f64::from_bits),
        12 => (8, |bits| bits as i64 as f64),
        13 => (8, |bits| bits as f64),
        _ => return None,
    })
}

/// One element: its type and bytes.
struct MatElement<'a> {
    kind: u32,
    bytes: &'a [u8],
}

/// MatElements one behind the other.
struct MatElements<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    /// Whether each begins at a multiple of 8 bytes; those of a whole file follow each other closely where they are
    /// compressed.
    is_padded: bool,
}

impl<'a> MatElements<'a> {
    fn required(&mut self, what: &str) -> Result<MatElement<'a>, String> {
        self.next()?.ok_or_else(|| format!("has an array without {what}; is it truncated?"))
    }

    fn next(&mut self) -> Result<Option<MatElement<'a>>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let truncated = || "is truncated".to_owned();
        let word = |at: usize| {
            let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).ok_or_else(truncated)?;
            Ok::<_, String>(if self.is_big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
        };
        let first = word(0)?;
        // A short element has its size in the upper half of the first word, and its bytes in the second.
        let (kind, start, n) = match first >> 16 {
            0 => (first, 8usize, word(4)? as usize),
            n => (first & 0xffff, 4, n as usize),
        };
        if start == 4 && n > 4 {
            return Err("has a short element of more than 4 bytes; is it damaged?".into());
        }
        let bytes = start.checked_add(n).and_then(|end| self.bytes.get(start..end)).ok_or_else(truncated)?;
        let end = if start == 4 { 8 } else { start + n };
        let end = if self.is_padded || kind != COMPRESSED { end.next_multiple_of(8) } else { end };
        self.bytes = self.bytes.get(end..).unwrap_or_default();
        Ok(Some(MatElement { kind, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use std::io::Write;

    fn element(kind: u32, bytes: &[u8], is_big: bool) -> Vec<u8> {
        let word = |x: u32| if is_big { x.to_be_bytes() } else { x.to_le_bytes() };
        let mut out = [&word(kind)[..], &word(bytes.len() as u32), bytes].concat();
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    /// A 1 x n array with numbers of type `kind`.
    fn array(name: &str, class: u32, kind: u32, numbers: &[u8], is_big: bool) -> Vec<u8> {
        let word = |x: u32| if is_big { x.to_be_bytes() } else { x.to_le_bytes() };
        let flags = [word(class), word(0)].concat();
        let parts = [
            element(6, &flags, is_big),
            element(5, &[word(1), word(2)].concat(), is_big),
            element(1, name.as_bytes(), is_big),
            element(kind, numbers, is_big),
        ];
        element(MATRIX, &parts.concat(), is_big)
    }

    fn file(elements: &[Vec<u8>], order: &[u8; 2]) -> Vec<u8> {
        let mut out = b"MATLAB 5.0 MAT-file".to_vec();
        out.resize(HEADER_BYTES - 2, b' ');
        [&out[..], order, &elements.concat()].concat()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        let bytes = encoder.finish().unwrap();
        // Not padded: MATLAB does not either.
        [&COMPRESSED.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes(), &bytes].concat()
    }

    #[test]
    fn vectors_are_read_by_name_compressed_or_not_in_both_orders() {
        let doubles: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let plain = array("a", 6, 9, &doubles, false);
        let words = array("words", 11, 4, &[1, 2, 255, 255, 0, 1], false);
        let text = array("text", 4, 4, b"hi", false);
        let bytes = file(&[packed(&words), packed(&text), plain], b"IM");
        let found = vectors(&bytes).unwrap();
        assert_eq!(found["words"], [513.0, 65535.0, 256.0]);
        assert_eq!((found.len(), found["a"].as_slice()), (2, &[1.5, -2.0][..]));
        let big = file(&[array("b", 10, 3, &[0xff, 0xfe, 0, 7], true)], b"MI");
        assert_eq!(vectors(&big).unwrap()["b"], [-2.0, 7.0]);
        // A short name stands in its element's first words.
        let mut short = array("s", 9, 2, &[5, 6], false);
        short.splice(40..56, [1, 0, 1, 0, b's', 0, 0, 0]);
        short[4..8].copy_from_slice(&56u32.to_le_bytes());
        assert_eq!(vectors(&file(&[short], b"IM")).unwrap()["s"], [5.0, 6.0]);
    }

    #[test]
    fn other_and_damaged_files_are_refused() {
        let good = file(&[array("a", 9, 2, &[1, 2, 3], false)], b"IM");
        let mut bomb = ZlibEncoder::new(Vec::new(), Compression::best());
        (0..66).for_each(|_| bomb.write_all(&vec![0; 1 << 20]).unwrap());
        let bomb = bomb.finish().unwrap();
        let bomb = [&COMPRESSED.to_le_bytes()[..], &(bomb.len() as u32).to_le_bytes(), &bomb].concat();
        for (bytes, expected) in [
            (b"MATLAB 7.3 MAT-file".to_vec(), "save it with -v7"),
            (vec![0; 200], "no header"),
            (b"short".to_vec(), "no header"),
            (good[..good.len() - 4].to_vec(), "truncated"),
            (good[..HEADER_BYTES + 3].to_vec(), "truncated"),
            (file(&[packed(&array("a", 9, 2, &[1; 99], false))[..40].to_vec()], b"IM"), "truncated"),
            (file(&[[COMPRESSED.to_le_bytes(), 4u32.to_le_bytes(), [1, 2, 3, 4]].concat()], b"IM"), "compressed data"),
            (file(&[bomb], b"IM"), "unfolds to more than"),
            (file(&[array("a", 9, 16, &[1], false)], b"IM"), "type 16"),
            (file(&[element(MATRIX, &[], false)], b"IM"), "without flags"),
        ] {
            let refusal = vectors(&bytes).unwrap_err();
            assert!(refusal.contains(expected), "{expected}: {refusal}");
        }
        for n in HEADER_BYTES..good.len() {
            let _ = vectors(&good[..n]);
        }
    }
}
