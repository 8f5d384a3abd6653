//! The networks: agents of one set of weights (fully connected, GRU, fully connected), and the mixer with its
//! hypernetworks.
//!
//! Axes: `R` rows, each an agent at a stage; `N` agents, `B` stages, `A` actions, `S` numbers of the joint state, `E`
//! mixing units.

use candle_core::{Device, Tensor};
use candle_nn::ops::sigmoid;

use crate::error::{During, RlError};
use crate::nn::params::ParamSpec;

/// Sizes of all networks of a team.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TeamShape {
    /// Agents of the largest task, `N`.
    pub(super) n_agents: usize,
    /// `A`.
    pub(super) n_actions: usize,
    /// Numbers that an agent reads.
    pub(super) n_inputs: usize,
    /// Units of the agents' first layer.
    pub(super) n_units: usize,
    /// Recurrent units; 0 for none.
    pub(super) n_gru: usize,
    /// `S`.
    pub(super) n_state: usize,
    /// `E`.
    pub(super) n_mixer: usize,
    /// Units of the hypernetworks.
    pub(super) n_hyper: usize,
    /// Whether there is a mixer.
    pub(super) mixes: bool,
    /// Whether values begin at a prior.
    pub(super) has_prior: bool,
}

/// Gates of a GRU, in the order of their weights: reset, update, new.
const GATES: [&str; 3] = ["reset", "update", "new"];

impl TeamShape {
    /// The weights in order: the agents' first layer (weight `[in, out]`, bias); for each gate of the GRU its input
    /// weight and bias, hidden weight and bias; head; hypernetworks of the first mixing weights and the second, of the
    /// first bias and the last; logarithm of the prior's factor. Spreads are PyTorch's defaults; with a prior the head
    /// begins at zero.
    pub(super) fn specs(&self) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        let mut linear = |name: &str, n_in: usize, n_out: usize, gain: f32| {
            let spread = gain * (n_in as f32).sqrt().recip();
            specs.push(ParamSpec::new(format!("{name}.weight"), &[n_in, n_out], spread));
            specs.push(ParamSpec::new(format!("{name}.bias"), &[n_out], spread));
        };
        linear("agent.first", self.n_inputs, self.n_units, 1.0);
        if self.n_gru > 0 {
            for gate in GATES {
                linear(&format!("agent.gru.{gate}.input"), self.n_units, self.n_gru, 1.0);
                linear(&format!("agent.gru.{gate}.hidden"), self.n_gru, self.n_gru, 1.0);
            }
        }
        let n_last = if self.n_gru > 0 { self.n_gru } else { self.n_units };
        linear("agent.head", n_last, self.n_actions, if self.has_prior { 0.0 } else { 1.0 });
        if self.mixes {
            linear("mixer.first.hyper", self.n_state, self.n_hyper, 1.0);
            linear("mixer.first.weight", self.n_hyper, self.n_agents * self.n_mixer, 1.0);
            linear("mixer.second.hyper", self.n_state, self.n_hyper, 1.0);
            linear("mixer.second.weight", self.n_hyper, self.n_mixer, 1.0);
            linear("mixer.bias", self.n_state, self.n_mixer, 1.0);
            linear("mixer.value.hidden", self.n_state, self.n_mixer, 1.0);
            linear("mixer.value", self.n_mixer, 1, 1.0);
        }
        if self.has_prior {
            specs.push(ParamSpec::new("prior.log_gain", &[1], 0.0));
        }
        specs
    }

    fn n_agent_arrays(&self) -> usize {
        if self.n_gru > 0 { 4 + 4 * GATES.len() } else { 4 }
    }

    /// Hidden state before the first iteration, `[R, G]`; none without a GRU.
    pub(super) fn no_hidden(&self, n_rows: usize) -> Result<Option<Tensor>, RlError> {
        let zeros = || Tensor::zeros((n_rows, self.n_gru), candle_core::DType::F32, &Device::Cpu);
        (self.n_gru > 0).then(zeros).transpose().during("agent network")
    }

    /// Values `[R, A]`, and the hidden state behind them. `inputs` is `[R, I]`, `saved` `[R, A]` what the prior says.
    pub(super) fn values(
        &self,
        weights: &[Tensor],
        read: &AgentInput<'_>,
        hidden: Option<&Tensor>,
    ) -> Result<AgentOutput, RlError> {
        self.values_candle(weights, read, hidden).during("agent network")
    }

    fn values_candle(
        &self,
        weights: &[Tensor],
        read: &AgentInput<'_>,
        hidden: Option<&Tensor>,
    ) -> candle_core::Result<AgentOutput> {
        let inputs = Tensor::from_slice(read.inputs, (read.n_rows, self.n_inputs), &Device::Cpu)?;
        let mut x = linear(&inputs, &weights[..2])?.relu()?;
        let mut next = None;
        if let Some(hidden) = hidden {
            x = gru_step(&x, hidden, &weights[2..2 + 4 * GATES.len()])?;
            next = Some(x.clone());
        }
        let n = self.n_agent_arrays();
        let mut values = linear(&x, &weights[n - 2..n])?;
        if self.has_prior {
            let saved = Tensor::from_slice(read.saved, (read.n_rows, self.n_actions), &Device::Cpu)?;
            values = (values + saved.broadcast_mul(&weights[weights.len() - 1].exp()?)?)?;
        }
        Ok(AgentOutput { values, hidden: next })
    }

    /// What the hypernetworks make of states `[B, S]`; none without a mixer.
    pub(super) fn mixing(&self, weights: &[Tensor], states: &[f32]) -> Result<Option<MixingWeights>, RlError> {
        if !self.mixes {
            return Ok(None);
        }
        self.mixing_candle(&weights[self.n_agent_arrays()..], states).map(Some).during("mixing network")
    }

    fn mixing_candle(&self, weights: &[Tensor], states: &[f32]) -> candle_core::Result<MixingWeights> {
        let n = states.len() / self.n_state;
        let state = Tensor::from_slice(states, (n, self.n_state), &Device::Cpu)?;
        let made = |at: usize| linear(&linear(&state, &weights[at..at + 2])?.relu()?, &weights[at + 2..at + 4]);
        Ok(MixingWeights {
            first: made(0)?.abs()?.reshape((n, self.n_agents, self.n_mixer))?,
            second: made(4)?.abs()?.reshape((n, self.n_mixer, 1))?,
            bias: linear(&state, &weights[8..10])?.reshape((n, 1, self.n_mixer))?,
            value: made(10)?.reshape(n)?,
        })
    }
}

