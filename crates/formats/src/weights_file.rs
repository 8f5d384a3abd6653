//! Weight files of any known format, told apart by their contents.

use std::path::Path;

use secateur_net::{Network, Weights};

use crate::atomic::StagedFile;
use crate::file_bytes::read_file;
use crate::safetensors::{network_bytes, read_safetensors};
use crate::torch_legacy::read_torch_legacy;
use crate::torch_zip::read_torch_zip;
use crate::{FormatError, NetworkDescription, Preprocessing, Problem};

/// Largest file that is read, in bytes; the largest CNNs in use have half of it.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What a weight file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightsFile {
    /// All parameters as f32, without `num_batches_tracked`; names without a common `module.` prefix.
    pub weights: Weights,
    /// Graph, preprocessing and classes, if the file is one of ours; checked on their own, not against the weights
    /// ([`Network::new`] does that).
    pub description: Option<NetworkDescription>,
}

/// Reads a file of safetensors, or of `torch.save` in its zip or legacy layout. A pickle is read, never executed, and the
/// memory taken is a small multiple of the file's size.
///
/// # Errors
/// Always with the path: a missing, empty, truncated, hostile or unknown file, tensors that are not floating-point.
pub fn read_weights(path: &Path) -> Result<WeightsFile, FormatError> {
    let bytes = read_file(path, MAX_FILE_BYTES)?;
    parse(&bytes).map_err(|problem| problem.at(path))
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

fn parse(bytes: &[u8]) -> Result<WeightsFile, Problem> {
    let bare = |weights| WeightsFile { weights, description: None };
    match bytes {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => read_torch_zip(bytes).map(bare),
        // Before the next two: the first byte of a safetensors file is the low byte of the header's length, hence any.
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => {
            read_safetensors(bytes).map(|(weights, description)| WeightsFile { weights, description })
        }
        [0x80, 0..=5, ..] => read_torch_legacy(bytes).map(bare),
        // Protocol buffer: field 1 (ir_version), then any other field of an ONNX model.
        [0x08, 1..=31, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => Err(Problem::UnknownFormat(
            "this is an ONNX model, which is not read yet; give its weights as .safetensors or .pth",
        )),
        _ => Err(Problem::UnknownFormat(
            "not a known format of weights; expected safetensors or a state dict saved by torch.save (.pth, .th)",
        )),
    }
}
