//! Refit of both sides of hidden channels: a map and the one that reads what it makes are fitted together to what the
//! second made in the original network.
//!
//! A refit of the second map alone leaves the hidden channels a subset of the original's, though fewer channels have
//! other best features. The error is quadratic in the second map's weights; in the first map's it is so where the
//! functions between them stay linear. Both are moved by conjugate gradients that are preconditioned with the inverse
//! Gram matrix of each map's inputs (every direction is itself a least-squares fit: of the residual by the second map's
//! inputs, and of the residual brought back through the second map by the first map's), with an exact step in the plane
//! of both. A few passes over some images suffice, there is no learning rate, and no label is read.

mod line;
mod moments;
mod residual;
mod slope;

use rayon::prelude::*;
use secateur_net::{Graph, Network, NodeId, Op, Pointwise};

use crate::fit::activations::Activations;
use crate::fit::image_groups::ImageGroups;
use crate::fit::pair::line::{LineSums, best_steps};
use crate::fit::pair::moments::{MapMoments, MomentSums};
use crate::fit::pair::residual::{GroupPass, PassBuffers};
use crate::fit::target::RefitTarget;
use crate::{KernelError, LinearMap, NormalEquations, Refit};

/// Steps of the conjugate gradients.
const N_STEPS: usize = 8;
/// Rows for each column of the wider of both maps.
const ROWS_PER_COLUMN: usize = 400;
/// Fewest rows for each column: with fewer, what fits these images fits no others.
const ROWS_MIN: usize = 50;
/// Fewest images of maps of [`PIXELS`] pixels, and the fewer the larger they are: neighbouring pixels say nearly the same.
const IMAGES_MIN: usize = 1024;
/// Pixels of a map of 32 rows and columns.
const PIXELS: usize = 1024;
/// Most values of the largest map of all images that are looked at: a gigabyte.
const HELD_VALUES: usize = 1 << 28;
/// Most sums that are made side by side; fixed, so that they do not depend on the number of threads.
const SLOTS: usize = 8;
/// Share of the groups of images that the steps are measured on, one in so many.
const LINE_SHARE: usize = 4;

/// A map and the only one that reads what it makes, nothing but element-wise functions between them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    pub first: NodeId,
    /// From the first map on.
    pub functions: Vec<Pointwise>,
    pub second: NodeId,
}

impl Pair {
    /// The pair whose first map is `first`, if it has one: both dense, the first with a bias.
    pub(crate) fn of(graph: &Graph, readers: &[Vec<NodeId>], first: NodeId) -> Option<Self> {
        let is_dense = |node: NodeId| LinearMap::of(graph, node).len() == 1;
        let has_bias = |node: NodeId| graph.node(node).op.as_conv2d().is_some_and(|conv| conv.bias);
        if !is_dense(first) || !has_bias(first) {
            return None;
        }
        let (mut functions, mut at) = (Vec::new(), first);
        loop {
            let [reader] = readers[at][..] else { return None };
            match &graph.node(reader).op {
                Op::Pointwise(function) => functions.push(*function),
                Op::Identity => {}
                _ if is_dense(reader) && has_bias(reader) => {
                    return Some(Self { first, functions, second: reader });
                }
                _ => return None,
            }
            at = reader;
        }
    }

    /// Groups of images of `images` that the pair is fitted on; none where its maps have too many columns for the images
    /// whose activations may be held. `original` is the network before anything was removed.
    pub(crate) fn n_groups(&self, original: &Graph, images: &ImageGroups) -> Option<usize> {
        let maps = [self.first, self.second].map(|node| LinearMap::of(original, node));
        let sizes = maps.iter().flatten().map(|map| {
            let [_, output] = map.shapes();
            (map.columns(), output.h * output.w)
        });
        let wanted = sizes.clone().map(|(n_columns, n_pixels)| {
            let least = (IMAGES_MIN * PIXELS / n_pixels.max(PIXELS)).max(images.lanes());
            (ROWS_PER_COLUMN * n_columns).div_ceil(n_pixels).max(least)
        });
        let largest = (0..original.nodes().len()).map(|node| original.shape(node).len()).max().unwrap_or(1);
        let n_images = wanted.max()?.min(images.n_images()).min(HELD_VALUES / largest);
        let is_enough = sizes.into_iter().all(|(n_columns, n_pixels)| n_images * n_pixels >= ROWS_MIN * n_columns);
        is_enough.then(|| n_images.div_ceil(images.lanes()))
    }
}

