//! How much memory a network may take, and its refusal before any of it is taken. A file of a few hundred bytes can
//! declare planes and channels of any size.

mod available;

use std::fmt;
use std::path::Path;

use anyhow::{anyhow, ensure};
use secateur_formats::DatasetSource;
use secateur_kernels::{PlanNeeds, Precision};
use secateur_net::{ChannelGroups, Graph, Network};

use available::available;

/// Bytes that a thread may take for one network unless `--memory` says otherwise: several times what the widest layers
/// of networks in use take.
const PER_THREAD: u64 = 768 << 20;
/// Times the bytes of a network's parameters that are allowed beside it: Winograd's filters alone take four.
const TIMES_WEIGHTS: u64 = 8;
/// A training may take what so many threads may.
const TRAINING_THREADS: usize = 4;
/// Operations of one image beyond which a network is no network but a mistake: a hundred times a large classifier's.
const MAX_OPERATIONS: u64 = 1 << 40;

/// A number of bytes, for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        match mib {
            1024.0.. => write!(f, "{:.1} GiB", mib / 1024.0),
            0.1.. => write!(f, "{mib:.1} MiB"),
            _ => write!(f, "{} bytes", self.0),
        }
    }
}

/// What evaluates a network, how many images at a time.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    /// Numbers it computes with.
    pub precision: Precision,
    /// Images that are held at a time.
    pub n_images: usize,
}

/// The bound on memory of one command.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBound {
    given: Option<u64>,
    n_threads: usize,
}

impl Default for MemoryBound {
    /// For a thread on every core.
    fn default() -> Self {
        let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { given: None, n_threads }
    }
}

impl MemoryBound {
    /// `given` bytes, else what is usual for `n_threads` threads.
    pub const fn new(given: Option<u64>, n_threads: usize) -> Self {
        Self { given, n_threads }
    }

    /// Bytes that `n_threads` threads may take for a network whose parameters take `of_weights`, beside images of
    /// `of_images` bytes, whose number is the user's and not the file's.
    fn allowed(&self, n_threads: usize, of_weights: u64, of_images: u64) -> u64 {
        let of_threads = (n_threads as u64).saturating_mul(PER_THREAD);
        let usual = of_threads.saturating_add(TIMES_WEIGHTS * of_weights).saturating_add(of_images);
        self.given.unwrap_or_else(|| available().map_or(usual, |bytes| usual.min(bytes / 2)))
    }

    /// Refuses a network whose channel groups take too much.
    ///
    /// # Errors
    /// What it would take, what is allowed, and what to do.
    pub fn check_groups(&self, network: &Network) -> anyhow::Result<()> {
        let graph = network.graph();
        let (needed, allowed) = (ChannelGroups::bytes_to_derive(graph), self.allowed(1, weight_bytes(network), 0));
        ensure!(
            needed <= allowed,
            "its channel groups take up to {} of memory, more than the {} allowed: its operations have {} channels \
             altogether, up to {} in one ('{}'); {}",
            Bytes(needed),
            Bytes(allowed),
            (0..graph.nodes().len()).map(|id| graph.shape(id).c as u64).sum::<u64>(),
            largest(graph, |id| graph.shape(id).c).0,
            largest(graph, |id| graph.shape(id).c).1,
            advice(needed)
        );
        Ok(())
    }

    /// Refuses a training that takes `needed` bytes with steps of `batch` images, if that is too much.
    ///
    /// # Errors
    /// What it would take, what is allowed, and what to do.
    pub fn check_training(&self, network: &Network, needed: u64, batch: usize) -> anyhow::Result<()> {
        let images = (batch as u64).saturating_mul(4 * network.graph().input().len() as u64);
        // What is kept for the way back grows with the batch, not with the threads.
        let allowed = self.allowed(self.n_threads.max(TRAINING_THREADS), weight_bytes(network), images);
        ensure!(
            needed <= allowed,
            "training it in steps of {batch} images takes {} of memory, more than the {} allowed; take a smaller batch, or {}",
            Bytes(needed),
            Bytes(allowed),
            advice(needed)
        );
        Ok(())
    }

    /// Refuses to train candidates of `network` in steps of `batch` images if that takes too much: each takes
    /// `needed(threads)` bytes, and as many are trained at a time as there are threads, but at most `n_at_once`.
    ///
    /// # Errors
    /// What it would take, what is allowed, and what to do; what `needed` says.
    pub(crate) fn check_candidate_trainings<E: Into<anyhow::Error>>(
        &self,
        network: &Network,
        needed: impl Fn(usize) -> Result<u64, E>,
        [n_at_once, batch]: [usize; 2],
    ) -> anyhow::Result<()> {
        let n_at_once = n_at_once.min(self.n_threads);
        let needed = needed(self.n_threads).map_err(Into::into)?.saturating_mul(n_at_once as u64);
        let allowed = self.allowed(self.n_threads.max(TRAINING_THREADS), weight_bytes(network), 0);
        ensure!(
            needed <= allowed,
            "tuning {n_at_once} of its candidates at a time in steps of {batch} images takes {} of memory, more than the \
             {} allowed; take a smaller batch, or {}",
            Bytes(needed),
            Bytes(allowed),
            advice(needed)
        );
        Ok(())
    }