/// What agents read: `[R, I]`, and `[R, A]` of the prior.
pub(super) struct AgentInput<'a> {
    pub(super) n_rows: usize,
    pub(super) inputs: &'a [f32],
    pub(super) saved: &'a [f32],
}

/// What agents say: `[R, A]`, and `[R, G]`.
pub(super) struct AgentOutput {
    pub(super) values: Tensor,
    pub(super) hidden: Option<Tensor>,
}

/// The mixer of each stage: no weight that an agent's value passes is negative.
pub(super) struct MixingWeights {
    /// `[B, N, E]`.
    pub(super) first: Tensor,
    /// `[B, E, 1]`.
    pub(super) second: Tensor,
    /// `[B, 1, E]`.
    pub(super) bias: Tensor,
    /// `[B]`.
    pub(super) value: Tensor,
}

impl MixingWeights {
    /// The team's values `[B]` of the agents' chosen ones `[B, N]`.
    pub(super) fn mix(&self, chosen: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = (chosen.unsqueeze(1)?.matmul(&self.first)? + &self.bias)?.elu(1.0)?;
        hidden.matmul(&self.second)?.flatten_all()? + &self.value
    }

    /// Plain numbers of the mixer of one stage.
    pub(super) fn at(&self, stage: usize) -> Result<StageMixer, RlError> {
        let read = |tensor: &Tensor| {
            tensor.get(stage).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1::<f32>()).during("mixing network")
        };
        Ok(StageMixer { first: read(&self.first)?, second: read(&self.second)?, bias: read(&self.bias)? })
    }
}

/// The mixer at one stage, as plain numbers.
pub(super) struct StageMixer {
    /// `[N, E]`.
    pub(super) first: Vec<f32>,
    /// `[E]`.
    pub(super) second: Vec<f32>,
    /// `[E]`.
    pub(super) bias: Vec<f32>,
}

impl StageMixer {
    /// How fast the team's value rises with each agent's, at these values: never below 0.
    pub(super) fn slopes(&self, values: &[f64]) -> Vec<f64> {
        let n_units = self.second.len();
        let unit_slope = |unit: usize| {
            let weighted =
                values.iter().enumerate().map(|(i, value)| value * f64::from(self.first[i * n_units + unit]));
            let sum = weighted.sum::<f64>() + f64::from(self.bias[unit]);
            f64::from(self.second[unit]) * if sum > 0.0 { 1.0 } else { libm::exp(sum) }
        };
        let of_units: Vec<f64> = (0..n_units).map(unit_slope).collect();
        let of = |i: usize| (0..n_units).map(|unit| of_units[unit] * f64::from(self.first[i * n_units + unit])).sum();
        (0..values.len()).map(of).collect()
    }
}

fn linear(x: &Tensor, weights: &[Tensor]) -> candle_core::Result<Tensor> {
    x.matmul(&weights[0])?.broadcast_add(&weights[1])
}

