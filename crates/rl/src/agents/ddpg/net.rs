//! Actor and critic: fully connected layers with ReLU between them.
//!
//! Axes: `B` rows, `F` features.

use candle_core::{D, Tensor};

use crate::nn::params::ParamSpec;

/// Sizes of actor and critic.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NetSizes {
    /// Features, `F`.
    pub(super) n_features: usize,
    /// Units of the hidden layers, at least one.
    pub(super) hidden: Vec<usize>,
    /// Whether the actor's last weights start at zero, so that its first action is 0.5 everywhere.
    pub(super) starts_central: bool,
}

impl NetSizes {
    /// Weight `[in, out]` and bias of each layer; spreads are PyTorch's defaults, which the released code leaves.
    pub(super) fn actor(&self) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        let mut n_in = self.n_features;
        for (i, &n_out) in self.hidden.iter().enumerate() {
            push_layer(&mut specs, &format!("hidden.{i}"), n_in, n_out, spread(n_in));
            n_in = n_out;
        }
        push_layer(&mut specs, "action", n_in, 1, if self.starts_central { 0.0 } else { spread(n_in) });
        specs
    }

    /// As [`Self::actor`]; the first hidden layer has a second weight and bias, for the action.
    pub(super) fn critic(&self) -> Vec<ParamSpec> {
        let mut specs = Vec::new();
        let mut n_in = self.n_features;
        for (i, &n_out) in self.hidden.iter().enumerate() {
            push_layer(&mut specs, &format!("hidden.{i}"), n_in, n_out, spread(n_in));
            if i == 0 {
                push_layer(&mut specs, "hidden.action", 1, n_out, spread(1));
            }
            n_in = n_out;
        }
        push_layer(&mut specs, "value", n_in, 1, spread(n_in));
        specs
    }
}

fn spread(n_in: usize) -> f32 {
    (n_in as f32).sqrt().recip()
}

fn push_layer(specs: &mut Vec<ParamSpec>, name: &str, n_in: usize, n_out: usize, spread: f32) {
    specs.push(ParamSpec::new(format!("{name}.weight"), &[n_in, n_out], spread));
    specs.push(ParamSpec::new(format!("{name}.bias"), &[n_out], spread));
}

fn linear(x: &Tensor, layer: &[Tensor]) -> candle_core::Result<Tensor> {
    x.matmul(&layer[0])?.broadcast_add(&layer[1])
}

/// Actions in (0, 1), `[B]`, of features `[B, F]`; `weights` in the order of [`NetSizes::actor`].
pub(super) fn actor(weights: &[Tensor], features: &Tensor) -> candle_core::Result<Tensor> {
    let (hidden, last) = weights.split_at(weights.len() - 2);
    let mut x = features.clone();
    for layer in hidden.chunks_exact(2) {
        x = linear(&x, layer)?.relu()?;
    }
    candle_nn::ops::sigmoid(&linear(&x, last)?)?.squeeze(D::Minus1)
}

/// Values `[B]` of features `[B, F]` and actions `[B]`; `weights` in the order of [`NetSizes::critic`].
pub(super) fn critic(weights: &[Tensor], features: &Tensor, actions: &Tensor) -> candle_core::Result<Tensor> {
    let (first, rest) = weights.split_at(4);
    let (hidden, last) = rest.split_at(rest.len() - 2);
    let of_action = linear(&actions.unsqueeze(D::Minus1)?, &first[2..])?;
    let mut x = (linear(features, &first[..2])? + of_action)?.relu()?;
    for layer in hidden.chunks_exact(2) {
        x = linear(&x, layer)?.relu()?;
    }
    linear(&x, last)?.squeeze(D::Minus1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::params::Params;

    /// Plain loops: `x` `[in]` times `w` `[in, out]` plus `b`.
    fn linear_by_hand(x: &[f64], w: &[f32], b: &[f32]) -> Vec<f64> {
        let at = |i: usize, o: usize| f64::from(w[i * b.len() + o]);
        (0..b.len()).map(|o| f64::from(b[o]) + x.iter().enumerate().map(|(i, x)| x * at(i, o)).sum::<f64>()).collect()
    }

    fn relu(x: Vec<f64>) -> Vec<f64> {
        x.into_iter().map(|x| x.max(0.0)).collect()
    }

    #[test]
    fn networks_equal_plain_loops() {
        let sizes = NetSizes { n_features: 2, hidden: vec![4, 3], starts_central: false };
        let (rows, chosen) = ([0.3f32, -0.8, 0.9, 0.1], [0.25f32, 0.75]);
        let features = Tensor::from_slice(&rows, (2, 2), &Device::Cpu).unwrap();
        let actions = Tensor::from_slice(&chosen, 2, &Device::Cpu).unwrap();
        let weights = |specs| Params::new(specs, 3).tensors().unwrap();
        let flat = |weights: &[Tensor]| -> Vec<Vec<f32>> {
            weights.iter().map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let (of_actor, of_critic) = (weights(sizes.actor()), weights(sizes.critic()));
        let got_action = actor(&of_actor, &features).unwrap().to_vec1::<f32>().unwrap();
        let got_value = critic(&of_critic, &features, &actions).unwrap().to_vec1::<f32>().unwrap();
        for row in 0..2 {
            let x: Vec<f64> = rows[2 * row..2 * row + 2].iter().map(|&x| f64::from(x)).collect();
            let w = flat(&of_actor);
            let h = relu(linear_by_hand(&x, &w[0], &w[1]));
            let h = relu(linear_by_hand(&h, &w[2], &w[3]));
            let action = 1.0 / (1.0 + (-linear_by_hand(&h, &w[4], &w[5])[0]).exp());
            assert!((f64::from(got_action[row]) - action).abs() < 1e-6);
            let w = flat(&of_critic);
            let of_action = linear_by_hand(&[f64::from(chosen[row])], &w[2], &w[3]);
            let h = linear_by_hand(&x, &w[0], &w[1]).iter().zip(&of_action).map(|(a, b)| a + b).collect();
            let h = relu(linear_by_hand(&relu(h), &w[4], &w[5]));
            assert!((f64::from(got_value[row]) - linear_by_hand(&h, &w[6], &w[7])[0]).abs() < 1e-6);
        }
    }
}
