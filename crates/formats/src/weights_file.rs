//! Weight files of any known format, told apart by their contents.

use std::path::Path;

use secateur_net::{Network, Weights};

use crate::atomic::StagedFile;
use crate::file_bytes::RegularFile;
use crate::parameter_names::settle;
use crate::safetensors::{expected_bytes, network_bytes, read_safetensors};
use crate::state_dict::FileWeights;
use crate::torch_legacy::{end_of_storages, read_torch_legacy};
use crate::torch_zip::read_torch_zip;
use crate::zip_directory::{TAIL_BYTES, has_end_record, locate};
use crate::{FormatError, NetworkDescription, Preprocessing, Problem};

/// Largest file that is read, in bytes; checkpoints of the largest CNNs in use, with what their optimisers keep, are smaller.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// As much of a file as tells its format.
const HEAD_BYTES: u64 = 16;
/// As much of a legacy file as is read to see where it ends, at first.
const FIRST_BYTES: u64 = 1 << 20;

/// What a weight file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightsFile {
    /// All parameters as f32, without counters; unless the file describes its network, names are without what wrappers put
    /// before them (`module.`, `_orig_mod.`, `model.`, …) and masks of torch.nn.utils.prune are applied.
    pub weights: Weights,
    /// Graph, preprocessing and classes, if the file is one of ours; checked on their own, not against the weights
    /// ([`Network::new`] does that).
    pub description: Option<NetworkDescription>,
    /// What was chosen or changed while reading, one sentence each, to be shown to the user.
    pub notes: Vec<String>,
}

/// Reads a file of safetensors, or of `torch.save` in its zip or legacy layout. A pickle is read, never executed, and the
/// memory taken is a small multiple of the file's size. Of a file that is none of these only the ends are read.
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
pub fn weights_from_bytes(bytes: &[u8]) -> Result<WeightsFile, Problem> {
    let bare = |file: FileWeights| {
        let FileWeights { weights, notes } = settle(file)?;
        Ok(WeightsFile { weights, description: None, notes })
    };
    match Format::of(bytes, has_end_record(bytes))? {
        Format::Zip => {
            let place = locate(bytes).map_err(|problem| Problem::malformed("PyTorch zip", problem))?;
            bare(read_torch_zip(place, bytes.len())?)
        }
        Format::Legacy => bare(read_torch_legacy(bytes)?),
        Format::Safetensors => match read_safetensors(bytes)? {
            // Names of a file that describes its network are those of its graph.
            (weights, Some(description)) => {
                Ok(WeightsFile { weights, description: Some(description), notes: Vec::new() })
            }
            (weights, None) => bare(FileWeights { weights, notes: Vec::new() }),
        },
    }
}

/// Writes a network with its description as safetensors, atomically; the same network gives the same bytes.
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
    StagedFile::new(path, &network_bytes(network, prep)?)
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Zip,
    Safetensors,
    Legacy,
}

impl Format {
    /// The format of a file that begins with `head` and has an archive's end record among its last bytes, or has not.
    fn of(head: &[u8], has_end_record: bool) -> Result<Self, Problem> {
        match head {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Ok(Self::Zip),
            // Before the others: the first byte of a safetensors file is the low byte of the header's length, hence any.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Ok(Self::Safetensors),
            [0x80, 0..=5, ..] => Ok(Self::Legacy),
            // Anything may stand before an archive, such as a program that unpacks it.
            _ if has_end_record => Ok(Self::Zip),
            // Protocol buffer: field 1 (ir_version), then any other field of an ONNX model.
            [0x08, 1..=31, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Err(Problem::UnknownFormat(
                "this is an ONNX model, which is not read yet; give its weights as .safetensors or .pth",
            )),
            _ => Err(Problem::UnknownFormat(
                "not a known format of weights; expected safetensors or a state dict saved by torch.save (.pth, .th)",
            )),
        }
    }
}

/// How much of `file` is needed, from a look at its ends: a file of gigabytes that is not what it begins as is not read.
///
/// # Errors
/// A file of no known format, or of another size than its header says.
fn n_bytes_needed(file: &mut RegularFile, path: &Path) -> Result<u64, FormatError> {
    let n_bytes = file.n_bytes;
    if n_bytes <= FIRST_BYTES {
        return Ok(n_bytes);
    }
    let head = file.part(0, HEAD_BYTES)?;
    let has_end = has_end_record(&file.part(n_bytes.saturating_sub(TAIL_BYTES), TAIL_BYTES)?);
    match Format::of(&head, has_end).map_err(|problem| problem.at(path))? {
        Format::Zip if has_end => {}
        Format::Zip => {
            let problem = "the directory at its end is missing: the file is truncated, or something was put behind it";
            return Err(Problem::malformed("PyTorch zip", problem).at(path));
        }
        Format::Safetensors => {
            let length = head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            let header = file.part(0, length.saturating_add(8))?;
            let expected = expected_bytes(&header).map_err(|problem| problem.at(path))?;
            if expected != n_bytes {
                let problem = format!("expected {expected} bytes, as its header says, got {n_bytes}");
                return Err(Problem::malformed("safetensors", problem).at(path));
            }
        }
        Format::Legacy => {
            let mut n_first = FIRST_BYTES;
            while n_first < n_bytes {
                if let Some(end) = end_of_storages(&file.part(0, n_first)?) {
                    return Ok(n_bytes.min(end));
                }
                n_first = n_first.saturating_mul(8);
            }
        }
    }
    Ok(n_bytes)
}
