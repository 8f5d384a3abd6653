//! What plans keep between processes: removal paths and scores, by a hash of all that they follow from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use secateur_kernels::{Isa, RemovalPath};
use secateur_net::ChannelGroups;
use secateur_sim::{Inputs, Repair, Score};
use serde::{Deserialize, Serialize};

use crate::build::build;
use crate::cache_files;
use crate::scene::TuneBeforeScore;

/// Rises whenever what is saved, or what it follows from, changes.
const FORMAT: u32 = 1;

/// A file of the cache, which may not be there.
pub(super) struct CacheFile {
    folder: Option<PathBuf>,
    name: String,
}

/// What a file of the cache holds.
pub(super) enum CacheContent<T> {
    Nothing,
    /// A file that is damaged, or none of ours.
    Damaged(PathBuf),
    Saved(T),
}

/// The plain form of removal paths: channels and errors of each group.
type PlainPaths = Vec<(Vec<u32>, Vec<f64>)>;

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScoredFor {
    /// Candidates with one group pruned, on a few images.
    Probes,
    /// What is proposed, on all reward images.
    Plans,
}

/// Scores of candidates, by the widths of all groups.
type ScoresByWidths = BTreeMap<Vec<usize>, Score>;

/// All that is known of the candidates of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedScores {
    /// The unpruned network's.
    pub(super) original: Score,
    probes: ScoresByWidths,
    plans: ScoresByWidths,
}

impl ScoredFor {
    /// What is done, for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Probes => "probing groups of",
            Self::Plans => "scoring plans of",
        }
    }
}

impl SavedScores {
    pub(super) fn new(original: Score) -> Self {
        Self { original, probes: ScoresByWidths::new(), plans: ScoresByWidths::new() }
    }

    pub(super) fn of(&self, what: ScoredFor) -> &ScoresByWidths {
        match what {
            ScoredFor::Probes => &self.probes,
            ScoredFor::Plans => &self.plans,
        }
    }

    pub(super) fn of_mut(&mut self, what: ScoredFor) -> &mut ScoresByWidths {
        match what {
            ScoredFor::Probes => &mut self.probes,
            ScoredFor::Plans => &mut self.plans,
        }
    }

    /// Whether these are scores of a network with `n` groups.
    fn fits(&self, n: usize) -> bool {
        let mut all = self.probes.iter().chain(&self.plans);
        self.original.is_one() && all.all(|(widths, score)| widths.len() == n && score.is_one())
    }
}

impl CacheFile {
    /// The file of the removal paths of `inputs`, and that of its scores, those of probes on `n_probe` images.
    pub(super) fn of(inputs: &Inputs, settings: &str, n_probe: usize) -> [Self; 2] {
        let mut hasher = blake3::Hasher::new();
        let (program, isa) = (env!("CARGO_PKG_VERSION"), Isa::detect());
        let build = build().unwrap_or_default();
        let criterion = inputs.criterion.as_ref().map(|criterion| criterion.name().to_owned());
        let graph = (inputs.network.graph().input(), inputs.network.graph().nodes());
        let text =
            format!("{FORMAT} {program} {build} {isa:?} {:?} {criterion:?} {settings} {graph:?}", inputs.protocol);
        hasher.update(text.as_bytes());
        for (name, tensor) in inputs.network.weights().iter() {
            hasher.update(format!("{name} {:?}", tensor.shape()).as_bytes());
            hash_numbers(&mut hasher, tensor.data());
        }
        hash_numbers(&mut hasher, inputs.fitted.calibration());
        let paths = hasher.finalize().to_hex();
        let Inputs { repair, walk_images, precision, reward, .. } = inputs;
        let text = format!("{repair:?} {walk_images} {n_probe} {precision:?} {:?}", reward.labels);
        hasher.update(format!("{:?} {:?}", inputs.reward.kind, inputs.reward.outputs).as_bytes());
        hasher.update(text.as_bytes());
        let n_walk = inputs.walk_images * inputs.network.graph().input().len();
        hash_numbers(&mut hasher, &inputs.fitted.refit()[..n_walk.min(inputs.fitted.refit().len())]);
        hash_numbers(&mut hasher, &inputs.reward.images);
        let scores = hasher.finalize().to_hex();
        [format!("{paths}.curves"), format!("{scores}.scores")].map(|name| Self { folder: cache_files::folder(), name })
    }

    fn read<T: for<'de> Deserialize<'de>>(&self) -> CacheContent<T> {
        let Some(folder) = &self.folder else { return CacheContent::Nothing };
        let path = folder.join(&self.name);
        if !path.exists() {
            return CacheContent::Nothing;
        }
        let saved = cache_files::read(folder, &self.name).and_then(|bytes| postcard::from_bytes(&bytes).ok());
        saved.map_or(CacheContent::Damaged(path), CacheContent::Saved)
    }

    fn write(&self, what: &impl Serialize) {
        if let (Some(folder), Ok(bytes)) = (&self.folder, postcard::to_stdvec(what)) {
            cache_files::write(folder, &self.name, &bytes);
        }
    }

