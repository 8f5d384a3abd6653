//! A device that is rebuilt once when it fails in the middle of a batch, and the images that stay on it.

use std::collections::HashMap;

use secateur_net::Shape;

use crate::candidates::Candidates;
use crate::images::{GpuImages, Truth};
use crate::score::{GpuScore, Scoring};
use crate::{Gpu, GpuError, GpuOptions};

/// Images with their labels, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub struct ImageSet<'a> {
    /// Shape of one image.
    pub shape: Shape,
    /// `[N, H, W, C]`.
    pub images: &'a [f32],
    /// What predictions are compared with.
    pub truth: Truth<'a>,
}

/// Scores of a batch, and what went wrong on the way to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// By candidate.
    pub scores: Vec<GpuScore>,
    /// The failure after which the device was rebuilt and the batch scored again.
    pub recovered: Option<GpuError>,
}

/// An open device and the images on it.
#[derive(Debug)]
pub struct Session {
    options: GpuOptions,
    name: String,
    open: Option<Open>,
    n_rebuilt: usize,
}

/// Candidates handed to a device, or why they could not be.
#[derive(Debug)]
pub struct Begun {
    n_rebuilt: usize,
    scoring: Result<Scoring, GpuError>,
}

#[derive(Debug)]
struct Open {
    gpu: Gpu,
    images: HashMap<usize, GpuImages>,
}

impl Session {
    /// Opens the best adapter; see [`crate::adapters`].
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open(options: GpuOptions) -> Result<Self, GpuError> {
        Self::open_with(options, &|_| None)
    }

    /// As [`Session::open`], with pipelines compiled earlier; see [`Gpu::open_with`].
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with(options: GpuOptions, compiled: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, GpuError> {
        let gpu = Gpu::open_with(&options, compiled)?;
        let name = gpu.name().to_owned();
        Ok(Self { options, name, open: Some(Open { gpu, images: HashMap::new() }), n_rebuilt: 0 })
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device; none after it failed and could not be rebuilt.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.open.as_ref().map(|open| &open.gpu)
    }

    /// Scores candidates on the images known as `key`, which are sent to the card when they are first used; without a key they
    /// do not stay there. When the device fails (lost, out of memory, hung), it is rebuilt once, after running out of memory with
    /// smaller batches, and the whole batch scored again.
    ///
    /// # Errors
    /// The second failure of the device; what cannot be cured by another try, see [`Gpu::score`].
    pub fn score(
        &mut self,
        key: Option<usize>,
        set: &ImageSet<'_>,
        candidates: &Candidates<'_>,
    ) -> Result<Scored, GpuError> {
        let begun = self.begin(key, set, candidates);
        self.finish(begun, key, set, candidates)
    }

    /// The first half of [`Session::score`]: hands candidates to the card and returns while that is busy. What fails is told by
    /// `finish`.
    pub fn begin(&mut self, key: Option<usize>, set: &ImageSet<'_>, candidates: &Candidates<'_>) -> Begun {
        Begun { n_rebuilt: self.n_rebuilt, scoring: self.try_begin(key, set, candidates) }
    }

    /// The second half of [`Session::score`], with what `begin` was given.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn finish(
        &mut self,
        begun: Begun,
        key: Option<usize>,
        set: &ImageSet<'_>,
        candidates: &Candidates<'_>,
    ) -> Result<Scored, GpuError> {
        if begun.n_rebuilt != self.n_rebuilt {
            // Its device was given up with an earlier batch.
            return Ok(Scored { scores: self.try_score(key, set, candidates)?, recovered: None });
        }
        let finished = begun.scoring.and_then(|scoring| self.gpu().ok_or_else(closed)?.finish_scoring(scoring));
        let failure = match finished {
            Ok(scores) => return Ok(Scored { scores, recovered: None }),
            Err(error) if error.is_of_device() => error,
            Err(error) => return Err(error),
        };
        self.rebuild(&failure)?;
        let scores = self.try_score(key, set, candidates)?;
        Ok(Scored { scores, recovered: Some(failure) })
    }

    fn try_score(
        &mut self,
        key: Option<usize>,
        set: &ImageSet<'_>,
        candidates: &Candidates<'_>,
    ) -> Result<Vec<GpuScore>, GpuError> {
        let scoring = self.try_begin(key, set, candidates)?;
        self.gpu().ok_or_else(closed)?.finish_scoring(scoring)
    }

    fn try_begin(
        &mut self,
        key: Option<usize>,
        set: &ImageSet<'_>,
        candidates: &Candidates<'_>,
    ) -> Result<Scoring, GpuError> {
        let open = self.open.as_mut().ok_or_else(closed)?;
        let send = |gpu: &Gpu| GpuImages::new(gpu, set.shape, set.images, Some(set.truth));
        let Some(key) = key else {
            return open.gpu.begin_scoring(&send(&open.gpu)?, candidates);
        };
        if !open.images.contains_key(&key) {
            open.images.insert(key, send(&open.gpu)?);
        }
        open.gpu.begin_scoring(&open.images[&key], candidates)
    }

    fn rebuild(&mut self, failure: &GpuError) -> Result<(), GpuError> {
        if let Some(open) = self.open.take() {
            if matches!(failure, GpuError::OutOfMemory { .. }) {
                self.options.activations_max = Some(open.gpu.activations_max() / 4);
            }
            if matches!(failure, GpuError::Timeout { .. }) {
                // Closing a device waits for its queue, and this one hangs.
                std::mem::forget(open);
            }
        }
        self.n_rebuilt += 1;
        let gpu = Gpu::open(&self.options)?;
        self.name = gpu.name().to_owned();
        self.open = Some(Open { gpu, images: HashMap::new() });
        Ok(())
    }
}

fn closed() -> GpuError {
    GpuError::Lost { doing: "scoring candidates".into(), problem: "closed after a failure".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::random::random_network;

    /// The driver says so while the second of two batches is handed over: the first has its scores already.
    #[test]
    fn out_of_memory_is_answered_by_smaller_batches() {
        let network = random_network(5);
        let (shape, n_classes) = (network.graph().input(), network.graph().n_classes());
        let images: Vec<f32> = (0..9 * shape.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let truth = Truth { labels: &[0; 9], n_classes, original_logits: Some(&vec![0.0; 9 * n_classes]) };
        let set = ImageSet { shape, images: &images, truth };
        let candidates = Candidates::Repaired(&[&network]);
        // Without an adapter the tests in tests/it say that they are skipped.
        let Ok(mut session) = Session::open(GpuOptions::default()) else { return };
        let expected = session.score(Some(0), &set, &candidates).unwrap();
        let room = session.gpu().unwrap().activations_max();
        let first = session.begin(Some(0), &set, &candidates);
        session.gpu().unwrap().report(&wgpu::Error::OutOfMemory { source: "no room".into() });
        let second = session.begin(Some(0), &set, &candidates);
        assert_eq!(session.finish(first, Some(0), &set, &candidates).unwrap(), expected);
        let scored = session.finish(second, Some(0), &set, &candidates).unwrap();
        let failure = scored.recovered.unwrap();
        assert!(matches!(&failure, GpuError::OutOfMemory { .. }), "{failure}");
        assert_eq!((&scored.scores, session.gpu().unwrap().activations_max()), (&expected.scores, room / 4));
    }
}
