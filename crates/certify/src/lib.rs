//! Certificates: what a written network costs, counted anew from its file.
//!
//! Shares no code with the search: the file is parsed here byte by byte, its graph is walked as plain JSON, and shapes,
//! counts and memory are computed by rules of their own. A mistake in `net`'s counting cannot hide itself here. An ONNX
//! model beside it is counted by the shapes that its own nodes give ([`certify_onnx`]).
//!
//! ```no_run
//! use std::path::Path;
//!
//! use secateur_certify::certify;
//!
//! let network = Path::new("runs/first/tasks/resnet20-cifar10-macs0.5/model.safetensors");
//! let certificate = certify(network, &[("macs", 20_275_520), ("params", 200_000)])?;
//! for budget in &certificate.budgets {
//!     let verdict = if budget.ok { "holds" } else { "exceeded" };
//!     println!("{} of {} {}: {verdict}", budget.value, budget.max, budget.kind);
//! }
//! assert!(certificate.holds());
//! # Ok::<(), secateur_certify::CertifyError>(())
//! ```
//!
//! Words are explained in the glossary of `secateur-net`.

mod document;
mod memory;
mod operation;
mod written;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Serialize;
use thiserror::Error;

pub use document::{CertifiedDocument, certify_onnx};
use operation::walk;
use written::WrittenNetwork;

/// What a written network costs and whether it meets its budgets. Serialises to `certificate.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Name of the file, which lies beside the certificate.
    pub file: String,
    /// BLAKE3 hash of the file's bytes, in hexadecimal.
    pub blake3: String,
    /// Every operation in graph order, the input included.
    pub operations: Vec<CertifiedOperation>,
    /// Multiply-accumulates per image of convolutions and Linear operations, and of what the file says to follow them.
    pub macs: u64,
    /// Weights, biases, slopes of PRelu and BatchNorm scales and shifts, and what the file says to follow them.
    pub params: u64,
    /// Peak bytes of live f32 activations of one image, in graph order, the input included, BatchNorm, PRelu and
    /// pointwise in place.
    pub activation_bytes: u64,
    /// Every budget asked about, in the order asked.
    pub budgets: Vec<CertifiedBudget>,
    /// The same network as an ONNX model, if one was written beside it.
    pub onnx: Option<CertifiedDocument>,
}

/// One operation of a certified network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertifiedOperation {
    /// Name in the graph.
    pub name: String,
    /// Kind of operation.
    pub op: String,
    /// Output channels, rows, columns.
    pub output: [u64; 3],
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
}

/// One budget and what the network makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertifiedBudget {
    /// `macs`, `params` or `activation_bytes`.
    pub kind: String,
    /// The bound.
    pub max: u64,
    /// What was counted.
    pub value: u64,
    /// Whether the value is within the bound.
    pub ok: bool,
}

impl Certificate {
    /// Whether every budget is met, by both files.
    pub fn holds(&self) -> bool {
        let of_onnx = self.onnx.iter().flat_map(|onnx| &onnx.budgets);
        self.budgets.iter().chain(of_onnx).all(|budget| budget.ok)
    }
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertifyError {
    /// The file cannot be read.
    #[error("certificate: read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is truncated, contradicts its own graph or is not one of Secateur's; or the kind of a budget is
    /// unknown.
    #[error("certificate of '{}': {what}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Counts the network written at `path` and compares it with `budgets`, pairs of kind (`macs`, `params`,
/// `activation_bytes`) and bound. A budget that is exceeded is no error: see [`Certificate::holds`].
///
/// # Errors
/// A file that is truncated, contradicts its own graph or is not one of ours; an unknown kind of budget.
pub fn certify(path: &Path, budgets: &[(&str, u64)]) -> Result<Certificate, CertifyError> {
    certify_as(path, path, budgets)
}

/// As [`certify`], of a file that lies at `staged` before it is renamed to `path`.
///
/// # Errors
/// As [`certify`].
pub fn certify_as(path: &Path, staged: &Path, budgets: &[(&str, u64)]) -> Result<Certificate, CertifyError> {
    let bytes = std::fs::read(staged).map_err(|source| CertifyError::Read { path: path.to_owned(), source })?;
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    certify_bytes(file, &bytes, budgets)
        .map_err(|error| CertifyError::Refused { path: path.to_owned(), what: format!("{error:#}") })
}

fn certify_bytes(file: String, bytes: &[u8], budgets: &[(&str, u64)]) -> anyhow::Result<Certificate> {
    let written = WrittenNetwork::parse(bytes)?;
    let operations = walk(&written)?;
    let total = |count: fn(&CertifiedOperation) -> u64| {
        let sum = operations.iter().try_fold(0u64, |sum, o| sum.checked_add(count(&o.certified)));
        sum.context("the counts do not fit in 64 bits")
    };
    let add = |sum: u64, more: u64| sum.checked_add(more).context("the counts do not fit in 64 bits");
    let macs = add(total(|o| o.macs)?, written.tail("macs")?)?;
    let params = add(total(|o| o.params)?, written.tail("params")?)?;
    let activation_bytes = memory::peak_bytes(&operations)?;
    let judge = |&(kind, max): &(&str, u64)| {
        let value = match kind {
            "macs" => macs,
            "params" => params,
            "activation_bytes" => activation_bytes,
            _ => anyhow::bail!("unknown kind of budget '{kind}'; expected macs, params or activation_bytes"),
        };
        Ok(CertifiedBudget { kind: kind.to_owned(), max, value, ok: value <= max })
    };
    let budgets = budgets.iter().map(judge).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        written.n_classes == last_len(&operations),
        "secateur.classes is {}, the last operation has {} outputs",
        written.n_classes,
        last_len(&operations)
    );
    Ok(Certificate {
        file,
        blake3: blake3::hash(bytes).to_hex().to_string(),
        operations: operations.into_iter().map(|o| o.certified).collect(),
        macs,
        params,
        activation_bytes,
        budgets,
        onnx: None,
    })
}

fn last_len(operations: &[operation::Operation]) -> u64 {
    operations.last().map_or(0, |o| o.certified.output.iter().product())
}