    /// Removal paths down to one channel of every group that may be pruned.
    pub(super) fn read_paths(&self, groups: &ChannelGroups) -> CacheContent<Vec<Arc<RemovalPath>>> {
        let plain: PlainPaths = match self.read() {
            CacheContent::Saved(plain) => plain,
            CacheContent::Damaged(path) => return CacheContent::Damaged(path),
            CacheContent::Nothing => return CacheContent::Nothing,
        };
        let order = groups.prunable();
        let n_channels: Vec<usize> = order.iter().map(|&group| groups.group(group).n_channels).collect();
        let fits = plain.len() == order.len() && plain.iter().zip(&n_channels).all(|(path, &n)| fits(path, n));
        if !fits {
            return CacheContent::Damaged(self.folder.clone().unwrap_or_default().join(&self.name));
        }
        let path = |removed: Vec<u32>, errors: Vec<f64>| {
            Arc::new(RemovalPath { removed: removed.into_iter().map(|channel| channel as usize).collect(), errors })
        };
        CacheContent::Saved(plain.into_iter().map(|(removed, errors)| path(removed, errors)).collect())
    }

    pub(super) fn write_paths(&self, paths: &[Arc<RemovalPath>]) {
        let plain = |path: &Arc<RemovalPath>| {
            (path.removed.iter().map(|&channel| channel as u32).collect(), path.errors.clone())
        };
        self.write(&paths.iter().map(plain).collect::<PlainPaths>());
    }

    pub(super) fn read_scores(&self, groups: &ChannelGroups) -> CacheContent<SavedScores> {
        match self.read::<SavedScores>() {
            CacheContent::Saved(saved) if !saved.fits(groups.groups().len()) => {
                CacheContent::Damaged(self.folder.clone().unwrap_or_default().join(&self.name))
            }
            found => found,
        }
    }

    pub(super) fn write_scores(&self, scores: &SavedScores) {
        self.write(scores);
    }
}

/// Whether a path removes all but one of `n` channels, each once, at errors that are numbers and do not fall.
fn fits((removed, errors): &(Vec<u32>, Vec<f64>), n: usize) -> bool {
    let mut is_there = vec![true; n];
    let once = removed.iter().all(|&c| is_there.get_mut(c as usize).is_some_and(std::mem::take));
    let rises = errors.windows(2).all(|pair| pair[0] <= pair[1]) && errors.iter().all(|e| e.is_finite());
    once && rises && removed.len() + 1 == n.max(1) && errors.len() == n.max(1)
}

/// A hash of all that the score of a walk's candidate follows from beside the kept channels, on this machine; none
/// where the program cannot tell which build it is.
pub(crate) fn score_conditions(inputs: &Inputs, tune: Option<TuneBeforeScore>) -> Option<String> {
    let Inputs { network, protocol, criterion, repair, walk_images, precision, fitted, reward, .. } = inputs;
    let mut hasher = blake3::Hasher::new();
    let (program, build, isa) = (env!("CARGO_PKG_VERSION"), build()?, Isa::detect());
    let graph = (network.graph().input(), network.graph().nodes());
    let text = format!(
        "scores {FORMAT} {program} {build} {isa:?} {protocol:?} {} {repair:?} {walk_images} {precision:?} {:?} {:?} {:?} \
         {graph:?}",
        criterion.is_none(),
        reward.labels,
        reward.kind,
        reward.outputs
    );
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    for (name, tensor) in network.weights().iter() {
        hasher.update(format!("{name} {:?}", tensor.shape()).as_bytes());
        hash_numbers(&mut hasher, tensor.data());
    }
    let n_walk = walk_images * network.graph().input().len();
    let refit = fitted.refit();
    match repair {
        Repair::Off => {}
        Repair::Original => hash_numbers(&mut hasher, fitted.calibration()),
        Repair::Sequential => hash_numbers(&mut hasher, &refit[..n_walk.min(refit.len())]),
    }
    hash_numbers(&mut hasher, &reward.images);
    if let Some(tune) = tune.filter(|tune| tune.steps > 0) {
        hasher.update(format!("{tune:?}").as_bytes());
        let image_len = network.graph().input().len();
        hash_numbers(&mut hasher, &refit[..tune.n_images(refit.len() / image_len) * image_len]);
    }
    Some(hasher.finalize().to_hex().to_string())
}

fn hash_numbers(hasher: &mut blake3::Hasher, numbers: &[f32]) {
    hasher.update(&(numbers.len() as u64).to_le_bytes());
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for chunk in numbers.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
        hasher.update(&bytes);
    }
}

/// Numbers hashed at a time.
const CHUNK: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_none_of_the_network_are_told() {
        let path = |removed: &[u32], errors: &[f64]| fits(&(removed.to_vec(), errors.to_vec()), 3);
        assert!(path(&[2, 0], &[0.0, 0.1, 0.1]));
        for (removed, errors) in [
            (&[2, 2][..], &[0.0, 0.1, 0.2][..]),
            (&[2, 3], &[0.0, 0.1, 0.2]),
            (&[2], &[0.0, 0.1]),
            (&[2, 0], &[0.0, 0.1]),
            (&[2, 0], &[0.0, f64::NAN, 0.2]),
            (&[2, 0], &[0.0, 0.1, f64::INFINITY]),
            (&[2, 0], &[0.0, 0.2, 0.1]),
        ] {
            assert!(!path(removed, errors), "{removed:?} {errors:?}");
        }
        assert!(fits(&(vec![], vec![0.0]), 1));
    }
}
