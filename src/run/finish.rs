//! After the search: final refit of the finalists, and one look at the test split.

use std::collections::BTreeMap;

use anyhow::Context;
use secateur_formats::Dataset;
use secateur_kernels::{Effort, Plan};
use secateur_net::Network;
use secateur_sim::{Candidate, FinalRefit, Winner};

use super::search::SearchOutcome;
use super::{Run, prepare};
use crate::Failure;

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
    finalists: Vec<&'c Candidate>,
}

/// The result of one agent on one task.
pub(super) struct Finished {
    /// The task's index.
    pub(super) task: usize,
    pub(super) winner: Winner,
    /// Top-1 on the test split.
    pub(super) test_accuracy: f64,
}

impl Run<'_> {
    /// Results of every search, in its order, for every task that has a candidate. A network of the agent's is written as soon as
    /// it is known. After Ctrl-C only the best candidate of each task is refitted.
    pub(super) fn finish(&mut self, searches: &[SearchOutcome]) -> Result<Vec<Vec<Finished>>, Failure> {
        let mut winners: Vec<Vec<(usize, Winner)>> = searches.iter().map(|_| Vec::new()).collect();
        // One network's refit at a time is in memory.
        for (index, prepared) in self.networks.clone().iter().enumerate() {
            let (pool, kind) = (self.pool.clone(), prepare::reward_kind(self.scene));
            let refit_on = |n_images, effort| {
                let refit = FinalRefit::new(&pool.0, prepared, kind, (n_images, effort));
                refit.with_context(|| format!("preparing the final refit of {}", prepared.network_name))
            };
            let mut fields = self.fields(index, searches);
            let n_images = self.scene.images.refit;
            if fields.iter().any(|field| field.finalists.len() > N_LAST) && n_images >= HEAT_SHARE * HEAT_IMAGES_MIN {
                let heats = refit_on(n_images / HEAT_SHARE, Effort::Quick)?;
                let mut done = 0;
                self.begin_refit(&format!("first refit of {}", prepared.network_name), &fields);
                for field in &mut fields {
                    let mut refitted = self.refit(&heats, field, &mut done)?;
                    refitted.sort_by(|(_, a), (_, b)| a.best_first(b));
                    field.finalists = refitted.into_iter().take(N_LAST).map(|(candidate, _)| candidate).collect();
                }
            }
            if fields.iter().all(|field| field.finalists.is_empty()) {
                continue;
            }
            let refit = refit_on(n_images, Effort::Thorough)?;
            let mut done = 0;
            self.begin_refit(&format!("final refit of {}", prepared.network_name), &fields);
            for field in &fields {
                let refitted = self.refit(&refit, field, &mut done)?.into_iter().map(|(_, winner)| winner);
                let Some(winner) = refitted.min_by(Winner::best_first) else { continue };
                if field.search == 0 {
                    self.directory.write_network(field.task, &winner, self.scene, self.resolved)?;
                }
                winners[field.search].push((field.task, winner));
            }
        }
        winners.iter_mut().for_each(|w| w.sort_by_key(|(task, _)| *task));
        self.test(winners)
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

    fn begin_refit(&self, what: &str, fields: &[Field<'_>]) {
        self.progress.begin(what, fields.iter().map(|field| field.finalists.len() as u64).sum());
    }

    /// The finalists with their refitted networks; after Ctrl-C, those refitted by then, one at least.
    fn refit<'c>(
        &self,
        refit: &FinalRefit<'_>,
        field: &Field<'c>,
        done: &mut u64,
    ) -> Result<Vec<(&'c Candidate, Winner)>, Failure> {
        let mut refitted = Vec::new();
        for &candidate in &field.finalists {
            if !refitted.is_empty() && self.interrupt.is_set() {
                break;
            }
            let winner = refit.run(&self.tasks[field.task].name, candidate);
            refitted.push((candidate, winner.map_err(|error| Failure::Failed(error.into()))?));
            *done += 1;
            self.progress.set(*done);
        }
        Ok(refitted)
    }

    fn test(&self, winners: Vec<Vec<(usize, Winner)>>) -> Result<Vec<Vec<Finished>>, Failure> {
        let total = winners.iter().map(Vec::len).sum::<usize>() as u64;
        self.progress.begin("test split", total);
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
