//! What a saved search may say: numbers that no search of the scene could have come to are refused before anything is
//! made of them.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use secateur_sim::{BudgetWall, EndsAfter, NoiseFree, Readiness, Score};

use crate::error::TrainError;
use crate::save::check_walk;
use crate::saved::{SavedActor, SavedEnd, SavedLearner, SavedSearch, SavedTask, check_count};

/// What is fixed of a task.
#[derive(Clone, Debug)]
pub struct TaskRules {
    /// Its budget.
    pub wall: Arc<BudgetWall>,
    /// Walks to do, or candidates to score.
    pub n_walks: u64,
    /// Which of them.
    pub ends_after: EndsAfter,
    /// Which of them are free of noise.
    pub noise_free: NoiseFree,
    /// Most candidates that are remembered.
    pub n_finalists: usize,
    /// Whether candidates are as the walks left them: plugins may change what they keep.
    pub is_exact: bool,
}

/// What is fixed of a search.
#[derive(Clone, Debug)]
pub struct SearchRules {
    /// Its tasks, in order.
    pub tasks: Vec<TaskRules>,
    /// Actors of each task.
    pub actors_per_task: usize,
    /// Whether the agent learns.
    pub learns: bool,
    /// Prepared networks.
    pub n_networks: usize,
}

impl TaskRules {
    /// Decisions of a walk.
    fn walk_length(&self) -> u64 {
        self.wall.order().len() as u64
    }

    /// Refuses channels that no candidate of this task could keep, or a wrong count of multiply-accumulates.
    ///
    /// # Errors
    /// [`TrainError::Saved`] with the first rule that is broken.
    pub fn check_kept(&self, kept: &[Vec<usize>], macs: u64) -> Result<(), TrainError> {
        let wall = &self.wall;
        check_count("groups of a candidate", wall.least_widths().len(), kept.len())?;
        // Frozen groups stand at their full width there.
        let mut full = wall.least_widths().to_vec();
        let mut is_frozen = vec![true; full.len()];
        for (place, &group) in wall.order().iter().enumerate() {
            full[group] = wall.bounds(place).n_channels();
            is_frozen[group] = false;
            let width = kept[group].len();
            let is_allowed = !self.is_exact || wall.bounds(place).widths().contains(&width);
            check(is_allowed, "width of a candidate", "an allowed one", width)?;
        }
        for ((list, &full), is_frozen) in kept.iter().zip(&full).zip(is_frozen) {
            check(!is_frozen || list.len() == full, "channels of a group that may not be pruned", full, list.len())?;
            let ascends = list.windows(2).all(|pair| pair[0] < pair[1]);
            let fits = ascends && list.last().is_some_and(|&last| last < full);
            check(fits, "the kept channels of a candidate", "ascending ones of its group", format_args!("{list:?}"))?;
        }
        if !self.is_exact {
            return Ok(());
        }
        let widths: Vec<usize> = kept.iter().map(Vec::len).collect();
        check(wall.allows(&widths), "the cost of a candidate", "one within its budget", "more")?;
        let counted = wall.macs(&widths);
        check(counted == macs, "multiply-accumulates of a candidate", counted, macs)
    }
}

impl SavedTask {
    /// Refuses counts and candidates that no search of the task could have come to.
    ///
    /// # Errors
    /// [`TrainError::Saved`] with the first rule that is broken.
    pub fn check(&self, rules: &TaskRules) -> Result<(), TrainError> {
        let stats = &self.stats;
        check(stats.n_wanted == rules.n_walks, "walks wanted of a task", rules.n_walks, stats.n_wanted)?;
        within("walks begun of a task", 0..=rules.ends_after.walks_at_most(rules.n_walks), stats.n_begun)?;
        within("walks ended of a task", 0..=stats.n_begun, stats.n_ended)?;
        within("cache hits of a task", 0..=stats.n_ended, stats.n_cache_hits)?;
        let n_finalists = self.finalists.len() as u64;
        within("finalists of a task", 0..=(rules.n_finalists as u64).min(stats.n_ended), n_finalists)?;
        let walks: BTreeSet<u64> = self.walks().collect();
        check_count("finalists' walks", self.finalists.len(), walks.len())?;
        for candidate in &self.finalists {
            within("the walk of a finalist", 0..=stats.n_begun.saturating_sub(1), candidate.walk)?;
            rules.check_kept(&candidate.kept, candidate.macs)?;
            check_score(&candidate.score)?;
            check(candidate.reward.is_finite(), "the reward of a finalist", "a finite number", candidate.reward)?;
        }
        Ok(())
    }

