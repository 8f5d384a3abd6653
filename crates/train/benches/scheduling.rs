//! What it costs to bring actors and learner together: `cargo bench -p secateur-train`.
#![allow(clippy::unwrap_used, missing_docs, reason = "benches")]

#[path = "../tests/tiny/mod.rs"]
mod tiny;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::ScheduleLabel;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel::bounded;
use secateur_rl::Unroll;
use secateur_sim::{Prepared, Tick};
use secateur_train::{Executor, Queued, Scheduler, Search};
use tiny::recording::{Recording, Seen, Unsteady};
use tiny::{N_TASKS, Options, TestAgent, pool, prepared, search_on, with_plugin};

/// Trajectories go through the queue and back, so that the same few go round.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("train/queue/cpu");
    group.throughput(Throughput::Elements(1));
    let unroll = Unroll { observation: vec![0.5; 21 * 13], reward: vec![0.0; 20], ..Unroll::default() };
    let (sender, receiver) = bounded(64);
    let mut queued = Some(Queued { ticket: 3, unroll });
    group.bench_function("one_thread", |b| {
        b.iter(|| {
            sender.try_send(queued.take().unwrap()).unwrap();
            queued = Some(receiver.try_recv().unwrap());
        });
    });
}

/// A search whose walks cost nothing but being walked.
fn free(prepared: &Arc<Prepared>, scheduler: Scheduler, executor: Executor, n_actors: usize) -> Search {
    let options = Options {
        scheduler,
        executor,
        n_actors,
        n_walks: u64::MAX / 2,
        ..with_plugin(TestAgent::Uniform, Unsteady::new(0), "\"unsteady\": ()")
    };
    let learner = Recording::new(&Seen::default(), n_actors, 0);
    search_on(prepared, &options, |_| Ok(learner.agent()))
}

/// Ticks of searches without costs of their own, per decision.
fn tick(c: &mut Criterion) {
    let prepared = prepared(&pool(1));
    let mut group = c.benchmark_group("train/tick/cpu");
    for (name, executor) in [("single", Executor::Single), ("multi", Executor::Multi)] {
        for n_actors in [1, 32] {
            let mut search = free(&prepared, Scheduler::Lockstep, executor, n_actors);
            group.throughput(Throughput::Elements((n_actors * N_TASKS) as u64));
            group.bench_function(format!("{name}_A{}", n_actors * N_TASKS), |b| {
                b.iter(|| search.tick().unwrap());
            });
        }
    }
}

/// The tick's schedule around systems that find nothing to do: a world without actors.
fn schedule(c: &mut Criterion) {
    let mut group = c.benchmark_group("train/schedule/cpu");
    let prepared = prepared(&pool(1));
    for (name, executor) in [("single", Executor::Single), ("multi", Executor::Multi)] {
        let mut search = free(&prepared, Scheduler::Lockstep, executor, 1);
        let world = search.world_mut();
        let mut actors = world.query_filtered::<Entity, With<secateur_sim::Actor>>();
        let actors: Vec<Entity> = actors.iter(world).collect();
        for actor in actors {
            assert!(world.despawn(actor));
        }
        group.bench_function(format!("{name}_A0"), |b| b.iter_custom(|n| run(world, Tick, n)));
    }
}

fn run(world: &mut World, label: impl ScheduleLabel + Clone, n: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..n {
        world.run_schedule(label.clone());
    }
    start.elapsed()
}

criterion_group!(benches, queue, tick, schedule);
criterion_main!(benches);
