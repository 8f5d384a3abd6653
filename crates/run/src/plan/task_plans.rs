//! What agents are told of their tasks before they act.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use secateur_alloc::{Allocator, GroupCurve};
use secateur_kernels::{Norm, channel_norms};
use secateur_net::{Cost, GroupId};
use secateur_rl::{AgentSettings, ErrorWeights, GroupLook, SourceTask, TaskPlan, TaskPlans, TaskWidths, WidthLoss};
use secateur_sim::{BudgetWall, CostBound, GroupShape, Prepared, Score, TaskSetup, WidthRules};

use super::allocate::{Ranked, is_measured};
use super::planner::{probe_images, score};
use super::sensitivity::{self, Sensitivity};
use crate::inputs::task_widths::task_widths;
use crate::plans::SearchPlan;
use crate::run::Job;
use crate::scene::Scene;

/// A network, and how the errors of its groups are weighed.
type ProbeKey = (usize, ErrorWeights);

/// What was probed: several agents of a run may ask for the same.
#[derive(Debug, Default)]
pub(crate) struct ProbedWeights(Mutex<BTreeMap<ProbeKey, Vec<Sensitivity>>>);

/// What is known of every task, if the agent wants to know it; the scene's own agent is told of earlier tasks, too.
pub(crate) fn task_plans(job: &Job<'_>, search: SearchPlan<'_>) -> anyhow::Result<Option<TaskPlans>> {
    let Some(weights) = search.settings.plan_weights() else { return Ok(None) };
    let scene = Arc::new(job.scene.clone());
    let choice = job.scene.history.as_ref().filter(|_| search.learns_from_history(job.scene));
    let mut sources = choice.map_or_else(Vec::new, |choice| job.earlier.sources(choice));
    sources.resize(job.tasks.len(), Arc::new([]));
    let plan = |task: &TaskSetup, sources: Arc<[SourceTask]>| -> anyhow::Result<TaskPlan> {
        if !task.is_searched {
            let nothing = TaskWidths::new(task.name.clone(), Vec::new(), |_| true, |_| String::new());
            return Ok(TaskPlan::new(nothing, Vec::new(), Vec::new(), |_| Ok(Vec::new()))?);
        }
        let prepared = &job.networks[task.network];
        let rules = job.resolved.width_rules(job.scene, prepared.network_index.index);
        let planned = PlannedNetwork::new(prepared, &scene, rules);
        let sensitivities = sensitivities(job, (task.network, weights), &planned)?;
        let mut plan = planned.plan(task, sensitivities)?;
        plan.sources = sources;
        Ok(plan)
    };
    Ok(Some(TaskPlans::new(
        job.tasks.iter().zip(sources).map(|(task, sources)| plan(task, sources)).collect::<Result<_, _>>()?,
    )))
}

/// A network that is planned for.
#[derive(Clone)]
struct PlannedNetwork {
    prepared: Arc<Prepared>,
    scene: Arc<Scene>,
    measured: Vec<bool>,
    rules: WidthRules,
}

impl PlannedNetwork {
    fn new(prepared: &Arc<Prepared>, scene: &Arc<Scene>, rules: WidthRules) -> Self {
        let (groups, graph) = (&prepared.groups, prepared.network.graph());
        let measured = groups.prunable().iter().map(|&group| is_measured(graph, groups, group)).collect();
        Self { prepared: prepared.clone(), scene: scene.clone(), measured, rules }
    }

