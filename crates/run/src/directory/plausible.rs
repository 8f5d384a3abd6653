//! Whether a checkpoint can be of this scene: one whose checksum is right may still be no run's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_net::{ChannelGroups, CostModel};
use secateur_sim::BudgetWall;
use secateur_train::{SavedTask, SearchRules, TaskRules};

use super::checkpoint::RunState;
use super::metrics_counts::{MetricsCounts, count_metrics};
use crate::inputs::resolve::Resolved;
use crate::plans::{SearchPlan, plans};
use crate::prepare;
use crate::saved_search::{CurrentSearch, FinishedSearch, SearchTimes, WalkRewards};
use crate::scene::Scene;

/// Refuses a checkpoint with numbers that no run of the scene could have come to.
///
/// # Errors
/// The first rule that is broken.
pub(crate) fn plausible(state: &RunState, scene: &Scene, resolved: &Resolved, metrics: &Path) -> anyhow::Result<()> {
    let plans = plans(scene);
    let walls = walls(scene, resolved)?;
    let rules: Vec<SearchRules> = plans.iter().map(|plan| rules(plan, scene, &walls)).collect();
    let (n_finished, n_searches) = (state.finished.len(), plans.len());
    ensure!(n_finished <= n_searches, "it has {n_finished} finished searches of {n_searches}");
    for (search, rules) in state.finished.iter().zip(&rules) {
        check_finished(search, rules)?;
    }
    if let Some(current) = &state.current {
        let rules = rules.get(n_finished).context("it has a search that goes on behind the last")?;
        check_current(current, rules)?;
    }
    check_time(state.wall_s)?;
    ensure!(state.refits.is_empty() || n_finished == n_searches, "it has refits of searches that did not end");
    ensure!(
        state.trainings.is_empty() || n_finished == n_searches,
        "it has trainings behind searches that did not end"
    );
    state.trainings.check(n_searches, scene.tasks.len())?;
    state.refits.check(&state.finished, &rules)?;
    let recorded = count_metrics(metrics, state.metrics_bytes)?;
    check_recorded(&recorded, counted(state, scene, &plans))?;
    for (search, (rules, plan)) in state.finished.iter().zip(rules.iter().zip(&plans)) {
        let again = recorded.get(plan.agent.word).map_or(0, |agent| agent.n_restarts);
        check_steps(search, rules, again)?;
    }
    Ok(())
}

/// The counts that the metrics must have for the searches in a checkpoint; two searches of one agent are counted
/// together.
fn counted(state: &RunState, scene: &Scene, plans: &[SearchPlan]) -> MetricsCounts {
    let mut out = MetricsCounts::new();
    let mut add = |plan: &SearchPlan, tasks: &[SavedTask], n_updates: u64| {
        let agent = out.entry(plan.agent.word.to_owned()).or_default();
        // Saturating, since the number comes from a file and is not checked yet.
        agent.n_updates = agent.n_updates.saturating_add(n_updates);
        for (task, spec) in tasks.iter().zip(&scene.tasks) {
            let (ended, cached) = agent.candidates.entry(spec.name.clone()).or_default();
            *ended += task.stats.n_ended;
            *cached += task.stats.n_cache_hits;
        }
    };
    for (plan, search) in plans.iter().zip(&state.finished) {
        add(plan, &search.tasks, search.learner_updates);
    }
    if let (Some(current), Some(plan)) = (&state.current, plans.get(state.finished.len())) {
        add(plan, &current.search.tasks, current.search.learner.as_ref().map_or(0, |learner| learner.n_updates));
    }
    out
}

fn check_recorded(recorded: &MetricsCounts, counted: MetricsCounts) -> anyhow::Result<()> {
    for (agent, counted) in &counted {
        let recorded = recorded.get(agent).cloned().unwrap_or_default();
        let (n, expected) = (counted.n_updates, recorded.n_updates);
        ensure!(n == expected, "it has {n} updates of {agent}, metrics.jsonl tells of {expected}");
        for (task, (ended, cached)) in &counted.candidates {
            let recorded = recorded.candidates.get(task).copied().unwrap_or_default();
            ensure!(
                (*ended, *cached) == recorded,
                "it has {ended} walks of {agent} on '{task}', {cached} of them known before; metrics.jsonl tells of {} and {}",
                recorded.0,
                recorded.1
            );
        }
    }
    Ok(())
}

/// Decisions of a finished search: those of its walks, and more only where actors began again.
fn check_steps(search: &FinishedSearch, rules: &SearchRules, n_restarts: u64) -> anyhow::Result<()> {
    let walk_length = |task: &TaskRules| task.wall.order().len() as u64;
    let least =
        rules.tasks.iter().fold(0u64, |sum, task| sum.saturating_add(task.n_walks.saturating_mul(walk_length(task))));
    let longest = rules.tasks.iter().map(walk_length).max().unwrap_or(0);
    let most = least.saturating_add(n_restarts.saturating_mul(longest));
    let n_steps = search.env_steps;
    ensure!((least..=most).contains(&n_steps), "it has {n_steps} decisions, expected {least} to {most}");
    Ok(())
}

