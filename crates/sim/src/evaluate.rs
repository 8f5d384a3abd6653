//! How candidates become networks and scores, and what happens when that panics.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use rayon::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::{KeptChannels, Network};

use crate::caught::{Caught, guarded};
use crate::network::Prepared;
use crate::score::Score;

/// Builds the network of one candidate.
pub type Build<'a> = Box<dyn Fn(&KeptChannels) -> Result<Arc<Network>, KernelError> + Sync + 'a>;

/// How candidates are built and scored. Runs replace it to measure or test everything around it.
///
/// One that builds as ever and calls every network perfect:
/// ```
/// use std::sync::Arc;
///
/// use secateur_kernels::KernelError;
/// use secateur_net::Network;
/// use secateur_sim::{Build, Evaluate, Evaluator, RefitAndScore, Prepared, Score};
///
/// struct Perfect;
///
/// impl Evaluate for Perfect {
///     fn begin<'a>(&'a self, pool: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
///         RefitAndScore.begin(pool, prepared)
///     }
///     fn score(&self, _: &rayon::ThreadPool, _: &Prepared, _: &Network) -> Result<Score, KernelError> {
///         Ok(Score::labelled(1.0, 0.0))
///     }
/// }
///
/// let mut app = bevy_app::App::empty();
/// secateur_sim::add_process(&mut app);
/// app.insert_resource(Evaluator(Arc::new(Perfect)));
/// ```
pub trait Evaluate: Send + Sync {
    /// Does what all candidates of a network share in one tick.
    ///
    /// # Errors
    /// Whatever stops all candidates of the network.
    fn begin<'a>(&'a self, pool: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError>;

    /// Scores a network on the images of `prepared`.
    ///
    /// # Errors
    /// As [`crate::RewardImages::score`].
    fn score(&self, pool: &rayon::ThreadPool, prepared: &Prepared, network: &Network) -> Result<Score, KernelError>;
}

/// The real thing: refit and numbers as the scene asks, score on the reward images.
#[derive(Clone, Copy, Debug)]
pub struct RefitAndScore;

impl Evaluate for RefitAndScore {
    fn begin<'a>(&'a self, pool: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        let refit = prepared.walk_refit(pool);
        Ok(Box::new(move |kept| match &refit {
            Some(refit) => refit.run(kept, false).map(|(network, _)| Arc::new(network)),
            None => prepared.compact(kept).map(Arc::new),
        }))
    }

    fn score(&self, pool: &rayon::ThreadPool, prepared: &Prepared, network: &Network) -> Result<Score, KernelError> {
        prepared.reward.score(pool, network, prepared.precision)
    }
}

/// The evaluator of this world's candidates.
#[derive(Resource, Clone)]
pub struct Evaluator(pub Arc<dyn Evaluate>);

/// `work` on every item, in order of the items. Items are spread over the threads; what runs in parallel within one
/// fills the gaps at the end. A panic costs its item only.
pub(crate) fn for_each_candidate<I: Sync, T: Send>(
    pool: &rayon::ThreadPool,
    items: &[I],
    work: impl Fn(&I) -> Result<T, KernelError> + Sync,
) -> Vec<Result<T, Caught<KernelError>>> {
    // As many at a time as there are threads: a waiting thread could otherwise begin any number of candidates.
    let chunks = items.chunks(pool.current_num_threads());
    let run = |item: &I| guarded(|| work(item));
    pool.install(|| chunks.flat_map(|items| items.par_iter().map(run).collect::<Vec<_>>()).collect())
}
