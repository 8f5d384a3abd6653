//! The error curves that a run measures before it searches, as its directory keeps them.

use secateur_kernels::RemovalPath;
use secateur_net::GroupId;
use secateur_sim::Prepared;
use serde::Serialize;

use super::allocate::is_measured;

/// The error curves of a network on a data set.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkCurves {
    network: String,
    dataset: String,
    /// The prunable groups, in walk order.
    groups: Vec<RemovalErrors>,
}

/// The error curve of a group.
#[derive(Debug, Serialize)]
struct RemovalErrors {
    name: String,
    channels: usize,
    /// Whether anything reads the group that is refitted; without, errors are zero and say nothing.
    measured: bool,
    /// Squared error of the readers after a refit, as a share of their variance and summed over them: after 0, 1, …
    /// channels are gone.
    errors: Vec<f64>,
}

impl NetworkCurves {
    pub(crate) fn of(prepared: &Prepared) -> Self {
        let Prepared { groups, network, paths, network_name, dataset_name, .. } = prepared;
        let group = |id: GroupId, path: &RemovalPath| RemovalErrors {
            name: groups.group(id).name.clone(),
            channels: groups.group(id).n_channels,
            measured: is_measured(network.graph(), groups, id),
            errors: path.errors.clone(),
        };
        Self {
            network: network_name.clone(),
            dataset: dataset_name.clone(),
            groups: groups.prunable().iter().zip(paths).map(|(&id, path)| group(id, path)).collect(),
        }
    }
}
