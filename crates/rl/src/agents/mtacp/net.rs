//! The actor-critic network of MTACP: fully connected trunk, LSTM, three heads. Without LSTM units the heads read what
//! the LSTM would: the trunk's output, last action and last reward.
//!
//! Axes: `T` steps, `B` unrolls, `F` inputs, `H` LSTM units. The recurrent state of a row is `[2H]`: h, then c.

use candle_core::{D, Device, Tensor};

use crate::error::{During, RlError};
use crate::nn::params::ParamSpec;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetShape {
    /// Inputs of the trunk, `F`.
    pub n_inputs: usize,
    /// Units of the trunk's layers, each followed by ReLU.
    pub trunk: Vec<usize>,
    /// LSTM units, `H`; 0 for no LSTM.
    pub n_hidden: usize,
    /// Rows of the table added to the mean, one per (task, layer); 0 for none.
    pub n_table: usize,
    /// Factor on the table: it learns this many times faster than the rest.
    pub table_gain: f64,
    /// Whether the mean's weights start at zero, so that the first mean is 0 everywhere.
    pub zero_mean: bool,
}

impl NetShape {
    /// Floats of one row's recurrent state.
    pub fn n_recurrent(&self) -> usize {
        2 * self.n_hidden
    }

    /// The weights in order: trunk (weight `[in, out]`, bias), LSTM (input and hidden weights, bias; gates in the
    /// order input, forget, cell, output) if there is one, heads mean, spread and value (`[H, 1]`, bias), table.
    /// Spreads are PyTorch's defaults.
    pub fn specs(&self) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        let mut n_in = self.n_inputs;
        for (i, &n_out) in self.trunk.iter().enumerate() {
            let spread = (n_in as f32).sqrt().recip();
            specs.push(ParamSpec::new(format!("trunk.{i}.weight"), &[n_in, n_out], spread));
            specs.push(ParamSpec::new(format!("trunk.{i}.bias"), &[n_out], spread));
            n_in = n_out;
        }
        let n_hidden = if self.n_hidden == 0 { n_in + 2 } else { self.n_hidden };
        let spread = (n_hidden as f32).sqrt().recip();
        if self.n_hidden > 0 {
            specs.push(ParamSpec::new("lstm.input", &[n_in + 2, 4 * n_hidden], spread));
            specs.push(ParamSpec::new("lstm.hidden", &[n_hidden, 4 * n_hidden], spread));
            specs.push(ParamSpec::new("lstm.bias", &[4 * n_hidden], spread));
        }
        for head in ["mean", "spread", "value"] {
            let spread = if head == "mean" && self.zero_mean { 0.0 } else { spread };
            specs.push(ParamSpec::new(format!("{head}.weight"), &[n_hidden, 1], spread));
            specs.push(ParamSpec::new(format!("{head}.bias"), &[1], spread));
        }
        if self.n_table > 0 {
            specs.push(ParamSpec::new("table", &[self.n_table, 1], 0.0));
        }
        specs
    }
}

/// One pass's input, row-major.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetInput {
    pub(crate) n_steps: usize,
    pub(crate) n_batch: usize,
    /// `[T, B, F]`.
    pub(crate) features: Vec<f32>,
    /// Last action and last reward, `[T, B, 2]`.
    pub(crate) last: Vec<f32>,
    /// Row of the table, `[T, B]`; not read without a table.
    pub(crate) table_row: Vec<u32>,
    /// 0 where the recurrent state is zeroed before the step, else 1, `[T, B]`.
    pub(crate) keep_state: Vec<f32>,
    /// Recurrent state before the first step, `[B, 2H]`.
    pub(crate) first_recurrent: Vec<f32>,
}

/// One pass's output; heads are `[T*B]`.
pub(crate) struct NetOutput {
    /// Mean of the raw action.
    pub(crate) mean: Tensor,
    /// Free parameter of its spread.
    pub(crate) spread: Tensor,
    /// Value.
    pub(crate) value: Tensor,
    /// `h` and `c` after the last step, `[B, H]` each; none without LSTM.
    pub(crate) recurrent: Option<[Tensor; 2]>,
}

/// Runs the network over `[T, B]`; `weights` in the order of [`NetShape::specs`].
pub(crate) fn forward(shape: &NetShape, weights: &[Tensor], input: &NetInput) -> Result<NetOutput, RlError> {
    forward_candle(shape, weights, input).during("network forward")
}

