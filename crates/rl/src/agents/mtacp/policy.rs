//! The acting half of MTACP.

use std::sync::Arc;

use candle_core::Tensor;

use super::frame::{Deciding, Frame, PLANNED_LOG_PROB, VARIANCE_MIN};
use super::net::{NetInput, forward};
use super::settings::SigmaRule;
use crate::agents::planned_walks::PlannedWalks;
use crate::error::{During, RlError, check_finite, check_length};
use crate::interface::{ActRequest, Decision, Policy};
use crate::nn::gaussian::{log_prob, softplus};
use crate::rng::RngStream;

/// Rows per pass of the network. Batches are cut and padded to it, so that a matrix product has one shape and
/// a decision's last bit does not depend on how many actors share the tick.
const ROWS: usize = 16;

/// A published policy.
pub(super) struct MtacpPolicy {
    pub(super) version: u64,
    pub(super) frame: Arc<Frame>,
    pub(super) weights: Vec<Tensor>,
    /// Standard deviation under [`SigmaRule::Annealed`].
    pub(super) sigma: f32,
    pub(super) planned: PlannedWalks,
}

const fn deciding(request: &ActRequest) -> Deciding {
    Deciding { task: request.task, layer: request.layer, even_ratio: request.even_ratio }
}

impl Policy for MtacpPolicy {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let mut decisions = Vec::with_capacity(batch.len());
        for rows in batch.chunks(ROWS) {
            self.act_rows(rows, &mut decisions)?;
        }
        Ok(decisions)
    }
}

impl MtacpPolicy {
    fn act_rows(&self, rows: &[ActRequest], decisions: &mut Vec<Decision>) -> Result<(), RlError> {
        let input = self.input(rows)?;
        let output = forward(&self.frame.net, &self.weights, &input)?;
        let read = |tensor: &Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).during("read decisions");
        let (mean, spread, value) = (read(&output.mean)?, read(&output.spread)?, read(&output.value)?);
        let recurrent = match &output.recurrent {
            Some([h, c]) => Some([read(h)?, read(c)?]),
            None => None,
        };
        let n_hidden = self.frame.net.n_hidden;
        for (row, request) in rows.iter().enumerate() {
            let sigma = match self.frame.settings.sigma {
                SigmaRule::Learned => (softplus(spread[row]) + VARIANCE_MIN).sqrt(),
                SigmaRule::Annealed { .. } => self.sigma,
            };
            let state = row * n_hidden..(row + 1) * n_hidden;
            let state_of = |[h, c]: &[Vec<f32>; 2]| [&h[state.clone()], &c[state.clone()]].concat();
            let mut next_recurrent = recurrent.as_ref().map_or_else(Vec::new, state_of);
            let plan = self.plan(request)?;
            let (keep_ratio, raw_action, log_prob) = match plan.get(request.layer as usize) {
                Some(&ratio) => (ratio, self.frame.raw_action(ratio, deciding(request)), PLANNED_LOG_PROB),
                None => {
                    let explores = request.explore && !self.frame.keeps_plan(request.walk);
                    let raw_action = if explores { mean[row] + sigma * self.noise(request) } else { mean[row] };
                    let keep_ratio = self.frame.keep_ratio(raw_action, deciding(request));
                    (keep_ratio, raw_action, log_prob(raw_action, mean[row], sigma))
                }
            };
            next_recurrent.extend(plan);
            let decision = Decision { keep_ratio, raw_action, log_prob, value: value[row], recurrent: next_recurrent };
            check_finite("act", "decision", &[decision.raw_action, decision.log_prob, decision.value])?;
            decisions.push(decision);
        }
        Ok(())
    }

    /// The keep ratios of the walk if it is planned, else none: drawn before its first layer, then carried along behind
    /// the LSTM's state.
    fn plan(&self, request: &ActRequest) -> Result<Vec<f32>, RlError> {
        if request.layer == 0 {
            return Ok(self.planned.draw(request)?.unwrap_or_default());
        }
        Ok(request.recurrent.get(self.frame.net.n_recurrent()..).unwrap_or_default().to_vec())
    }

    fn noise(&self, request: &ActRequest) -> f32 {
        let (task, layer) = (u64::from(request.task), u64::from(request.layer));
        RngStream::new(self.frame.seed, task, request.walk, layer).normal() as f32
    }

    fn input(&self, rows: &[ActRequest]) -> Result<NetInput, RlError> {
        let frame = &self.frame;
        let n_recurrent = frame.net.n_recurrent();
        let mut input = NetInput { n_steps: 1, n_batch: ROWS, keep_state: vec![1.0; ROWS], ..NetInput::default() };
        for request in rows {
            check_length("act", "observation", frame.n_features, request.observation.len())?;
            check_finite("act", "observation", &request.observation)?;
            check_finite(
                "act",
                "even_ratio, last_action, last_reward",
                &[request.even_ratio, request.last_action, request.last_reward],
            )?;
            frame.push_features(&mut input.features, &request.observation, deciding(request));
            input.last.extend([request.last_action, request.last_reward]);
            input.table_row.push(frame.table_row(request.task, request.layer)?);
            if request.recurrent.is_empty() {
                input.first_recurrent.resize(input.first_recurrent.len() + n_recurrent, 0.0);
            } else {
                check_finite("act", "recurrent", &request.recurrent)?;
                input.first_recurrent.extend(frame.lstm_state("act", "recurrent", &request.recurrent)?);
            }
        }
        input.features.resize(ROWS * frame.net.n_inputs, 0.0);
        input.last.resize(ROWS * 2, 0.0);
        input.table_row.resize(ROWS, 0);
        input.first_recurrent.resize(ROWS * n_recurrent, 0.0);
        Ok(input)
    }
}
