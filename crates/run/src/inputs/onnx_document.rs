//! Networks from ONNX files.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use secateur_formats::{Preprocessing, read_regular_file};
use secateur_net::Network;
use secateur_onnx::{DocumentNetwork, Facts, InputShape, OnnxDocument, OnnxError};
use secateur_scene::clip;
use secateur_sim::OutputPart;

/// A network, its document, and what had to be chosen.
pub(super) struct ReadDocument {
    pub network: Network,
    pub document: DocumentNetwork,
    /// The document's values that the network's output has, one behind the other.
    pub outputs: Vec<OutputPart>,
    /// Why the network ends in front of the document's outputs, if it does.
    pub ends_early: Option<String>,
    /// What the network expects of its input, where a run wrote the file.
    pub preprocessing: Option<Preprocessing>,
    pub assumptions: Vec<String>,
}

/// Properties of the models that runs write: mean and standard deviation of the images' channels, as JSON.
pub(crate) const MEAN_KEY: &str = "secateur.mean";
/// See [`MEAN_KEY`].
pub(crate) const STD_KEY: &str = "secateur.std";

/// Whether a file is read as ONNX: its name says so.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// An ONNX file as its author wrote it.
///
/// # Errors
/// What is no regular file of at most 2 GiB, or no ONNX model.
pub fn open_document(path: &Path) -> anyhow::Result<OnnxDocument> {
    let bytes = read_regular_file(path, OnnxDocument::BYTES_MAX)?;
    // The folder of a bare name is the current one.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(OnnxDocument::from_bytes(bytes.into(), folder)?)
}

/// Of a network with a node that is not computed, others may be pruned all the same.
fn inspect_advice(why: &OnnxError) -> &'static str {
    match why {
        OnnxError::NotComputed { .. } => "; `secateur inspect` shows which of its channels can be followed",
        OnnxError::Io { .. }
        | OnnxError::Malformed { .. }
        | OnnxError::Undecodable { .. }
        | OnnxError::TooMuch { .. }
        | OnnxError::Graph { .. }
        | OnnxError::Tensor { .. } => "",
    }
}

/// The network that an ONNX file describes.
///
/// # Errors
/// What is no ONNX file, and what the engine does not compute, by the node's name.
pub(super) fn read_document(path: &Path, size: Option<[usize; 2]>) -> anyhow::Result<ReadDocument> {
    let of_file = || format!("'{}'", path.display());
    let document = open_document(path).with_context(of_file)?;
    let facts = Facts::of(&document, size).with_context(of_file)?;
    let imported = document.network(&facts).map_err(|why| anyhow!("{}: {why}{}", of_file(), inspect_advice(&why)))?;
    let open = |input: &&InputShape| input.open.iter().any(|&axis| axis > 0);
    let image = imported.network.graph().input();
    let sizes = facts.inputs().iter().filter(open).map(|input| {
        format!("images of {image}: the file leaves their size open (input '{}'), which `size` sets", input.name)
    });
    let mut assumptions: Vec<String> = if size.is_none() { sizes.collect() } else { Vec::new() };
    let outputs: Vec<OutputPart> =
        imported.outputs.iter().zip(imported.output_lens()).map(|(name, len)| OutputPart::new(name, len)).collect();
    let ends_early = imported.ends_early.clone();
    assumptions.extend(ends_early.as_ref().map(|why| {
        let names: Vec<&str> = imported.outputs.iter().map(String::as_str).collect();
        format!("computed up to {}, what comes behind is left as it is: {why}", first_few(&names))
    }));
    if let Some([rows, cols]) = size.filter(|size| *size != [image.h, image.w]) {
        bail!("'{}' fixes its images at {image}: leave `size` ({rows}, {cols}) out", path.display());
    }
    let preprocessing = preprocessing(&document).with_context(of_file)?;
    let document = DocumentNetwork::new(document, facts, &imported);
    Ok(ReadDocument { network: imported.network, document, outputs, ends_early, preprocessing, assumptions })
}

/// Names in quotes, the first of many.
pub(super) fn first_few(names: &[&str]) -> String {
    const MOST: usize = 4;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("'{}'", clip(name))).collect();
    let others = names.len().saturating_sub(MOST);
    format!("{}{}", shown.join(", "), if others > 0 { format!(" and {others} others") } else { String::new() })
}

fn preprocessing(document: &OnnxDocument) -> anyhow::Result<Option<Preprocessing>> {
    let (Some(mean), Some(std)) = (document.property(MEAN_KEY), document.property(STD_KEY)) else { return Ok(None) };
    let numbers = |key: &str, text: &str| {
        serde_json::from_str::<Vec<f32>>(text).with_context(|| format!("its property '{key}' is no list of numbers"))
    };
    Ok(Some(Preprocessing::new(numbers(MEAN_KEY, mean)?, numbers(STD_KEY, std)?)?))
}
