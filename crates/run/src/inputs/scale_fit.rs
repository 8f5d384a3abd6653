//! Whether channels that are to be chosen by their BatchNorm have one.

use secateur_sim::{Selection, batch_norm_scales};

use super::load::LoadedNetwork;
use super::reachable::Reachable;
use crate::scene::Scene;

/// What of a network keeps its channels from being chosen as the scene says; `reachable` has its groups.
pub(super) fn scale_misfit(scene: &Scene, network: &LoadedNetwork, reachable: &Reachable) -> Option<String> {
    if scene.selection != Selection::BnScale {
        return None;
    }
    let groups = &reachable.groups;
    let why = |&group: &usize| batch_norm_scales(&network.original, &network.folded, groups, group).err();
    let why = groups.prunable().iter().find_map(why)?;
    Some(format!("`selection` is BnScale, but of network '{}' {why}", network.name))
}
