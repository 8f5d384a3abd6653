//! Arrays of labels: integers of any width, one for each image.

use super::archive::ArrayPlace;
use super::npy::NpyHeader;
use crate::FormatError;

/// Largest number that a label may be.
const LABEL_MAX: i128 = u16::MAX as i128 - 1;

/// An integer type of NumPy's.
#[derive(Clone, Copy)]
struct IntegerType {
    n_bytes: usize,
    is_signed: bool,
    is_big_endian: bool,
}

impl IntegerType {
    fn of(header: &NpyHeader) -> Result<Self, String> {
        let (n_bytes, is_signed) = match header.dtype.trim_start_matches(['<', '>', '|', '=']) {
            "i1" => (1, true),
            "i2" => (2, true),
            "i4" => (4, true),
            "i8" => (8, true),
            "u1" => (1, false),
            "u2" => (2, false),
            "u4" => (4, false),
            "u8" => (8, false),
            _ => {
                return Err(format!(
                    "is {}; labels are integers, the numbers of the network's outputs: convert it, array.astype(numpy.int64)",
                    header.described()
                ));
            }
        };
        Ok(Self { n_bytes, is_signed, is_big_endian: header.dtype.starts_with('>') })
    }

    fn value(self, element: &[u8]) -> i128 {
        let with = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        let bits = if self.is_big_endian { element.iter().fold(0, with) } else { element.iter().rev().fold(0, with) };
        let unused = 64 - 8 * self.n_bytes as u32;
        if self.is_signed { i128::from(((bits << unused) as i64) >> unused) } else { i128::from(bits) }
    }
}

/// Reads the labels of `n_images` images.
///
/// # Errors
/// A file that cannot be read, an array of another type or shape, labels that are negative or too large.
pub(super) fn read_labels(place: &ArrayPlace, n_images: usize) -> Result<Vec<u16>, FormatError> {
    let n_bytes = |header: &NpyHeader| {
        let of = IntegerType::of(header)?;
        match header.shape.as_slice() {
            // Keras writes a column.
            [n] | [n, 1] if *n == n_images => Ok((*n * of.n_bytes) as u64),
            [n] | [n, 1] => Err(format!("has {n} labels for {n_images} images")),
            [n, classes] if *n == n_images => Err(format!(
                "has {classes} numbers for each image, expected its class; for one-hot labels save array.argmax(axis=1)"
            )),
            shape => Err(format!("has {} axes, expected one label for each of {n_images} images", shape.len())),
        }
    };
    place.read(n_bytes, |header, reader| {
        let of = IntegerType::of(header)?;
        let mut stored = vec![0; n_images * of.n_bytes];
        reader.read_exact(&mut stored).map_err(|error| format!("cannot be read: {error}"))?;
        let label = |index: usize, element: &[u8]| {
            let value = of.value(element);
            let label = u16::try_from(value).ok().filter(|_| value <= LABEL_MAX);
            label.ok_or_else(|| format!("image {index}: expected a label from 0 to {LABEL_MAX}, got {value}"))
        };
        stored.chunks_exact(of.n_bytes).enumerate().map(|(index, element)| label(index, element)).collect()
    })
}
