//! Channel selection by backward elimination on the least-squares error.
//!
//! With P = (X^T X + ridge)^-1 and W = P X^T Y, leaving out a block B of columns raises the squared error by tr(W_B^T
//! P_BB^-1 W_B), less what the ridge charged for losing the weights of B that it pulls towards, and P and W of the
//! remaining columns follow by a Schur complement (the block form of optimal brain surgeon; Hassibi & Stork 1993). So
//! one O(d^2) update a channel replaces a refit for every remaining channel.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use rayon::prelude::*;

use secateur_net::GroupId;

use crate::ChannelSpan;
use crate::{Contributions, KernelError, NormalEquations};

/// One linear map that reads the group, and the weight columns of each of the group's channels in it.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Its normal equations.
    pub equations: &'a NormalEquations,
    /// Columns of X that belong to each channel of the group: `[channel][i]`.
    pub blocks: Vec<Vec<usize>>,
}

impl<'a> Reader<'a> {
    /// `channel_of` names the group's channel at a channel position of the node's input, if it belongs to the group.
    pub fn new(equations: &'a NormalEquations, channel_of: impl Fn(usize) -> Option<usize>, n_channels: usize) -> Self {
        let ChannelSpan { first: from, len: n } = equations.map.inputs;
        let taps = equations.map.taps();
        let mut blocks = vec![Vec::new(); n_channels];
        for i in 0..n {
            if let Some(channel) = channel_of(from + i) {
                blocks[channel].extend(i * taps..(i + 1) * taps);
            }
        }
        Self { equations, blocks }
    }

    /// A wide map that reads the group, by what each channel adds to its outputs.
    pub fn of_contributions(contributions: &'a Contributions, group: GroupId, n_channels: usize) -> Self {
        let slot_of = |i: usize| Some(contributions.channels[i]).filter(|slot| slot.group == group);
        Self::new(&contributions.equations, |i| Some(slot_of(i)?.channel), n_channels)
    }
}

/// How a group's error grows as its channels are removed one by one.
///
/// # Example
/// ```
/// use secateur_kernels::RemovalPath;
///
/// let path = RemovalPath { removed: vec![2, 0], errors: vec![0.0, 0.01, 0.05] };
/// // Four channels, three of which stay: channel 2 went first, for a hundredth of the energy.
/// assert_eq!(path.kept(4, 3), [0, 1, 3]);
/// assert_eq!(path.kept(4, 2), [1, 3]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RemovalPath {
    /// Channels in the order they are removed; the channels never removed are not listed.
    pub removed: Vec<usize>,
    /// `errors[i]`: squared error after `i` removals as a share of the target energy, summed over the group's readers.
    pub errors: Vec<f64>,
}

impl RemovalPath {
    /// The channels kept at `width` of `n_channels`, ascending.
    pub fn kept(&self, n_channels: usize, width: usize) -> Vec<usize> {
        let mut keep = vec![true; n_channels];
        self.removed[..n_channels - width].iter().for_each(|&c| keep[c] = false);
        (0..n_channels).filter(|&c| keep[c]).collect()
    }
}

/// Removes one channel after the other, each time the one whose loss raises the readers' summed relative error least
/// (or, if `order` is given, in that order), until `n_kept_min` are left. Runs on `pool`; the result does not depend on
/// its size.
///
/// # Errors
/// When a reader's equations hold NaN or cannot be inverted.
pub fn eliminate(
    pool: &rayon::ThreadPool,
    readers: &[Reader<'_>],
    n_channels: usize,
    n_kept_min: usize,
    order: Option<&[usize]>,
) -> Result<RemovalPath, KernelError> {
    let n_removed = n_channels.saturating_sub(n_kept_min.max(1));
    let mut states = readers.iter().map(ReaderInverse::new).collect::<Result<Vec<_>, _>>()?;
    let reads = |channel: usize| (0..readers.len()).filter(move |&r| !readers[r].blocks[channel].is_empty());
    let readers_of: Vec<Vec<usize>> = (0..n_channels).map(|channel| reads(channel).collect()).collect();
    let mut alive: Vec<usize> = (0..n_channels).collect();
    let mut path = RemovalPath { removed: Vec::with_capacity(n_removed), errors: vec![0.0] };
    pool.install(|| {
        for step in 0..n_removed {
            let rise = |channel: usize| readers_of[channel].iter().map(|&r| states[r].rise(channel)).sum();
            let rises: Vec<f64> = match order {
                Some(order) => vec![rise(order[step])],
                None => alive.par_iter().map(|&channel| rise(channel)).collect(),
            };
            let best = (0..rises.len()).min_by(|&a, &b| rises[a].total_cmp(&rises[b])).unwrap_or(0);
            let channel = order.map_or_else(|| alive[best], |order| order[step]);
            alive.retain(|&c| c != channel);
            readers_of[channel].iter().for_each(|&r| states[r].remove(channel));
            // Not `max`: NaN must stay NaN.
            let rise = if rises[best] < 0.0 { 0.0 } else { rises[best] };
            path.errors.push(path.errors[step] + rise);
            path.removed.push(channel);
        }
    });
    match path.errors.iter().all(|e| e.is_finite()) {
        true => Ok(path),
        false => Err(KernelError::NotFinite { what: "the reconstruction error of a channel selection".into() }),
    }
}

/// P and W of one reader, row-major, for the columns still there.
struct ReaderInverse<'a> {
    reader: &'a Reader<'a>,
    /// Columns still there.
    rows: Vec<bool>,
    inverse: Vec<f64>,
    weights: Vec<f64>,
    d: usize,
    n_out: usize,
}