    fn ranked(&self) -> Ranked<'_> {
        let Prepared { groups, model, paths, .. } = &*self.prepared;
        Ranked { groups, model, paths, measured: &self.measured, rules: &self.rules }
    }

    fn plan(&self, task: &TaskSetup, sensitivities: Vec<Sensitivity>) -> anyhow::Result<TaskPlan> {
        let Prepared { groups, model, network, .. } = &*self.prepared;
        let wall = BudgetWall::new(groups, model.clone(), &self.rules, &task.budget)
            .map_err(|why| anyhow!("a budget that was reachable is not: {why}"))?;
        let widths = task_widths(&task.name, groups, &wall);
        let (order, ranked) = (groups.prunable(), self.ranked());
        let errors = (widths.groups.iter().enumerate())
            .map(|(place, group)| group.allowed.iter().map(|&width| ranked.error(place, width)).collect())
            .collect();
        let (planned, budget) = (self.clone(), task.budget.clone());
        let weights = sensitivities.iter().map(|known| known.weight).collect();
        let powers: Vec<f64> = sensitivities.iter().map(|known| known.power).collect();
        let allocate = move |weights: &[f64]| {
            let weighted = weights.iter().zip(&powers);
            let weights: Vec<Sensitivity> = weighted.map(|(&weight, &power)| Sensitivity { weight, power }).collect();
            let found = planned
                .ranked()
                .allocate(&planned.scene, &weights, std::slice::from_ref(&budget))
                .map_err(|e| format!("{e:#}"))?;
            let of = |&group: &usize| found[0].widths[group];
            Ok(planned.prepared.groups.prunable().iter().map(of).collect())
        };
        let mut plan = TaskPlan::new(widths, errors, weights, allocate)?;
        plan = plan.with_costs(self.choose(task), self.cost_share(&wall));
        if let Some(&CostBound { cost, max }) = wall.limits().first() {
            plan.budget_share = max as f64 / model.count(cost, &groups.full_widths()).max(1) as f64;
        }
        let macs_full = self.prepared.model.count(Cost::Macs, &groups.full_widths()).max(1) as f64;
        plan.looks = self.prepared.shapes.iter().map(|shape| look(shape, macs_full)).collect();
        plan.norms = order.iter().map(|&group| channel_norms(network, groups, group, Norm::L2)).collect();
        plan.even_ratios = even_ratios(&self.scene, &wall, &plan.knapsack);
        plan.shadow_price = shadow_price(&ranked, &wall, &plan.knapsack, &sensitivities);
        Ok(plan)
    }

    /// The widths of least summed loss within the task's budget, of those that are offered.
    fn choose(&self, task: &TaskSetup) -> impl Fn(&[Vec<WidthLoss>]) -> Result<Vec<usize>, String> + use<> {
        let (prepared, budget) = (self.prepared.clone(), task.budget.clone());
        // What costs are formulas of takes longer to find than what they allow.
        let allocator: OnceLock<Result<Allocator, String>> = OnceLock::new();
        move |offered| {
            let Prepared { groups, model, .. } = &*prepared;
            let order = groups.prunable();
            if offered.len() != order.len() {
                return Err(format!("widths of {} groups are offered, expected {}", offered.len(), order.len()));
            }
            let curves: Vec<GroupCurve> = order.iter().zip(offered).map(|(&group, all)| curve(group, all)).collect();
            let costs: Vec<Cost> = budget.iter().map(|bound| bound.cost).collect();
            let nothing = |curve: &GroupCurve| GroupCurve { errors: vec![0.0; curve.errors.len()], ..curve.clone() };
            let begin = || {
                let curves: Vec<GroupCurve> = curves.iter().map(nothing).collect();
                Allocator::new(groups, model, &curves, &costs).map_err(|e| e.to_string())
            };
            let allocator = allocator.get_or_init(begin).as_ref().map_err(Clone::clone)?;
            let limits: Vec<(Cost, u64)> = budget.iter().map(|bound| (bound.cost, bound.max)).collect();
            let found = allocator.least_loss(groups, &curves, &limits).map_err(|e| e.to_string())?;
            Ok(order.iter().map(|&group| found.widths[group]).collect())
        }
    }

    fn cost_share(&self, wall: &BudgetWall) -> impl Fn(&[usize]) -> f64 + use<> {
        let (prepared, wall) = (self.prepared.clone(), wall.clone());
        move |widths| {
            let Some(&CostBound { cost, .. }) = wall.limits().first() else { return 1.0 };
            let mut of_all = wall.least_widths().to_vec();
            wall.order().iter().zip(widths).for_each(|(&group, &width)| of_all[group] = width);
            let Prepared { groups, model, .. } = &*prepared;
            model.count(cost, &of_all) as f64 / model.count(cost, &groups.full_widths()).max(1) as f64
        }
    }
}

