//! Least-squares refit of a consumer's weights after its inputs were removed.

use std::sync::Arc;

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use rayon::prelude::*;
use secateur_net::{ChannelGroups, KeptChannels, Network, NodeId, prune};

use crate::ChannelSpan;
use crate::{KernelError, LinearMap, NormalEquations};

/// New weights of one linear map: `weight[o]` holds the kept inputs' taps, channel-major; `bias[o]` the intercept.
#[derive(Clone, Debug, PartialEq)]
pub struct Refit {
    /// `[outputs, kept inputs * taps]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

impl Refit {
    /// The weights that a dense map with a bias has in `network`.
    pub(crate) fn of(network: &Network, map: &LinearMap) -> Self {
        let bias = network.parameter(&network.graph().node(map.node).name, "bias").data();
        Self { weight: map.weights(network).to_vec(), bias: bias.to_vec() }
    }

    /// Adds `factor` times another's weights.
    pub(crate) fn add(&mut self, other: &Self, factor: f32) {
        let mine = self.weight.iter_mut().chain(&mut self.bias);
        mine.zip(other.weight.iter().chain(&other.bias)).for_each(|(w, by)| *w += factor * by);
    }

    /// Sum of the products with a moment `[columns, outputs]`, the intercept its last row.
    pub(crate) fn inner(&self, moment: &[f64]) -> f64 {
        let n_out = self.bias.len();
        let (of_weights, of_biases) = moment.split_at(moment.len() - n_out);
        let n = of_weights.len() / n_out;
        let weights = self.weight.iter().enumerate().map(|(i, &w)| f64::from(w) * of_weights[i % n * n_out + i / n]);
        weights.sum::<f64>() + self.bias.iter().zip(of_biases).map(|(&b, m)| f64::from(b) * m).sum::<f64>()
    }

    /// Goes `step` of the way to `other`, further than all of it where that is more than 1.
    pub(crate) fn move_towards(&mut self, other: &Self, step: f32) {
        let mine = self.weight.iter_mut().chain(&mut self.bias);
        mine.zip(other.weight.iter().chain(&other.bias)).for_each(|(w, to)| *w += step * (to - *w));
    }
}

/// Normal equations factored for some of their inputs: solves for any targets.
pub(crate) struct Solver<'a> {
    equations: &'a NormalEquations,
    /// Rows and columns of X^T X in use, the intercept last.
    columns: Vec<usize>,
    factor: Llt<f64>,
}

impl Solver<'_> {
    /// The weights for `moment` = X^T Y, all rows of it.
    ///
    /// # Errors
    /// When the moment holds NaN or infinity.
    pub(crate) fn refit(&self, moment: &[f64]) -> Result<Refit, KernelError> {
        let (n, n_out) = (self.columns.len() - 1, self.equations.map.outputs.len);
        let solved = self.factor.solve(Mat::from_fn(n + 1, n_out, |i, o| moment[self.columns[i] * n_out + o]));
        let weight = (0..n_out * n).map(|i| solved[(i % n, i / n)] as f32).collect();
        let refit = Refit { weight, bias: (0..n_out).map(|o| solved[(n, o)] as f32).collect() };
        if refit.weight.iter().chain(&refit.bias).any(|w| !w.is_finite()) {
            return Err(KernelError::NotFinite { what: self.equations.describe() });
        }
        Ok(refit)
    }
}

impl NormalEquations {
    /// Least-squares weights of all outputs from the inputs in `kept` (positions within the map's inputs, ascending),
    /// with intercept, by Cholesky of the sub-block.
    ///
    /// # Errors
    /// When the equations hold NaN or infinity.
    pub fn refit(&self, kept: &[usize]) -> Result<Refit, KernelError> {
        self.solver(kept)?.refit(&self.moment)
    }

