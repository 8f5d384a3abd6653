//! Networks and data sets from files, with everything that had to be assumed about them said aloud.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_formats::{Preprocessing, read_weights};
use secateur_net::{Network, fold_batch_norm};
use secateur_onnx::DocumentNetwork;

use super::bare_weights::{BuiltNetwork, build};
use super::onnx_document::{ReadDocument, is_onnx, read_document};

/// A network, ready to be run and pruned.
#[derive(Clone, Debug)]
pub struct LoadedNetwork {
    /// Name in the scene; the file's name without extension on the command line.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The builder that made the graph; `None` when the file describes its graph.
    pub arch: Option<String>,
    /// The document that describes it, where it came as ONNX.
    pub document: Option<Arc<DocumentNetwork>>,
    /// As given, BatchNorm and all.
    pub original: Network,
    /// The same function with BatchNorm folded: what is run, pruned and emitted.
    pub folded: Network,
    /// What the network expects of its input.
    pub preprocessing: Preprocessing,
    /// What was not said and had to be assumed, one sentence each, to be shown to the user.
    pub assumptions: Vec<String>,
}

/// Reads the network at `path`. The graph comes from the file, else from the builder `arch`, else from the builder
/// whose parameter names the file has; the preprocessing is `(mean, std)` if given, else the file's, else the builders'
/// default.
///
/// # Errors
/// A file that cannot be read, an unknown architecture, parameters that do not fit, preprocessing for other channels.
pub fn load_network(
    path: &Path,
    arch: Option<&str>,
    mean_std: Option<&(Vec<f32>, Vec<f32>)>,
) -> anyhow::Result<LoadedNetwork> {
    load_network_as(path, &NetworkChoices { arch, mean_std, size: None })
}

/// What a file leaves open.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkChoices<'a> {
    /// The builder of a file that holds parameters only.
    pub arch: Option<&'a str>,
    /// Mean and standard deviation of each input channel.
    pub mean_std: Option<&'a (Vec<f32>, Vec<f32>)>,
    /// Rows and columns of the images.
    pub size: Option<[usize; 2]>,
}

/// As [`load_network`], for images of a size that the file leaves open.
///
/// # Errors
/// As [`load_network`]; a size where the file has its own.
pub fn load_network_as(path: &Path, choices: &NetworkChoices<'_>) -> anyhow::Result<LoadedNetwork> {
    let SaidByFile { arch, document, original, own, mut assumptions } = said_by(path, choices)?;
    let preprocessing = match (choices.mean_std, own) {
        (Some((mean, std)), _) => Preprocessing::new(mean.clone(), std.clone())?,
        (None, Some(own)) => own,
        (None, None) => {
            let channels = original.graph().input().c;
            let default = match channels {
                3 => Preprocessing::imagenet(),
                n => Preprocessing::new(vec![0.0; n], vec![1.0; n])?,
            };
            assumptions.push(format!(
                "preprocessing assumed: mean {:?}, std {:?}; give mean and std if it was trained otherwise",
                default.mean, default.std
            ));
            default
        }
    };
    let (wanted, got) = (original.graph().input().c, preprocessing.n_channels());
    ensure!(wanted == got, "'{}' reads {wanted} channels, mean and std are given for {got}", path.display());
    let folded = fold_batch_norm(&original).with_context(|| in_file(path, arch.as_deref()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let document = document.map(Arc::new);
    Ok(LoadedNetwork { name, path: path.to_owned(), arch, document, original, folded, preprocessing, assumptions })
}

/// What a file itself says.
struct SaidByFile {
    arch: Option<String>,
    document: Option<DocumentNetwork>,
    original: Network,
    own: Option<Preprocessing>,
    assumptions: Vec<String>,
}

fn said_by(path: &Path, choices: &NetworkChoices<'_>) -> anyhow::Result<SaidByFile> {
    let (given, size) = (choices.arch, choices.size);
    if is_onnx(path) {
        ensure!(given.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
        let ReadDocument { network, document, preprocessing: own, assumptions } = read_document(path, size)?;
        return Ok(SaidByFile { arch: None, document: Some(document), original: network, own, assumptions });
    }
    let file = read_weights(path)?;
    let mut assumptions = file.notes;
    let described = file.description.map(|d| (d.graph, d.preprocessing));
    let Some((graph, own)) = described else {
        let BuiltNetwork { arch, network, assumptions: assumed } = build(path, choices, file.weights)?;
        assumptions.extend(assumed);
        return Ok(SaidByFile { arch: Some(arch), document: None, original: network, own: None, assumptions });
    };
    ensure!(given.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
    ensure!(
        size.is_none(),
        "'{}' describes its own graph, for images of {}; leave `size` out",
        path.display(),
        graph.input()
    );
    let original = Network::new(graph, file.weights).with_context(|| in_file(path, None))?;
    Ok(SaidByFile { arch: None, document: None, original, own: Some(own), assumptions })
}

/// The file, and what it is read as.
pub(super) fn in_file(path: &Path, arch: Option<&str>) -> String {
    match arch {
        Some(arch) => format!("'{}' as {arch}", path.display()),
        None => format!("'{}'", path.display()),
    }
}