fn forward_candle(shape: &NetShape, weights: &[Tensor], input: &NetInput) -> candle_core::Result<NetOutput> {
    let (lstm, heads) = weights[2 * shape.trunk.len()..].split_at(if shape.n_hidden > 0 { 3 } else { 0 });
    let (outputs, recurrent) = match lstm {
        [] => ((0..input.n_steps).map(|t| head_input(shape, weights, input, t)).collect::<Result<_, _>>()?, None),
        lstm => unrolled(shape, weights, lstm, input)?,
    };
    let hidden = Tensor::cat(&outputs, 0)?;
    let weight = Tensor::cat(&[&heads[0], &heads[2], &heads[4]], 1)?;
    let bias = Tensor::cat(&[&heads[1], &heads[3], &heads[5]], 0)?;
    let values = hidden.matmul(&weight)?.broadcast_add(&bias)?;
    let head = |i: usize| values.narrow(1, i, 1)?.squeeze(D::Minus1);
    let mut mean = head(0)?;
    if shape.n_table > 0 {
        let rows = Tensor::from_slice(&input.table_row, input.n_steps * input.n_batch, &Device::Cpu)?;
        mean = (mean + (heads[6].index_select(&rows, 0)?.squeeze(D::Minus1)? * shape.table_gain)?)?;
    }
    Ok(NetOutput { mean, spread: head(1)?, value: head(2)?, recurrent })
}

/// `h` after every step, and the last `h` and `c`.
type Unrolled = (Vec<Tensor>, Option<[Tensor; 2]>);

/// The LSTM over all steps.
fn unrolled(shape: &NetShape, weights: &[Tensor], lstm: &[Tensor], input: &NetInput) -> candle_core::Result<Unrolled> {
    let (n_steps, n_batch, n_hidden) = (input.n_steps, input.n_batch, shape.n_hidden);
    let first = Tensor::from_slice(&input.first_recurrent, (n_batch, 2 * n_hidden), &Device::Cpu)?;
    let mut h = first.narrow(1, 0, n_hidden)?.contiguous()?;
    let mut c = first.narrow(1, n_hidden, n_hidden)?.contiguous()?;
    let mut outputs = Vec::with_capacity(n_steps);
    for t in 0..n_steps {
        let keep = &input.keep_state[t * n_batch..(t + 1) * n_batch];
        if keep.iter().any(|&k| k != 1.0) {
            let keep = Tensor::from_slice(keep, (n_batch, 1), &Device::Cpu)?;
            (h, c) = (h.broadcast_mul(&keep)?, c.broadcast_mul(&keep)?);
        }
        let gates = head_input(shape, weights, input, t)?.matmul(&lstm[0])?.broadcast_add(&lstm[2])?;
        (h, c) = lstm_step(&(gates + h.matmul(&lstm[1])?)?, &c, n_hidden)?;
        outputs.push(h.clone());
    }
    Ok((outputs, Some([h, c])))
}

/// The trunk's output at step `t`, last action and last reward, `[B, trunk + 2]`. Step by step rather than for all
/// steps at once: candle splits elementwise work on 65,536 numbers or more over spinning threads, which starves the
/// actors.
fn head_input(shape: &NetShape, weights: &[Tensor], input: &NetInput, t: usize) -> candle_core::Result<Tensor> {
    let (n_batch, n_inputs) = (input.n_batch, shape.n_inputs);
    let slice = |values: &[f32], width: usize| {
        let step = n_batch * width;
        Tensor::from_slice(&values[t * step..(t + 1) * step], (n_batch, width), &Device::Cpu)
    };
    let mut x = slice(&input.features, n_inputs)?;
    for layer in 0..shape.trunk.len() {
        x = x.matmul(&weights[2 * layer])?.broadcast_add(&weights[2 * layer + 1])?.relu()?;
    }
    Tensor::cat(&[&x, &slice(&input.last, 2)?], 1)
}