/// One step of a GRU as PyTorch writes it (Cho and others 2014, the reset gate behind the product): `x` `[R, H]`,
/// `hidden` `[R, G]`.
fn gru_step(x: &Tensor, hidden: &Tensor, weights: &[Tensor]) -> candle_core::Result<Tensor> {
    let input = |gate: usize| linear(x, &weights[4 * gate..4 * gate + 2]);
    let carried = |gate: usize| linear(hidden, &weights[4 * gate + 2..4 * gate + 4]);
    let reset = sigmoid(&(input(0)? + carried(0)?)?)?;
    let update = sigmoid(&(input(1)? + carried(1)?)?)?;
    let new = (input(2)? + (reset * carried(2)?)?)?.tanh()?;
    // (1 - z) n + z h.
    &new + (update * (hidden - &new)?)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::params::Params;
    use crate::rng::RngStream;

    fn tensor(values: &[f32], rows: usize) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
    }

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
    }

    /// One input of 1, one unit that was 0.5. Reset: sigmoid(0.2 + 0.4 * 0.5 + 0.1) = sigmoid(0.5) = 0.622459; update:
    /// sigmoid(-0.3 + 0.6 * 0.5) = 0.5; new: tanh(0.7 + 0.622459 * (0.8 * 0.5 + 0.1)) = tanh(1.011230) = 0.766272;
    /// next: 0.5 * 0.766272 + 0.5 * 0.5.
    #[test]
    fn the_gru_follows_its_equations() {
        let pair = |weight: f32, bias: f32| [tensor(&[weight], 1), row(&[bias])];
        let weights: Vec<Tensor> =
            [pair(0.2, 0.1), pair(0.4, 0.0), pair(-0.3, 0.0), pair(0.6, 0.0), pair(0.7, 0.0), pair(0.8, 0.1)]
                .into_iter()
                .flatten()
                .collect();
        let next = gru_step(&tensor(&[1.0], 1), &tensor(&[0.5], 1), &weights).unwrap();
        let got = next.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((got - 0.633_136).abs() < 1e-5, "{got}");
    }

    fn shape() -> TeamShape {
        TeamShape {
            n_agents: 3,
            n_actions: 2,
            n_inputs: 4,
            n_units: 5,
            n_gru: 0,
            n_state: 6,
            n_mixer: 4,
            n_hyper: 5,
            mixes: true,
            has_prior: false,
        }
    }

    /// Whatever the weights, state and values: raising one agent's value does not lower the team's, and the slopes that
    /// the joint action is chosen by are those of the mixer.
    #[test]
    fn the_teams_value_never_falls_when_an_agents_rises() {
        let shape = shape();
        let mut n_rises = 0;
        for seed in 0..200 {
            let mut params = Params::new(shape.specs(), seed);
            // Weights of all sizes, not only those of the start.
            let gain = [1.0, 5.0][seed as usize % 2];
            params.values_mut().iter_mut().for_each(|weight| *weight *= gain);
            let mut rng = RngStream::new(seed, 1, 2, 3);
            let mut draw = |n: usize| (0..n).map(|_| 2.0 * rng.normal() as f32).collect::<Vec<f32>>();
            let (state, values, rise) = (draw(6), draw(3), draw(1)[0].abs());
            let mixer = shape.mixing(&params.tensors().unwrap(), &state).unwrap().unwrap();
            let team = |values: &[f32]| mixer.mix(&tensor(values, 1)).unwrap().to_vec1::<f32>().unwrap()[0];
            let before = team(&values);
            let of_values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
            let slopes = mixer.at(0).unwrap().slopes(&of_values);
            for agent in 0..3 {
                let at = |step: f32| {
                    let mut moved = values.clone();
                    moved[agent] += step;
                    team(&moved)
                };
                let tolerance = 1e-5 * before.abs().max(1.0);
                assert!(at(rise) >= before - tolerance, "seed {seed}, agent {agent}");
                n_rises += usize::from(at(rise) > before + tolerance);
                assert!(slopes[agent] >= 0.0);
                let slope = f64::from(at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (slopes[agent] - slope).abs() < 0.02 * slope.abs() + 0.02 * f64::from(gain),
                    "{slopes:?}, {slope}"
                );
            }
        }
        assert!(n_rises > 400, "values must matter: {n_rises} of 600");
    }

    /// Two agents, one unit: weights |-0.5| and 2, bias -1.5, second |-3|, value 0.25. Of values 1 and 0.25 the sum is
    /// -0.5, elu(-0.5) = -0.393469; of 1 and 1 it is 1.
    #[test]
    fn the_mixer_is_the_published_formula() {
        let mixer = MixingWeights {
            first: Tensor::from_slice(&[0.5f32, 2.0], (1, 2, 1), &Device::Cpu).unwrap(),
            second: Tensor::from_slice(&[3.0f32], (1, 1, 1), &Device::Cpu).unwrap(),
            bias: Tensor::from_slice(&[-1.5f32], (1, 1, 1), &Device::Cpu).unwrap(),
            value: row(&[0.25]),
        };
        let team = |values: [f32; 2]| mixer.mix(&tensor(&values, 1)).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((team([1.0, 0.25]) - (0.25 - 3.0 * 0.393_469)).abs() < 1e-5);
        assert!((team([1.0, 1.0]) - 3.25).abs() < 1e-6);
        let slopes = mixer.at(0).unwrap().slopes(&[1.0, 0.25]);
        // exp(-0.5) = 0.606531, times 3, times 0.5 and 2.
        assert!((slopes[0] - 0.909_796).abs() < 1e-5 && (slopes[1] - 3.639_184).abs() < 1e-5, "{slopes:?}");
        assert_eq!(mixer.at(0).unwrap().slopes(&[1.0, 1.0]), [1.5, 6.0]);
    }
}