/// The budget of every task, and whether it is searched.
fn walls(scene: &Scene, resolved: &Resolved) -> anyhow::Result<Vec<(Arc<BudgetWall>, bool)>> {
    let mut known: BTreeMap<usize, (ChannelGroups, Arc<CostModel>)> = BTreeMap::new();
    let mut out = Vec::with_capacity(scene.tasks.len());
    for (task, budget) in scene.tasks.iter().zip(&resolved.budgets) {
        let (groups, model) = known.entry(task.network).or_insert_with(|| {
            let graph = resolved.networks[task.network].folded.graph();
            let groups = ChannelGroups::derive(graph, scene.protocol);
            let model = Arc::new(CostModel::new(graph, &groups));
            (groups, model)
        });
        // As where the tasks are spawned: a task that is not searched has no wall to keep to.
        let limits = if budget.whole().is_some() { Vec::new() } else { budget.limits() };
        let wall = BudgetWall::new(groups, model.clone(), &resolved.width_rules(scene, task.network), &limits);
        let unreachable = |why: secateur_sim::Unreachable| anyhow::anyhow!("{why}");
        out.push((Arc::new(wall.map_err(unreachable)?), budget.whole().is_none()));
    }
    Ok(out)
}

fn rules(plan: &SearchPlan<'_>, scene: &Scene, walls: &[(Arc<BudgetWall>, bool)]) -> SearchRules {
    let task = |(wall, is_searched): &(Arc<BudgetWall>, bool)| TaskRules {
        wall: wall.clone(),
        n_walks: if *is_searched { plan.walks_per_task } else { 0 },
        ends_after: scene.ends_after,
        noise_free: plan.noise_free,
        n_finalists: scene.finalists,
        is_exact: scene.plugins.is_empty(),
    };
    SearchRules {
        tasks: walls.iter().map(task).collect(),
        actors_per_task: scene.actors_per_task,
        learns: plan.agent.learns,
        n_networks: prepare::pairs(scene).len(),
    }
}

fn check_finished(search: &FinishedSearch, rules: &SearchRules) -> anyhow::Result<()> {
    ensure!(
        search.tasks.len() == rules.tasks.len(),
        "it has {} tasks, expected {}",
        search.tasks.len(),
        rules.tasks.len()
    );
    for (task, rules) in search.tasks.iter().zip(&rules.tasks) {
        task.check(rules)?;
        let stats = &task.stats;
        let is_over = stats.n_ended == stats.n_begun && !stats.has_walks_left(rules.ends_after);
        ensure!(is_over, "a finished search has {} walks of {}", stats.n_ended, rules.n_walks);
    }
    ensure!(rules.learns || search.learner_updates == 0, "it has updates of an agent that does not learn");
    check_times(search.times)?;
    check_rewards(&search.rewards, &search.tasks, rules, |_| Vec::new())
}

fn check_current(current: &CurrentSearch, rules: &SearchRules) -> anyhow::Result<()> {
    let search = &current.search;
    search.check(rules)?;
    let n_ended = search.tasks.iter().fold(0u64, |sum, task| sum.saturating_add(task.stats.n_ended));
    ensure!(current.n_ended == n_ended, "it tells of {} walks, its tasks of {n_ended}", current.n_ended);
    check_times(current.times)?;
    let open = |task: usize| search.acting(task).map(|actor| actor.walk.number).collect();
    check_rewards(&current.rewards, &search.tasks, rules, open)
}

/// There is one reward for every walk that ended, but for those free of noise that only show how learning went. `open`
/// are the walks of a task that were begun and did not end.
fn check_rewards(
    rewards: &[WalkRewards],
    tasks: &[SavedTask],
    rules: &SearchRules,
    open: impl Fn(usize) -> Vec<u64>,
) -> anyhow::Result<()> {
    ensure!(rewards.len() == tasks.len(), "it has rewards of {} tasks, expected {}", rewards.len(), tasks.len());
    for (task, (rewards, saved)) in rewards.iter().zip(tasks).enumerate() {
        let TaskRules { noise_free, n_walks, .. } = rules.tasks[task];
        let (mut noisy, mut last) = noise_free.split(saved.stats.n_begun, n_walks);
        for number in open(task) {
            noisy -= u64::from(!noise_free.holds(number, n_walks));
            last -= u64::from(noise_free.is_last(number, n_walks));
        }
        let got = (rewards.noisy.len() as u64, rewards.noise_free.len() as u64);
        ensure!(
            got == (noisy, last),
            "it has {got:?} rewards of walks with and without noise, expected {noisy}, {last}"
        );
        let is_finite = rewards.noisy.iter().chain(&rewards.noise_free).all(|reward| reward.is_finite());
        ensure!(is_finite, "it has a reward that is no finite number");
    }
    Ok(())
}

fn check_times(times: SearchTimes) -> anyhow::Result<()> {
    check_time(times.wall)?;
    check_time(times.evaluation)?;
    check_time(times.tuning)
}

fn check_time(wall_s: f64) -> anyhow::Result<()> {
    ensure!(wall_s.is_finite() && wall_s >= 0.0, "it has a time of {wall_s} s");
    Ok(())
}
