//! After the search: final refits of the finalists, networks written, and one look at the test split.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Context;
use secateur_formats::{Dataset, Preprocessing};
use secateur_net::Network;
use secateur_sim::{
    Field, FinalRefit, Finalist, Prepared, RefitCount, RefitKey, RewardImages, RewardKind, Round, SimError, Tournament,
    Winner,
};

use crate::card::Card;
use crate::directory::cut_plan::plan_files;
use crate::directory::onnx_files::OnnxFiles;
use crate::directory::run_directory::TaskNetwork;
use crate::error::{Incomplete, RunError};
use crate::finalist_images::{finalist_images, reward_on};
use crate::inputs::budgets::Whole;
use crate::inputs::images::dataset_for;
use crate::observer::StageKind;
use crate::run::Run;
use crate::search::SearchOutcome;
use crate::split_accuracy::{FirstImages, correct_images};
use crate::split_error::{ComparedNetworks, OutputAgreement, compare_outputs};
use crate::summarise::{bounds, summarise};
use crate::summary::RunResult;
use crate::training::trained::{Trained, TrainingKey, TrainingStage, winner_with};

/// The result of one agent on one task.
pub(crate) struct Finished {
    /// The task's index.
    pub(crate) task: usize,
    pub(crate) winner: Winner,
    pub(crate) test: TestScore,
    /// Its trainings, in the order of stages.
    pub(crate) trained: Vec<FinishedTraining>,
}

/// What came of a training of a winner.
pub(crate) struct FinishedTraining {
    pub(crate) stage: TrainingStage,
    pub(crate) trained: Trained,
    /// The trained network and what it does on the test split; none where the network stays as it was.
    pub(crate) result: Option<(Network, TestScore)>,
}

impl Finished {
    /// The winner as it is written.
    pub(crate) fn written(&self) -> Winner {
        let last = self.trained.iter().rev().find_map(|trained| trained.result.as_ref());
        last.map_or_else(|| self.winner.clone(), |(network, _)| winner_with(&self.winner, network.clone()))
    }

    /// What the winner does on the test split after a stage; none if that changed nothing.
    pub(crate) fn test_after(&self, stage: TrainingStage) -> Option<&TestScore> {
        let trained = self.trained.iter().find(|trained| trained.stage == stage);
        trained.and_then(|trained| trained.result.as_ref()).map(|(_, test)| test)
    }
}

/// What a network does on the test split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TestScore {
    /// Whether each image's class is told right; none without labels.
    pub(crate) correct: Option<Vec<bool>>,
    /// Against the dense network; none where labels say all that is asked for.
    pub(crate) agreement: Option<OutputAgreement>,
}

impl TestScore {
    /// Top-1; none without labels.
    pub(crate) fn accuracy(&self) -> Option<f64> {
        self.correct.as_deref().map(share)
    }
}

fn share(correct: &[bool]) -> f64 {
    correct.iter().filter(|&&is_correct| is_correct).count() as f64 / correct.len().max(1) as f64
}

/// Winners of one search, by task.
pub(crate) type Winners = BTreeMap<usize, Winner>;

/// The refit of one network's finalists in one round, prepared when the first of them needs it.
struct RefitRound<'a> {
    pool: &'a rayon::ThreadPool,
    prepared: &'a Prepared,
    kind: RewardKind,
    n_images: usize,
    round: Round,
    refit: Option<FinalRefit<'a>>,
}

impl RefitRound<'_> {
    fn run(&mut self, task: &str, finalist: &Finalist) -> Result<Winner, SimError> {
        let refit = match self.refit.take() {
            Some(refit) => refit,
            None => FinalRefit::new(self.pool, self.prepared, self.kind, (self.n_images, self.round))?,
        };
        self.refit.insert(refit).run(task, finalist)
    }
}

/// The test split as a network reads it.
struct TestImages<'a> {
    data: Cow<'a, Dataset>,
    preprocessing: &'a Preprocessing,
}

