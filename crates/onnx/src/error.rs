//! Why a document is refused.

use std::path::{Path, PathBuf};

/// Why a document is refused: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The system refused to read a file.
    #[error("could not read '{path}'")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Bytes that are no ONNX model.
    #[error("not an ONNX model: {problem} at byte {at}: export it again")]
    Malformed {
        /// What is wrong.
        problem: String,
        /// Offset in the file.
        at: usize,
    },
    /// Fields whose values are none, such as names that are no text.
    #[error("not an ONNX model: {problem}: export it again")]
    Undecodable {
        /// What is wrong.
        problem: String,
    },
    /// More than a file of this size may unfold to.
    #[error(
        "the model would take more than {limit} bytes of memory, which no network of {n_bytes} bytes does: export it again"
    )]
    TooMuch {
        /// The bound, bytes.
        limit: usize,
        /// Size of the file, bytes.
        n_bytes: usize,
    },
    /// A graph that is none.
    #[error("the graph {problem}")]
    Graph {
        /// What is wrong, with the names of nodes and values.
        problem: String,
    },
    /// A node that the engine does not compute.
    #[error("the graph cannot be computed: {problem}")]
    NotComputed {
        /// Which, and why.
        problem: String,
    },
    /// A tensor whose values cannot be read.
    #[error("tensor '{name}': {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl OnnxError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn graph(problem: impl Into<String>) -> Self {
        Self::Graph { problem: problem.into() }
    }

    pub(crate) fn tensor(name: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), problem: problem.into() }
    }
}
