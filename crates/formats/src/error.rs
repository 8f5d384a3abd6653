//! What can be wrong with foreign bytes.

use std::path::{Path, PathBuf};

use secateur_net::NetError;
use thiserror::Error;

/// Errors of this crate: operation, expected, got, and which file.
#[derive(Debug, Error)]
pub enum FormatError {
    /// No data set of this name.
    #[error("{problem}")]
    DatasetName {
        /// As it was named.
        name: String,
        /// What was expected.
        problem: String,
    },
    /// The operating system refused.
    #[error("{op} '{}': {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file whose contents cannot be used.
    #[error("'{}': {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        problem: FileProblem,
    },
    /// A data set that is not where it was looked for.
    #[error("'{file}' is not in '{}'; {expected}", folder.display())]
    MissingDataset {
        /// File looked for.
        file: String,
        /// Folder it was looked for in.
        folder: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
    /// A file of arrays that is not where it was looked for.
    #[error("there is no file '{}'; name the .npy file or .npz archive that holds the array", file.display())]
    ArrayMissing {
        /// The file.
        file: PathBuf,
    },
    /// Accuracy was asked of images that have no labels.
    #[error(
        "data set '{dataset}' has no labels, which accuracy needs; give its images a folder for each class, or a list of \
         `path,label`"
    )]
    NoLabels {
        /// The data set.
        dataset: String,
    },
    /// A folder of images that cannot be used as it is.
    #[error("'{}' {problem}", folder.display())]
    ImageFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An image that cannot be read, where the scene says that this ends the run.
    #[error("{problem}; replace or remove the file, or say `on_error: Skip` to go on without it")]
    UnreadableImage {
        /// The file, and what is wrong with it.
        problem: String,
    },
    /// Labels that a network has no outputs for.
    #[error(
        "data set '{dataset}' has labels up to {largest}, the network has {outputs} outputs, 0 to {}; correct the labels, or name \
         the network that they are of", outputs.saturating_sub(1)
    )]
    LabelOutOfRange {
        /// The data set.
        dataset: String,
        /// Its largest label.
        largest: u16,
        /// Outputs of the network.
        outputs: usize,
    },
    /// Mean and standard deviation that cannot normalise an image.
    #[error("preprocessing: {problem}")]
    Preprocessing {
        /// What is wrong.
        problem: String,
    },
}

/// What is wrong inside a file.
#[derive(Debug, Error)]
pub enum FileProblem {
    /// The file holds no byte.
    #[error("the file is empty")]
    Empty,
    /// A folder stands where a file was expected.
    #[error("expected a file, got a folder")]
    Folder,
    /// Something without a size, which may never end.
    #[error("expected a regular file, got a device, a pipe or a socket")]
    NotRegular,
    /// A file that is larger than this crate reads.
    #[error("the file has {got} bytes; at most {limit} are read")]
    TooLarge {
        /// Size in bytes.
        got: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The bytes are not those of any known format, or of one that is not read.
    #[error("{0}")]
    UnknownFormat(&'static str),
    /// Fewer or other bytes than the format calls for.
    #[error("{format}: {problem}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What was expected and found, and where.
        problem: String,
    },
    /// A pickle that names something other than tensors and plain values; it is never executed.
    #[error(
        "the pickle asks for '{global}'{holder}, which is neither a tensor nor a plain value and no part of a state dict; \
         nothing was executed; save model.state_dict(), without it"
    )]
    ForbiddenGlobal {
        /// Module and name.
        global: String,
        /// The key it stands under, with what precedes it in a sentence; empty when there is none.
        holder: String,
    },
    /// A network that was saved with the code it belongs to.
    #[error(
        "the pickle holds{holder} a whole network, an object of class '{class}' that only its own code can rebuild; nothing was \
         executed; load it where that class is defined, and save its weights, torch.save(model.state_dict(), 'weights.pth'), or \
         with its graph as well, torch.onnx.export(model.eval(), example, 'm.onnx')"
    )]
    WholeModule {
        /// Module and name of its class.
        class: String,
        /// The key it stands under, with what precedes it in a sentence; empty when there is none.
        holder: String,
    },
    /// Something that is recognised and not read.
    #[error("this is {what}; {advice}")]
    Unsupported {
        /// What the file is.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A tensor of a kind that is recognised and not read.
    #[error("tensor '{name}' {problem}; {advice}")]
    UnsupportedTensor {
        /// Its name.
        name: String,
        /// What it is.
        problem: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Network description of a newer format than this program knows.
    #[error("secateur.format is '{got}', this version reads '{known}'; use a newer secateur")]
    NewerFormat {
        /// Version in the file.
        got: String,
        /// Version known here.
        known: &'static str,
    },
    /// A graph or its parameters that do not fit.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl FileProblem {
    /// Bytes that break the rules of `format`.
    pub(crate) fn malformed(format: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { format, problem: problem.into() }
    }

    /// Says which file.
    pub(crate) fn at(self, path: &Path) -> FormatError {
        FormatError::File { path: path.into(), problem: self }
    }
}

impl FormatError {
    /// Whether files are not where they were looked for, so that another data root may have them.
    pub const fn is_missing_data(&self) -> bool {
        matches!(self, Self::MissingDataset { .. } | Self::ArrayMissing { .. })
    }

    /// A refusal of the operating system.
    pub(crate) fn io(op: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { op, path: path.into(), source }
    }
}
