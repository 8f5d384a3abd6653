//! Building the world: one entity per network, layer, task and actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_net::GroupId;

use crate::components::*;
use crate::error::SimError;
use crate::evaluate::{Evaluator, RefitAndScore};
use crate::network::Prepared;
use crate::observation::{FeatureScale, observation_len};
use crate::score::{RewardKind, ScoreCache};
use crate::wall::{BudgetWall, CostBound};
use crate::widths::{KeepRange, WidthRules};

/// Numbers that hold for the whole run.
#[derive(Resource, Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Widths are multiples of this.
    pub channel_multiple: usize,
    /// Smallest keep ratio of a group.
    pub keep_ratio_min: f64,
    /// Whether budget left after a walk is spent.
    pub spend_leftover: bool,
    /// What a walk is paid for.
    pub reward: RewardKind,
    /// Candidates remembered per task for the final refit.
    pub finalists: usize,
    /// Actors per task.
    pub actors_per_task: usize,
    /// Walks, or candidates to score, per task.
    pub walks_per_task: u64,
    /// Which of them.
    pub ends_after: EndsAfter,
    /// Which walks are free of noise.
    pub noise_free: NoiseFree,
}

impl Settings {
    /// Which widths the groups of a network may take, these of them in a range of their own.
    pub fn width_rules(&self, keep: &BTreeMap<GroupId, KeepRange>) -> WidthRules {
        let Self { channel_multiple, keep_ratio_min, .. } = *self;
        WidthRules { channel_multiple, keep_ratio_min, keep: keep.clone() }
    }
}

/// Which walks of a task act without exploration noise: every `every`-th, for the learning curve, and the last `last`
/// of those that are planned. Walks beyond these, of a search that ends after so many scored candidates, explore again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseFree {
    /// Every so many walks; 0 for none.
    pub every: u64,
    /// The last so many of the walks that are planned.
    pub last: u64,
}

impl NoiseFree {
    /// Whether walk `number` is free of noise where `n_walks` are planned.
    pub const fn holds(self, number: u64, n_walks: u64) -> bool {
        (self.every > 0 && (number + 1).is_multiple_of(self.every)) || self.is_last(number, n_walks)
    }

    /// Whether walk `number` is one of the last of `n_walks`.
    pub const fn is_last(self, number: u64, n_walks: u64) -> bool {
        number < n_walks && number + self.last >= n_walks
    }

    /// Of the first `number` walks, where `n_walks` are planned: those with noise, and those of the last without.
    pub fn split(self, number: u64, n_walks: u64) -> (u64, u64) {
        let of_curve = |n: u64| n.checked_div(self.every).unwrap_or(0);
        let planned = number.min(n_walks);
        let before_last = planned.min(n_walks.saturating_sub(self.last));
        let noise_free = of_curve(before_last) + of_curve(number) - of_curve(planned);
        let of_last = planned - before_last;
        (number - of_last - noise_free, of_last)
    }
}

/// One task to be spawned.
#[derive(Clone, Debug)]
pub struct TaskSetup {
    /// Unique name.
    pub name: String,
    /// Index into the networks given to [`populate`].
    pub network: usize,
    /// What is bounded, and by what; at least one bound, each on another cost.
    pub budget: Vec<CostBound>,
    /// Groups that keep a share of their channels of their own.
    pub keep: BTreeMap<GroupId, KeepRange>,
    /// Bound over original cost, α; of several, the smallest.
    pub budget_ratio: f32,
    /// Whether walks are to be done: not where the budget allows the whole network.
    pub is_searched: bool,
}

/// Threads that evaluate and repair candidates. The scheduler's own threads are others.
#[derive(Resource, Clone)]
pub struct Pool(pub Arc<rayon::ThreadPool>);

/// Scale of the observations, and their length.
#[derive(Resource, Clone, Copy, Debug)]
pub struct ObservationSpace {
    /// Divisors of the static features.
    pub scale: FeatureScale,
    /// Length of an observation.
    pub n_features: usize,
}

/// The first error of a tick. Systems do not panic on bad candidates: they note the error here and the driver stops the
/// run.
#[derive(Resource, Debug, Default)]
pub struct TickFailure(pub Option<SimError>);

impl TickFailure {
    /// Notes an error unless there is one already.
    pub fn note(&mut self, error: SimError) {
        // Any other error is worse than a panic that was caught, after which the walk stands at its beginning.
        let only_panicked = |e: &SimError| matches!(e, SimError::Panicked { .. });
        if self.0.as_ref().is_none_or(|known| only_panicked(known) && !only_panicked(&error)) {
            self.0 = Some(error);
        }
    }
}

