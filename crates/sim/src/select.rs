//! The end of a walk: leftover budget is spent, channels are chosen, and a candidate is spawned.

use bevy_ecs::prelude::*;
use secateur_kernels::RemovalPath;
use secateur_net::{ChannelGroups, Cost, GroupId, KeptChannels};

use crate::candidate::{CandidateBundle, CandidateId, Kept, Macs, MadeBy, OnTask, Reward, Spent};
use crate::components::*;
use crate::error::SimError;
use crate::world::{Settings, TickFailure};

/// The components of an actor at the end of its walk.
type Ending<'w> = (Entity, &'w Actor, &'w Readiness, &'w mut Walk, &'w mut WalkEnd);

/// Spends leftover budget and spawns the candidate of every walk that ended in this tick, of the channels that are
/// least important by the [`Importance`] of their layers.
pub fn select_channels(
    mut commands: Commands,
    settings: Res<Settings>,
    tasks: Query<(&PruneTask, &Budget)>,
    (networks, layers): (Query<&PrunedNetwork>, Query<&Importance>),
    mut actors: Query<Ending<'_>>,
    mut failure: ResMut<TickFailure>,
) {
    for (entity, actor, readiness, mut walk, mut end) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        let order = wall.0.order();
        if *readiness != Readiness::Acting || walk.cursor < order.len() {
            continue;
        }
        let paths: Vec<&RemovalPath> = layers.iter_many(&network.layers).flatten().map(|layer| &*layer.0).collect();
        let groups = &network.prepared.groups;
        let decided = walk.widths.clone();
        if settings.spend_leftover && paths.len() == order.len() {
            // A layer whose importance tells no error for a width is left as it is.
            let error = |place: usize, width| {
                let n_removed = groups.group(order[place]).n_channels - width;
                paths[place].errors.get(n_removed).copied().unwrap_or(0.0)
            };
            wall.0.spend_leftover(&mut walk.widths, error);
        }
        let kept = match kept_of((groups, order), &paths, &walk.widths) {
            Ok(kept) => kept,
            Err(what) => {
                let network = network.prepared.network_name.clone();
                failure.note(SimError::Importance { network, what });
                continue;
            }
        };
        let bought = order.iter().enumerate().map(|(place, &g)| (place, walk.widths[g] - decided[g]));
        let candidate = CandidateBundle {
            id: CandidateId { task: task.index, walk: walk.number },
            made_by: MadeBy { actor: entity, index: actor.index },
            on: OnTask { task: actor.task, network: task.network },
            kept: Kept(kept),
            macs: Macs(network.prepared.model.count(Cost::Macs, &walk.widths)),
            spent: Spent(bought.filter(|&(_, n)| n > 0).collect()),
            reward: Reward::default(),
        };
        end.0 = Some(commands.spawn(candidate).id());
    }
}

/// The kept channels of given widths, by the removal paths of the prunable groups, which `order` lists.
///
/// # Errors
/// A path that does not remove as many channels of its group as it takes, each once.
fn kept_of(
    (groups, order): (&ChannelGroups, &[GroupId]),
    paths: &[&RemovalPath],
    widths: &[usize],
) -> Result<KeptChannels, String> {
    if order.len() != paths.len() {
        return Err(format!("expected {} layers, one for each prunable group, got {}", order.len(), paths.len()));
    }
    let mut kept = KeptChannels::all(groups);
    for (&group, path) in order.iter().zip(paths) {
        let (n, width) = (groups.group(group).n_channels, widths[group]);
        let list = kept_of_group(path, n, width).ok_or_else(|| {
            let name = &groups.group(group).name;
            let removed = &path.removed;
            format!("layer '{name}': expected {} different channels below {n} to remove, got {removed:?}", n - width)
        })?;
        kept.set(group, list);
    }
    Ok(kept)
}

/// The channels that a path leaves of `n` at a width, ascending.
fn kept_of_group(path: &RemovalPath, n: usize, width: usize) -> Option<Vec<usize>> {
    let mut stays = vec![true; n];
    for &channel in path.removed.get(..n - width)? {
        *stays.get_mut(channel)? = false;
    }
    let mut list = Vec::with_capacity(width);
    list.extend((0..n).filter(|&channel| stays[channel]));
    (list.len() == width).then_some(list)
}
