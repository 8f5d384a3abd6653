//! Which reward, on how many images, puts candidates into the order of their accuracy on images that nothing was
//! chosen on.

use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use secateur_kernels::{KernelError, Precision};
use secateur_net::random::SplitMix;
use secateur_sim::{CostBound, Evaluate, PluginList, RefitAndScore, RewardImages, RewardKind, Score};
use serde::{Deserialize, Serialize};

use super::allocate::Ranked;
use super::planner::{PlanInputs, Planner};
use super::sensitivity::Sensitivity;
use crate::check;
use crate::error::RunError;
use crate::finalist_images::finalist_images;
use crate::inputs::images::dataset_for;
use crate::inputs::resolve::Resolved;
use crate::observer::{Observer, StageKind};
use crate::prepare::{self, Computes, NetworkOnData};
use crate::reporter::Reporter;
use crate::scene::Scene;
use crate::spec::RunSpec;
use crate::split_accuracy::{FirstImages, correct_images};
use crate::threads::thread_pool;

/// Of the candidates that are best on the held-back images, so many ought to be among as many that the reward prefers.
pub const N_TOP: usize = 8;
/// The standard deviation of the logarithms of the last candidate's layer weights; the first one's are all 0.
const SPREAD: f64 = 2.0;
/// Draws for each candidate that is wanted: some give widths that another has.
const N_DRAWS: usize = 4;
const REWARDS: [RewardKind; 2] = [RewardKind::Accuracy, RewardKind::Kl];

/// How well rewards rank candidates, for every task of a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankingReport {
    /// The scene file.
    pub scene: String,
    /// One for each task that is searched.
    pub tasks: Vec<TaskRanking>,
}

/// How well rewards rank the candidates of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRanking {
    /// Name of the task.
    pub name: String,
    /// Candidates: widths within the budget, all different.
    pub candidates: usize,
    /// Training images that the candidates' true order was told by; none of them is used otherwise.
    pub held_back_images: usize,
    /// Accuracy on these of the best and the median candidate.
    pub best_accuracy: f64,
    /// As `best_accuracy`.
    pub median_accuracy: f64,
    /// Every reward on every number of images.
    pub rows: Vec<RewardRanking>,
}

/// How well one reward on so many images ranks the candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardRanking {
    /// As scenes name it.
    pub reward: String,
    /// Images.
    pub images: usize,
    /// Kendall's tau-b between the rewards and the accuracies on the held-back images, [-1, 1].
    pub kendall: f64,
    /// Share of the [`N_TOP`] best that are among the [`N_TOP`] of highest reward.
    pub top_recall: f64,
    /// Accuracy that the best candidate has more than the one of highest reward.
    pub regret: f64,
    /// Median seconds of a candidate's refit and score, with all threads.
    pub candidate_s: f64,
}

/// Scores `n_candidates` of every task on each of some numbers of the scene's reward images, and on all images of the
/// finalists. The candidates are what searches meet: widths of least error, the errors of the layers weighed ever more
/// unevenly.
///
/// # Errors
/// As [`crate::run`], before anything is computed; a data set without labels, or without images left for the true
/// order; activations that are not finite.
pub fn rank_rewards(
    spec: &RunSpec,
    n_candidates: usize,
    n_images: &[usize],
    plugins: &PluginList,
    observer: &mut dyn Observer,
) -> Result<RankingReport, RunError> {
    let (scene, resolved) = check(spec, plugins)?;
    let pool = thread_pool(spec.threads)?;
    let mut reporter = Reporter::new(observer);
    let tasks = prepare::tasks(&scene, &resolved);
    check_rankable(&scene, &resolved)?;
    let mut report = RankingReport { scene: scene.origin().to_owned(), tasks: Vec::new() };
    for pair in prepare::pairs(&scene) {
        let loaded = &resolved.networks[pair.network];
        let data = dataset_for(loaded, &resolved.datasets[pair.dataset].train).context("the training split")?;
        let order = finalist_images(&scene.images, &data);
        if order.is_empty() {
            let why = "no training images are left to tell the true order by; ask for fewer in `images`";
            return Err(scene.error_at("images", why.to_owned(), None).into());
        }
        let held_back =
            FirstImages { data: &data, preprocessing: &loaded.preprocessing, order: Some(&order), n: order.len() };
        let inputs = prepare::inputs((&scene, plugins), &resolved, Computes { pool: &pool, card: None }, pair)?;
        let rules = resolved.width_rules(&scene, pair.network);
        let mut planner = Planner::new(&pool, &scene, PlanInputs { inputs, rules }, &mut reporter)?;
        planner.prepare(&mut reporter)?;
        let reward = planner.prepared().map(|prepared| &prepared.reward);
        let images: Vec<RewardImages> = n_images.iter().filter_map(|&n| reward.map(|reward| reward.first(n))).collect();
        let of_pair = |task: usize| NetworkOnData::of(&scene.tasks[task]) == pair && tasks[task].is_searched;
        for task in (0..tasks.len()).filter(|&task| of_pair(task)) {
            let widths = planner.ranked().spread_candidates(&scene, &tasks[task].budget, n_candidates)?;
            let mut trial =
                Trial { pool: &pool, planner: &planner, held_back, images: &images, candidates: Vec::new() };
            reporter.begin(StageKind::Prepare, &format!("ranking {}", tasks[task].name), widths.len() as u64, 0);
            for (done, widths) in widths.iter().enumerate() {
                trial.add(widths).with_context(|| format!("candidate {done} of {}", tasks[task].name))?;
                reporter.progress(1 + done as u64);
            }
            report.tasks.push(trial.ranking(&tasks[task].name));
        }
    }
    reporter.end();
    Ok(report)
}

