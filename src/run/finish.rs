//! After the search: final refit of the finalists, and one look at the test split.

use std::collections::BTreeMap;

use anyhow::Context;
use secateur_formats::Dataset;
use secateur_kernels::Plan;
use secateur_net::Network;
use secateur_sim::{Candidate, FinalRefit, Winner};

use super::search::SearchOutcome;
use super::{Run, prepare};
use crate::Failure;

/// Test images normalised at a time.
const TEST_BATCH: usize = 1000;

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
        let n_finalists = if self.interrupt.is_set() { 1 } else { usize::MAX };
        let total: usize = searches.iter().flat_map(|s| &s.tasks).map(|t| t.finalists.len().min(n_finalists)).sum();
        self.progress.begin("final refit", total as u64);
        let mut winners: Vec<Vec<(usize, Winner)>> = searches.iter().map(|_| Vec::new()).collect();
        let mut done = 0;
        // One network's refit at a time is in memory.
        for (index, prepared) in self.networks.iter().enumerate() {
            let tasks: Vec<usize> = (0..self.tasks.len()).filter(|&t| self.tasks[t].network == index).collect();
            if tasks.iter().all(|&t| searches.iter().all(|s| s.tasks[t].finalists.is_empty())) {
                continue;
            }
            let refit = FinalRefit::new(&self.pool.0, prepared, prepare::reward_kind(self.scene))
                .with_context(|| format!("preparing the final refit of {}", prepared.network_name))?;
            for (place, search) in searches.iter().enumerate() {
                for &task in &tasks {
                    let finalists = search.tasks[task].finalists.iter().take(n_finalists);
                    let Some(winner) = self.best(&refit, task, finalists, &mut done)? else { continue };
                    if place == 0 {
                        self.directory.write_network(task, &winner, self.scene, self.resolved)?;
                    }
                    winners[place].push((task, winner));
                }
            }
        }
        winners.iter_mut().for_each(|w| w.sort_by_key(|(task, _)| *task));
        self.test(winners)
    }

    /// The best of the finalists of one task after their refit; after Ctrl-C, of those refitted by then.
    fn best<'c>(
        &self,
        refit: &FinalRefit<'_>,
        task: usize,
        finalists: impl Iterator<Item = &'c Candidate>,
        done: &mut u64,
    ) -> Result<Option<Winner>, Failure> {
        let mut best: Option<Winner> = None;
        for candidate in finalists {
            if best.is_some() && self.interrupt.is_set() {
                break;
            }
            let winner = refit.run(&self.tasks[task].name, candidate).map_err(|error| Failure::Failed(error.into()))?;
            if best.as_ref().is_none_or(|b| winner.beats(b)) {
                best = Some(winner);
            }
            *done += 1;
            self.progress.set(*done);
        }
        Ok(best)
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
