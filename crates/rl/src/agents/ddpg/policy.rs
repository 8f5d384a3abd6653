//! The acting half of DDPG.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::frame::{CENTRE, Choice, DdpgFrame};
use super::net::{actor, critic};
use super::noise::truncated_normal;
use super::settings::ActionRule;
use crate::agents::planned_walks::PlannedWalks;
use crate::error::{During, RlError, check_finite};
use crate::interface::{ActRequest, Decision, Policy};
use crate::rng::RngStream;

/// Rows per pass of the network. Batches are cut and padded to it, so that a decision's last bit does not depend on how
/// many actors share the tick.
const ROWS: usize = 16;

/// What a policy has of one search.
pub(super) struct SearchPolicy {
    pub(super) actor: Vec<Tensor>,
    pub(super) critic: Vec<Tensor>,
    /// Whether nothing was learned yet.
    pub(super) warms_up: bool,
    /// Standard deviation of the noise.
    pub(super) sigma: f32,
}

/// A published policy.
pub(super) struct DdpgPolicy {
    pub(super) version: u64,
    pub(super) frame: Arc<DdpgFrame>,
    /// One for each search.
    pub(super) searches: Vec<SearchPolicy>,
    pub(super) planned: PlannedWalks,
}

impl Policy for DdpgPolicy {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let mut of_searches: Vec<Vec<usize>> = vec![Vec::new(); self.searches.len()];
        for (place, request) in batch.iter().enumerate() {
            of_searches[self.frame.search_of(request.task)?].push(place);
        }
        let mut decisions = vec![Decision::default(); batch.len()];
        for (search, places) in self.searches.iter().zip(&of_searches) {
            for places in places.chunks(ROWS) {
                let rows: Vec<&ActRequest> = places.iter().map(|&place| &batch[place]).collect();
                for (&place, decision) in places.iter().zip(self.act_rows(search, &rows)?) {
                    decisions[place] = decision;
                }
            }
        }
        Ok(decisions)
    }
}

impl DdpgPolicy {
    fn act_rows(&self, search: &SearchPolicy, rows: &[&ActRequest]) -> Result<Vec<Decision>, RlError> {
        let n_features = self.frame.sizes.n_features;
        let mut features = Vec::with_capacity(ROWS * n_features);
        for request in rows {
            self.frame.push_features(&mut features, &request.observation, choice(request))?;
        }
        features.resize(ROWS * n_features, 0.0);
        let means = Tensor::from_slice(&features, (ROWS, n_features), &Device::Cpu)
            .and_then(|features| actor(&search.actor, &features)?.to_vec1::<f32>())
            .during("actor")?;
        let decide = |row: usize| {
            let (request, mean) = (rows[row], means[row]);
            check_finite("act", "action", &[mean])?;
            let recurrent = self.plan(request)?;
            if let Some(&keep_ratio) = recurrent.get(request.layer as usize) {
                let raw_action = self.frame.action(keep_ratio, choice(request));
                return Ok(Decision { keep_ratio, raw_action, recurrent, ..Decision::default() });
            }
            let action = self.action(search, request, mean, &features[row * n_features..(row + 1) * n_features])?;
            let keep_ratio = self.frame.keep_ratio(action, choice(request));
            Ok(Decision { keep_ratio, raw_action: action, ..Decision::default() })
        };
        (0..rows.len()).map(decide).collect()
    }

    /// The keep ratios of the walk if it is planned, else none: drawn before its first group, then carried along.
    fn plan(&self, request: &ActRequest) -> Result<Vec<f32>, RlError> {
        if request.layer == 0 {
            return Ok(self.planned.draw(request)?.unwrap_or_default());
        }
        check_finite("act", "recurrent", &request.recurrent)?;
        Ok(request.recurrent.clone())
    }

    /// The action of a decision whose actor says `mean`.
    fn action(&self, search: &SearchPolicy, request: &ActRequest, mean: f32, features: &[f32]) -> Result<f32, RlError> {
        let settings = &self.frame.settings;
        if request.explore && self.frame.keeps_plan(request.walk) {
            return Ok(CENTRE);
        }
        let (task, layer) = (u64::from(request.task), u64::from(request.layer));
        let mut rng = RngStream::new(self.frame.environment.seed, task, request.walk, layer);
        if !request.explore {
            return self.best_of_beam(search, mean, features, &mut rng);
        }
        if search.warms_up && settings.action == ActionRule::KeepRatio {
            return Ok(rng.uniform() as f32);
        }
        Ok(truncated_normal(mean, search.sigma, &mut rng))
    }

    /// Of the actor's action and others near it, the one that the critic values most.
    fn best_of_beam(
        &self,
        search: &SearchPolicy,
        mean: f32,
        features: &[f32],
        rng: &mut RngStream,
    ) -> Result<f32, RlError> {
        let settings = &self.frame.settings;
        // A critic that has learned nothing prefers anything.
        let n = if search.warms_up { 1 } else { settings.beam };
        if n == 1 {
            return Ok(mean);
        }
        let mut actions = vec![mean];
        actions.extend((1..n).map(|_| truncated_normal(mean, settings.beam_sigma, rng)));
        let values = Tensor::from_slice(&features.repeat(n), (n, features.len()), &Device::Cpu)
            .and_then(|features| {
                let actions = Tensor::from_slice(&actions, n, &Device::Cpu)?;
                critic(&search.critic, &features, &actions)?.to_vec1::<f32>()
            })
            .during("critic")?;
        check_finite("act", "value", &values)?;
        let best = (0..n).fold(0, |best, i| if values[i] > values[best] { i } else { best });
        Ok(actions[best])
    }
}

const fn choice(request: &ActRequest) -> Choice {
    Choice { task: request.task, layer: request.layer, even_ratio: request.even_ratio }
}
