//! A device that is rebuilt when it fails in the middle of a batch, once, and the images that stay on it.

use std::collections::HashMap;

use secateur_net::Shape;

use crate::adapter::AdapterId;
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
///
/// # Example
/// ```no_run
/// use secateur_gpu::{Candidates, GpuOptions, ImageSet, Session, Truth};
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{Shape, arch, fold_batch_norm};
///
/// let shape = Shape { c: 3, h: 32, w: 32 };
/// let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
/// let images = vec![0.5; 100 * shape.len()];
/// let truth = Truth { labels: Some(&[3; 100]), n_classes: 10, original_logits: None };
/// let set = ImageSet { shape, images: &images, truth };
///
/// let mut session = Session::open(GpuOptions::default())?;
/// let candidates = Candidates::Repaired(&[&network]);
/// // Images of one key stay on the card; the processor is free until the scores are fetched.
/// let pending = session.begin(Some(0), &set, &candidates);
/// let scored = session.finish(pending, Some(0), &set, &candidates)?;
/// println!("{} of 100 on {}", scored.scores[0].n_correct, session.name());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    options: GpuOptions,
    adapter: AdapterId,
    open: Option<Open>,
    n_rebuilt: usize,
    /// Key and content of the pipelines that the rebuilt device begins with.
    compiled: Option<(String, Vec<u8>)>,
}

/// How often a device that fails is rebuilt: one that fails again would go on failing, and each failure may take
/// minutes.
const REBUILDS_MAX: usize = 1;

/// Candidates handed to a device, or why they could not be.
#[derive(Debug)]
pub struct PendingScores {
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
        let adapter = gpu.adapter().clone();
        Ok(Self { options, adapter, open: Some(Open { gpu, images: HashMap::new() }), n_rebuilt: 0, compiled: None })
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.adapter.name
    }

    /// The device; none after it failed and could not be rebuilt.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.open.as_ref().map(|open| &open.gpu)
    }

    /// Scores candidates on the images known as `key`, which are sent to the card when they are first used; without a
    /// key they do not stay there. When the device fails (lost, out of memory, hung), it is rebuilt, after running out
    /// of memory with smaller batches, and the whole batch scored again; but once only, however long the session lasts.
    ///
    /// # Errors
    /// The second failure of the device, that its adapter is gone; what cannot be cured by another try, see
    /// [`Gpu::score`].
    pub fn score(
        &mut self,
        key: Option<usize>,
        set: &ImageSet<'_>,
        candidates: &Candidates<'_>,
    ) -> Result<Scored, GpuError> {
        let begun = self.begin(key, set, candidates);
        self.finish(begun, key, set, candidates)
    }

    /// The first half of [`Session::score`]: hands candidates to the card and returns while that is busy. What fails is
    /// told by `finish`.
    pub fn begin(&mut self, key: Option<usize>, set: &ImageSet<'_>, candidates: &Candidates<'_>) -> PendingScores {
        PendingScores { n_rebuilt: self.n_rebuilt, scoring: self.try_begin(key, set, candidates) }
    }

    /// The second half of [`Session::score`], with what `begin` was given.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn finish(
        &mut self,
        begun: PendingScores,
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
            Ok(scores) => {
                self.keep_compiled();
                return Ok(Scored { scores, recovered: None });
            }
            Err(error) if error.is_of_device() && self.n_rebuilt < REBUILDS_MAX => error,
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

    /// What the first batch compiled: a device that is lost no longer tells.
    fn keep_compiled(&mut self) {
        if self.compiled.is_none() {
            self.compiled = self.gpu().and_then(Gpu::compiled);
        }
    }

    fn rebuild(&mut self, failure: &GpuError) -> Result<(), GpuError> {
        if let Some(open) = self.open.take()
            && matches!(failure, GpuError::OutOfMemory { .. })
        {
            self.options.activations_max = Some(open.gpu.activations_max() / 4);
            self.options.weights_max = Some(open.gpu.weights_max() / 4);
        }
        self.n_rebuilt += 1;
        let gpu = Gpu::open_again(&self.options, &|key| self.compiled_under(key), Some(&self.adapter))?;
        self.open = Some(Open { gpu, images: HashMap::new() });
        Ok(())
    }

    fn compiled_under(&self, key: &str) -> Option<Vec<u8>> {
        self.compiled.as_ref().filter(|(own, _)| own == key).map(|(_, compiled)| compiled.clone())
    }
}