/// What is offered for a group.
fn curve(group: GroupId, offered: &[WidthLoss]) -> GroupCurve {
    let (widths, errors) = offered.iter().map(|offer| (offer.width, offer.loss)).unzip();
    GroupCurve { group, widths, errors }
}

/// A group as agents are told of it.
fn look(shape: &GroupShape, macs_full: f64) -> GroupLook {
    let &GroupShape { n, h, w, kernel, stride, macs, .. } = shape;
    GroupLook { n_outputs: n, rows: h, columns: w, kernel, stride, macs_share: macs as f64 / macs_full }
}

/// What every later group can share at each step of a walk that keeps these widths.
fn even_ratios(scene: &Scene, wall: &BudgetWall, widths: &[usize]) -> Vec<f32> {
    let mut trial = wall.least_widths().to_vec();
    let mut ratio = |place: usize| {
        wall.order()[..place].iter().zip(widths).for_each(|(&group, &width)| trial[group] = width);
        wall.even_ratio(&mut trial, place).max(scene.keep_ratio_min as f32)
    };
    (0..widths.len()).map(&mut ratio).collect()
}

/// The largest drop of weighted error that the next width of any group would bring, per unit of the cost.
fn shadow_price(ranked: &Ranked<'_>, wall: &BudgetWall, kept: &[usize], losses: &[Sensitivity]) -> f64 {
    let mut widths = wall.least_widths().to_vec();
    wall.order().iter().zip(kept).for_each(|(&group, &width)| widths[group] = width);
    // Of several bounds the first stands for all: prices of different costs cannot be added up.
    let Some(&CostBound { cost, .. }) = wall.limits().first() else { return 0.0 };
    let before = ranked.model.count(cost, &widths);
    let mut price = |place: usize, group: usize| {
        let width = widths[group];
        let Some(wider) = wall.bounds(place).above(width) else { return 0.0 };
        widths[group] = wider;
        let spent = ranked.model.count(cost, &widths).saturating_sub(before).max(1);
        widths[group] = width;
        let loss = |width: usize| losses[place].loss(ranked.error(place, width));
        (loss(width) - loss(wider)) / spent as f64
    };
    wall.order().iter().enumerate().map(|(place, &group)| price(place, group)).fold(0.0, f64::max)
}

fn sensitivities(job: &Job<'_>, key: ProbeKey, planned: &PlannedNetwork) -> anyhow::Result<Vec<Sensitivity>> {
    let mut known = job.probed.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sensitivities) = known.get(&key) {
        return Ok(sensitivities.clone());
    }
    let ranked = planned.ranked();
    let scores = probe(job, &planned.prepared, &ranked.probes(key.1))?;
    let sensitivities = ranked.sensitivities(key.1, &scores);
    known.insert(key, sensitivities.clone());
    Ok(sensitivities)
}

fn probe(job: &Job<'_>, prepared: &Prepared, probes: &[Vec<usize>]) -> anyhow::Result<Vec<Score>> {
    let images = probe_images(prepared, job.scene);
    let scores = probes.iter().map(|widths| score(&job.pool.0, prepared, &images, widths));
    let what = || format!("probing groups of {} on {}", prepared.network_name, prepared.dataset_name);
    scores.collect::<Result<_, _>>().with_context(what)
}

/// Candidates that are scored for the plan of a task, beside those of its walks.
pub(crate) fn n_probes(prepared: &Prepared, settings: &dyn AgentSettings) -> u64 {
    let per_group = settings.plan_weights().map_or(0, sensitivity::n_probes);
    (per_group * prepared.groups.prunable().len()) as u64
}
