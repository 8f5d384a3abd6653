//! What a format of weights is.

use std::path::Path;

use secateur_net::{Network, Weights};

use crate::file_bytes::RegularFile;
use crate::parameter_names::settle;
use crate::state_dict::FileWeights;
use crate::{FileProblem, FormatError, NetworkDescription, Preprocessing};

/// As much of a legacy file as is read to see where it ends, at first.
pub(super) const FIRST_BYTES: u64 = 1 << 20;

/// What a weight file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightsFile {
    /// All parameters as f32, without counters; unless the file describes its network, names are without what wrappers
    /// put before them (`module.`, `_orig_mod.`, `model.`, …) and masks of torch.nn.utils.prune are applied.
    pub weights: Weights,
    /// Graph, preprocessing and classes, if the file is one of ours; checked on their own, not against the weights
    /// ([`Network::new`] does that).
    pub description: Option<NetworkDescription>,
    /// What was chosen or changed while reading, one sentence each, to be shown to the user.
    pub notes: Vec<String>,
}

/// Writes a network as the bytes of a file.
pub(super) type WriteNetwork = fn(&Network, &Preprocessing) -> Result<Vec<u8>, FormatError>;

/// A format of weights.
pub struct WeightFormat {
    /// Its name.
    pub name: &'static str,
    /// Extensions that its files have; the first is tried first for a network that is named without one.
    pub extensions: &'static [&'static str],
    /// Whether a file is of this format.
    pub(super) sniff: fn(&Ends<'_>) -> Sniff,
    /// What the file holds.
    pub(super) read: fn(&[u8]) -> Result<WeightsFile, FileProblem>,
    /// A network as a file of this format, the same bytes for the same network; none for a format that is only read.
    pub(super) write: Option<WriteNetwork>,
    /// How much of a large file is needed, from a look at it.
    pub(super) n_bytes_needed: fn(&mut RegularFile, &Ends<'_>, &Path) -> Result<u64, FormatError>,
}

/// What tells a file's format.
pub(crate) struct Ends<'a> {
    /// How it begins.
    pub(super) head: &'a [u8],
    /// Whether there is an archive's end record among its last bytes.
    pub(super) has_end_record: bool,
}

/// Whether a file is of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniff {
    No,
    /// If it is of no other.
    Perhaps,
    Yes,
}

/// The parameters of a file that does not describe its network.
pub(super) fn bare(file: FileWeights) -> Result<WeightsFile, FileProblem> {
    let FileWeights { weights, notes } = settle(file)?;
    Ok(WeightsFile { weights, description: None, notes })
}
