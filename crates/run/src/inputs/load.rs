//! Networks and data sets from files, with everything that had to be assumed about them said aloud.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use secateur_formats::{Preprocessing, read_weights};
use secateur_net::{Graph, Network, Shape, Weights, arch, fold_batch_norm};
use secateur_onnx::DocumentNetwork;

use super::onnx_document::{ReadDocument, is_onnx, read_document};

/// Images of the architectures that are built in; a bare state dict does not say.
pub const BUILDER_INPUT: Shape = Shape { c: 3, h: 32, w: 32 };
/// Where the built-in architectures, by the beginning of their names, keep the weights `[classes, features]` of their
/// last operation.
const CLASSIFIERS: [(&str, &str); 3] =
    [("resnet", "linear.weight"), ("mobilenet", "classifier.0.weight"), ("vgg", "classifier.weight")];
/// How many names of parameters a message lists, and how long a name it shows.
const NAMES_SHOWN: usize = 5;
const NAME_CHARS_SHOWN: usize = 80;

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
    let SaidByFile { arch, document, original, own, mut assumptions } = said_by(path, arch)?;
    let preprocessing = match (mean_std, own) {
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

fn said_by(path: &Path, arch: Option<&str>) -> anyhow::Result<SaidByFile> {
    if is_onnx(path) {
        ensure!(arch.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
        let ReadDocument { network, document, preprocessing: own, assumptions } = read_document(path)?;
        return Ok(SaidByFile { arch: None, document: Some(document), original: network, own, assumptions });
    }
    let file = read_weights(path)?;
    let mut assumptions = file.notes;
    let described = file.description.map(|d| (d.graph, d.preprocessing));
    let (arch, graph, own) = match described {
        Some((graph, preprocessing)) => {
            ensure!(arch.is_none(), "'{}' describes its own graph; leave `arch` out", path.display());
            (None, graph, Some(preprocessing))
        }
        None => {
            let (name, graph) = built(path, arch, &file.weights, &mut assumptions)?;
            (Some(name), graph, None)
        }
    };
    let original = Network::new(graph, file.weights).with_context(|| in_file(path, arch.as_deref()))?;
    Ok(SaidByFile { arch, document: None, original, own, assumptions })
}

fn in_file(path: &Path, arch: Option<&str>) -> String {
    match arch {
        Some(arch) => format!("'{}' as {arch}", path.display()),
        None => format!("'{}'", path.display()),
    }
}

/// Name and graph of the builder for a file that holds only parameters.
fn built(
    path: &Path,
    arch: Option<&str>,
    weights: &Weights,
    assumptions: &mut Vec<String>,
) -> anyhow::Result<(String, Graph)> {
    let inferred = arch::infer(weights);
    let (name, n_classes) = match (arch, inferred) {
        (Some(name), _) => {
            let n_classes = n_classes(path, name, weights)?;
            (name, n_classes)
        }
        (None, Some((name, n_classes))) => {
            assumptions.push(format!("architecture {name}, told by the parameter names"));
            (name, n_classes)
        }
        (None, None) => bail!(
            "'{}' holds parameters only, and their names are those of no known architecture ({}): it has {}; a network of another \
             kind needs its graph in the file, as safetensors metadata (scenes/quickstart/train.py writes such files)",
            path.display(),
            arch::ARCHITECTURES.join(", "),
            shown(weights)
        ),
    };
    assumptions.push(format!("images of {BUILDER_INPUT}, the size the architecture is built for"));
    let graph = arch::build(name, BUILDER_INPUT, n_classes).with_context(|| in_file(path, Some(name)))?;
    Ok((name.to_owned(), graph))
}

/// Number of classes of a file that is said to be of architecture `name`.
fn n_classes(path: &Path, name: &str, weights: &Weights) -> anyhow::Result<usize> {
    ensure!(
        arch::ARCHITECTURES.contains(&name),
        "unknown architecture '{name}'; known: {}",
        arch::ARCHITECTURES.join(", ")
    );
    let (_, classifier) = CLASSIFIERS
        .iter()
        .find(|(start, _)| name.starts_with(start))
        .with_context(|| format!("no classifier is known of {name}"))?;
    let classes = weights.get(*classifier).and_then(|tensor| tensor.shape().first().copied());
    classes.with_context(|| {
        let (path, shown) = (path.display(), shown(weights));
        format!("'{path}' is no {name}: that has its classes in '{classifier}', this file has {shown}")
    })
}

/// Some of the parameters' names, to recognise the network by.
fn shown(weights: &Weights) -> String {
    let more = if weights.len() > NAMES_SHOWN { ", …" } else { "" };
    let step = weights.len().div_ceil(NAMES_SHOWN).max(1);
    let names: Vec<String> = weights
        .keys()
        .step_by(step)
        .map(|name| format!("'{}'", name.escape_debug().take(NAME_CHARS_SHOWN).collect::<String>()))
        .collect();
    format!("{} parameters: {}{more}", weights.len(), names.join(", "))
}