/// Fills the world. Candidates are [`RefitAndScore`] unless a plugin put another [`Evaluator`] in. Actors are numbered
/// task by task within a round, so that the first actors of all tasks come first.
///
/// # Errors
/// A budget no candidate can meet.
pub fn populate(
    app: &mut App,
    pool: Pool,
    settings: Settings,
    networks: &[Arc<Prepared>],
    tasks: &[TaskSetup],
) -> Result<(), SimError> {
    let world = app.world_mut();
    let network_entities: Vec<Entity> = networks.iter().enumerate().map(|(i, p)| spawn_network(world, i, p)).collect();
    let mut task_entities = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let network = (network_entities[task.network], &*networks[task.network]);
        task_entities.push(spawn_task(world, settings, (index, task), network)?);
    }
    for round in 0..settings.actors_per_task {
        for (place, &task) in task_entities.iter().enumerate() {
            spawn_actor(world, Actor { index: round * tasks.len() + place, task }, settings);
        }
    }
    let shapes = networks.iter().flat_map(|n| &n.shapes);
    let counts = networks.first().map_or((1, 1), |n| (n.network_index.of, n.dataset_index.of));
    let n_features = observation_len(counts.0, counts.1);
    world.insert_resource(ObservationSpace { scale: FeatureScale::of(shapes), n_features });
    world.insert_resource(pool);
    world.insert_resource(settings);
    world.init_resource::<ScoreCache>();
    world.init_resource::<TickFailure>();
    if !world.contains_resource::<Evaluator>() {
        world.insert_resource(Evaluator(Arc::new(RefitAndScore)));
    }
    Ok(())
}

fn spawn_task(
    world: &mut World,
    settings: Settings,
    (index, task): (usize, &TaskSetup),
    (network, prepared): (Entity, &Prepared),
) -> Result<Entity, SimError> {
    let rules = settings.width_rules(&task.keep);
    // A task without walks has nothing for a wall to hold, and perhaps groups that may not shrink below its budget.
    let limits: &[CostBound] = if task.is_searched { &task.budget } else { &[] };
    let wall = BudgetWall::new(&prepared.groups, prepared.model.clone(), &rules, limits)
        .map_err(|why| SimError::Unreachable { task: task.name.clone(), why })?;
    let spawned = world.spawn((
        PruneTask { index, name: task.name.clone(), network, budget_ratio: task.budget_ratio },
        Budget(Arc::new(wall)),
        TaskStats { n_wanted: if task.is_searched { settings.walks_per_task } else { 0 }, ..TaskStats::default() },
        Finalists { capacity: settings.finalists, best: Vec::new() },
    ));
    Ok(spawned.id())
}

/// Spawns a network and its layers.
pub fn spawn_network(world: &mut World, index: usize, prepared: &Arc<Prepared>) -> Entity {
    let network = world.spawn_empty().id();
    let groups = prepared.groups.prunable().into_iter().zip(&prepared.paths).enumerate();
    let layers = groups
        .map(|(place, (group, path))| world.spawn((Layer { network, place, group }, Importance(path.clone()))).id())
        .collect();
    world.entity_mut(network).insert(PrunedNetwork { index, prepared: prepared.clone(), layers });
    network
}

/// Spawns an actor at the start of its task's next walk; it retires at once if there is none.
fn spawn_actor(world: &mut World, actor: Actor, settings: Settings) {
    let mut task = world.entity_mut(actor.task);
    let widths = task.get::<Budget>().map(|b| b.0.least_widths().to_vec()).unwrap_or_default();
    let number = match task.get_mut::<TaskStats>() {
        Some(mut stats) if stats.has_walks_left(settings.ends_after) => {
            stats.n_begun += 1;
            Some(stats.n_begun - 1)
        }
        _ => None,
    };
    let readiness = if number.is_some() { Readiness::Acting } else { Readiness::Retired };
    let noise_free = settings.noise_free.holds(number.unwrap_or(0), settings.walks_per_task);
    let walk = Walk::new(number.unwrap_or(0), noise_free, widths);
    world.spawn(ActorBundle { readiness, ..ActorBundle::new(actor, walk) });
}

#[cfg(test)]
mod tests {
    use super::NoiseFree;

    #[test]
    fn walks_are_split_as_each_of_them_is_told() {
        for (every, last, n_walks) in [(0, 0, 7), (3, 2, 20), (25, 8, 40), (1, 0, 5), (4, 9, 6), (5, 5, 5)] {
            let rule = NoiseFree { every, last };
            for number in 0..=3 * n_walks {
                let noisy = (0..number).filter(|&n| !rule.holds(n, n_walks)).count() as u64;
                let of_last = (0..number.min(n_walks)).filter(|n| n + last >= n_walks).count() as u64;
                assert_eq!(rule.split(number, n_walks), (noisy, of_last), "{rule:?} {number} of {n_walks}");
            }
        }
    }
}