    /// Refuses a network whose evaluation takes too much memory or work.
    ///
    /// # Errors
    /// What it would take, what is allowed, and what to do; a precision that this processor lacks.
    pub fn check_evaluation(&self, network: &Network, evaluation: Evaluation) -> anyhow::Result<()> {
        let graph = network.graph();
        let Evaluation { precision, n_images } = evaluation;
        let needs = PlanNeeds::of(graph, precision)?;
        ensure!(
            needs.operations <= MAX_OPERATIONS,
            "it takes {:.3e} operations for one image, more than the {MAX_OPERATIONS:.3e} of any network in use; is the \
             graph in the file damaged?",
            needs.operations as f64,
            MAX_OPERATIONS = MAX_OPERATIONS as f64
        );
        let weights = weight_bytes(network);
        let images = (n_images as u64).saturating_mul(4 * graph.input().len() as u64);
        let others = images.saturating_add(needs.logits_bytes(n_images)).saturating_add(weights);
        // Threads without an image take nothing, and add nothing to what is allowed.
        let n_groups = n_images.div_ceil(needs.lanes()).max(1);
        let needed = |n_threads: usize| needs.bytes(n_images, n_threads).saturating_add(others);
        let allowed = |n_threads: usize| self.allowed(n_threads.min(n_groups), weights, images);
        let (all, most) = (needed(self.n_threads), allowed(self.n_threads));
        if all <= most {
            return Ok(());
        }
        let (values, node) = largest(graph, |id| graph.shape(id).len());
        let fewer = (1..self.n_threads).rev().find(|&n| needed(n) <= allowed(n));
        let fewer = fewer.map_or_else(String::new, |n| format!(", or use fewer threads: --threads {n}"));
        Err(anyhow!(
            "evaluating it takes {} of memory on {} threads, more than the {} allowed: {} of activations for each thread \
             that computes (the largest of {values} values behind '{node}'; {} images are computed together), {} of \
             prepared weights, {} of images and parameters; {}{fewer}",
            Bytes(all),
            self.n_threads,
            Bytes(most),
            Bytes(needs.activations.saturating_add(needs.scratch)),
            needs.lanes(),
            Bytes(needs.kernels),
            Bytes(others),
            advice(all)
        ))
    }

    /// Refuses a data set that would fill the memory; `data_root` is where its files are looked for.
    ///
    /// # Errors
    /// What it would take, what is allowed, and what to do.
    pub fn check_dataset(&self, source: &DatasetSource, data_root: &Path) -> anyhow::Result<()> {
        // The files of other data sets have the size they have.
        let Some(needed) = source.chosen_bytes(data_root) else { return Ok(()) };
        let allowed = self.given.or_else(|| available().map(|bytes| bytes / 2)).unwrap_or(u64::MAX);
        ensure!(
            needed <= allowed,
            "its images take {} of memory, more than the {} allowed; {}",
            Bytes(needed),
            Bytes(allowed),
            match source {
                DatasetSource::Arrays { .. } => {
                    "save fewer, or write them as image files: of `Images(dir: ...)` only those are held that are used"
                }
                _ => "ask for fewer",
            }
        );
        Ok(())
    }
}

/// What to do where `needed` bytes are too many.
fn advice(needed: u64) -> String {
    format!("if that is meant, allow it with --memory {}M", needed.div_ceil(1 << 20))
}

fn weight_bytes(network: &Network) -> u64 {
    network.weights().values().map(|tensor| 4 * tensor.data().len() as u64).sum()
}

/// The largest `size` and the node that has it.
fn largest(graph: &Graph, size: impl Fn(usize) -> usize) -> (usize, &str) {
    let at = (0..graph.nodes().len()).max_by_key(|&id| (size(id), std::cmp::Reverse(id))).unwrap_or(0);
    (size(at), &graph.node(at).name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::random::with_random_weights;
    use secateur_net::{GraphBuilder, Op, Shape};

    /// A plane of 16 million values: 1 GiB for 16 images, and another one behind it.
    fn large_plane() -> Network {
        let mut b = GraphBuilder::new(Shape { c: 1, h: 4096, w: 4096 });
        b.push("tanh", Op::Pointwise(secateur_net::Pointwise::Tanh), &[0]);
        b.push("mean", Op::GlobalAvgPool, &[1]);
        with_random_weights(b.finish().unwrap(), 1)
    }

    #[test]
    fn what_takes_too_much_is_refused_with_its_size_and_what_would_do() {
        let network = large_plane();
        let evaluation = Evaluation { precision: Precision::F32, n_images: 64 };
        let check = |given, n_threads| MemoryBound { given, n_threads }.check_evaluation(&network, evaluation);
        let refusal = check(Some(7 << 30), 4).unwrap_err().to_string();
        for part in ["GiB of memory on 4 threads", "7.0 GiB allowed", "'input'", "--memory", "--threads 1"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let asked = refusal.split("--memory ").nth(1).unwrap().split('M').next().unwrap();
        let enough: u64 = asked.parse::<u64>().unwrap() << 20;
        assert!(check(Some(enough), 4).is_ok() && check(Some(enough - (1 << 20)), 4).is_err());
        assert!(check(Some(7 << 30), 1).is_ok());
    }

    #[test]
    fn work_without_end_is_refused() {
        let mut b = GraphBuilder::new(Shape { c: 1, h: 1 << 12, w: 1 << 12 });
        let window = secateur_net::Window::new([1 << 11; 2], [1; 2], [1 << 10; 2]);
        b.push("mean", Op::AvgPool(window), &[0]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        let bound = MemoryBound { given: Some(1 << 60), n_threads: 1 };
        let evaluation = Evaluation { precision: Precision::F32, n_images: 1 };
        let refusal = bound.check_evaluation(&network, evaluation).unwrap_err().to_string();
        assert!(refusal.contains("operations for one image"), "{refusal}");
    }
}
