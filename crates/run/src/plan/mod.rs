//! The widths of least layer error for every task of a scene, without a search: error curves, an exact knapsack, one
//! candidate for each budget to tell what to expect.

pub(crate) mod allocate;
pub(crate) mod curves;
pub(crate) mod measured;
pub(crate) mod planner;
pub(crate) mod ranking;
pub(crate) mod report;
pub(crate) mod saved;
pub(crate) mod sensitivity;
pub(crate) mod task_plans;

use secateur_rl::ErrorWeights;
use secateur_sim::PluginList;

use crate::error::RunError;
use crate::observer::Observer;
use crate::prepare::{self, Computes, NetworkOnData};
use crate::reporter::Reporter;
use crate::spec::RunSpec;
use crate::threads::thread_pool;
use crate::{check, say_inputs};
use planner::{PlanInputs, Planner};
use report::{PlanReport, TaskOf};

/// Plans every task of a scene: its widths, their exact cost, the layer error that they make, and the accuracy to
/// expect of them. Nothing is searched and nothing is written but the cache: error curves and scores are kept for the
/// next time.
///
/// # Errors
/// As [`crate::run`], before anything is computed; activations that are not finite.
pub fn plan(
    spec: &RunSpec,
    weights: ErrorWeights,
    plugins: &PluginList,
    observer: &mut dyn Observer,
) -> Result<PlanReport, RunError> {
    let (scene, resolved) = check(spec, plugins)?;
    let pool = thread_pool(spec.threads)?;
    let mut reporter = Reporter::new(observer);
    say_inputs(&scene, &resolved, &mut reporter);
    let tasks = prepare::tasks(&scene, &resolved);
    let mut report = PlanReport::new(&scene, weights);
    for pair in prepare::pairs(&scene) {
        let inputs = prepare::inputs((&scene, plugins), &resolved, Computes { pool: &pool, card: None }, pair)?;
        let rules = resolved.width_rules(&scene, pair.network);
        let mut planner = Planner::new(&pool, &scene, PlanInputs { inputs, rules }, &mut reporter)?;
        let of_pair = || (0..tasks.len()).filter(|&task| NetworkOnData::of(&scene.tasks[task]) == pair);
        let searched: Vec<usize> = of_pair().filter(|&task| tasks[task].is_searched).collect();
        let budgets: Vec<_> = searched.iter().map(|&task| tasks[task].budget.clone()).collect();
        let planned = planner.plan(&budgets, weights, &mut reporter)?;
        for task in of_pair() {
            let place = searched.iter().position(|&searched| searched == task);
            let original = &resolved.networks[pair.network].original;
            let of = TaskOf { scene: &scene, task, budget: &resolved.budgets[task], original };
            report.add(&of, &planner, place.map(|at| &planned[at]));
        }
        planner.save();
    }
    reporter.end();
    // The scene's order.
    report.tasks.sort_by_key(|planned| scene.tasks.iter().position(|task| task.name == planned.name));
    Ok(report)
}