/// Refuses scenes whose candidates have no accuracy or no divergence.
fn check_rankable(scene: &Scene, resolved: &Resolved) -> Result<(), RunError> {
    if scene.reward.kind() == RewardKind::OutputError {
        let why = "is OutputError, which is not compared: rewards are compared by what they say of classes";
        return Err(scene.error_at("reward", format!("`reward` {why}"), None).into());
    }
    let unlabelled = resolved.datasets.iter().position(|dataset| !dataset.has_labels);
    match unlabelled {
        None => Ok(()),
        Some(at) => {
            let name = &resolved.datasets[at].name;
            let why = format!("data set '{name}' is used without labels, by which the true order is told");
            Err(scene.error_at(&format!("datasets[{at}]"), why, None).into())
        }
    }
}

impl Ranked<'_> {
    /// Different widths within a budget, at most `n`.
    fn spread_candidates(&self, scene: &Scene, budget: &[CostBound], n: usize) -> anyhow::Result<Vec<Vec<usize>>> {
        let mut rng = SplitMix(scene.seed);
        // The sum of four uniform numbers is near enough to a normal one.
        let mut normal = || (0..4).map(|_| f64::from(rng.signed())).sum::<f64>() * (0.75f64).sqrt();
        let mut found: Vec<Vec<usize>> = Vec::with_capacity(n);
        for draw in 0..N_DRAWS * n {
            // As many of the first draws, which are near to one another, as of the last.
            if found.len() > draw / N_DRAWS {
                continue;
            }
            let spread = SPREAD * draw as f64 / (N_DRAWS * n) as f64;
            let mut weigh = |_| Sensitivity { weight: (spread * normal()).exp(), power: 1.0 };
            let weights: Vec<Sensitivity> = (0..self.paths.len()).map(&mut weigh).collect();
            let planned = self.allocate(scene, &weights, &[budget.to_vec()])?.remove(0);
            if !found.contains(&planned.widths) {
                found.push(planned.widths);
            }
        }
        ensure!(found.len() > N_TOP, "the budget allows only {} different candidates", found.len());
        Ok(found)
    }
}

/// Candidates of a task as they are scored.
struct Trial<'a> {
    pool: &'a rayon::ThreadPool,
    planner: &'a Planner<'a>,
    held_back: FirstImages<'a>,
    /// The first of the reward images, for every number of them.
    images: &'a [RewardImages],
    candidates: Vec<RankedScores>,
}

struct RankedScores {
    /// On each of the numbers of images, with the seconds that it took.
    scores: Vec<(Score, f64)>,
    refit_s: f64,
    accuracy: f64,
}

