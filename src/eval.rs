//! `eval`: top-1 accuracy of one network on one split.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, ensure};
use rayon::{ThreadPool, ThreadPoolBuilder};
use secateur_formats::{Dataset, Split};
use secateur_gpu::{Candidates, GpuScore, ImageSet, PendingScores, Session, Truth};
use secateur_kernels::{Arithmetic, KernelError, Plan, Precision};
use secateur_net::Network;

use crate::arguments::{DeviceArg, EvalArgs, NetworkArgs, ThreadArgs};
use crate::load::{LoadedNetwork, load_network, load_split};
use crate::memory::{Evaluation, MemoryBound};
use crate::roots::Roots;
use crate::screen::Progress;
use crate::{Failure, card, screen};

/// Images prepared at a time: enough to keep every thread busy, few enough to need little memory.
const CHUNK_IMAGES: usize = 512;
/// More threads than this are a slip of the finger.
const MAX_THREADS: usize = 1024;

pub(crate) fn eval(arguments: &EvalArgs) -> Result<(), Failure> {
    let network = requested_network(&arguments.network)?;
    let split = Split::from(arguments.split);
    let roots = Roots::new(arguments.data_root.clone(), None, Default::default());
    let data = load_split(arguments.dataset.0, &roots.data, split)
        .context("set --data-root or SECATEUR_DATA to the folder that holds the data set")
        .and_then(|data| check_fit(&network, &data).map(|()| data))
        .map_err(Failure::BadArguments)?;
    let n = arguments.limit.map_or(data.len(), NonZeroUsize::get).min(data.len());
    if arguments.device == DeviceArg::Cpu {
        check_memory(arguments, &network, n)?;
    }
    let pool = thread_pool(arguments.threads)?;
    let mut engine = Engine::new(arguments.device, &network)?;
    let start = Instant::now();
    let n_correct = count_correct(&network, &data, n, &mut engine, &pool)?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let (mean, std) = (&network.preprocessing.mean, &network.preprocessing.std);
    let split = if split == Split::Test { "test" } else { "training" };
    screen::result(format_args!("network        {} ('{}')", network.name, network.path.display()))?;
    for assumption in &network.assumptions {
        screen::result(format_args!("               {assumption}"))?;
    }
    screen::result(format_args!("preprocessing  mean {mean:?}, std {std:?}"))?;
    screen::result(format_args!("data           {n} of {} {split} images of {}", data.len(), data.name))?;
    let rate = n as f64 / elapsed_s;
    let device = match &engine {
        Engine::Cpu(_) => format!("{} threads", pool.current_num_threads()),
        Engine::Gpu(session) => {
            session.gpu().into_iter().for_each(card::keep_pipelines);
            session.name().to_owned()
        }
    };
    screen::result(format_args!("speed          {rate:.0} images/s ({elapsed_s:.2} s on {device})"))?;
    Ok(screen::result(top1(n_correct, n))?)
}

/// The last line of the output.
fn top1(n_correct: usize, n: usize) -> String {
    format!("top1 {:.4} ({n_correct} of {n})", n_correct as f64 / n as f64)
}

/// The network a command names.
///
/// # Errors
/// As [`Roots::find_network`] and [`load_network`]: exit code 2.
pub(crate) fn requested_network(arguments: &NetworkArgs) -> Result<LoadedNetwork, Failure> {
    let mean_std = arguments.mean.clone().zip(arguments.std.clone());
    let roots = Roots::new(None, arguments.model_root.clone(), Default::default());
    let load = || {
        let path = roots.find_network(&arguments.network)?;
        load_network(&path, arguments.arch.as_deref(), mean_std.as_ref())
    };
    load().map_err(Failure::BadArguments)
}

/// Threads asked for, else one per core.
///
/// # Errors
/// A number beyond reason.
pub(crate) fn n_threads(arguments: ThreadArgs) -> Result<usize, Failure> {
    let all_cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let n = arguments.threads.map_or_else(all_cores, NonZeroUsize::get);
    if n > MAX_THREADS {
        let refusal = anyhow::anyhow!("--threads: expected at most {MAX_THREADS}, got {n}");
        return Err(Failure::BadArguments(refusal));
    }
    Ok(n)
}

/// A pool of as many threads as asked for.
///
/// # Errors
/// A number beyond reason, or threads the system does not give.
pub(crate) fn thread_pool(arguments: ThreadArgs) -> Result<ThreadPool, Failure> {
    let n = n_threads(arguments)?;
    let pool = ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("compute {i}")).build();
    Ok(pool.context("start the threads that compute")?)
}

/// Whether the memory is enough for `n` images, of which two chunks are held at a time.
fn check_memory(arguments: &EvalArgs, network: &LoadedNetwork, n: usize) -> Result<(), Failure> {
    let bound = MemoryBound::new(arguments.memory, n_threads(arguments.threads)?);
    let evaluation = Evaluation { precision: Precision::F32, n_images: n.min(CHUNK_IMAGES) };
    let fits = bound.check_evaluation(&network.folded, evaluation);
    fits.with_context(|| format!("network '{}'", network.name)).map_err(Failure::BadArguments)
}

