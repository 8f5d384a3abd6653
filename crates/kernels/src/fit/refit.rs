//! Sequential refit: channels re-selected and weights refitted in graph order, on the inputs as the already pruned
//! network makes them, so that each layer also corrects what the layers before it got wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use secateur_net::{ChannelGroups, GroupId, KeptChannels, Network, NodeId, Op};

use crate::ChannelSpan;
use crate::fit::activations::Activations;
use crate::fit::eliminate::{Reader, eliminate};
use crate::fit::exchange::exchange;
use crate::fit::image_groups::{ImageGroups, check_images};
use crate::fit::pair::{MapPair, PairProblem};
use crate::fit::partial_network::PartialNetwork;
use crate::fit::problem::{RefitProblem, SpareBlocks};
use crate::fit::target::{Effort, RefitAim, RefitTarget, targets};
use crate::fit::wide::wide_nodes;
use crate::simd::aligned::AlignedVec;
use crate::{Isa, KernelError, LinearMap, NormalEquations, write_refit};

/// What the refits of all candidates of one network share: the images, and what the original network makes of them.
#[derive(Debug)]
pub struct RefitData {
    images: ImageGroups,
    targets: BTreeMap<NodeId, RefitTarget>,
    effort: Effort,
    /// Memory of the last candidates' activations and least-squares rows.
    spare: Mutex<Vec<Vec<AlignedVec>>>,
    blocks: SpareBlocks,
}

impl RefitData {
    /// Runs the original `network` (BatchNorm folded) on the refit images `[N, H, W, C]`. An [`Effort`] alone is the
    /// aim for a classifier.
    ///
    /// # Errors
    /// Images that are not whole, none, or not finite.
    pub fn new(
        pool: &rayon::ThreadPool,
        network: &Network,
        groups: &ChannelGroups,
        images: &[f32],
        aim: impl Into<RefitAim>,
    ) -> Result<Self, KernelError> {
        let aim = aim.into();
        check_images(network, images)?;
        let consumers = groups.prunable().into_iter().flat_map(|g| groups.group(g).consumers.iter().copied());
        let first = consumers.min().unwrap_or(network.graph().nodes().len());
        let images = ImageGroups::new(images, network.graph().input().len(), Isa::detect().lanes());
        let wide = wide_nodes(network.graph(), groups);
        let targets = targets(pool, network, &images, (first, &wide), aim)?;
        Ok(Self { images, targets, effort: aim.effort, spare: Mutex::default(), blocks: SpareBlocks::default() })
    }
}

/// Refits any number of candidates of one network on the same images.
///
/// # Example
/// ```
/// use secateur_kernels::{Effort, RefitData, SequentialRefit};
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{ChannelGroups, KeptChannels, Protocol, Shape, arch, fold_batch_norm};
///
/// let shape = Shape { c: 3, h: 8, w: 8 };
/// let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
/// let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
/// let mut kept = KeptChannels::all(&groups);
/// groups.prunable().into_iter().for_each(|group| kept.set(group, (0..4).collect()));
///
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
/// let images: Vec<f32> = (0..32 * shape.len()).map(|i| (i % 17) as f32 / 17.0).collect();
/// let data = RefitData::new(&pool, &network, &groups, &images, Effort::Quick)?;
/// // Four channels of each group, chosen anew, and the weights that make up for the others.
/// let (compact, kept) = SequentialRefit::new(&pool, &network, &groups, &data).run(&kept, true)?;
/// assert_eq!(kept.widths()[groups.prunable()[0]], 4);
/// assert_eq!(compact.graph().n_classes(), 10);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// Memory: while a candidate is refitted, the activations that later nodes read of all images (two layers' worth, as a
/// rule); in between, the original's outputs at the sampled pixels. A run that refits ResNet-56 on 6,000 CIFAR images
/// peaks at 2.3 GB.
#[derive(Debug)]
pub struct SequentialRefit<'a> {
    pool: &'a rayon::ThreadPool,
    network: &'a Network,
    groups: &'a ChannelGroups,
    data: &'a RefitData,
}

impl<'a> SequentialRefit<'a> {
    /// Work is done on the threads of `pool`; results do not depend on their number. `data` was made for the same
    /// `network`, whose BatchNorm is folded.
    pub const fn new(
        pool: &'a rayon::ThreadPool,
        network: &'a Network,
        groups: &'a ChannelGroups,
        data: &'a RefitData,
    ) -> Self {
        Self { pool, network, groups, data }
    }