impl<'a> ReaderInverse<'a> {
    fn new(reader: &'a Reader<'a>) -> Result<Self, KernelError> {
        let equations = reader.equations;
        let (d, n_out) = (equations.map.columns(), equations.map.outputs.len);
        let all: Vec<usize> = (0..d).collect();
        let factor = equations.factor(&all)?;
        let inverse = factor.solve(Mat::<f64>::identity(d, d));
        let weights = factor.solve(Mat::from_fn(d, n_out, |i, o| equations.moment[i * n_out + o]));
        Ok(Self {
            reader,
            rows: vec![true; d],
            inverse: (0..d * d).map(|i| inverse[(i / d, i % d)]).collect(),
            weights: (0..d * n_out).map(|i| weights[(i / n_out, i % n_out)]).collect(),
            d,
            n_out,
        })
    }

    fn weight_row(&self, column: usize) -> &[f64] {
        &self.weights[column * self.n_out..][..self.n_out]
    }

    /// Rise of the relative squared error when `channel` goes.
    fn rise(&self, channel: usize) -> f64 {
        let block = &self.reader.blocks[channel];
        let b = block.len();
        let target_energy = self.reader.equations.target_energy.max(f64::MIN_POSITIVE);
        let of_removed: f64 = block.iter().map(|&column| self.reader.equations.pull[column]).sum();
        if let &[column] = &block[..] {
            let energy: f64 = self.weight_row(column).iter().map(|w| w * w).sum();
            let inverse = self.inverse[column * self.d + column];
            // As where a factorisation is refused.
            return if inverse > 0.0 { (energy / inverse - of_removed) / target_energy } else { f64::NAN };
        }
        let dot = |i: usize, j: usize| -> f64 {
            self.weight_row(block[i]).iter().zip(self.weight_row(block[j])).map(|(x, y)| x * y).sum()
        };
        let products = Mat::from_fn(b, b, |i, j| if i >= j { dot(i, j) } else { 0.0 });
        let products = Mat::from_fn(b, b, |i, j| products[(i.max(j), i.min(j))]);
        let Some(solved) = self.solve_block(block, products) else { return f64::NAN };
        let rise = (0..b).map(|i| solved[(i, i)]).sum::<f64>() - of_removed;
        rise / target_energy
    }

    /// P_BB^-1 `rhs`; `None` when P_BB is not positive definite (NaN in the equations).
    fn solve_block(&self, block: &[usize], rhs: Mat<f64>) -> Option<Mat<f64>> {
        let p = Mat::from_fn(block.len(), block.len(), |i, j| self.inverse[block[i] * self.d + block[j]]);
        p.llt(Side::Lower).ok().map(|factor| factor.solve(rhs))
    }

    fn remove(&mut self, channel: usize) {
        let block = &self.reader.blocks[channel];
        let (b, d, n_out) = (block.len(), self.d, self.n_out);
        // Rows B of [P, W], and P_BB^-1 times them.
        let gathered = Mat::from_fn(b, d + n_out, |i, j| match j < d {
            true => self.inverse[block[i] * d + j],
            false => self.weights[block[i] * n_out + j - d],
        });
        let Some(solved) = self.solve_block(block, gathered) else { return };
        let solved: Vec<f64> = (0..b * (d + n_out)).map(|i| solved[(i / (d + n_out), i % (d + n_out))]).collect();
        block.iter().for_each(|&c| self.rows[c] = false);
        let rows = self.inverse.par_chunks_mut(d).zip(self.weights.par_chunks_mut(n_out)).zip(&self.rows);
        rows.with_min_len(64).filter(|(_, alive)| **alive).for_each(|((p, w), _)| {
            let factors: Vec<f64> = block.iter().map(|&c| p[c]).collect();
            for (i, factor) in factors.into_iter().enumerate() {
                let row = &solved[i * (d + n_out)..][..d + n_out];
                subtract(p, &row[..d], factor);
                subtract(w, &row[d..], factor);
            }
        });
    }
}

fn subtract(row: &mut [f64], other: &[f64], factor: f64) {
    for (a, b) in row.iter_mut().zip(other) {
        *a -= factor * b;
    }
}
