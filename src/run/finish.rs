//! After the search: final refit of the finalists, and one look at the test split.

use std::collections::BTreeMap;

use anyhow::Context;
use secateur_formats::Dataset;
use secateur_kernels::{Effort, Plan};
use secateur_net::Network;
use secateur_sim::{FinalRefit, Finalist, Rank, SimError, Winner};

use super::refits::{Key, Round};
use super::search::SearchOutcome;
use super::{Run, prepare};
use crate::Failure;
use crate::resolve::Whole;

/// Test images normalised at a time.
const TEST_BATCH: usize = 1000;

/// Finalists of a task that are refitted on all refit images; more than these are first refitted quickly on a share of them, which
/// takes a third of the time.
const N_LAST: usize = 3;
/// The first refit takes one in so many of the refit images, if it has enough left.
const HEAT_SHARE: usize = 4;
const HEAT_IMAGES_MIN: usize = 250;

/// The finalists of one search on one task.
struct Field<'c> {
    search: usize,
    task: usize,
    finalists: Vec<&'c Finalist>,
}

impl Field<'_> {
    fn key(&self, round: Round, candidate: &Finalist) -> Key {
        (round, self.search, self.task, candidate.walk)
    }
}

/// The result of one agent on one task.
pub(super) struct Finished {
    /// The task's index.
    pub(super) task: usize,
    pub(super) winner: Winner,
    /// Top-1 on the test split.
    pub(super) test_accuracy: f64,
}

/// The refit of one network's finalists, prepared when the first of them needs it.
struct Lazily<'a> {
    network: &'a str,
    prepare: Box<dyn Fn() -> Result<FinalRefit<'a>, SimError> + 'a>,
    refit: Option<FinalRefit<'a>>,
}

impl<'a> Lazily<'a> {
    fn get(&mut self) -> Result<&FinalRefit<'a>, SimError> {
        let refit = match self.refit.take() {
            Some(refit) => refit,
            None => (self.prepare)()?,
        };
        Ok(self.refit.insert(refit))
    }
}