impl Trial<'_> {
    fn add(&mut self, widths: &[usize]) -> anyhow::Result<()> {
        let prepared = self.planner.prepared().ok_or_else(|| anyhow!("a network that was not prepared"))?;
        let start = Instant::now();
        let network = RefitAndScore.begin(self.pool, prepared)?(&prepared.select(widths))?;
        let refit_s = start.elapsed().as_secs_f64();
        let score = |images: &RewardImages| -> Result<(Score, f64), KernelError> {
            let start = Instant::now();
            let score = images.score(self.pool, &network, Precision::F32)?;
            Ok((score, start.elapsed().as_secs_f64()))
        };
        let scores = self.images.iter().map(score).collect::<Result<_, _>>()?;
        let correct = correct_images(&network, self.held_back, self.pool, |_| {})?;
        let n_correct = correct.iter().filter(|&&is_correct| is_correct).count();
        let accuracy = n_correct as f64 / correct.len().max(1) as f64;
        self.candidates.push(RankedScores { scores, refit_s, accuracy });
        Ok(())
    }

    fn ranking(&self, name: &str) -> TaskRanking {
        let truth: Vec<f64> = self.candidates.iter().map(|candidate| candidate.accuracy).collect();
        let row = |place: usize, kind: RewardKind| {
            let rewards: Vec<f64> = self.candidates.iter().map(|c| c.scores[place].0.reward(kind)).collect();
            let seconds = self.candidates.iter().map(|c| c.refit_s + c.scores[place].1).collect();
            RewardRanking {
                reward: kind.name().to_owned(),
                images: self.images[place].n_images,
                kendall: kendall(&rewards, &truth),
                top_recall: top_recall(&rewards, &truth),
                regret: regret(&rewards, &truth),
                candidate_s: median(seconds),
            }
        };
        let rows = (0..self.images.len()).flat_map(|place| REWARDS.map(|kind| row(place, kind)));
        TaskRanking {
            name: name.to_owned(),
            candidates: truth.len(),
            held_back_images: self.held_back.n,
            best_accuracy: truth.iter().copied().fold(0.0, f64::max),
            rows: rows.collect(),
            median_accuracy: median(truth),
        }
    }
}

/// The middle one; of two, the larger.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Kendall's tau-b: of all pairs, those in the same order less those in the other, ties taken out of either count
/// (Kendall 1945); 0 where either list has one value only.
fn kendall(x: &[f64], y: &[f64]) -> f64 {
    let (mut sum, mut n_x, mut n_y) = (0i64, 0i64, 0i64);
    for i in 0..x.len() {
        for j in 0..i {
            let (of_x, of_y) = (x[i].total_cmp(&x[j]) as i64, y[i].total_cmp(&y[j]) as i64);
            sum += of_x * of_y;
            n_x += of_x.abs();
            n_y += of_y.abs();
        }
    }
    if n_x == 0 || n_y == 0 { 0.0 } else { sum as f64 / (n_x as f64 * n_y as f64).sqrt() }
}

/// Places in falling order of `values`; of equals, the first comes first.
fn falling(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

fn top_recall(rewards: &[f64], truth: &[f64]) -> f64 {
    let (chosen, best) = (falling(rewards), falling(truth));
    let n_top = N_TOP.min(truth.len());
    let n_found = best[..n_top].iter().filter(|place| chosen[..n_top].contains(place)).count();
    n_found as f64 / n_top.max(1) as f64
}

fn regret(rewards: &[f64], truth: &[f64]) -> f64 {
    let best = |values: &[f64]| falling(values).first().map_or(0.0, |&place| truth[place]);
    best(truth) - best(rewards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tau_recall_and_regret_are_those_worked_out_by_hand() {
        let truth = [0.1, 0.2, 0.3, 0.4];
        assert_eq!(kendall(&truth, &truth), 1.0);
        assert_eq!(kendall(&[4.0, 3.0, 2.0, 1.0], &truth), -1.0);
        // Of six pairs one is turned round.
        assert!((kendall(&[1.0, 3.0, 2.0, 4.0], &truth) - 4.0 / 6.0).abs() < 1e-12);
        // One tie among the rewards: five pairs in order, of five and six.
        assert!((kendall(&[1.0, 2.0, 2.0, 4.0], &truth) - 5.0 / 30f64.sqrt()).abs() < 1e-12);
        assert_eq!(kendall(&[1.0; 4], &truth), 0.0);
        let truth: Vec<f64> = (0..16).map(f64::from).collect();
        // The reward prefers the wrong half of them, but for two.
        let rewards: Vec<f64> = truth.iter().map(|&x| if x == 15.0 || x == 9.0 { 99.0 - x } else { -x }).collect();
        assert_eq!((top_recall(&rewards, &truth), regret(&rewards, &truth)), (2.0 / 8.0, 6.0));
        assert_eq!((top_recall(&truth, &truth), regret(&truth, &truth)), (1.0, 0.0));
    }
}