    /// The walks of its finalists.
    pub fn walks(&self) -> impl Iterator<Item = u64> {
        self.finalists.iter().map(|candidate| candidate.walk)
    }
}

/// Refuses a score that is none.
///
/// # Errors
/// [`TrainError::Saved`].
pub fn check_score(score: &Score) -> Result<(), TrainError> {
    check(
        score.is_one(),
        "a score",
        "an accuracy in [0, 1], a divergence and an output error of at least 0",
        format_args!("{score:?}"),
    )
}

impl SavedSearch {
    /// Refuses numbers that no search of these rules could have come to.
    ///
    /// # Errors
    /// [`TrainError::Saved`] with the first rule that is broken.
    pub fn check(&self, rules: &SearchRules) -> Result<(), TrainError> {
        check_count("tasks", rules.tasks.len(), self.tasks.len())?;
        check_count("actors", rules.tasks.len() * rules.actors_per_task, self.actors.len())?;
        self.tasks.iter().zip(&rules.tasks).try_for_each(|(task, rules)| task.check(rules))?;
        (0..rules.tasks.len()).try_for_each(|task| self.check_actors(task, &rules.tasks[task]))?;
        self.check_steps(rules)?;
        self.check_learner(rules)?;
        for score in &self.scores {
            within("the network of a score", 0..=(rules.n_networks as u64).saturating_sub(1), score.network as u64)?;
            check_score(&score.score)?;
        }
        let (next, returned) =
            self.tickets.as_ref().map_or((0, None), |tickets| (tickets.next, tickets.returned.last()));
        check(returned.is_none_or(|&last| last < next), "a returned ticket", format_args!("below {next}"), "more")
    }

    /// Actors of a task that are on a walk. Actors are numbered round by round.
    pub fn acting(&self, task: usize) -> impl Iterator<Item = &SavedActor> {
        let of_task = self.actors.iter().skip(task).step_by(self.tasks.len().max(1));
        of_task.filter(|actor| actor.readiness != Readiness::Retired)
    }

    /// Every walk that was begun and did not end is an actor's.
    fn check_actors(&self, task: usize, rules: &TaskRules) -> Result<(), TrainError> {
        let stats = &self.tasks[task].stats;
        let numbers: BTreeSet<u64> = self.acting(task).map(|actor| actor.walk.number).collect();
        let n_open = stats.n_begun - stats.n_ended;
        check_count("walks that actors are on", n_open as usize, self.acting(task).count())?;
        check_count("different walks that actors are on", n_open as usize, numbers.len())?;
        for actor in self.acting(task) {
            check_end(actor, task, rules)?;
            for walk in std::iter::once(&actor.walk).chain(&actor.restart_point) {
                within("the number of a walk", 0..=stats.n_begun.saturating_sub(1), walk.number)?;
                let is_over = actor.awaits.is_some() && std::ptr::eq(walk, &actor.walk);
                check_walk(&rules.wall, walk, is_over)?;
                let noise_free = rules.noise_free.holds(walk.number, rules.n_walks);
                check(walk.noise_free == noise_free, "whether a walk is free of noise", noise_free, walk.noise_free)?;
            }
        }
        Ok(())
    }