    /// The compact network with the widths of `kept`, and the channels it keeps. With `reselect`, groups with one
    /// consumer choose their channels anew by reconstruction error, by elimination and exchange, widths fixed; others,
    /// those whose consumer is too wide ([`wide_nodes`]) or has fewer rows than columns, and all groups without it,
    /// keep the channels given.
    ///
    /// The target of a node is its original pre-activation; where an Add follows and the other addends are already
    /// there, the original sum minus those addends as they now are. What a rectifier behind hides is not fitted, and a
    /// classifier's logits are fitted by their softmax (other outputs as they are: [`crate::OutputAim`]).
    ///
    /// # Errors
    /// Kept sets of another network, or activations so large that the equations are not finite.
    pub fn run(&self, kept: &KeptChannels, reselect: bool) -> Result<(Network, KeptChannels), KernelError> {
        let state = self.refit(kept, reselect)?;
        Ok((state.compact, state.kept))
    }

    /// As [`Self::run`], and the same network after hidden channels were refitted as well: a map and the only one that
    /// reads what it makes, element-wise functions between them, are fitted together to what the second made in the
    /// original network. `None` where the network has no such pair. Whether the second network is the better one is for
    /// whoever asks to find out, on other images.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_in_pairs(
        &self,
        kept: &KeptChannels,
        reselect: bool,
    ) -> Result<(Network, Option<Network>, KeptChannels), KernelError> {
        let mut state = self.refit(kept, reselect)?;
        let sequential = state.compact.clone();
        let in_pairs = self.refit_pairs(&mut state)?.then_some(state.compact);
        Ok((sequential, in_pairs, state.kept))
    }

    fn refit(&self, kept: &KeptChannels, reselect: bool) -> Result<PartialNetwork<'_>, KernelError> {
        let graph = self.network.graph();
        let mut state = PartialNetwork::new(self.network, self.groups, kept, |g| {
            reselect && self.groups.group(g).consumers.iter().all(|node| self.is_refitted_from_equations(*node))
        })?;
        let mut activations = self.activations();
        for node in 1..graph.nodes().len() {
            let target = self.data.targets.get(&node).filter(|_| state.reads_changed(node));
            if let Some(target) = target {
                activations.advance(self.pool, &state.compact, node)?;
                self.refit_node(&mut state, node, target, &mut activations)?;
            }
            state.note_changed(node, target.is_some());
        }
        self.put_back(activations);
        Ok(state)
    }

    /// Activations of which nothing is computed yet.
    fn activations(&self) -> Activations<'_> {
        let spare = self.data.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Activations::new(&self.data.images, spare.unwrap_or_default())
    }

    /// Keeps the memory for the next candidate.
    fn put_back(&self, activations: Activations<'_>) {
        self.data.spare.lock().unwrap_or_else(PoisonError::into_inner).push(activations.into_spare());
    }

    /// The pairs that can be refitted, by their first map, each with the number of groups of images to do it on.
    fn pairs(&self) -> BTreeMap<NodeId, (MapPair, usize)> {
        let graph = self.network.graph();
        let readers = graph.consumers();
        let is_narrow = |node| self.data.targets.get(&node).is_none_or(|target| !target.is_wide);
        let can_refit = |pair: &MapPair| {
            let target = self.data.targets.get(&pair.second);
            is_narrow(pair.first) && target.is_some_and(|target| !target.is_wide && !readers[target.sum].is_empty())
        };
        let pairs = (1..graph.nodes().len()).filter_map(|node| Some((node, MapPair::of(graph, &readers, node)?)));
        let pairs = pairs.filter(|(_, pair)| can_refit(pair));
        pairs.filter_map(|(node, pair)| pair.n_groups(graph, &self.data.images).map(|n| (node, (pair, n)))).collect()
    }

    /// Refits, in graph order, both maps of every pair that lost channels or reads what was changed, and once more the
    /// maps that are in no pair or only the second of one; channels stay. Returns whether there was a pair.
    fn refit_pairs(&self, state: &mut PartialNetwork<'_>) -> Result<bool, KernelError> {
        let (graph, pairs) = (self.network.graph(), self.pairs());
        let images = self.data.images.first(pairs.values().map(|&(_, n_groups)| n_groups).max().unwrap_or(0));
        let mut original = Activations::new(&images, Vec::new());
        let mut activations = self.activations();
        let mut any = false;
        for node in 1..graph.nodes().len() {
            let target = self.data.targets.get(&node).filter(|_| state.reads_changed(node));
            let concerned = pairs.get(&node).filter(|_| state.reads_changed(node) || state.loses_channels(node));
            if let Some((pair, n_groups)) = concerned {
                activations.advance(self.pool, &state.compact, node)?;
                original.advance(self.pool, self.network, self.data.targets[&pair.second].sum + 1)?;
                self.refit_pair(state, pair, *n_groups, [&original, &activations])?;
                any = true;
            } else if let Some(target) = target {
                activations.advance(self.pool, &state.compact, node)?;
                self.refit_node(state, node, target, &mut activations)?;
            }
            state.note_changed(node, target.is_some() || concerned.is_some());
        }
        self.put_back(activations);
        Ok(any)
    }

    fn refit_pair(
        &self,
        state: &mut PartialNetwork<'_>,
        pair: &MapPair,
        n_groups: usize,
        [original, activations]: [&Activations<'_>; 2],
    ) -> Result<(), KernelError> {
        let (graph, outputs) = (self.network.graph(), state.positions(pair.second));
        let target = &self.data.targets[&pair.second];
        let n_sum_channels = graph.shape(target.sum).c;
        let problem = PairProblem { pair, target, original, n_sum_channels, outputs: &outputs, activations, n_groups };
        let Some(refits) = problem.solve(self.pool, &state.compact)? else { return Ok(()) };
        for (node, refit) in [pair.first, pair.second].into_iter().zip(&refits) {
            let [outputs, inputs] = [node, graph.node(node).inputs[0]].map(|node| state.positions(node));
            write_refit(&mut state.work, node, refit, &outputs, &inputs)?;
        }
        state.refresh()
    }

    /// Whether the channels that a node reads can be chosen by its refit. One that keeps its weights does not object; a
    /// transposed convolution, which is never refitted, does.
    fn is_refitted_from_equations(&self, node: NodeId) -> bool {
        let is_transposed = matches!(self.network.graph().node(node).op, Op::ConvTranspose2d(_));
        !is_transposed && self.data.targets.get(&node).is_none_or(|t| !t.is_wide)
    }

    fn refit_node(
        &self,
        state: &mut PartialNetwork<'_>,
        node: NodeId,
        target: &RefitTarget,
        activations: &mut Activations<'_>,
    ) -> Result<(), KernelError> {
        let source = self.network.graph().node(node).inputs[0];
        let before = state.positions(source);
        let held: Vec<(NodeId, Vec<usize>)> = activations.held().map(|n| (n, state.positions(n))).collect();
        let outputs = state.positions(node);
        let problems: Vec<RefitProblem<'_>> = LinearMap::per_conv_group(state.compact.graph(), node)
            .into_iter()
            .map(|map| self.problem(map, source, target, &outputs, activations))
            .collect();
        let equations: Vec<NormalEquations> = match target.is_wide {
            true => Vec::new(),
            false => {
                problems.iter().map(|p| p.equations(self.pool).pulled_towards(p.map.weights(&state.compact))).collect()
            }
        };
        for group in state.pending_in(source) {
            let chosen = self.select(group, state.widths[group], &before, source, &equations)?;
            state.choose(group, chosen);
        }
        let after = state.positions(source);
        for (i, problem) in problems.iter().enumerate() {
            let ChannelSpan { first: from, len: n } = problem.map.inputs;
            let local = still_there(&before[from..from + n], &after);
            let refit = match equations.get(i) {
                Some(equations) => problem.solve(self.pool, equations, &local)?,
                None => problem.solve_wide(self.pool, &local, problem.map.weights(&state.compact))?,
            };
            let inputs: Vec<usize> = local.iter().map(|&i| before[from + i]).collect();
            write_refit(&mut state.work, node, &refit, &problem.outputs, &inputs)?;
        }
        for (node, before) in held {
            let after = state.positions(node);
            if after.len() < before.len() {
                activations.keep_channels(node, &still_there(&before, &after));
            }
        }
        state.refresh()
    }

    fn problem<'p>(
        &'p self,
        map: LinearMap,
        source: NodeId,
        target: &'p RefitTarget,
        outputs: &[usize],
        activations: &'p Activations<'_>,
    ) -> RefitProblem<'p> {
        let ChannelSpan { first: from, len: n } = map.outputs;
        RefitProblem {
            target_channels: self.network.graph().shape(map.node).c,
            outputs: outputs[from..from + n].to_vec(),
            map,
            activations,
            source,
            target,
            effort: self.data.effort,
            blocks: &self.data.blocks,
        }
    }

    /// The channels of a group whose only consumer, the node of `equations`, is being refitted; `before` are the
    /// positions of its input that are there.
    fn select(
        &self,
        group: GroupId,
        width: usize,
        before: &[usize],
        source: NodeId,
        equations: &[NormalEquations],
    ) -> Result<Vec<usize>, KernelError> {
        let axis = self.groups.axis(source);
        let n_channels = self.groups.group(group).n_channels;
        let channel_of = |p: usize| Some(axis[before[p]]).filter(|s| s.group == group).map(|s| s.channel);
        let readers: Vec<Reader<'_>> = equations.iter().map(|e| Reader::new(e, channel_of, n_channels)).collect();
        let path = eliminate(self.pool, &readers, n_channels, width, None)?;
        let (kept, error) = (path.kept(n_channels, width), path.errors[n_channels - width]);
        Ok(exchange(self.pool, &readers, n_channels, &kept, error)?.kept)
    }
}

/// Indices into `before` of what is also in `after`; both ascending.
fn still_there(before: &[usize], after: &[usize]) -> Vec<usize> {
    (0..before.len()).filter(|&i| after.binary_search(&before[i]).is_ok()).collect()
}