/// What a pair is fitted to, and on.
#[derive(Clone, Copy)]
pub(crate) struct PairProblem<'a> {
    pub pair: &'a Pair,
    /// Of the second map.
    pub target: &'a RefitTarget,
    /// The original network's, of which the target's sum is held.
    pub original: &'a Activations<'a>,
    /// Channels of the original's sum.
    pub n_sum_channels: usize,
    /// The channel of the sum that each output of the second map stands for.
    pub outputs: &'a [usize],
    /// As the network makes them now: those that the first map reads, and the sum's other addends in front of it.
    pub activations: &'a Activations<'a>,
    /// Groups of images to look at, the first.
    pub n_groups: usize,
}

/// A step's direction, and what the next one needs of it.
struct Direction {
    first: Refit,
    second: Refit,
    moments: [Vec<f64>; 2],
    /// The preconditioned gradient's product with the gradient.
    norm: f64,
}

impl PairProblem<'_> {
    /// Weights of both maps that fit better than those of `network`; `None` where nothing was found.
    ///
    /// # Errors
    /// Activations so large that sums are not finite.
    pub(crate) fn solve(&self, pool: &rayon::ThreadPool, network: &Network) -> Result<Option<[Refit; 2]>, KernelError> {
        let mut network = network.clone();
        let maps = [self.pair.first, self.pair.second].map(|node| LinearMap::of(network.graph(), node).remove(0));
        let (mut best, mut least): (Option<[Refit; 2]>, f64) = (None, f64::INFINITY);
        let mut equations = [const { None }; 2];
        let mut last = None;
        for step in 0..=N_STEPS {
            let sums = self.pass(pool, &network, &maps, step == 0)?;
            // Functions that bend make a step longer or shorter than it should be: what it made worse is undone.
            if sums.energy.is_nan() || sums.energy >= least {
                break;
            }
            least = sums.energy;
            let now = maps.each_ref().map(|map| Refit::of(&network, map));
            if step > 0 {
                best = Some(now.clone());
            }
            if step == N_STEPS {
                break;
            }
            let moments = self.moments(sums, &maps, &mut equations);
            let [Some(first), Some(second)] = &equations else { break };
            let next = pool.install(|| direction([first, second], moments, last.take()))?;
            let Some(steps) = best_steps(&self.line(pool, &network, &maps, &next)?) else { break };
            let moved = [&next.first, &next.second].into_iter().zip(steps);
            for ((map, mut refit), (by, step)) in maps.iter().zip(now).zip(moved) {
                refit.add(by, step as f32);
                set_weights(&mut network, map.node, &refit)?;
            }
            last = Some(next);
        }
        Ok(best)
    }

    /// X^T Y of both maps; what is known of X^T X is put into `equations`.
    fn moments(
        &self,
        sums: PassSums,
        maps: &[LinearMap; 2],
        equations: &mut [Option<NormalEquations>; 2],
    ) -> [Vec<f64>; 2] {
        let [of_first, of_second] = sums.maps;
        [(of_first, 0), (of_second, 1)].map(|(sums, at)| {
            let (moment, new) = sums.finish(&maps[at], self.n_rows(&maps[at]));
            equations[at] = new.or(equations[at].take());
            moment
        })
    }

    /// Rows of the least-squares problem of a map.
    fn n_rows(&self, map: &LinearMap) -> u64 {
        let images = self.activations.images();
        let n_images = images.n_images().min(self.n_groups * images.lanes());
        let [_, output] = map.shapes();
        (n_images * output.h * output.w) as u64
    }

    /// Residuals of the weights of `network`, and their moments with the inputs of both maps.
    fn pass(
        &self,
        pool: &rayon::ThreadPool,
        network: &Network,
        maps: &[LinearMap; 2],
        with_grams: bool,
    ) -> Result<PassSums, KernelError> {
        let pass = GroupPass::new(self, network, maps)?;
        let moments = [0, 1].map(|at| MapMoments::new(&maps[at], with_grams));
        let empty = || PassSums { maps: moments.each_ref().map(MapMoments::empty), energy: 0.0 };
        let add = |sums: &mut PassSums, group: usize, buffers: &mut PassBuffers| {
            pass.residual(group, buffers)?;
            sums.energy += buffers.energy();
            pass.bring_back(buffers);
            let [first, second] = &mut sums.maps;
            pass.with_inputs(group, buffers, |place, [of_first, of_second], rows| {
                moments[0].add(place, of_first, rows, first);
                moments[1].add(place, of_second, rows, second);
            });
            Ok(())
        };
        self.sum_groups(pool, 1, empty, add, PassSums::merge)
    }

    /// What a step along `direction` changes.
    fn line(
        &self,
        pool: &rayon::ThreadPool,
        network: &Network,
        maps: &[LinearMap; 2],
        direction: &Direction,
    ) -> Result<LineSums, KernelError> {
        let pass = GroupPass::new(self, network, maps)?.along([&direction.first, &direction.second]);
        let add = |sums: &mut LineSums, group: usize, buffers: &mut PassBuffers| {
            pass.residual(group, buffers)?;
            pass.changes(group, buffers);
            sums.add(buffers);
            Ok(())
        };
        self.sum_groups(pool, LINE_SHARE, LineSums::default, add, LineSums::merge)
    }

    /// Adds up what groups of images make, one of every `share`; slots side by side, a slot's groups in order.
    fn sum_groups<T: Send>(
        &self,
        pool: &rayon::ThreadPool,
        share: usize,
        empty: impl Fn() -> T + Sync,
        add: impl Fn(&mut T, usize, &mut PassBuffers) -> Result<(), KernelError> + Sync,
        merge: impl Fn(&mut T, &T),
    ) -> Result<T, KernelError> {
        let groups: Vec<usize> = (0..self.n_groups).step_by(share).collect();
        let n_slots = SLOTS.min(groups.len()).max(1);
        let run = |slot: usize| {
            let (mut sums, mut buffers) = (empty(), PassBuffers::default());
            for &group in groups.iter().skip(slot).step_by(n_slots) {
                add(&mut sums, group, &mut buffers)?;
            }
            Ok(sums)
        };
        let slots: Result<Vec<T>, KernelError> =
            pool.install(|| (0..n_slots).into_par_iter().with_max_len(1).map(run).collect());
        let mut slots = slots?.into_iter();
        let mut sum = slots.next().unwrap_or_else(&empty);
        slots.for_each(|more| merge(&mut sum, &more));
        Ok(sum)
    }
}