impl TestImages<'_> {
    fn all(&self) -> FirstImages<'_> {
        FirstImages { data: &self.data, preprocessing: self.preprocessing, order: None, n: self.data.len() }
    }
}

impl Run<'_> {
    /// Results of every search, in its order, for every task that has a candidate. A network of the run's agent is
    /// written as soon as it is known. A run that was asked to stop refits one finalist of each task, and goes on to
    /// the next thing.
    pub(crate) fn finish(&mut self, searches: &[SearchOutcome]) -> Result<Vec<Vec<Finished>>, RunError> {
        let mut winners: Vec<Winners> = searches.iter().map(|_| Winners::new()).collect();
        let pool = self.job.pool.clone();
        let (kind, n_images) = (self.job.scene.reward.kind(), self.job.scene.images.refit);
        for (index, prepared) in self.job.networks.clone().iter().enumerate() {
            self.save_if_stopping(searches);
            let in_pairs = self.job.scene.refit_in_pairs && prepared.repairs();
            let tournament = Tournament::new(self.fields(index, searches), n_images, in_pairs);
            if tournament.is_empty() {
                continue;
            }
            for round in Round::ALL {
                let Some(n_images) = tournament.n_images(round) else { continue };
                let refitting = RefitRound { pool: &pool.0, prepared, kind, n_images, round, refit: None };
                self.hold(refitting, &tournament, searches, &mut winners)?;
            }
        }
        winners[0].append(&mut self.whole_networks()?);
        self.train_winners(&winners, searches)?;
        self.test(winners)
    }

    /// The finalists of every search and task on one network.
    fn fields(&self, network: usize, searches: &[SearchOutcome]) -> Vec<Field> {
        let tasks = (0..self.job.tasks.len()).filter(|&task| self.job.tasks[task].network == network);
        let of_task = |(search, outcome): (usize, &SearchOutcome), task: usize| Field {
            search,
            task,
            walks: outcome.tasks[task].finalists.iter().map(|finalist| finalist.walk).collect(),
        };
        tasks.flat_map(|task| searches.iter().enumerate().map(move |search| of_task(search, task))).collect()
    }

    /// Holds a round of the tournament of one network: refits the next finalist of each field until it is over. A
    /// field's winner is known at its end.
    fn hold(
        &mut self,
        mut refitting: RefitRound<'_>,
        tournament: &Tournament,
        searches: &[SearchOutcome],
        winners: &mut [Winners],
    ) -> Result<(), RunError> {
        let round = refitting.round;
        let RefitCount { all, known: mut done } = tournament.n_refits(round, &self.refits.ranks, self.is_stopping);
        let name = match round {
            Round::First => format!("first refit of {}", refitting.prepared.network_name),
            Round::Last => format!("final refit of {}", refitting.prepared.network_name),
            Round::InPairs => format!("refit in pairs of {}", refitting.prepared.network_name),
        };
        self.journal.reporter.begin(StageKind::Refit, &name, all, done);
        if done > 0 {
            self.journal.reporter.log(&format!("{done} were refitted before"));
        }
        for (at, field) in tournament.fields().iter().enumerate() {
            loop {
                self.save_if_stopping(searches);
                let next = tournament.next(at, round, &self.refits.ranks, self.is_stopping);
                let Some(key) = next else { break };
                self.refit(key, &mut refitting, searches)?;
                done += 1;
                self.journal.reporter.progress(done);
                if self.searched_all && !self.must_stop() && self.journal.checkpoint_is_due() {
                    self.checkpoint(searches);
                }
            }
            if round == tournament.final_round()
                && let Some(rank) = tournament.winner(at, &self.refits.ranks, self.is_stopping)
            {
                let winner = self.winner(field, rank.walk, &mut refitting, searches)?;
                if field.search == 0 {
                    self.emit(field.task, &winner)?;
                }
                winners[field.search].insert(field.task, winner);
            }
        }
        Ok(())
    }

    /// Refits a finalist and remembers what came of it; one that panics is reported and passed over.
    fn refit(
        &mut self,
        key: RefitKey,
        refitting: &mut RefitRound<'_>,
        searches: &[SearchOutcome],
    ) -> Result<(), RunError> {
        match refitting.run(&self.job.tasks[key.task].name, finalist(searches, key.search, key.task, key.walk)?) {
            Ok(mut winner) => {
                if key.round != Round::First && searches[key.search].tasks[key.task].finalists.len() > 1 {
                    self.judge(key.task, &mut winner)?;
                }
                self.refits.note(key, winner);
            }
            Err(error @ SimError::Panicked { .. }) => {
                let warning = format!("final refit: {error}; the other finalists go on without it");
                self.journal.reporter.note(&format!("warning: {warning}"));
                self.refits.warnings.push(warning);
                self.refits.give_up(key);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The network of a field's winner, which is at hand unless an interrupted process had refitted a better finalist
    /// that does not come this far when all of them are.
    fn winner(
        &self,
        field: &Field,
        walk: u64,
        refitting: &mut RefitRound<'_>,
        searches: &[SearchOutcome],
    ) -> Result<Winner, RunError> {
        let known = self.refits.best(field.search, field.task).filter(|best| best.walk == walk);
        if let Some(winner) = known {
            return Ok(winner.clone());
        }
        let finalist = finalist(searches, field.search, field.task, walk)?;
        let mut winner = refitting.run(&self.job.tasks[field.task].name, finalist)?;
        if field.walks.len() > 1 {
            self.judge(field.task, &mut winner)?;
        }
        Ok(winner)
    }

    /// Replaces the reward of a finalist on the reward images, which the search chose it on, by that on images that
    /// nothing was chosen or fitted on.
    fn judge(&self, task: usize, winner: &mut Winner) -> Result<(), RunError> {
        let spec = &self.job.scene.tasks[task];
        let (loaded, prepared) =
            (&self.job.resolved.networks[spec.network], &self.job.networks[self.job.tasks[task].network]);
        let train = &self.job.resolved.datasets[spec.dataset].train;
        let data = dataset_for(loaded, train).context("the training split")?;
        let order = finalist_images(&self.job.scene.images, &data);
        if order.is_empty() {
            return Ok(());
        }
        let images =
            FirstImages { data: &data, preprocessing: &loaded.preprocessing, order: Some(&order), n: order.len() };
        let reward = reward_on(&winner.network, prepared, images, &self.job.pool.0).context("the finalists' images")?;
        winner.reward += reward - winner.score.reward(prepared.reward.kind);
        Ok(())
    }

    /// Writes the networks of the tasks that were not searched, since their budget allows the whole network.
    fn whole_networks(&mut self) -> Result<Winners, RunError> {
        let mut winners = Winners::new();
        for task in 0..self.job.tasks.len() {
            if self.job.tasks[task].is_searched {
                continue;
            }
            let prepared = self.job.networks[self.job.tasks[task].network].clone();
            let network = match self.job.resolved.budgets[task].whole() {
                Some(Whole::AsGiven) => &self.job.resolved.networks[self.job.scene.tasks[task].network].original,
                Some(Whole::Folded) | None => &prepared.network,
            };
            let winner = Winner::whole(&prepared, network.clone(), self.job.scene.reward.kind());
            self.emit(task, &winner)?;
            winners.insert(task, winner);
        }
        Ok(winners)
    }

    /// Writes the network of a task of the run's agent, and records it once.
    pub(crate) fn emit(&mut self, task: usize, winner: &Winner) -> Result<(), RunError> {
        let network = self.job.scene.tasks[task].network;
        let (loaded, prepared) =
            (&self.job.resolved.networks[network], &self.job.networks[self.job.tasks[task].network]);
        let onnx = OnnxFiles::new(loaded, prepared, winner, &self.job.resolved.budgets[task]);
        let name = &self.job.tasks[task].name;
        let plan = plan_files(loaded, prepared, winner, &self.job.pool.0);
        let (plan, no_plan) = match plan {
            Ok(files) => (files, None),
            Err(why) => (Vec::new(), Some(format!("'{name}' is written without plan.json: {why:#}"))),
        };
        let (onnx, warning) = match onnx {
            Ok((files, None)) => (Some(files), None),
            Ok((files, Some(why))) => {
                (Some(files), Some(format!("'{name}' is a new ONNX model, not the one given: {why:#}")))
            }
            Err(why) => (None, Some(format!("'{name}' is written as safetensors, not as ONNX: {why:#}"))),
        };
        for warning in warning.into_iter().chain(no_plan) {
            self.journal.reporter.note(&format!("warning: {warning}"));
            self.refits.warnings.push(warning);
        }
        self.journal.directory.write_network(
            TaskNetwork { task, winner, onnx, plan },
            self.job.scene,
            self.job.resolved,
        )?;
        if self.refits.recorded.insert(task) {
            let bounds = bounds(&self.job.resolved.budgets[task], &winner.emitted());
            self.journal.record_result(&self.job.tasks[task], winner, bounds)?;
        }
        Ok(())
    }

    /// Once the user asks to stop, writes down what is known before anything is decided among fewer finalists than
    /// there are.
    pub(crate) fn save_if_stopping(&mut self, searches: &[SearchOutcome]) {
        if self.must_stop() && std::mem::take(&mut self.searched_all) {
            self.checkpoint(searches);
            self.journal.wait_for_checkpoint();
        }
    }

    fn test(&mut self, winners: Vec<Winners>) -> Result<Vec<Vec<Finished>>, RunError> {
        let total = winners.iter().map(Winners::len).sum::<usize>() as u64;
        self.journal.reporter.begin(StageKind::Test, "test split", total, 0);
        let mut out = Vec::new();
        let mut done = 0;
        for (search, of_search) in winners.into_iter().enumerate() {
            let mut finished = Vec::new();
            for (task, winner) in of_search {
                let test = self.test_score(task, &winner.network)?;
                let trained = self.test_trained(search, task, &winner.network)?;
                finished.push(Finished { task, winner, test, trained });
                done += 1;
                self.journal.reporter.progress(done);
            }
            out.push(finished);
        }
        self.journal.reporter.end();
        Ok(out)
    }

    fn test_score(&self, task: usize, network: &Network) -> Result<TestScore, RunError> {
        let correct = self.test_correct(task, network)?;
        Ok(TestScore { correct, agreement: self.test_agreement(task, network)? })
    }

    /// What came of the trainings of a winner.
    fn test_trained(&self, search: usize, task: usize, winner: &Network) -> Result<Vec<FinishedTraining>, RunError> {
        let (mut before, mut out) = (winner.clone(), Vec::new());
        for stage in TrainingStage::ALL {
            let Some(trained) = self.trainings.done.get(&TrainingKey { stage, search, task }) else { continue };
            let network = trained.network(&before).context("--resume")?;
            let tested = |network: Network| Ok::<_, RunError>((self.test_score(task, &network)?, network));
            let result = network.map(tested).transpose()?.map(|(test, network)| (network, test));
            before = result.as_ref().map_or(before, |(network, _)| network.clone());
            out.push(FinishedTraining { stage, trained: trained.clone(), result });
        }
        Ok(out)
    }

    /// Top-1 of the unpruned network of every task on the test split; none without labels.
    fn original_test_accuracies(&self) -> Result<Vec<Option<f64>>, RunError> {
        let mut known: BTreeMap<usize, Option<f64>> = BTreeMap::new();
        for (task, setup) in self.job.tasks.iter().enumerate() {
            if let Entry::Vacant(unknown) = known.entry(setup.network) {
                let correct = self.test_correct(task, &self.job.networks[setup.network].network)?;
                unknown.insert(correct.as_deref().map(share));
            }
        }
        Ok(self.job.tasks.iter().map(|setup| known[&setup.network]).collect())
    }

    fn test_images(&self, task: usize) -> Result<TestImages<'_>, RunError> {
        let spec = &self.job.scene.tasks[task];
        let loaded = &self.job.resolved.networks[spec.network];
        let data = dataset_for(loaded, &self.job.resolved.datasets[spec.dataset].test).context("the test split")?;
        Ok(TestImages { data, preprocessing: &loaded.preprocessing })
    }

    /// Which images of the test split a network tells right; none without labels.
    fn test_correct(&self, task: usize, network: &Network) -> Result<Option<Vec<bool>>, RunError> {
        if !self.job.resolved.datasets[self.job.scene.tasks[task].dataset].has_labels {
            return Ok(None);
        }
        let correct = correct_images(network, self.test_images(task)?.all(), &self.job.pool.0, |_| {});
        Ok(Some(correct.context("evaluating on the test split")?))
    }

    /// How much a network agrees with the dense one on the test split.
    fn test_agreement(&self, task: usize, network: &Network) -> Result<Option<OutputAgreement>, RunError> {
        let prepared = &self.job.networks[self.job.tasks[task].network];
        let RewardImages { kind, outputs, .. } = &prepared.reward;
        if !prepared.reward.measures_errors() {
            return Ok(None);
        }
        let are_logits = *kind != RewardKind::OutputError;
        let compared = ComparedNetworks { dense: &prepared.network, other: network, outputs, are_logits };
        let images = self.test_images(task)?;
        let agreement = compare_outputs(&compared, images.all(), &self.job.pool.0, |_| {});
        Ok(Some(agreement.context("comparing outputs on the test split")?))
    }

    /// Writes the summary, and says what the results lack.
    pub(crate) fn conclude(
        mut self,
        searches: Vec<SearchOutcome>,
        finished: &[Vec<Finished>],
    ) -> Result<RunResult, RunError> {
        let wall_s = self.journal.wall_s();
        self.job.card.iter().for_each(Card::keep_pipelines);
        let original_test = self.original_test_accuracies()?;
        for dataset in &self.job.resolved.datasets {
            let failures = dataset.test.failures();
            failures.iter().for_each(|failure| self.journal.reporter.note(&format!("{}: {failure}", dataset.name)));
        }
        let summary = summarise(&self, &searches, finished, &original_test, wall_s);
        self.journal.directory.write_summary(&summary)?;
        self.journal.wait_for_checkpoint();
        self.journal.reporter.end();
        self.journal.directory.check_written()?;
        let result = RunResult { directory: self.journal.directory.path().to_owned(), summary };
        match self.lack(searches, finished) {
            Some(reason) => Err(RunError::Incomplete { reason, result: Box::new(result) }),
            None => Ok(result),
        }
    }

    /// The gravest of what the results lack.
    fn lack(&self, searches: Vec<SearchOutcome>, finished: &[Vec<Finished>]) -> Option<Incomplete> {
        let over_budget = self.journal.directory.over_budget();
        if !over_budget.is_empty() {
            return Some(Incomplete::OverBudget { tasks: over_budget.to_vec() });
        }
        let has_network = |task: usize| finished[0].iter().any(|f| f.task == task);
        let tasks = searches[0].tasks.iter().enumerate();
        let mut without = tasks.filter(|(task, found)| !found.finalists.is_empty() && !has_network(*task));
        let no_network = without.next().map(|(task, _)| self.job.tasks[task].name.clone());
        if let Some(error) = searches.into_iter().find_map(|search| search.failure) {
            return Some(Incomplete::SearchFailed(error));
        }
        if self.is_stopping {
            return Some(Incomplete::Interrupted);
        }
        no_network.map(|task| Incomplete::NoNetwork { task })
    }
}

/// The finalist of a walk.
fn finalist(searches: &[SearchOutcome], search: usize, task: usize, walk: u64) -> anyhow::Result<&Finalist> {
    let mut finalists = searches[search].tasks[task].finalists.iter();
    finalists
        .find(|finalist| finalist.walk == walk)
        .with_context(|| format!("walk {walk} is no finalist of task {task}"))
}
