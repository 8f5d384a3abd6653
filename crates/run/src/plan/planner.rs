//! Plans for one network on one data set.

use std::sync::Arc;

use anyhow::Context;
use rayon::prelude::*;
use secateur_kernels::{KernelError, Precision, RemovalPath};
use secateur_net::{ChannelGroups, CostModel};
use secateur_rl::ErrorWeights;
use secateur_sim::{
    CostBound, Evaluate, Inputs, Prepared, RefitAndScore, RewardImages, Score, Selection, WidthRules, removal_paths,
};

use super::allocate::{PlannedWidths, Ranked, is_measured};
use super::saved::{CacheContent, CacheFile, SavedScores, ScoredFor};
use crate::observer::StageKind;
use crate::reporter::Reporter;
use crate::scene::Scene;

/// One network on one data set: its groups and error curves, and the scores of its candidates.
pub(crate) struct Planner<'a> {
    pool: &'a rayon::ThreadPool,
    scene: &'a Scene,
    /// Until the first candidate is scored that has no known score.
    inputs: Option<Inputs>,
    prepared: Option<Prepared>,
    pub(super) groups: ChannelGroups,
    pub(super) model: Arc<CostModel>,
    pub(super) paths: Vec<Arc<RemovalPath>>,
    pub(super) measured: Vec<bool>,
    rules: WidthRules,
    file: CacheFile,
    scores: Option<SavedScores>,
    is_changed: bool,
    pub(super) names: [String; 2],
    /// Candidates that probing takes.
    pub(super) n_probes: usize,
}

/// A network on a data set, and which widths its groups may take.
pub(super) struct PlanInputs {
    pub(super) inputs: Inputs,
    pub(super) rules: WidthRules,
}

impl<'a> Planner<'a> {
    /// The error curves are those that an earlier process measured, or are measured now.
    pub(super) fn new(
        pool: &'a rayon::ThreadPool,
        scene: &'a Scene,
        PlanInputs { inputs, rules }: PlanInputs,
        reporter: &mut Reporter<'_>,
    ) -> anyhow::Result<Self> {
        let [curves, file] = CacheFile::of(&inputs, &settings(scene), scene.images.probe);
        let paths = known_paths(pool, &curves, &inputs, reporter)?;
        let graph = inputs.network.graph();
        let groups = ChannelGroups::derive(graph, inputs.protocol);
        let model = Arc::new(CostModel::new(graph, &groups));
        let measured = groups.prunable().into_iter().map(|group| is_measured(graph, &groups, group)).collect();
        let scores = match file.read_scores(&groups) {
            CacheContent::Saved(scores) => Some(scores),
            CacheContent::Nothing => None,
            CacheContent::Damaged(path) => {
                note_damage(&path, reporter);
                None
            }
        };
        let names = [inputs.network_name.clone(), inputs.dataset_name.clone()];
        Ok(Self {
            pool,
            scene,
            inputs: Some(inputs),
            prepared: None,
            groups,
            model,
            paths,
            measured,
            rules,
            file,
            scores,
            is_changed: false,
            names,
            n_probes: 0,
        })
    }

