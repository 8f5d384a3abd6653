//! An agent in under 100 lines of code: evolution over offsets of the even keep ratio, one plan per walk.
//! `cargo run --release --example evolution -- run scenes/quickstart.ron --set 'agent=Mutation(population: 4)'`

use std::sync::Arc;

use secateur::rl::nn::squash::Squash::AroundEven;
use secateur::rl::{ActRequest, Decision, LearnReport, Learner, Policy, RlError, Unroll, rng::RngStream};
use secateur::rl::{Agent, AgentEntry, AgentKind, AgentSettings, BadSetting, EnvironmentSpec, RangeCheck};
use serde::{Deserialize, Serialize};

/// The settings in the scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mutation {
    /// Best walks of a task, from which later ones are bred; walks between two generations.
    population: usize,
    /// Standard deviation of a mutation, in logits of the keep ratio.
    sigma: f32,
}
impl Default for Mutation {
    fn default() -> Self {
        Self { population: 8, sigma: 0.3 }
    }
}
impl AgentKind for Mutation {
    const ENTRY: AgentEntry = AgentEntry::learning("Mutation", "mutation", "mutates the best plans of keep ratios");
}
impl AgentSettings for Mutation {
    fn check(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        ranges.count("population", self.population, 1..=1000);
        ranges.positive("sigma", self.sigma, 10.0);
        ranges.finish()
    }
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        let (settings, environment, best) = (self.clone(), *environment, vec![Vec::new(); environment.n_tasks]);
        Ok(Agent::Learning(Box::new(Generation { settings, environment, n_updates: 0, best })))
    }
}

/// Rewards and plans (an offset for every group) of each task's best walks, best first. Learner and policy alike.
#[derive(Clone)]
struct Generation {
    settings: Mutation,
    environment: EnvironmentSpec,
    n_updates: u64,
    best: Vec<Vec<(f32, Vec<f32>)>>,
}
impl Policy for Generation {
    fn version(&self) -> u64 {
        self.n_updates
    }
    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let mut plan = request.recurrent.clone();
            if request.layer == 0 {
                // All of it is drawn here, so that a newer generation does not change it on the way.
                let best = &self.best[request.task as usize];
                let (place, sigma) =
                    if request.explore { (request.walk as usize, self.settings.sigma) } else { (0, 0.0) };
                let parent = best.get(place % best.len().max(1));
                plan = parent.map_or(vec![0.0; request.n_layers as usize], |(_, plan)| plan.clone());
                let mut rng = RngStream::new(self.environment.seed, request.task.into(), request.walk, 0);
                plan.iter_mut().for_each(|offset| *offset += sigma * rng.normal() as f32);
            }
            let raw_action = plan[request.layer as usize];
            let keep_ratio = AroundEven.keep_ratio(raw_action, request.even_ratio, self.environment.keep_ratio_min);
            Decision { keep_ratio, raw_action, recurrent: plan, ..Decision::default() }
        };
        Ok(batch.iter().map(decide).collect())
    }
}

impl Learner for Generation {
    fn unroll_length(&self, walk_length: usize) -> usize {
        walk_length
    }
    fn batch_size(&self) -> usize {
        self.settings.population
    }
    fn policy(&self) -> Arc<dyn Policy> {
        Arc::new(self.clone())
    }
    fn n_updates(&self) -> u64 {
        self.n_updates
    }
    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        batch.iter().try_for_each(|unroll| unroll.check(self.environment.n_features))?;
        for unroll in batch {
            let best = &mut self.best[unroll.task as usize];
            best.push((unroll.reward.iter().sum(), unroll.raw_action.clone()));
            best.sort_by(|a, b| b.0.total_cmp(&a.0));
            best.truncate(self.settings.population);
        }
        self.n_updates += 1;
        let best = self.best.iter().filter_map(|walks| walks.first()).map(|(reward, _)| f64::from(*reward));
        Ok(LearnReport { numbers: vec![("best_reward_mean", best.sum::<f64>() / self.best.len() as f64)] })
    }
    fn save(&self) -> Result<Vec<u8>, RlError> {
        serde_json::to_vec(&(self.n_updates, &self.best)).map_err(RlError::state)
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        Ok((self.n_updates, self.best) = serde_json::from_slice(bytes).map_err(RlError::state)?)
    }
}

fn main() -> std::process::ExitCode {
    secateur::cli().add_agent::<Mutation>().run()
}