fn check_fit(network: &LoadedNetwork, data: &Dataset) -> anyhow::Result<()> {
    let graph = network.folded.graph();
    let (reads, name) = (graph.input(), &network.name);
    ensure!(
        reads == data.shape,
        "network '{name}' reads images of {reads}, those of '{}' are {}",
        data.name,
        data.shape
    );
    let (outputs, n_classes) = (graph.n_classes(), data.n_classes);
    ensure!(outputs == n_classes, "network '{name}' has {outputs} outputs, '{}' has {n_classes} classes", data.name);
    ensure!(!data.is_empty(), "data set '{}' has no image", data.name);
    Ok(())
}

/// What computes.
enum Engine {
    Cpu(Plan),
    Gpu(Box<Session>),
}

impl Engine {
    fn new(device: DeviceArg, network: &LoadedNetwork) -> Result<Self, Failure> {
        Ok(match device {
            DeviceArg::Cpu => {
                Self::Cpu(Plan::compile(&network.folded, Arithmetic::default()).map_err(anyhow::Error::from)?)
            }
            DeviceArg::Gpu => Self::Gpu(Box::new(card::open()?)),
        })
    }

    /// Hands images to the card, if one computes, and returns while that is busy.
    fn begin(&mut self, network: &Network, chunk: &Chunk<'_>) -> Option<PendingScores> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(session) => Some(session.begin(None, &chunk.set(network), &Candidates::Repaired(&[network]))),
        }
    }

    /// How many images are predicted as their label. A card that fails twice is given up for the processor.
    fn n_correct(
        &mut self,
        network: &Network,
        pool: &ThreadPool,
        chunk: &Chunk<'_>,
        begun: Option<PendingScores>,
    ) -> anyhow::Result<usize> {
        let (session, begun) = match (&mut *self, begun) {
            (Self::Cpu(plan), _) => return Ok(plan.n_correct(pool, &chunk.images, chunk.labels)?),
            (Self::Gpu(_), None) => anyhow::bail!("images that the card was not handed"),
            (Self::Gpu(session), Some(begun)) => (session, begun),
        };
        match session.finish(begun, None, &chunk.set(network), &Candidates::Repaired(&[network])) {
            Ok(scored) => {
                if let Some(error) = scored.recovered {
                    screen::note(format_args!("{error}; the device was rebuilt and the images run again"));
                }
                match scored.scores.first() {
                    Some(GpuScore { first_not_finite: Some(image), .. }) => {
                        Err(KernelError::NanLogits { image: *image }.into())
                    }
                    score => Ok(score.map_or(0, |score| score.n_correct)),
                }
            }
            Err(error) => {
                screen::note(format_args!("{error}; going on on the CPU"));
                let plan = Plan::compile(network, Arithmetic::default())?;
                let n_correct = plan.n_correct(pool, &chunk.images, chunk.labels)?;
                *self = Self::Cpu(plan);
                Ok(n_correct)
            }
        }
    }
}

/// Images that are prepared together.
struct Chunk<'a> {
    from: usize,
    images: Vec<f32>,
    labels: &'a [u16],
}

impl<'a> Chunk<'a> {
    fn new(network: &LoadedNetwork, data: &'a Dataset, range: Range<usize>) -> Self {
        let images = data.normalised_nhwc(&range.clone().collect::<Vec<_>>(), &network.preprocessing);
        Self { from: range.start, images, labels: &data.labels[range] }
    }

    fn set(&self, network: &Network) -> ImageSet<'_> {
        let truth = Truth { labels: self.labels, n_classes: network.graph().n_classes(), original_logits: None };
        ImageSet { shape: network.graph().input(), images: &self.images, truth }
    }
}

/// Images are prepared and sent while the card has those before them.
fn count_correct(
    network: &LoadedNetwork,
    data: &Dataset,
    n: usize,
    engine: &mut Engine,
    pool: &ThreadPool,
) -> anyhow::Result<usize> {
    let (mut progress, mut n_correct) = (Progress::new(n as u64), 0);
    let mut finish = |engine: &mut Engine, chunk: &Chunk<'_>, begun: Option<PendingScores>| {
        let to = chunk.from + chunk.labels.len();
        let counted = engine.n_correct(&network.folded, pool, chunk, begun);
        n_correct += counted.with_context(|| format!("images {} to {}", chunk.from, to - 1))?;
        progress.set(to as u64);
        anyhow::Ok(())
    };
    let mut ahead: Option<(Chunk<'_>, Option<PendingScores>)> = None;
    for from in (0..n).step_by(CHUNK_IMAGES) {
        let chunk = Chunk::new(network, data, from..n.min(from + CHUNK_IMAGES));
        let begun = engine.begin(&network.folded, &chunk);
        if let Some((before, begun)) = ahead.replace((chunk, begun)) {
            finish(engine, &before, begun)?;
        }
    }
    if let Some((last, begun)) = ahead {
        finish(engine, &last, begun)?;
    }
    Ok(n_correct)
}

#[cfg(test)]
mod tests {
    use super::top1;

    #[test]
    fn the_last_line_is_what_scripts_expect() {
        assert_eq!(top1(9173, 10_000), "top1 0.9173 (9173 of 10000)");
        assert_eq!(top1(1, 3), "top1 0.3333 (1 of 3)");
    }
}
