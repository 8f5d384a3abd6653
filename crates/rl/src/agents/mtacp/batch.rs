//! Unrolls as arrays of the network: time-major, padded to the longest.

use super::frame::{Deciding, Frame};
use super::net::NetInput;
use crate::error::RlError;
use crate::unroll::Unroll;

/// Unrolls side by side, `[T+1, B]`.
pub(super) struct UnrollBatch<'a> {
    pub(super) unrolls: Vec<&'a Unroll>,
    pub(super) input: NetInput,
    /// Steps of each unroll, `[B]`.
    pub(super) n_steps: Vec<usize>,
}

impl<'a> UnrollBatch<'a> {
    pub(super) fn new(frame: &Frame, unrolls: Vec<&'a Unroll>) -> Result<Self, RlError> {
        let n_steps: Vec<usize> = unrolls.iter().map(|unroll| unroll.n_steps()).collect();
        let longest = n_steps.iter().copied().max().unwrap_or(0);
        let n_recurrent = frame.net.n_recurrent();
        let mut input = NetInput { n_steps: longest + 1, n_batch: unrolls.len(), ..NetInput::default() };
        for t in 0..=longest {
            for unroll in &unrolls {
                push_step(frame, &mut input, unroll, t)?;
            }
        }
        for unroll in &unrolls {
            if unroll.first_recurrent.is_empty() {
                input.first_recurrent.resize(input.first_recurrent.len() + n_recurrent, 0.0);
            } else {
                input.first_recurrent.extend(frame.lstm_state("unroll", "first_recurrent", &unroll.first_recurrent)?);
            }
        }
        Ok(Self { unrolls, input, n_steps })
    }

    /// Place of step `t` of unroll `b` in arrays `[T+1, B]`.
    pub(super) fn index(&self, t: usize, b: usize) -> usize {
        t * self.unrolls.len() + b
    }

    /// Elements of arrays `[T+1, B]`.
    pub(super) fn len(&self) -> usize {
        self.input.n_steps * self.unrolls.len()
    }

    /// Scatters per-unroll values into `[T+1, B]`, 0 elsewhere.
    pub(super) fn spread(&self, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let mut spread = vec![0.0; self.len()];
        for (b, &n_steps) in self.n_steps.iter().enumerate() {
            for t in 0..n_steps {
                spread[self.index(t, b)] = value(t, b);
            }
        }
        spread
    }
}

/// What is decided at step `t` of an unroll.
pub(super) fn deciding(unroll: &Unroll, t: usize) -> Deciding {
    Deciding { task: unroll.task, layer: unroll.layer[t], even_ratio: unroll.even_ratio[t] }
}

fn push_step(frame: &Frame, input: &mut NetInput, unroll: &Unroll, t: usize) -> Result<(), RlError> {
    let n_steps = unroll.n_steps();
    if t > n_steps {
        input.features.resize(input.features.len() + frame.net.n_inputs, 0.0);
        input.last.extend([0.0, 0.0]);
        input.table_row.push(0);
        input.keep_state.push(1.0);
        return Ok(());
    }
    let observation = &unroll.observation[t * frame.n_features..(t + 1) * frame.n_features];
    frame.push_features(&mut input.features, observation, deciding(unroll, t));
    input.last.extend([unroll.last_action[t], unroll.last_reward[t]]);
    // The step after the last may describe a walk that does not exist.
    input.table_row.push(if t < n_steps { frame.table_row(unroll.task, unroll.layer[t])? } else { 0 });
    input.keep_state.push(if unroll.starts_walk[t] { 0.0 } else { 1.0 });
    Ok(())
}
