//! Whether a network, a data set and a reward go together: which rewards read labels, which read class probabilities.

use std::collections::BTreeSet;

use secateur_net::Op;
use secateur_scene::did_you_mean;
use secateur_sim::RewardKind;

use super::load::LoadedNetwork;
use super::onnx_document::first_few;
use crate::scene::{RewardChoice, Scene};

/// What is wrong, where in the scene, and what to do.
pub(super) struct Misfit {
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Misfit {
    fn of_reward(message: String, help: &str) -> Self {
        Self { path: "reward".into(), message, help: Some(help.into()) }
    }
}

/// What the scene's reward lacks for a network on a data set.
pub(super) fn reward_misfit(scene: &Scene, network: &LoadedNetwork, dataset: &str, has_labels: bool) -> Option<Misfit> {
    let name = &network.name;
    match scene.reward.kind() {
        RewardKind::Accuracy if !has_labels => Some(Misfit::of_reward(
            format!("`reward` is Accuracy, which needs labels, and data set '{dataset}' is used without"),
            "without labels, `Kl` rewards what stays of a classifier's probabilities, and `OutputError()` what stays of \
             outputs of any meaning",
        )),
        RewardKind::Kl => network.no_logits().map(|why| {
            Misfit::of_reward(
                format!("`reward` is Kl, which compares class probabilities, and network '{name}' {why}"),
                "`OutputError()` compares outputs of any meaning",
            )
        }),
        RewardKind::OutputError if weights_are_zero(&scene.reward, network) => Some(Misfit {
            path: "reward.weights".into(),
            message: format!("`reward.weights` are 0 for every output of network '{name}': {}", names(network)),
            help: Some("give one of them a weight above 0, or leave it out, which means 1".into()),
        }),
        RewardKind::Accuracy | RewardKind::OutputError => None,
    }
}

fn names(network: &LoadedNetwork) -> String {
    first_few(&network.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>())
}

fn weights_are_zero(reward: &RewardChoice, network: &LoadedNetwork) -> bool {
    network.outputs.iter().all(|output| reward.weight(&output.name) == 0.0)
}

impl LoadedNetwork {
    /// Why the outputs of the network are no logits of classes, as what follows its name in a sentence; none where they
    /// may be.
    pub fn no_logits(&self) -> Option<String> {
        let graph = self.folded.graph();
        let output = graph.node(graph.output());
        let is_flattened = matches!(output.op, Op::Flatten | Op::FlattenPixels);
        let map = if is_flattened { graph.shape(output.inputs[0]) } else { graph.shape(graph.output()) };
        match (&self.ends_early, self.outputs.len()) {
            (Some(why), _) => Some(format!("is computed up to {} only: {why}", names(self))),
            (None, 1) if map.h * map.w == 1 && map.c > 1 => None,
            (None, 1) => Some(format!("has an output of {map} for an image")),
            (None, n) => Some(format!("has {n} outputs: {}", names(self))),
        }
    }
}

/// Weights of outputs that no network of the scene has.
pub(super) fn unknown_outputs(scene: &Scene, networks: &[Option<LoadedNetwork>]) -> Vec<Misfit> {
    let Some(weights) = scene.reward.weights() else { return Vec::new() };
    // What cannot be read is told elsewhere, and may have any output.
    if networks.iter().any(Option::is_none) {
        return Vec::new();
    }
    let outputs = networks.iter().flatten().flat_map(|network| &network.outputs);
    let known: BTreeSet<&str> = outputs.map(|output| output.name.as_str()).collect();
    let misfit = |name: &String| {
        let all: Vec<&str> = known.iter().copied().collect();
        let nearest = did_you_mean(name, all.iter().copied());
        Misfit {
            path: "reward.weights".into(),
            message: format!(
                "`reward.weights` names the output `{}`, which no network has",
                secateur_scene::clip(name)
            ),
            help: nearest.or_else(|| Some(format!("the outputs are {}", first_few(&all)))),
        }
    };
    weights.keys().filter(|name| !known.contains(name.as_str())).map(misfit).collect()
}
