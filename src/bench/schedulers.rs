//! `bench schedulers`: every scheduler on the same work.

use std::sync::Arc;

use secateur_run::{RunSpec, check, thread_pool};
use secateur_sim::Pool;

use super::arguments::BenchSchedulersArgs;
use super::environment::{Environment, Wanted, Which};
use super::measure::measure;
use super::report::{Report, table};
use super::{json, queue};
use crate::additions::Additions;
use crate::{Failure, screen};

/// Trajectories through the queue by itself.
const N_QUEUED: u64 = 500_000;

pub(crate) fn schedulers(arguments: &BenchSchedulersArgs, additions: &Additions) -> Result<(), Failure> {
    let pool = Pool(Arc::new(thread_pool(arguments.threads.threads)?));
    let read = arguments
        .spec()
        .map(|spec| check(&RunSpec { agents: additions.agents.clone(), ..spec }, &additions.plugins))
        .transpose()?;
    let wanted = Wanted::of(arguments, read.as_ref().map(|(scene, _)| scene));
    let environment = match &read {
        Some((scene, resolved)) => Environment::of_scene((scene, resolved), &additions.plugins, &wanted, pool)?,
        None => Environment::synthetic(arguments, &wanted, pool)?,
    };
    let is_synthetic = read.is_none();
    let mut report = Report {
        environment: environment.name.clone(),
        score_ms: is_synthetic.then_some(arguments.score_ms),
        learn_ms: is_synthetic.then_some(arguments.score_ms * arguments.learn_share),
        threads: environment.pool.0.current_num_threads(),
        queue_capacity: wanted.queue_capacity,
        queue_trajectories_per_s: queue::trajectories_per_s(wanted.queue_capacity, N_QUEUED)?,
        runs: Vec::new(),
    };
    for &actors_per_task in &wanted.actors {
        for &scheduler in &wanted.schedulers {
            for &executor in &wanted.executors {
                screen::status(format!("{} with {actors_per_task} actors per task", scheduler.name()));
                let which = Which { scheduler, executor, actors_per_task };
                report.runs.push(measure(&environment, which, wanted.walks)?);
            }
        }
    }
    json::write(arguments.json.as_deref(), &report)?;
    Ok(screen::result(table(&report))?)
}
