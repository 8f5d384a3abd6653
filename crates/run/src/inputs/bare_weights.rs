//! Networks whose files hold parameters only: their names and shapes tell the graph, or the user does.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use secateur_net::arch::{self, ARCHITECTURES, FAMILIES, ParameterShapes, Recognised};
use secateur_net::{Graph, NetError, Network, Shape, Weights, parameter_shapes};

use super::load::{LoadedNetwork, NetworkChoices, in_file};

/// Images of the architectures that are built by their name; a bare state dict does not say.
pub const BUILDER_INPUT: Shape = Shape { c: 3, h: 32, w: 32 };
/// Where the built-in architectures, by the beginning of their names, keep the weights `[classes, features]` of their
/// last operation.
const CLASSIFIERS: [(&str, &str); 4] = [
    ("resnet", "linear.weight"),
    ("mobilenet", "classifier.0.weight"),
    ("vgg", "classifier.weight"),
    ("lenet", "fc3.weight"),
];
/// What to do with a network whose parameters do not tell its graph.
const EXPORT: &str = "export the network to ONNX, which holds its graph as well: torch.onnx.export(model.eval(), example, \
                      'm.onnx'), where `example` is a batch of images; or put the graph into the file as safetensors metadata, as \
                      scenes/quickstart/train.py does";
/// How many names of parameters a message lists, and how long a name it shows.
const NAMES_SHOWN: usize = 5;
const NAME_CHARS_SHOWN: usize = 80;

/// What is made of a file that holds parameters only.
pub(super) struct BuiltNetwork {
    /// The architecture's name.
    pub(super) arch: String,
    pub(super) network: Network,
    /// As those of a loaded network.
    pub(super) assumptions: Vec<String>,
}

/// The network of a file that holds only `weights`: of architecture `arch` if that is given, else of the one that the
/// parameters tell.
///
/// # Errors
/// An unknown or another architecture, parameters that do not fit; with what to do.
pub(super) fn build(path: &Path, choices: &NetworkChoices<'_>, weights: Weights) -> anyhow::Result<BuiltNetwork> {
    match choices.arch {
        Some(name) => given(path, name, choices.size, weights),
        None => told(path, choices.size, weights),
    }
}

/// The family whose parameter names these are.
fn family(weights: &Weights, size: Option<[usize; 2]>) -> Option<Result<Recognised, NetError>> {
    let shapes: ParameterShapes = weights.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
    arch::recognise(&shapes, size)
}

/// The network of the architecture that the user names.
fn given(path: &Path, name: &str, size: Option<[usize; 2]>, weights: Weights) -> anyhow::Result<BuiltNetwork> {
    let (graph, assumptions) = match family(&weights, size) {
        Some(Ok(recognised)) if recognised.name == name => (recognised.graph, recognised.assumptions),
        _ if ARCHITECTURES.contains(&name) => named(path, name, size, n_classes(path, name, &weights)?)?,
        Some(Ok(Recognised { name: found, .. })) => {
            bail!("'{}' is no {name}: its parameters are those of {found}; leave `arch` out", path.display())
        }
        _ => bail!(
            "unknown architecture '{name}'; known: {}; without `arch`, {FAMILIES}, are known by their parameters",
            ARCHITECTURES.join(", ")
        ),
    };
    let network = Network::new(graph, weights).with_context(|| in_file(path, Some(name)))?;
    Ok(BuiltNetwork { arch: name.to_owned(), network, assumptions })
}

/// The network that the parameters' names tell.
fn told(path: &Path, size: Option<[usize; 2]>, weights: Weights) -> anyhow::Result<BuiltNetwork> {
    let standard = arch::infer(&weights);
    let (name, by, graph, assumptions) = match (standard, family(&weights, size)) {
        // A builder of this name may know these names, and be of other shapes.
        (Some((name, n_classes)), family) if fits(name, n_classes, &weights) || !matches!(family, Some(Ok(_))) => {
            let (graph, assumptions) = named(path, name, size, n_classes)?;
            (name.to_owned(), "the parameter names", graph, assumptions)
        }
        (_, Some(recognised)) => {
            let recognised = recognised.map_err(|problem| anyhow!("'{}': {problem}; {EXPORT}", path.display()))?;
            (recognised.name, "names and shapes of the parameters", recognised.graph, recognised.assumptions)
        }
        (_, None) => bail!(
            "'{}' holds parameters only, and their names are those of no known architecture ({}; {FAMILIES}): it has {}; {EXPORT}",
            path.display(),
            ARCHITECTURES.join(", "),
            shown(&weights)
        ),
    };
    let network = Network::new(graph, weights).map_err(|problem| {
        let told = in_file(path, Some(&name));
        anyhow!("{told}, as {by} tell: {problem}; if it is another network, {EXPORT}")
    })?;
    let assumptions = std::iter::once(format!("architecture {name}, told by {by}")).chain(assumptions).collect();
    Ok(BuiltNetwork { arch: name, network, assumptions })
}

/// Graph of a builder that goes by its name, and what is assumed.
fn named(path: &Path, name: &str, size: Option<[usize; 2]>, n_classes: usize) -> anyhow::Result<(Graph, Vec<String>)> {
    let input = size.map_or(BUILDER_INPUT, |[h, w]| Shape { h, w, ..BUILDER_INPUT });
    let graph = arch::build(name, input, n_classes).with_context(|| in_file(path, Some(name)))?;
    let assumed = format!("images of {input}, the size the architecture is built for");
    Ok((graph, if size.is_none() { vec![assumed] } else { Vec::new() }))
}

/// Whether all parameters of builder `name` are in the file, with their shapes, and no others.
fn fits(name: &str, n_classes: usize, weights: &Weights) -> bool {
    let Ok(graph) = arch::build(name, BUILDER_INPUT, n_classes) else { return false };
    let mut n_needed = 0;
    for node in graph.nodes() {
        for (parameter, shape) in parameter_shapes(&node.op) {
            let tensor = weights.get(&format!("{}.{parameter}", node.name));
            if tensor.is_none_or(|tensor| tensor.shape() != shape) {
                return false;
            }
            n_needed += 1;
        }
    }
    n_needed == weights.keys().filter(|name| !name.ends_with("num_batches_tracked")).count()
}

/// Number of classes of a file that is said to be of architecture `name`.
fn n_classes(path: &Path, name: &str, weights: &Weights) -> anyhow::Result<usize> {
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

/// Parameters alone, and some exports, do not say of which size images are.
pub(super) fn size_advice(network: &LoadedNetwork, wanted: Shape) -> String {
    let Shape { c, h, w } = wanted;
    if c != network.folded.graph().input().c {
        return String::new();
    }
    let set = format!("if it was trained on {h}x{w} pixels, set `size: ({h}, {w})` in the scene, or --size {h}x{w}");
    let is_open = network.document.as_ref().is_some_and(|document| document.leaves_size_open());
    match &network.arch {
        Some(arch) => format!("; that is the usual size of {arch}: {set}"),
        None if is_open => format!("; the file leaves their size open: {set}"),
        None => String::new(),
    }
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
