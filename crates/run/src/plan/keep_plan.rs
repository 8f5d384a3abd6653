//! The plan of an agent that asks for one before it acts.

use std::collections::BTreeMap;

use anyhow::Context;
use secateur_rl::{AgentSettings, ErrorWeights, KeepPlan};
use secateur_sim::{CostBound, Prepared, Score};

use super::allocate::{Ranked, is_measured};
use super::planner::{probe_images, score};
use crate::run::Job;

/// The keep ratios of least layer error for every task, if the agent wants to know them.
pub(crate) fn keep_plan(job: &Job<'_>, settings: &dyn AgentSettings) -> anyhow::Result<Option<KeepPlan>> {
    let Some(weights) = settings.plan_weights() else { return Ok(None) };
    let mut by_task: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    for (network, prepared) in job.networks.iter().enumerate() {
        let (groups, graph) = (&prepared.groups, prepared.network.graph());
        let order = groups.prunable();
        let measured: Vec<bool> = order.iter().map(|&group| is_measured(graph, groups, group)).collect();
        let rules = &job.resolved.width_rules(job.scene, prepared.network_index.index);
        let ranked = Ranked { groups, model: &prepared.model, paths: &prepared.paths, measured: &measured, rules };
        let tasks: Vec<usize> = (0..job.tasks.len())
            .filter(|&task| job.tasks[task].network == network && job.tasks[task].is_searched)
            .collect();
        let weights = match weights {
            ErrorWeights::Probed if !tasks.is_empty() => {
                let scores = probe(job, prepared, &ranked.probes())?;
                ranked.probed_weights(&scores)
            }
            ErrorWeights::Equal | ErrorWeights::Probed => vec![1.0; order.len()],
        };
        let budgets: Vec<Vec<CostBound>> = tasks.iter().map(|&task| job.tasks[task].budget.clone()).collect();
        let planned = ranked.allocate(job.scene, &weights, &budgets)?;
        for (&task, planned) in tasks.iter().zip(&planned) {
            let ratio = |&group: &usize| planned.widths[group] as f32 / groups.group(group).n_channels as f32;
            by_task.insert(task, order.iter().map(ratio).collect());
        }
    }
    Ok(Some(KeepPlan::new((0..job.tasks.len()).map(|task| by_task.remove(&task).unwrap_or_default()).collect())))
}

fn probe(job: &Job<'_>, prepared: &Prepared, probes: &[Vec<usize>]) -> anyhow::Result<Vec<Score>> {
    let images = probe_images(prepared);
    let scores = probes.iter().map(|widths| score(&job.pool.0, prepared, &images, widths));
    let what = || format!("probing groups of {} on {}", prepared.network_name, prepared.dataset_name);
    scores.collect::<Result<_, _>>().with_context(what)
}

/// Candidates that are scored for the plan of a task, beside those of its walks.
pub(crate) fn n_probes(prepared: &Prepared, settings: &dyn AgentSettings) -> u64 {
    match settings.plan_weights() {
        Some(ErrorWeights::Probed) => prepared.groups.prunable().len() as u64,
        Some(ErrorWeights::Equal) | None => 0,
    }
}
