//! Weight files of any known format, told apart by their contents. One file per format; a new one needs its file and
//! its line in [`FORMATS`].

mod format;
pub(crate) mod safetensors;
mod torch_legacy;
mod torch_zip;

use std::path::Path;

use secateur_net::Network;

use self::format::{Ends, FIRST_BYTES, Sniff};
pub use self::format::{WeightFormat, WeightsFile};
use crate::alternatives::alternatives;
use crate::atomic::StagedFile;
use crate::file_bytes::RegularFile;
use crate::zip_directory::{TAIL_BYTES, has_end_record};
use crate::{FileProblem, FormatError, Preprocessing};

/// Largest file that is read, in bytes; checkpoints of the largest CNNs in use, with what their optimisers keep, are
/// smaller.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// As much of a file as tells its format.
const HEAD_BYTES: u64 = 16;

/// Reads a file of safetensors, or of `torch.save` in its zip or legacy layout. A pickle is read, never executed, and
/// the memory taken is a small multiple of the file's size. Of a file that is none of these only the ends are read.
///
/// # Errors
/// Always with the path: a missing, empty, truncated, hostile or unknown file, tensors that are not floating-point.
pub fn read_weights(path: &Path) -> Result<WeightsFile, FormatError> {
    let mut file = RegularFile::open(path, MAX_FILE_BYTES)?;
    let n_bytes = n_bytes_needed(&mut file, path)?;
    let bytes = file.part(0, n_bytes)?;
    weights_from_bytes(&bytes).map_err(|problem| problem.at(path))
}

/// As [`read_weights`], from the file's bytes.
///
/// # Errors
/// As [`read_weights`].
pub fn weights_from_bytes(bytes: &[u8]) -> Result<WeightsFile, FileProblem> {
    (format_of(bytes, has_end_record(bytes))?.read)(bytes)
}

/// Writes a network with its description in the format of the path's extension, or else as safetensors, atomically; the
/// same network gives the same bytes.
///
/// # Errors
/// Preprocessing that does not fit the network's input, or what the system refused.
pub fn write_network(path: &Path, network: &Network, prep: &Preprocessing) -> Result<(), FormatError> {
    stage_network(path, network, prep)?.commit()
}

/// As [`write_network`], but the file stands at `path` only once it is committed.
///
/// # Errors
/// As [`write_network`].
pub fn stage_network(path: &Path, network: &Network, prep: &Preprocessing) -> Result<StagedFile, FormatError> {
    let extension = path.extension().unwrap_or_default();
    let by_extension = FORMATS.iter().filter(|format| format.extensions.iter().any(|known| extension == *known));
    // A format that is only read, or a name that tells none: the first that can be written.
    let mut writers = by_extension.chain(FORMATS).filter_map(|format| format.write);
    let write = writers.next().expect("safetensors can be written");
    StagedFile::new(path, &write(network, prep)?)
}

/// Every format, in the order in which they are tried. Safetensors comes before the pickles: the first byte of its
/// files is the low byte of the header's length, hence any.
pub static FORMATS: &[WeightFormat] = &[safetensors::FORMAT, torch_zip::FORMAT, torch_legacy::FORMAT];

/// Extensions of all formats, in the order in which they are tried for a network that is named without one.
pub fn weight_extensions() -> Vec<&'static str> {
    let mut out = Vec::new();
    for extension in FORMATS.iter().flat_map(|format| format.extensions) {
        if !out.contains(extension) {
            out.push(*extension);
        }
    }
    out
}

/// Extensions of all formats as help texts and messages list them: `.safetensors, .pth or .th`.
pub fn weight_extensions_usage() -> String {
    let dotted: Vec<String> = weight_extensions().iter().map(|extension| format!(".{extension}")).collect();
    alternatives(&dotted)
}

/// The format of a file that begins with `head` and has an archive's end record among its last bytes, or has not.
fn format_of(head: &[u8], has_end_record: bool) -> Result<&'static WeightFormat, FileProblem> {
    let ends = Ends { head, has_end_record };
    let first = |wanted| FORMATS.iter().find(|format| (format.sniff)(&ends) == wanted);
    match (first(Sniff::Yes).or_else(|| first(Sniff::Perhaps)), head) {
        (Some(format), _) => Ok(format),
        // Protocol buffer: field 1 (ir_version), then any other field of an ONNX model.
        (None, [0x08, 1..=31, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..]) => {
            Err(FileProblem::UnknownFormat("this is an ONNX model: give the file a name that ends in .onnx"))
        }
        (None, _) => Err(FileProblem::UnknownFormat(
            "not a known format of weights; expected safetensors or a state dict saved by torch.save (.pth, .th)",
        )),
    }
}

/// How much of `file` is needed, from a look at its ends: a file of gigabytes that is not what it begins as is not
/// read.
///
/// # Errors
/// A file of no known format, or of another size than its header says.
fn n_bytes_needed(file: &mut RegularFile, path: &Path) -> Result<u64, FormatError> {
    let n_bytes = file.n_bytes;
    if n_bytes <= FIRST_BYTES {
        return Ok(n_bytes);
    }
    let head = file.part(0, HEAD_BYTES)?;
    let has_end_record = has_end_record(&file.part(n_bytes.saturating_sub(TAIL_BYTES), TAIL_BYTES)?);
    let format = format_of(&head, has_end_record).map_err(|problem| problem.at(path))?;
    (format.n_bytes_needed)(file, &Ends { head: &head, has_end_record }, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart_by_their_first_bytes_and_else_by_their_last() {
        let name = |head: &[u8], has_end| format_of(head, has_end).map(|format| format.name).map_err(|e| e.to_string());
        assert_eq!(name(b"PK\x03\x04rest of it", false), Ok("PyTorch zip"));
        assert_eq!(name(b"\x80\x00\x00\x00\x00\x00\x00\x00{\"", true), Ok("safetensors"));
        assert_eq!(name(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j", false), Ok("PyTorch legacy"));
        assert_eq!(name(b"#!/bin/sh", true), Ok("PyTorch zip"));
        assert!(name(b"\x08\x07\x12\x07pytorch", false).is_err_and(|e| e.contains("ONNX")));
        assert!(name(b"GIF89a", false).is_err_and(|e| e.contains("not a known format")));
    }

    #[test]
    fn extensions_are_tried_in_the_order_of_the_formats() {
        assert_eq!(weight_extensions(), ["safetensors", "pth", "th"]);
    }
}
