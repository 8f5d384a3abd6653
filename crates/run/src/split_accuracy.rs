//! Top-1 accuracy over many images, on the processor or on the card.

use std::ops::Range;

use anyhow::Context;
use rayon::ThreadPool;
use secateur_formats::{Dataset, Preprocessing};
use secateur_gpu::{Candidates, GpuScore, ImageSet, PendingScores, Session, Truth};
use secateur_kernels::{Arithmetic, KernelError, Plan};
use secateur_net::Network;

/// Images that [`count_correct`] prepares at a time, of which it holds two lots: enough to keep every thread busy, few
/// enough to need little memory.
pub const CHUNK_IMAGES: usize = 512;

/// What computes.
#[derive(Debug)]
pub enum Engine {
    /// The processor, with the network compiled for it.
    Cpu(Box<Plan>),
    /// The card.
    Gpu(Box<Session>),
}

/// What happens on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountEvent {
    /// So many images are done.
    Done(u64),
    /// The card failed and was replaced; a sentence for the user.
    Note(String),
}

impl Engine {
    /// The processor.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn cpu(network: &Network) -> Result<Self, KernelError> {
        Plan::compile(network, Arithmetic::default()).map(|plan| Self::Cpu(Box::new(plan)))
    }

    /// Hands images to the card, if one computes, and returns while that is busy.
    fn begin(&mut self, network: &Network, chunk: &ImageChunk) -> Option<PendingScores> {
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
        (chunk, begun): (&ImageChunk, Option<PendingScores>),
        tell: &mut impl FnMut(CountEvent),
    ) -> anyhow::Result<usize> {
        let (session, begun) = match (&mut *self, begun) {
            (Self::Cpu(plan), _) => return Ok(plan.n_correct(pool, &chunk.images, &chunk.labels)?),
            (Self::Gpu(_), None) => anyhow::bail!("images that the card was not handed"),
            (Self::Gpu(session), Some(begun)) => (session, begun),
        };
        match session.finish(begun, None, &chunk.set(network), &Candidates::Repaired(&[network])) {
            Ok(scored) => {
                if let Some(error) = scored.recovered {
                    tell(CountEvent::Note(format!("{error}; the device was rebuilt and the images run again")));
                }
                match scored.scores.first() {
                    Some(GpuScore { first_not_finite: Some(image), .. }) => {
                        Err(KernelError::NanLogits { image: *image }.into())
                    }
                    score => Ok(score.map_or(0, |score| score.n_correct)),
                }
            }
            Err(error) => {
                tell(CountEvent::Note(format!("{error}; going on on the CPU")));
                let plan = Plan::compile(network, Arithmetic::default())?;
                let n_correct = plan.n_correct(pool, &chunk.images, &chunk.labels)?;
                *self = Self::Cpu(Box::new(plan));
                Ok(n_correct)
            }
        }
    }
}

/// Images that are prepared together.
struct ImageChunk {
    range: Range<usize>,
    images: Vec<f32>,
    labels: Vec<u16>,
}

impl ImageChunk {
    /// Those of the images in `range` that can be read.
    fn new(of: &FirstImages<'_>, range: Range<usize>, pool: &ThreadPool) -> anyhow::Result<Self> {
        let (labels, order) = (of.data.labels()?, of.places(range.clone()));
        let loaded = of.data.load_first(order.len(), &order, of.preprocessing, pool)?;
        let labels = loaded.indices.iter().map(|&index| labels[index]).collect();
        Ok(Self { range, images: loaded.images, labels })
    }

    fn set(&self, network: &Network) -> ImageSet<'_> {
        let labels = Some(self.labels.as_slice());
        let truth = Truth { labels, n_classes: network.graph().n_classes(), original_logits: None };
        ImageSet { shape: network.graph().input(), images: &self.images, truth }
    }
}

/// Images of a data set, as a network expects them: the first of it, or of a list.
#[derive(Clone, Copy, Debug)]
pub struct FirstImages<'a> {
    /// The data set.
    pub data: &'a Dataset,
    /// What the network expects of its input.
    pub preprocessing: &'a Preprocessing,
    /// The list; none for the data set's own order.
    pub order: Option<&'a [usize]>,
    /// How many of them, at most as many as there are.
    pub n: usize,
}

impl FirstImages<'_> {
    /// The places in the data set of some of them.
    pub(crate) fn places(&self, range: Range<usize>) -> Vec<usize> {
        self.order.map_or_else(|| range.clone().collect(), |order| order[range.clone()].to_vec())
    }
}

/// Images that were predicted as their label, and all that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedImages {
    /// Predicted as their label.
    pub n_correct: usize,
    /// Looked at; files that cannot be read are left out.
    pub n: usize,
}

impl CountedImages {
    /// Share of those looked at that were predicted as their label.
    pub fn accuracy(&self) -> f64 {
        self.n_correct as f64 / self.n.max(1) as f64
    }
}

/// Whether `network` predicts each image as its label; files that cannot be read are left out.
///
/// # Errors
/// As [`Plan::predictions`], with the images where it happened; images without labels.
pub fn correct_images(
    network: &Network,
    images: FirstImages<'_>,
    pool: &ThreadPool,
    mut tell: impl FnMut(CountEvent),
) -> anyhow::Result<Vec<bool>> {
    let plan = Plan::compile(network, Arithmetic::default())?;
    let mut correct = Vec::with_capacity(images.n);
    for from in (0..images.n).step_by(CHUNK_IMAGES) {
        let range = from..images.n.min(from + CHUNK_IMAGES);
        let chunk = ImageChunk::new(&images, range.clone(), pool)?;
        let predictions = plan.predictions(pool, &chunk.images);
        let predictions = predictions.with_context(|| format!("images {from} to {}", range.end - 1))?;
        correct.extend(predictions.iter().zip(&chunk.labels).map(|(predicted, label)| predicted == label));
        tell(CountEvent::Done(range.end as u64));
    }
    Ok(correct)
}

/// How many images `network` predicts as their label. Images are prepared, and sent, while the card has those before
/// them.
///
/// # Errors
/// As [`Plan::n_correct`], with the images where it happened; images without labels.
pub fn count_correct(
    network: &Network,
    images: FirstImages<'_>,
    engine: &mut Engine,
    pool: &ThreadPool,
    mut tell: impl FnMut(CountEvent),
) -> anyhow::Result<CountedImages> {
    let n = images.n;
    let mut count = CountedImages::default();
    let mut finish = |engine: &mut Engine, chunk: &ImageChunk, begun: Option<PendingScores>| {
        let Range { start, end } = chunk.range;
        let counted = engine.n_correct(network, pool, (chunk, begun), &mut tell);
        count.n_correct += counted.with_context(|| format!("images {start} to {}", end - 1))?;
        count.n += chunk.labels.len();
        tell(CountEvent::Done(end as u64));
        anyhow::Ok(())
    };
    let mut ahead: Option<(ImageChunk, Option<PendingScores>)> = None;
    for from in (0..n).step_by(CHUNK_IMAGES) {
        let chunk = ImageChunk::new(&images, from..n.min(from + CHUNK_IMAGES), pool)?;
        let begun = engine.begin(network, &chunk);
        if let Some((before, begun)) = ahead.replace((chunk, begun)) {
            finish(engine, &before, begun)?;
        }
    }
    if let Some((last, begun)) = ahead {
        finish(engine, &last, begun)?;
    }
    Ok(count)
}
