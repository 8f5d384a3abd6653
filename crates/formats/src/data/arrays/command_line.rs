//! Arrays as the command line names them: `arrays:FILE`, with choices behind commas.

use super::choices::{ArrayLayout, FloatRange};
use crate::data::source::{DatasetSource, default_test_percent};

/// How the command line takes arrays.
pub(crate) const USAGE: &str = "arrays:FILE[,CHOICE=...]";
/// What may follow the file.
const CHOICES: &str = "labels=FILE, test=FILE, test_labels=FILE, layout=nhw|nhwc|nchw, floats=unit|bytes|normalised";

/// What stands behind `arrays:`.
///
/// # Errors
/// A choice that is not known, or no file.
pub(crate) fn parse(rest: Option<&str>) -> Result<DatasetSource, String> {
    let expected = || format!("expected {USAGE}, FILE being x.npy, x.npz or x.npz:NAME, with the choices {CHOICES}");
    let mut parts = rest.unwrap_or_default().split(',');
    let images = parts.next().filter(|file| !file.is_empty()).ok_or_else(expected)?.to_owned();
    let (mut labels, mut test_images, mut test_labels) = (None, None, None);
    let (mut layout, mut floats) = (ArrayLayout::default(), FloatRange::default());
    for part in parts {
        match part.split_once('=') {
            Some(("labels", file)) => labels = Some(file.to_owned()),
            Some(("test", file)) => test_images = Some(file.to_owned()),
            Some(("test_labels", file)) => test_labels = Some(file.to_owned()),
            Some(("layout", "nhw")) => layout = ArrayLayout::Nhw,
            Some(("layout", "nhwc")) => layout = ArrayLayout::Nhwc,
            Some(("layout", "nchw")) => layout = ArrayLayout::Nchw,
            Some(("floats", "unit")) => floats = FloatRange::Unit,
            Some(("floats", "bytes")) => floats = FloatRange::Bytes,
            Some(("floats", "normalised")) => floats = FloatRange::Normalised,
            _ => return Err(format!("unknown choice '{part}'; {}", expected())),
        }
    }
    let test_percent = default_test_percent();
    let source = DatasetSource::Arrays { images, labels, test_images, test_labels, layout, floats, test_percent };
    match source.check().first() {
        Some((path, problem)) => Err(format!("{path} {problem}")),
        None => Ok(source),
    }
}
