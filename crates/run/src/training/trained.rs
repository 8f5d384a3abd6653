//! What came of the trainings of a run. Checkpoints hold it, so that no step is done again.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use secateur_net::{Network, Tensor};
use secateur_sim::Winner;
use serde::{Deserialize, Serialize};

use super::session::SavedTraining;

/// A stage of a run that trains winners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum TrainingStage {
    /// Without labels, towards the dense network.
    Polish,
    /// With labels and distillation.
    Tune,
}

impl TrainingStage {
    /// In the order in which they are held.
    pub(crate) const ALL: [Self; 2] = [Self::Polish, Self::Tune];

    /// As metrics and messages name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Polish => "polish",
            Self::Tune => "tune",
        }
    }
}

/// One training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TrainingKey {
    pub(crate) stage: TrainingStage,
    /// Index of the search: 0 is the run's agent, then the controls.
    pub(crate) search: usize,
    pub(crate) task: usize,
}

/// What came of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trained {
    /// All parameters in the order of their names; none where the network stays what it was before.
    pub(crate) values: Option<Vec<f32>>,
    pub(crate) n_images: usize,
    /// Epochs that are done.
    pub(crate) n_epochs: usize,
    /// Rewards on held-out training images, before and after.
    pub(crate) held_out: [f64; 2],
    /// Why there was no training, or no whole one.
    pub(crate) failure: Option<String>,
}

/// All trainings so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trainings {
    pub(crate) done: BTreeMap<TrainingKey, Trained>,
    /// The one that goes on, and the reward on held-out images before it.
    pub(crate) current: Option<(TrainingKey, f64, SavedTraining)>,
}

impl Trained {
    /// Where nothing was trained.
    pub(crate) fn nothing(failure: String) -> Self {
        Self { values: None, n_images: 0, n_epochs: 0, held_out: [0.0; 2], failure: Some(failure) }
    }

    /// The network that came of the training of `before`; none if that stays.
    ///
    /// # Errors
    /// Parameters of another network.
    pub(crate) fn network(&self, before: &Network) -> anyhow::Result<Option<Network>> {
        self.values.as_deref().map(|values| with_values(before, values)).transpose()
    }
}

impl Trainings {
    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.current.is_none()
    }

    /// The plain form of it, which it is itself.
    pub(crate) fn save(&self) -> Self {
        Self { done: self.done.clone(), current: self.current.clone() }
    }

    /// Refuses trainings of what is no winner.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(crate) fn check(&self, n_searches: usize, n_tasks: usize) -> anyhow::Result<()> {
        let current = self.current.iter().map(|(key, ..)| key);
        for TrainingKey { search, task, stage } in self.done.keys().chain(current) {
            let is_one = *search < n_searches && *task < n_tasks;
            ensure!(is_one, "it has a training ({}) of search {search} and task {task}", stage.name());
        }
        let is_finite = self.done.values().all(|trained| trained.held_out.iter().all(|x| x.is_finite()));
        ensure!(is_finite, "it has a training whose result is no finite number");
        Ok(())
    }
}

/// The parameters of a network, one after the other in the order of their names.
pub(super) fn values_of(network: &Network) -> Vec<f32> {
    network.weights().values().flat_map(Tensor::data).copied().collect()
}

fn with_values(network: &Network, values: &[f32]) -> anyhow::Result<Network> {
    let (graph, mut weights) = network.clone().into_parts();
    let mut rest = values;
    for tensor in weights.values_mut() {
        let to = tensor.data_mut();
        let (of_tensor, others) = rest.split_at_checked(to.len()).context("a training of another network")?;
        to.copy_from_slice(of_tensor);
        rest = others;
    }
    ensure!(rest.is_empty(), "a training of another network");
    Ok(Network::new(graph, weights)?)
}

/// A winner with another network.
pub(crate) fn winner_with(winner: &Winner, network: Network) -> Winner {
    Winner { network, ..winner.clone() }
}