/// Sums of a pass.
struct PassSums {
    maps: [MomentSums; 2],
    /// Sum of the squared residuals.
    energy: f64,
}

impl PassSums {
    fn merge(&mut self, other: &Self) {
        self.maps.iter_mut().zip(&other.maps).for_each(|(sums, more)| sums.merge(more));
        self.energy += other.energy;
    }
}

/// The next direction of the conjugate gradients (Polak and Ribière, with restarts where it would turn back).
fn direction(
    equations: [&NormalEquations; 2],
    moments: [Vec<f64>; 2],
    last: Option<Direction>,
) -> Result<Direction, KernelError> {
    let mut solved = Vec::with_capacity(2);
    for (equations, moment) in equations.iter().zip(&moments) {
        let channels: Vec<usize> = (0..equations.map.inputs.len).collect();
        solved.push(equations.solver(&channels)?.refit(moment)?);
    }
    let inner =
        |moments: [&[f64]; 2]| solved.iter().zip(moments).map(|(refit, moment)| refit.inner(moment)).sum::<f64>();
    let norm = inner([&moments[0], &moments[1]]);
    let turn = last.map(|last| {
        let turn = (norm - inner([&last.moments[0], &last.moments[1]])) / last.norm;
        (last, if turn.is_finite() { turn.max(0.0) as f32 } else { 0.0 })
    });
    let (mut second, mut first) = (solved.remove(1), solved.remove(0));
    if let Some((last, turn)) = turn {
        first.add(&last.first, turn);
        second.add(&last.second, turn);
    }
    Ok(Direction { first, second, moments, norm })
}

/// Sets the weights of a dense map.
fn set_weights(network: &mut Network, node: NodeId, refit: &Refit) -> Result<(), KernelError> {
    let name = network.graph().node(node).name.clone();
    for (part, values) in [("weight", &refit.weight), ("bias", &refit.bias)] {
        let mut parameter = network.parameter(&name, part).clone();
        parameter.data_mut().copy_from_slice(values);
        network.set_parameter(&name, part, parameter)?;
    }
    Ok(())
}