    /// All walks that ended took all their decisions; more were taken only where actors began again.
    fn check_steps(&self, rules: &SearchRules) -> Result<(), TrainError> {
        let (mut least, mut again) = (0u64, 0u64);
        for (task, of_task) in rules.tasks.iter().enumerate() {
            let on_the_way: u64 = self.acting(task).map(|actor| actor.walk.cursor as u64).sum();
            let ended = self.tasks[task].stats.n_ended.saturating_mul(of_task.walk_length());
            least = least.saturating_add(ended).saturating_add(on_the_way);
            let n_restarts = |actor: &SavedActor| actor.restarts.n.saturating_mul(of_task.walk_length());
            let actors = self.actors.iter().skip(task).step_by(rules.tasks.len().max(1));
            again = actors.map(n_restarts).fold(again, u64::saturating_add);
        }
        within("decisions taken", least..=least.saturating_add(again), self.env_steps)
    }

    /// Every trajectory that was made was learned from, or waits.
    fn check_learner(&self, rules: &SearchRules) -> Result<(), TrainError> {
        check_count("learners", usize::from(rules.learns), usize::from(self.learner.is_some()))?;
        let Some(SavedLearner { n_updates, n_trajectories, pending, .. }) = &self.learner else {
            let n_left = self.trajectories.len() + self.queued.len();
            return check_count("trajectories without a learner", 0, n_left);
        };
        let waiting = pending.len() + self.queued.len() + self.trajectories.len();
        let experiences = self.actors.iter().filter_map(|actor| actor.experience.as_ref());
        let made = experiences.fold(0u64, |sum, experience| sum.saturating_add(experience.sequence));
        let told = n_trajectories.saturating_add(waiting as u64);
        check(made == told, "trajectories learned from and waiting", made, told)?;
        within("trajectories", 0..=self.env_steps, made)?;
        within("updates of the learner", 0..=*n_trajectories, *n_updates)?;
        let newest = self.actors.iter().map(|actor| actor.policy_version).max().unwrap_or(0);
        within("the version of a policy", 0..=*n_updates, newest)
    }
}

/// An actor waits for a score at the end of its walk, and nowhere else.
fn check_end(actor: &SavedActor, task: usize, rules: &TaskRules) -> Result<(), TrainError> {
    let is_scoring = actor.readiness == Readiness::Scoring;
    check(actor.awaits.is_some() == is_scoring, "whether a candidate waits for a score", is_scoring, !is_scoring)?;
    let Some(SavedEnd { kept, spent: _, request, decision, keep_ratio }) = &actor.awaits else { return Ok(()) };
    let (walk, n_layers) = (&actor.walk, rules.wall.order().len());
    check_count("decisions of a walk that is over", n_layers, walk.cursor)?;
    let widths: Vec<usize> = kept.iter().map(Vec::len).collect();
    check_count("groups of a candidate", rules.wall.least_widths().len(), widths.len())?;
    rules.check_kept(kept, rules.wall.macs(&widths))?;
    let is_last = (request.task as usize, request.walk, request.layer as usize + 1) == (task, walk.number, n_layers);
    check(is_last, "the last decision of a walk", format_args!("that of walk {}", walk.number), "another")?;
    let floats = [*keep_ratio, decision.raw_action, decision.log_prob, decision.value];
    let is_finite = floats.iter().chain(&request.observation).all(|x| x.is_finite());
    check(is_finite, "the last decision of a walk", "finite numbers", "others")
}

fn check(holds: bool, what: &str, expected: impl Display, got: impl Display) -> Result<(), TrainError> {
    if holds {
        return Ok(());
    }
    Err(TrainError::Saved { what: what.to_owned(), expected: expected.to_string(), got: got.to_string() })
}

fn within(what: &str, allowed: RangeInclusive<u64>, got: u64) -> Result<(), TrainError> {
    let expected = format_args!("{} to {}", allowed.start(), allowed.end()).to_string();
    check(allowed.contains(&got), what, expected, got)
}
