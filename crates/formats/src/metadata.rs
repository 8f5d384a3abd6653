//! What our weight files say about their network, in the string map `__metadata__` of safetensors.

use std::collections::{BTreeMap, HashMap};

use secateur_net::{Graph, Network};
use serde::de::DeserializeOwned;

use crate::{FileProblem, FormatError, Preprocessing};

const VERSION: &str = "1";
const FORMAT_KEY: &str = "secateur.format";
const GRAPH_KEY: &str = "secateur.graph";
const MEAN_KEY: &str = "secateur.mean";
const STD_KEY: &str = "secateur.std";
const CLASSES_KEY: &str = "secateur.classes";
const KEYS: [&str; 5] = [FORMAT_KEY, GRAPH_KEY, MEAN_KEY, STD_KEY, CLASSES_KEY];
/// What all of them begin with.
const PREFIX: &str = "secateur.";

/// What a file of ours says beside the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkDescription {
    /// The operations.
    pub graph: Graph,
    /// What the network expects of its input; as many channels as the graph's input.
    pub preprocessing: Preprocessing,
    /// Number of classes, the length of the graph's output.
    pub n_classes: usize,
}

/// The entries for `network`, sorted by key.
///
/// # Errors
/// When the preprocessing is not one for the network's input.
pub(crate) fn encode(network: &Network, prep: &Preprocessing) -> Result<BTreeMap<&'static str, String>, FormatError> {
    // The fields are public: they are checked again before they are written.
    let prep = Preprocessing::new(prep.mean.clone(), prep.std.clone())?;
    check_channels(network.graph(), &prep).map_err(|problem| FormatError::Preprocessing { problem })?;
    Ok(BTreeMap::from([
        (FORMAT_KEY, VERSION.to_owned()),
        (GRAPH_KEY, json(network.graph())),
        (MEAN_KEY, json(&prep.mean)),
        (STD_KEY, json(&prep.std)),
        (CLASSES_KEY, network.graph().n_classes().to_string()),
    ]))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("structs and vectors of numbers and strings are always JSON")
}

/// The description in `metadata`, or `None` when the file is not one of ours.
///
/// # Errors
/// A newer format, a missing, unknown or unreadable entry, or entries that contradict each other.
pub(crate) fn decode(metadata: &HashMap<String, String>) -> Result<Option<NetworkDescription>, FileProblem> {
    let mut ours: Vec<&str> = metadata.keys().map(String::as_str).filter(|key| key.starts_with(PREFIX)).collect();
    ours.sort_unstable();
    if ours.is_empty() {
        return Ok(None);
    }
    check_keys(metadata, &ours)?;
    let graph: Graph = entry(metadata, GRAPH_KEY)?;
    let prep = Preprocessing::new(entry(metadata, MEAN_KEY)?, entry(metadata, STD_KEY)?);
    let preprocessing = prep.map_err(|e| FileProblem::malformed("safetensors", e.to_string()))?;
    check_channels(&graph, &preprocessing).map_err(|problem| FileProblem::malformed("safetensors", problem))?;
    let n_classes: usize = entry(metadata, CLASSES_KEY)?;
    if n_classes != graph.n_classes() {
        let problem = format!("{CLASSES_KEY} is {n_classes}, the graph has {} outputs", graph.n_classes());
        return Err(FileProblem::malformed("safetensors", problem));
    }
    Ok(Some(NetworkDescription { graph, preprocessing, n_classes }))
}

/// All keys of ours are there, in a version that is read, and `ours` (those with our prefix, sorted) are no others.
fn check_keys(metadata: &HashMap<String, String>, ours: &[&str]) -> Result<(), FileProblem> {
    match metadata.get(FORMAT_KEY) {
        Some(version) if version == VERSION => {}
        Some(newer) => {
            return Err(FileProblem::NewerFormat { got: newer.escape_debug().take(40).collect(), known: VERSION });
        }
        // With any other entry of ours the file is no bare state dict.
        None => {
            let problem = format!("metadata: {FORMAT_KEY} is missing beside {}", ours[0]);
            return Err(FileProblem::malformed("safetensors", problem));
        }
    }
    let unknown = ours.iter().find(|key| !KEYS.contains(key)).map(|key| {
        let shown: String = key.chars().take(80).collect();
        format!("unknown key `{shown}`; known: {}", KEYS.join(", "))
    });
    // A missing key is the one with the typing mistake.
    if let Some(missing) = KEYS.iter().find(|key| !metadata.contains_key(**key)) {
        let unknown = unknown.map_or_else(String::new, |unknown| format!("; {unknown}"));
        return Err(FileProblem::malformed("safetensors", format!("metadata: {missing} is missing{unknown}")));
    }
    if let Some(unknown) = unknown {
        return Err(FileProblem::malformed("safetensors", format!("metadata: {unknown}")));
    }
    Ok(())
}

fn check_channels(graph: &Graph, prep: &Preprocessing) -> Result<(), String> {
    if prep.n_channels() == graph.input().c {
        return Ok(());
    }
    Err(format!("expected mean and std of {} channels, got {}", graph.input().c, prep.n_channels()))
}

fn entry<T: DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> Result<T, FileProblem> {
    let text = metadata.get(key).ok_or_else(|| FileProblem::malformed("safetensors", format!("{key} is missing")))?;
    serde_json::from_str(text).map_err(|e| FileProblem::malformed("safetensors", format!("{key}: {}", reason(&e))))
}

/// What is wrong with a JSON text; where only when that helps: a graph's own refusals name node and key.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let of_graph = |reason: &&str| error.is_data() && ["graph", "node '"].iter().any(|word| reason.starts_with(word));
    text.strip_suffix(&place).filter(of_graph).map_or(text.clone(), str::to_owned)
}
