//! Keep ratios drawn at random: what any agent must beat.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec};
use crate::error::RlError;
use crate::interface::{ActRequest, Decision, Policy};
use crate::rng::RngStream;

/// Settings of [`Random`]: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomSettings {}

impl AgentSettings for RandomSettings {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        let EnvironmentSpec { keep_ratio_min, seed, .. } = *environment;
        Ok(Agent::Fixed(Arc::new(Random { keep_ratio_min, seed })))
    }
}

impl AgentKind for RandomSettings {
    const ENTRY: AgentEntry = AgentEntry {
        name: "Random",
        word: "random",
        about: "keep ratios drawn at random",
        learns: false,
        shows_policy: false,
        candidates: Some(100),
    };
}

/// Keep ratios drawn evenly from [`keep_ratio_min`, 1]; without exploration, the middle of it.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Least keep ratio.
    pub keep_ratio_min: f32,
    /// Seed of the run.
    pub seed: u64,
}

impl Policy for Random {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let mut rng = RngStream::new(self.seed, request.task.into(), request.walk, request.layer.into());
            let place = if request.explore { rng.uniform() as f32 } else { 0.5 };
            let keep_ratio = (self.keep_ratio_min + (1.0 - self.keep_ratio_min) * place).min(1.0);
            Decision { keep_ratio, raw_action: keep_ratio, ..Decision::default() }
        };
        Ok(batch.iter().map(decide).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_fills_the_range_and_repeats() {
        let policy = Random { keep_ratio_min: 0.2, seed: 3 };
        let requests: Vec<ActRequest> =
            (0..500).map(|walk| ActRequest { walk, explore: true, ..ActRequest::default() }).collect();
        let ratios: Vec<f32> = policy.act(&requests).unwrap().iter().map(|d| d.keep_ratio).collect();
        assert!(ratios.iter().all(|r| (0.2..=1.0).contains(r)));
        let mean = ratios.iter().sum::<f32>() / 500.0;
        assert!((mean - 0.6).abs() < 0.03, "{mean}");
        assert_eq!(policy.act(&requests[7..8]).unwrap()[0].keep_ratio, ratios[7]);
    }
}