/// `gates` `[B, 4H]` before their nonlinearities, `c` `[B, H]`; returns the new (h, c).
fn lstm_step(gates: &Tensor, c: &Tensor, n_hidden: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let gate = |i: usize| gates.narrow(1, i * n_hidden, n_hidden)?.contiguous();
    let sigmoid = candle_nn::ops::sigmoid;
    let c = ((sigmoid(&gate(1)?)? * c)? + (sigmoid(&gate(0)?)? * gate(2)?.tanh()?)?)?;
    let h = (sigmoid(&gate(3)?)? * c.tanh()?)?;
    Ok((h, c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::params::Params;
    use crate::rng::RngStream;

    fn small(n_hidden: usize) -> (NetShape, Params) {
        let shape = NetShape { n_inputs: 3, trunk: vec![4], n_hidden, n_table: 0, table_gain: 1.0, zero_mean: false };
        let params = Params::new(shape.specs(), 11);
        (shape, params)
    }

    fn draw(rng: &mut RngStream, n: usize) -> Vec<f32> {
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// Plain loops: `x` `[in]` times `w` `[in, out]` plus `b`.
    fn linear(x: &[f64], w: &[f32], b: &[f32]) -> Vec<f64> {
        let n_out = b.len();
        (0..n_out)
            .map(|o| f64::from(b[o]) + x.iter().enumerate().map(|(i, x)| x * f64::from(w[i * n_out + o])).sum::<f64>())
            .collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Hochreiter and Schmidhuber 1997 with forget gates, as PyTorch writes it.
    fn reference_step(weights: &[Vec<f32>], features: &[f32], last: &[f32], state: &mut [f64; 4]) -> Vec<f64> {
        let features: Vec<f64> = features.iter().map(|&x| x.into()).collect();
        let mut x: Vec<f64> = linear(&features, &weights[0], &weights[1]).iter().map(|x| x.max(0.0)).collect();
        x.extend(last.iter().map(|&x| f64::from(x)));
        let from_input = linear(&x, &weights[2], &weights[4]);
        let from_hidden = linear(&state[..2], &weights[3], &[0.0; 8]);
        let gate = |g: usize, unit: usize| from_input[2 * g + unit] + from_hidden[2 * g + unit];
        let mut next = *state;
        for unit in 0..2 {
            next[2 + unit] = sigmoid(gate(1, unit)) * state[2 + unit] + sigmoid(gate(0, unit)) * gate(2, unit).tanh();
            next[unit] = sigmoid(gate(3, unit)) * next[2 + unit].tanh();
        }
        *state = next;
        (0..3).map(|head| linear(&state[..2], &weights[5 + 2 * head], &weights[6 + 2 * head])[0]).collect()
    }

    #[test]
    fn network_equals_plain_loops() {
        let (shape, params) = small(2);
        let mut rng = RngStream::new(5, 0, 0, 0);
        let (n_steps, n_batch) = (3, 2);
        let input = NetInput {
            n_steps,
            n_batch,
            features: draw(&mut rng, 18),
            last: draw(&mut rng, 12),
            table_row: vec![0; 6],
            keep_state: vec![1.0, 1.0, 1.0, 0.0, 1.0, 1.0],
            first_recurrent: draw(&mut rng, 8),
        };
        let tensors = params.tensors().unwrap();
        let output = forward(&shape, &tensors, &input).unwrap();
        let weights: Vec<Vec<f32>> = tensors.iter().map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect();
        let heads = [output.mean, output.spread, output.value].map(|t| t.to_vec1::<f32>().unwrap());
        for b in 0..n_batch {
            let mut state: [f64; 4] = std::array::from_fn(|i| input.first_recurrent[4 * b + i].into());
            for t in 0..n_steps {
                let row = t * n_batch + b;
                state = state.map(|s| s * f64::from(input.keep_state[row]));
                let features = &input.features[3 * row..3 * row + 3];
                let expected = reference_step(&weights, features, &input.last[2 * row..2 * row + 2], &mut state);
                for (head, expected) in heads.iter().zip(expected) {
                    assert!((f64::from(head[row]) - expected).abs() < 1e-5, "step {t}, unroll {b}");
                }
            }
            let h = output.recurrent.as_ref().unwrap()[0].to_vec2::<f32>().unwrap();
            assert!((f64::from(h[b][1]) - state[1]).abs() < 1e-5);
        }
    }

    #[test]
    fn without_lstm_the_heads_read_the_trunk_and_what_was_last_done() {
        let (shape, params) = small(0);
        let mut rng = RngStream::new(6, 0, 0, 0);
        let input = NetInput {
            n_steps: 2,
            n_batch: 2,
            features: draw(&mut rng, 12),
            last: draw(&mut rng, 8),
            keep_state: vec![1.0, 1.0, 0.0, 1.0],
            ..NetInput::default()
        };
        let tensors = params.tensors().unwrap();
        let output = forward(&shape, &tensors, &input).unwrap();
        assert!(output.recurrent.is_none() && shape.n_recurrent() == 0);
        let weights: Vec<Vec<f32>> = tensors.iter().map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect();
        let heads = [output.mean, output.spread, output.value].map(|t| t.to_vec1::<f32>().unwrap());
        for row in 0..4 {
            let features: Vec<f64> = input.features[3 * row..3 * row + 3].iter().map(|&x| x.into()).collect();
            let mut x: Vec<f64> = linear(&features, &weights[0], &weights[1]).iter().map(|x| x.max(0.0)).collect();
            x.extend(input.last[2 * row..2 * row + 2].iter().map(|&x| f64::from(x)));
            for (head, values) in heads.iter().enumerate() {
                let expected = linear(&x, &weights[2 + 2 * head], &weights[3 + 2 * head])[0];
                assert!((f64::from(values[row]) - expected).abs() < 1e-5, "row {row}, head {head}");
            }
        }
    }
}