fn closed() -> GpuError {
    GpuError::Lost { doing: "scoring candidates".into(), problem: "closed after a failure".into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use secateur_net::Network;
    use secateur_net::random::random_network;

    struct Case {
        network: Network,
        images: Vec<f32>,
        logits: Vec<f32>,
    }

    impl Case {
        fn new() -> Self {
            let network = random_network(5);
            let images = (0..9 * network.graph().input().len()).map(|i| (i as f32 * 0.37).sin()).collect();
            let logits = vec![0.0; 9 * network.graph().n_classes()];
            Self { network, images, logits }
        }

        fn set(&self) -> ImageSet<'_> {
            let (shape, n_classes) = (self.network.graph().input(), self.network.graph().n_classes());
            let truth = Truth { labels: Some(&[0; 9]), n_classes, original_logits: Some(&self.logits) };
            ImageSet { shape, images: &self.images, truth }
        }
    }

    /// Without an adapter the tests in tests/it say that they are skipped.
    fn session() -> Option<Session> {
        Session::open(GpuOptions::default()).ok()
    }

    /// The driver says so while the second of two batches is handed over: the first has its scores already.
    #[test]
    fn out_of_memory_is_answered_by_smaller_batches() {
        let (Some(mut session), case) = (session(), Case::new()) else { return };
        let (set, networks) = (case.set(), [&case.network]);
        let candidates = Candidates::Repaired(&networks);
        let expected = session.score(Some(0), &set, &candidates).unwrap();
        let room = |session: &Session| [session.gpu().unwrap().activations_max(), session.gpu().unwrap().weights_max()];
        let before = room(&session);
        let first = session.begin(Some(0), &set, &candidates);
        session.gpu().unwrap().report(&wgpu::Error::OutOfMemory { source: "no room".into() });
        let second = session.begin(Some(0), &set, &candidates);
        assert_eq!(session.finish(first, Some(0), &set, &candidates).unwrap(), expected);
        let scored = session.finish(second, Some(0), &set, &candidates).unwrap();
        let failure = scored.recovered.unwrap();
        assert!(matches!(&failure, GpuError::OutOfMemory { .. }), "{failure}");
        assert_eq!((scored.scores, room(&session)), (expected.scores, before.map(|bytes| bytes / 4)));
    }

    #[test]
    fn a_queue_that_hangs_once_is_left_for_another_device_which_gives_the_same_scores() {
        let (Some(mut session), case) = (session(), Case::new()) else { return };
        let (set, networks) = (case.set(), [&case.network; 3]);
        let candidates = Candidates::Repaired(&networks);
        let expected = session.score(Some(0), &set, &candidates).unwrap();
        // No time at all is too little for any wait; the rebuilt device has all of it.
        session.open.as_mut().unwrap().gpu.timeout = Duration::ZERO;
        let begun = [session.begin(Some(0), &set, &candidates), session.begin(Some(0), &set, &candidates)];
        let scored = begun.map(|begun| session.finish(begun, Some(0), &set, &candidates).unwrap());
        assert!(matches!(scored[0].recovered, Some(GpuError::Timeout { .. })), "{:?}", scored[0].recovered);
        assert_eq!(scored[1].recovered, None, "lost with the device of the first");
        assert!(scored.iter().all(|scored| scored.scores == expected.scores), "{scored:?} {expected:?}");
        assert!(session.gpu().unwrap().timeout > Duration::ZERO);
    }

    #[test]
    fn what_the_first_batch_compiled_is_there_for_the_rebuilt_device() {
        let (Some(mut session), case) = (session(), Case::new()) else { return };
        let networks = [&case.network];
        session.score(Some(0), &case.set(), &Candidates::Repaired(&networks)).unwrap();
        let Some((key, compiled)) = session.gpu().unwrap().compiled() else { return };
        session.gpu().unwrap().destroy();
        assert_eq!(session.gpu().unwrap().compiled(), None, "a lost device tells nothing");
        assert_eq!(session.compiled_under(&key), Some(compiled));
        assert_eq!(session.compiled_under("another adapter"), None);
    }

    /// Another one would round otherwise, under the name of the first.
    #[test]
    fn a_device_is_rebuilt_on_its_own_adapter_or_not_at_all() {
        let (Some(mut session), case) = (session(), Case::new()) else { return };
        session.adapter.name = "an adapter that was unplugged".into();
        session.gpu().unwrap().destroy();
        let error = session.score(None, &case.set(), &Candidates::Repaired(&[&case.network])).unwrap_err();
        assert!(matches!(&error, GpuError::NoDevice { adapter, .. } if adapter.contains("unplugged")), "{error}");
    }
}
