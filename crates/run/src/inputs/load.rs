//! Networks and data sets from files, with everything that had to be assumed about them said aloud.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_formats::{Preprocessing, read_weights};
use secateur_net::{Network, fold_batch_norm};
use secateur_onnx::DocumentNetwork;
use secateur_sim::{OutputPart, whole_output};

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
    /// What the network's output has, one behind the other; one output, unless a document has more. All weigh 1.
    pub outputs: Vec<OutputPart>,
    /// Why the network ends in front of the outputs of its document, which then cannot be told from the images: what
    /// `outputs` names stands before them.
    pub ends_early: Option<String>,
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
    let SaidByFile { arch, document, outputs, ends_early, original, own, mut assumptions } = said_by(path, choices)?;
    let outputs = if outputs.is_empty() { vec![whole_output(original.graph())] } else { outputs };
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
    Ok(LoadedNetwork {
        name,
        path: path.to_owned(),
        arch,
        document,
        outputs,
        ends_early,
        original,
        folded,
        preprocessing,
        assumptions,
    })
}

/// What a file itself says.
struct SaidByFile {
    arch: Option<String>,
    document: Option<DocumentNetwork>,
    /// None but of a document.
    outputs: Vec<OutputPart>,
    ends_early: Option<String>,
    original: Network,
    own: Option<Preprocessing>,
    assumptions: Vec<String>,
}

fn said_by(path: &Path, choices: &NetworkChoices<'_>) -> anyhow::Result<SaidByFile> {
    let (given, size) = (choices.arch, choices.size);
    if is_onnx(path) {
        ensure!(given.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
        let ReadDocument { network: original, document, outputs, ends_early, preprocessing: own, assumptions } =
            read_document(path, size)?;
        let document = Some(document);
        return Ok(SaidByFile { arch: None, document, outputs, ends_early, original, own, assumptions });
    }
    let file = read_weights(path)?;
    let mut assumptions = file.notes;
    let described = file.description.map(|d| (d.graph, d.preprocessing));
    let Some((graph, own)) = described else {
        let BuiltNetwork { arch, network, assumptions: assumed } = build(path, choices, file.weights)?;
        assumptions.extend(assumed);
        return Ok(SaidByFile { arch: Some(arch), ..SaidByFile::weights(network, None, assumptions) });
    };
    ensure!(given.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
    ensure!(
        size.is_none(),
        "'{}' describes its own graph, for images of {}; leave `size` out",
        path.display(),
        graph.input()
    );
    let original = Network::new(graph, file.weights).with_context(|| in_file(path, None))?;
    Ok(SaidByFile::weights(original, Some(own), assumptions))
}

impl SaidByFile {
    /// Of a file of weights, with or without its graph.
    const fn weights(original: Network, own: Option<Preprocessing>, assumptions: Vec<String>) -> Self {
        Self { arch: None, document: None, outputs: Vec::new(), ends_early: None, original, own, assumptions }
    }
}

/// The file, and what it is read as.
pub(super) fn in_file(path: &Path, arch: Option<&str>) -> String {
    match arch {
        Some(arch) => format!("'{}' as {arch}", path.display()),
        None => format!("'{}'", path.display()),
    }
}
