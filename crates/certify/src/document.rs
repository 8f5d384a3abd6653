//! What an ONNX model costs, counted from its bytes.

use std::path::Path;

use secateur_onnx::{Facts, OnnxDocument};
use serde::Serialize;

use crate::{CertifiedBudget, CertifyError};

/// What an ONNX model costs. Peak memory depends on the runtime, and is not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertifiedDocument {
    /// Name of the file, which lies beside the certificate.
    pub file: String,
    /// BLAKE3 hash of the file's bytes, in hexadecimal.
    pub blake3: String,
    /// Multiply-accumulates per image of convolutions and products by constants.
    pub macs: u64,
    /// Weights, biases, slopes of PRelu, scales and shifts of normalisations, and constants per channel.
    pub params: u64,
    /// Budgets in MACs or parameters, in the order asked.
    pub budgets: Vec<CertifiedBudget>,
}

/// Counts an ONNX model of these `bytes`, which will stand at `path`, for images of `size` rows and columns where it
/// leaves that open, and compares it with those of `budgets` that are in `macs` or `params`. Data in other files are
/// not read: counts follow from shapes.
///
/// # Errors
/// [`CertifyError::Refused`]: bytes that are no ONNX model, or shapes that cannot be followed.
pub fn certify_onnx(
    path: &Path,
    bytes: &[u8],
    size: Option<[usize; 2]>,
    budgets: &[(&str, u64)],
) -> Result<CertifiedDocument, CertifyError> {
    let refused = |what: String| CertifyError::Refused { path: path.to_owned(), what };
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let document = OnnxDocument::from_bytes(bytes.to_vec().into(), folder).map_err(|e| refused(e.to_string()))?;
    let facts = Facts::of(&document, size).map_err(|e| refused(e.to_string()))?;
    let (macs, params) = (facts.macs_of_one_image(&document), facts.params(&document));
    let judged = budgets.iter().filter_map(|&(kind, max)| {
        let value = match kind {
            "macs" => macs,
            "params" => params,
            _ => return None,
        };
        Some(CertifiedBudget { kind: kind.to_owned(), max, value, ok: value <= max })
    });
    Ok(CertifiedDocument {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        blake3: blake3::hash(bytes).to_hex().to_string(),
        macs,
        params,
        budgets: judged.collect(),
    })
}