    pub(super) fn ranked(&self) -> Ranked<'_> {
        let Self { groups, model, paths, measured, rules, .. } = self;
        Ranked { groups, model, paths, measured, rules }
    }

    /// Widths for each of the budgets, and their scores.
    pub(super) fn plan(
        &mut self,
        budgets: &[Vec<CostBound>],
        weights: ErrorWeights,
        reporter: &mut Reporter<'_>,
    ) -> anyhow::Result<Vec<(PlannedWidths, Score)>> {
        let weights = if budgets.is_empty() { ErrorWeights::Equal } else { weights };
        let probes = self.ranked().probes(weights);
        self.n_probes = probes.len();
        let scores = if probes.is_empty() { Vec::new() } else { self.score(ScoredFor::Probes, &probes, reporter)? };
        let weights = self.ranked().sensitivities(weights, &scores);
        let planned = self.ranked().allocate(self.scene, &weights, budgets)?;
        let widths: Vec<Vec<usize>> = planned.iter().map(|planned| planned.widths.clone()).collect();
        let scores = self.score(ScoredFor::Plans, &widths, reporter)?;
        Ok(planned.into_iter().zip(scores).collect())
    }

    /// The unpruned network's score.
    pub(super) fn original(&self) -> Option<Score> {
        self.scores.as_ref().map(|scores| scores.original)
    }

    /// Scores of candidates, each after the refit that walks get; those that are known are not computed again.
    fn score(
        &mut self,
        what: ScoredFor,
        widths: &[Vec<usize>],
        reporter: &mut Reporter<'_>,
    ) -> anyhow::Result<Vec<Score>> {
        let is_known = |w: &Vec<usize>| self.scores.as_ref().is_some_and(|scores| scores.of(what).contains_key(w));
        let mut unknown: Vec<Vec<usize>> = widths.iter().filter(|w| !is_known(w)).cloned().collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() && self.scores.is_some() {
            return Ok(self.known(what, widths));
        }
        self.prepare(reporter)?;
        let name = format!("{} {} on {}", what.name(), self.names[0], self.names[1]);
        reporter.begin(StageKind::Prepare, &name, unknown.len() as u64, 0);
        let (Some(prepared), pool) = (&self.prepared, self.pool) else { return Ok(Vec::new()) };
        let of_probes = (what == ScoredFor::Probes).then(|| probe_images(prepared, self.scene));
        let images = of_probes.as_ref().unwrap_or(&prepared.reward);
        let mut found = Vec::with_capacity(unknown.len());
        for some in unknown.chunks(pool.current_num_threads()) {
            let scores: Vec<Result<Score, KernelError>> =
                pool.install(|| some.par_iter().map(|widths| score(pool, prepared, images, widths)).collect());
            for score in scores {
                found.push(score.with_context(|| name.clone())?);
            }
            reporter.progress(found.len() as u64);
        }
        self.is_changed = true;
        let original = prepared.original_score;
        let scores = self.scores.get_or_insert_with(|| SavedScores::new(original));
        scores.of_mut(what).extend(unknown.into_iter().zip(found));
        Ok(self.known(what, widths))
    }

    fn known(&self, what: ScoredFor, widths: &[Vec<usize>]) -> Vec<Score> {
        let scores = self.scores.as_ref().map(|scores| scores.of(what));
        widths.iter().filter_map(|widths| scores?.get(widths).copied()).collect()
    }

    /// Gathers what candidates are refitted by, if that was not done.
    pub(super) fn prepare(&mut self, reporter: &mut Reporter<'_>) -> anyhow::Result<()> {
        let Some(inputs) = self.inputs.take() else { return Ok(()) };
        let name = format!("{} on {}", self.names[0], self.names[1]);
        reporter.begin(StageKind::Prepare, &format!("preparing {name}"), 100, 0);
        let inputs = Inputs { precision: Precision::F32, ..inputs };
        let prepared = Prepared::with_paths(self.pool, inputs, self.paths.clone(), |_, share| {
            reporter.progress((100.0 * share) as u64);
        });
        self.prepared = Some(prepared.with_context(|| format!("preparing {name}"))?);
        Ok(())
    }

    /// What candidates are refitted by, once [`Self::prepare`] gathered it.
    pub(super) const fn prepared(&self) -> Option<&Prepared> {
        self.prepared.as_ref()
    }

    /// Keeps the scores for the next process.
    pub(super) fn save(&self) {
        if let Some(scores) = self.scores.as_ref().filter(|_| self.is_changed) {
            self.file.write_scores(scores);
        }
    }
}

/// What of a scene decides how channels are ranked, beside the inputs.
pub(super) fn settings(scene: &Scene) -> String {
    match scene.selection {
        Selection::Reconstruction => String::new(),
        _ => format!("{:?} {} {:?}", scene.selection, scene.seed, scene.plugins),
    }
}

/// The score of the candidate of these widths on some images.
pub(crate) fn score(
    pool: &rayon::ThreadPool,
    prepared: &Prepared,
    images: &RewardImages,
    widths: &[usize],
) -> Result<Score, KernelError> {
    let network = RefitAndScore.begin(pool, prepared)?(&prepared.select(widths))?;
    images.score(pool, &network, Precision::F32)
}

/// The images that probes are scored on: divergences, which all images add to, need few.
pub(crate) fn probe_images(prepared: &Prepared, scene: &Scene) -> RewardImages {
    prepared.reward.first(scene.images.probe)
}

/// Removal paths down to one channel: those that an earlier process found, or new ones.
pub(super) fn known_paths(
    pool: &rayon::ThreadPool,
    file: &CacheFile,
    inputs: &Inputs,
    reporter: &mut Reporter<'_>,
) -> anyhow::Result<Vec<Arc<RemovalPath>>> {
    let groups = ChannelGroups::derive(inputs.network.graph(), inputs.protocol);
    match file.read_paths(&groups) {
        CacheContent::Saved(paths) => return Ok(paths),
        CacheContent::Nothing => {}
        CacheContent::Damaged(path) => note_damage(&path, reporter),
    }
    let name = format!("{} on {}", inputs.network_name, inputs.dataset_name);
    let mut stage = String::new();
    let paths = removal_paths(
        pool,
        inputs,
        |_| 1,
        |what, share| {
            if stage != what {
                stage = what.to_owned();
                reporter.begin(StageKind::Prepare, &format!("{what} {name}"), 100, 0);
            }
            reporter.progress((100.0 * share) as u64);
        },
    )
    .with_context(|| format!("error curves of {name}"))?;
    file.write_paths(&paths);
    Ok(paths)
}

fn note_damage(path: &std::path::Path, reporter: &mut Reporter<'_>) {
    reporter.note(&format!("note: the cache file '{}' is damaged and made anew", path.display()));
}