impl Run<'_> {
    /// Results of every search, in its order, for every task that has a candidate. A network of the agent's is written as soon as
    /// it is known. After Ctrl-C only the best candidate of each task is refitted.
    pub(super) fn finish(&mut self, searches: &[SearchOutcome]) -> Result<Vec<Vec<Finished>>, Failure> {
        let mut winners: Vec<Vec<(usize, Winner)>> = searches.iter().map(|_| Vec::new()).collect();
        let (pool, kind) = (&self.pool.clone(), prepare::reward_kind(self.scene));
        // One network's refit at a time is in memory.
        for (index, prepared) in self.networks.clone().iter().enumerate() {
            let lazily = |n_images, effort| Lazily {
                network: &prepared.network_name,
                prepare: Box::new(move || FinalRefit::new(&pool.0, prepared, kind, (n_images, effort))),
                refit: None,
            };
            self.save_if_interrupted(searches);
            let mut fields = self.fields(index, searches);
            if fields.iter().all(|field| field.finalists.is_empty()) {
                continue;
            }
            let n_images = self.scene.images.refit;
            if fields.iter().any(|field| field.finalists.len() > N_LAST) && n_images >= HEAT_SHARE * HEAT_IMAGES_MIN {
                self.first_round(lazily(n_images / HEAT_SHARE, Effort::Quick), &mut fields, searches)?;
            }
            self.last_round(lazily(n_images, Effort::Thorough), &fields, searches, &mut winners)?;
        }
        winners[0].extend(self.whole_networks()?);
        winners.iter_mut().for_each(|w| w.sort_by_key(|(task, _)| *task));
        self.test(winners)
    }

    /// Writes the networks of the tasks that were not searched, since their budget allows the whole network.
    fn whole_networks(&mut self) -> Result<Vec<(usize, Winner)>, Failure> {
        let mut winners = Vec::new();
        let tasks: Vec<usize> = (0..self.tasks.len()).filter(|&task| !self.tasks[task].is_searched).collect();
        for task in tasks {
            let network = match self.resolved.budgets[task].whole() {
                Some(Whole::AsGiven) => &self.resolved.networks[self.scene.tasks[task].network].original,
                Some(Whole::Folded) | None => &self.networks[self.tasks[task].network].network,
            };
            let prepared = &self.networks[self.tasks[task].network];
            let winner = Winner::whole(prepared, network.clone(), prepare::reward_kind(self.scene));
            self.emit(task, &winner)?;
            winners.push((task, winner));
        }
        Ok(winners)
    }

    /// Writes the network of a task of the run's agent, and tells of it once.
    fn emit(&mut self, task: usize, winner: &Winner) -> Result<(), Failure> {
        self.directory.write_network(task, winner, self.scene, self.resolved)?;
        if self.refits.told.insert(task) {
            self.directory.tell_result(&self.tasks[task], winner)?;
        }
        Ok(())
    }

    /// Refits all finalists quickly, and leaves the best.
    fn first_round(
        &mut self,
        mut refit: Lazily<'_>,
        fields: &mut [Field<'_>],
        searches: &[SearchOutcome],
    ) -> Result<(), Failure> {
        let mut done = self.begin_refit(Round::First, refit.network, fields);
        for field in fields {
            let mut ranked = self.refit((Round::First, &mut refit), field, searches, &mut done)?;
            ranked.sort_by(|(_, a), (_, b)| a.best_first(b));
            field.finalists = ranked.into_iter().take(N_LAST).map(|(candidate, _)| candidate).collect();
        }
        Ok(())
    }

    /// Refits finalists on all refit images; the best of each field wins.
    fn last_round(
        &mut self,
        mut refit: Lazily<'_>,
        fields: &[Field<'_>],
        searches: &[SearchOutcome],
        winners: &mut [Vec<(usize, Winner)>],
    ) -> Result<(), Failure> {
        let mut done = self.begin_refit(Round::Last, refit.network, fields);
        for field in fields {
            let ranked = self.refit((Round::Last, &mut refit), field, searches, &mut done)?;
            let Some((candidate, _)) = ranked.into_iter().min_by(|(_, a), (_, b)| a.best_first(b)) else { continue };
            let known = self.refits.best(field.search, field.task).filter(|best| best.walk == candidate.walk);
            let winner = match known {
                Some(winner) => winner.clone(),
                // A run that was interrupted had refitted another one, which would not have come this far.
                None => refit.get().and_then(|refit| refit.run(&self.tasks[field.task].name, candidate))?,
            };
            if field.search == 0 {
                self.emit(field.task, &winner)?;
            }
            winners[field.search].push((field.task, winner));
        }
        Ok(())
    }

    /// The finalists of every search and task on one network.
    fn fields<'c>(&self, network: usize, searches: &'c [SearchOutcome]) -> Vec<Field<'c>> {
        let n_finalists = if self.interrupt.is_set() { 1 } else { usize::MAX };
        let tasks = (0..self.tasks.len()).filter(|&task| self.tasks[task].network == network);
        let of_task = |(search, outcome): (usize, &'c SearchOutcome), task: usize| Field {
            search,
            task,
            finalists: outcome.tasks[task].finalists.iter().take(n_finalists).collect(),
        };
        let searches = || searches.iter().enumerate();
        tasks.flat_map(|task| searches().map(move |search| of_task(search, task))).collect()
    }

    /// Begins a stage of which nothing is done, but for what an earlier process did; returns how much that is.
    fn begin_refit(&self, round: Round, network: &str, fields: &[Field<'_>]) -> u64 {
        let keys = || fields.iter().flat_map(|field| field.finalists.iter().map(|c| field.key(round, c)));
        let name = match round {
            Round::First => "first",
            Round::Last => "final",
        };
        let n_known = keys().filter(|key| self.refits.rank(*key).is_some()).count() as u64;
        self.progress.begin(&format!("{name} refit of {network}"), keys().count() as u64, n_known);
        if n_known > 0 {
            self.progress.log(&format!("{n_known} were refitted before"));
        }
        n_known
    }

    /// The finalists with what became of their refit; after Ctrl-C, those refitted by then, one at least. Those that panic are
    /// left out.
    fn refit<'c>(
        &mut self,
        (round, refit): (Round, &mut Lazily<'_>),
        field: &Field<'c>,
        searches: &[SearchOutcome],
        done: &mut u64,
    ) -> Result<Vec<(&'c Finalist, Rank)>, Failure> {
        let mut refitted = Vec::new();
        for &candidate in &field.finalists {
            self.save_if_interrupted(searches);
            if !refitted.is_empty() && self.interrupt.is_set() {
                break;
            }
            let key = field.key(round, candidate);
            let rank = match self.refits.rank(key) {
                Some(rank) => rank,
                None => {
                    let rank = self.refit_one(key, refit, candidate)?;
                    *done += 1;
                    rank
                }
            };
            refitted.extend(rank.map(|rank| (candidate, rank)));
            self.progress.set(*done);
            if self.searched_all && !self.interrupt.is_set() && self.checkpoints.is_due() {
                self.checkpoint(searches);
            }
        }
        Ok(refitted)
    }

    /// Refits a finalist and remembers it; one that panics is told and passed over.
    fn refit_one(&mut self, key: Key, refit: &mut Lazily<'_>, candidate: &Finalist) -> Result<Option<Rank>, Failure> {
        let refit = refit.get()?;
        match refit.run(&self.tasks[key.2].name, candidate) {
            Ok(winner) => {
                let rank = winner.rank();
                self.refits.note(key, winner);
                Ok(Some(rank))
            }
            Err(error @ SimError::Panicked { .. }) => {
                let warning = format!("final refit: {error}; the other finalists go on without it");
                self.progress.note(&format!("warning: {warning}"));
                self.refits.warnings.push(warning);
                self.refits.give_up(key);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After Ctrl-C, writes down what is known before anything is decided among fewer finalists than there are.
    fn save_if_interrupted(&mut self, searches: &[SearchOutcome]) {
        if self.interrupt.is_set() && std::mem::take(&mut self.searched_all) {
            self.checkpoint(searches);
            self.wait_for_checkpoint();
        }
    }

    fn test(&self, winners: Vec<Vec<(usize, Winner)>>) -> Result<Vec<Vec<Finished>>, Failure> {
        let total = winners.iter().map(Vec::len).sum::<usize>() as u64;
        self.progress.begin("test split", total, 0);
        let mut out = Vec::new();
        let mut done = 0;
        for of_search in winners {
            let mut finished = Vec::new();
            for (task, winner) in of_search {
                let test_accuracy = self.test_accuracy(task, &winner.network)?;
                finished.push(Finished { task, winner, test_accuracy });
                done += 1;
                self.progress.set(done);
            }
            out.push(finished);
        }
        self.progress.clear();
        Ok(out)
    }

    /// Top-1 of the unpruned network on the test split, once per pair.
    pub(super) fn original_test_accuracies(&self) -> Result<Vec<f64>, Failure> {
        let mut known: BTreeMap<usize, f64> = BTreeMap::new();
        let mut out = Vec::new();
        for (task, setup) in self.tasks.iter().enumerate() {
            let accuracy = match known.get(&setup.network) {
                Some(&accuracy) => accuracy,
                None => self.test_accuracy(task, &self.networks[setup.network].network)?,
            };
            known.insert(setup.network, accuracy);
            out.push(accuracy);
        }
        Ok(out)
    }

    fn test_accuracy(&self, task: usize, network: &Network) -> Result<f64, Failure> {
        let spec = &self.scene.tasks[task];
        let data: &Dataset = &self.resolved.datasets[spec.dataset].test;
        let preprocessing = &self.resolved.networks[spec.network].preprocessing;
        let plan = Plan::compile(network).context("compiling for the test split")?;
        let indices: Vec<usize> = (0..data.len()).collect();
        let mut n_correct = 0;
        for batch in indices.chunks(TEST_BATCH) {
            let images = data.normalised_nhwc(batch, preprocessing);
            let labels: Vec<u16> = batch.iter().map(|&i| data.labels[i]).collect();
            n_correct += plan.n_correct(&self.pool.0, &images, &labels).context("evaluating on the test split")?;
        }
        Ok(n_correct as f64 / data.len().max(1) as f64)
    }
}
