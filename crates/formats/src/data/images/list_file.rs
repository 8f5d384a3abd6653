//! Lists of images with their labels, one a line: `path,label`.

use std::collections::BTreeSet;
use std::path::Path;

use super::listing::{FoundImages, PathList};
use crate::file_bytes::read_regular_file;
use crate::{FileProblem, FormatError};

/// A list of ten million images is shorter.
const BYTES_MAX: u64 = 1 << 30;
/// Largest number that a label may be.
const LABEL_MAX: u64 = u16::MAX as u64 - 1;
/// What the first column is called where the first line names the columns.
const HEADINGS: [&str; 10] =
    ["path", "file", "filename", "file_name", "image", "image_path", "image_name", "img", "name", "id"];

/// What a list says.
pub(crate) struct Listed {
    /// Its images; classes are named unless all labels are numbers.
    pub(crate) found: FoundImages,
    /// Whether the labels are the numbers of a network's outputs.
    pub(crate) is_numbered: bool,
}

/// Reads the list `file`: columns are separated by commas, tabs, semicolons or blanks, the path first and the label
/// second; a first line of headings is passed over. Labels that are all numbers number the outputs of a network, others
/// name classes, in alphabetical order.
///
/// # Errors
/// A file that cannot be read or is empty, a line without a label, a label that is too large or negative, by line.
pub(crate) fn read_list(file: &Path) -> Result<Listed, FormatError> {
    let bytes = read_regular_file(file, BYTES_MAX)?;
    let rows = rows(&bytes).map_err(|problem| FileProblem::malformed("list of images", problem).at(file))?;
    let fail = |problem: String| Err(FileProblem::malformed("list of images", problem).at(file));
    if rows.is_empty() {
        return fail("has no line `path,label`".into());
    }
    let is_numbered = rows.iter().all(|row| row.label.parse::<i64>().is_ok());
    let names: BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    let classes: Vec<&str> = if is_numbered { Vec::new() } else { names.into_iter().collect() };
    let (mut paths, mut labels) = (PathList::default(), Vec::with_capacity(rows.len()));
    for row in &rows {
        let number = match is_numbered {
            true => row.label.parse::<u64>().ok(),
            false => classes.binary_search(&row.label.as_str()).ok().map(|class| class as u64),
        };
        let label = number.filter(|&number| number <= LABEL_MAX).and_then(|number| u16::try_from(number).ok());
        let Some(label) = label else {
            return fail(format!("line {}: expected a label from 0 to {LABEL_MAX}, got '{}'", row.line, row.label));
        };
        paths.push(&row.path);
        labels.push(label);
    }
    let classes = classes.into_iter().map(str::to_owned).collect();
    Ok(Listed { found: FoundImages::new(paths, Some(labels), classes), is_numbered })
}

struct ListRow {
    line: u64,
    path: String,
    label: String,
}

fn rows(bytes: &[u8]) -> Result<Vec<ListRow>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    match [b',', b'\t', b';'].into_iter().find(|separator| first.contains(separator)) {
        Some(separator) => separated(bytes, separator),
        None => by_blanks(bytes),
    }
}

fn separated(bytes: &[u8], separator: u8) -> Result<Vec<ListRow>, String> {
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.delimiter(separator).has_headers(false).flexible(true).trim(csv::Trim::All);
    let mut rows = Vec::new();
    for (i, record) in reader.from_reader(bytes).records().enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let (path, label) = (record.get(0).unwrap_or_default(), record.get(1).unwrap_or_default());
        add(&mut rows, i, ListRow { line, path: path.into(), label: label.into() })?;
    }
    Ok(rows)
}

/// As in `ILSVRC2012_val_00000001.JPEG 65`; a path may hold blanks, a label none.
fn by_blanks(bytes: &[u8]) -> Result<Vec<ListRow>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("is no text: {error}"))?;
    let mut rows = Vec::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (i, (line, text)) in lines.enumerate() {
        let (path, label) = text.trim().rsplit_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        add(&mut rows, i, ListRow { line: line as u64 + 1, path: path.trim_end().into(), label: label.into() })?;
    }
    Ok(rows)
}

/// Adds the `i`-th row, unless it is the first and names the columns.
fn add(rows: &mut Vec<ListRow>, i: usize, row: ListRow) -> Result<(), String> {
    if i == 0 && HEADINGS.iter().any(|heading| heading.eq_ignore_ascii_case(&row.path)) {
        return Ok(());
    }
    if row.path.is_empty() || row.label.is_empty() {
        return Err(format!("line {}: expected `path,label`, got '{}' without a label", row.line, row.path));
    }
    rows.push(row);
    Ok(())
}