    /// The equations factored for the inputs in `kept`.
    ///
    /// # Errors
    /// When the equations hold NaN or infinity.
    pub(crate) fn solver(&self, kept: &[usize]) -> Result<Solver<'_>, KernelError> {
        let taps = self.map.taps();
        let intercept = self.map.columns() - 1;
        let columns: Vec<usize> = kept.iter().flat_map(|&c| c * taps..(c + 1) * taps).chain([intercept]).collect();
        Ok(Solver { equations: self, factor: self.factor(&columns)?, columns })
    }

    /// Cholesky factor of the sub-block `columns` of X^T X, with the ridge on all but the intercept (the last column of
    /// X).
    pub(crate) fn factor(&self, columns: &[usize]) -> Result<Llt<f64>, KernelError> {
        let d = self.map.columns();
        let of_weights = self.ridge();
        let ridge = |i: usize| if i == d - 1 { 0.0 } else { of_weights };
        let block = Mat::from_fn(columns.len(), columns.len(), |i, j| {
            let (i, j) = (columns[i], columns[j]);
            self.gram[i * d + j] + if i == j { ridge(i) } else { 0.0 }
        });
        block.llt(Side::Lower).map_err(|_| KernelError::NotFinite { what: self.describe() })
    }

    pub(crate) fn describe(&self) -> String {
        format!("the least-squares refit of node {} ({} rows)", self.map.node, self.n_rows)
    }
}

/// Writes refitted weights to the positions `outputs` x `inputs` (of the unpruned node) of a full-size network.
///
/// # Errors
/// A weight that is not finite.
pub fn write_refit(
    network: &mut Network,
    node: NodeId,
    refit: &Refit,
    outputs: &[usize],
    inputs: &[usize],
) -> Result<(), KernelError> {
    let name = network.graph().node(node).name.clone();
    let mut weight = network.parameter(&name, "weight").clone();
    let mut bias = network.parameter(&name, "bias").clone();
    let per_filter = weight.shape()[1];
    let taps: usize = weight.shape()[2..].iter().product();
    for (o, &out) in outputs.iter().enumerate() {
        bias.data_mut()[out] = refit.bias[o];
        for (i, &input) in inputs.iter().enumerate() {
            let from = (o * inputs.len() + i) * taps;
            let to = (out * per_filter + input % per_filter) * taps;
            weight.data_mut()[to..to + taps].copy_from_slice(&refit.weight[from..from + taps]);
        }
    }
    network.set_parameter(&name, "weight", weight)?;
    network.set_parameter(&name, "bias", bias)?;
    Ok(())
}

/// The compact network with the channels of `kept`, every map that lost inputs refitted on the original activations:
/// `solve` gives the weights of equations (index, equations, positions kept of the map's inputs), maps side by side on
/// the threads at hand.
///
/// # Errors
/// Kept sets of another network, and what `solve` returns.
pub fn repair(
    network: &Network,
    groups: &ChannelGroups,
    equations: &[Arc<NormalEquations>],
    kept: &KeptChannels,
    solve: impl Fn(usize, &NormalEquations, Vec<usize>) -> Result<Arc<Refit>, KernelError> + Sync,
) -> Result<Network, KernelError> {
    let local = |map: &LinearMap| -> Vec<usize> {
        let ChannelSpan { first: from, len: n } = map.inputs;
        let positions = kept.positions(groups, network.graph().node(map.node).inputs[0]);
        positions.into_iter().filter(|p| (from..from + n).contains(p)).map(|p| p - from).collect()
    };
    let refit = |index: usize| {
        let kept = local(&equations[index].map);
        let is_whole = kept.len() == equations[index].map.inputs.len;
        (!is_whole).then(|| Ok((index, solve(index, &equations[index], kept.clone())?, kept)))
    };
    let refits: Vec<_> = (0..equations.len()).into_par_iter().filter_map(refit).collect::<Result<_, KernelError>>()?;
    let mut work = network.clone();
    for (index, refit, kept) in refits {
        let map = &equations[index].map;
        let outputs: Vec<usize> = map.outputs.range().collect();
        let inputs: Vec<usize> = kept.iter().map(|p| p + map.inputs.first).collect();
        write_refit(&mut work, map.node, &refit, &outputs, &inputs)?;
    }
    Ok(prune(&work, groups, kept)?)
}
