//! From searches and their winners to the summary.

use secateur_net::{ChannelGroups, Cost, KeptChannels, Network};
use secateur_rl::AgentKind;
use secateur_rl::agents::random::RandomSettings;
use secateur_sim::{OutputPart, Score};

use crate::card::Card;
use crate::finish::{Finished, FinishedTraining, TestScore};
use crate::inputs::budgets::{ResolvedBudget, Whole};
use crate::inputs::reachable::{full_cost, full_costs};
use crate::learning::{AgainstRandom, mean, standard_error};
use crate::paired::{PairedAccuracy, PairedError};
use crate::plan::task_plans::n_probes;
use crate::run::{Job, Run};
use crate::scene::HistoryChoice;
use crate::search::SearchOutcome;
use crate::split_error::OutputAgreement;
use crate::summary::{
    BoundSummary, BudgetSummary, ControlSummary, GroupSummary, OriginalSummary, OutputSummary, RewardSummary, Summary,
    TaskSummary, TrainingSummary, model_file,
};
use crate::training::trained::TrainingStage;

/// `finished` has the winners of each search, `original_test` the top-1 of each task's original on the test split.
pub(crate) fn summarise(
    run: &Run<'_>,
    searches: &[SearchOutcome],
    finished: &[Vec<Finished>],
    original_test: &[Option<f64>],
    wall_s: f64,
) -> Summary {
    let agent = &searches[0];
    let stats = || agent.tasks.iter().map(|t| t.stats);
    let controls = searches.iter().zip(finished).skip(1);
    let refits = run.refits.warnings.iter().cloned();
    // Tasks on one network share them.
    let first_tasks = (0..run.job.networks.len())
        .filter_map(|n| run.job.tasks.iter().position(|task| task.network == n && task.is_searched));
    let all_probes: u64 = first_tasks.map(|task| probes(&run.job, agent.agent, task)).sum();
    let learns = run.job.policy.is_none() && run.job.scene.history.as_ref().is_some_and(HistoryChoice::learns);
    Summary {
        scene: run.job.scene.origin().to_owned(),
        seed: run.job.scene.seed,
        reward: RewardSummary::of(run.job.scene.reward.kind()),
        agent: agent.agent.to_owned(),
        scheduler: run.job.scene.scheduler.name(),
        executor: run.job.scene.executor.name().to_owned(),
        device: run.job.card.as_ref().map_or_else(|| "cpu".to_owned(), Card::device),
        precision: run.job.scene.precision.to_string(),
        warnings: run.job.card.as_ref().map_or_else(Vec::new, Card::warnings).into_iter().chain(refits).collect(),
        interrupted: run.is_stopping,
        wall_s,
        search_wall_s: agent.times.wall,
        search_times_s: searches.iter().map(|search| (search.agent.to_owned(), search.times)).collect(),
        walks: stats().map(|s| s.n_ended).sum(),
        env_steps: agent.env_steps,
        learner_updates: agent.learner_updates,
        candidates_scored: stats().map(|s| s.n_ended - s.n_cache_hits).sum::<u64>() + all_probes,
        cache_hits: stats().map(|s| s.n_cache_hits).sum(),
        tuning_steps: run.job.scene.tune_before_score.map(|tune| {
            let n_scored = stats().map(|s| s.n_scored()).sum::<u64>();
            n_scored * tune.steps as u64
        }),
        history: learns.then(|| run.job.earlier.summary(run.job.scene)),
        tasks: {
            let of_task = |f: &Finished| TaskSummary {
                onnx_file: run.journal.directory.onnx_file(&run.job.scene.tasks[f.task].name),
                plan_file: run.journal.directory.plan_file(&run.job.scene.tasks[f.task].name),
                ..task_summary(&run.job, searches, f, original_test[f.task])
            };
            finished[0].iter().map(of_task).collect()
        },
        controls: controls
            .flat_map(|(search, of_control)| {
                of_control.iter().map(|f| control_summary(&run.job, search, f, &finished[0]))
            })
            .collect(),
    }
}

fn task_summary(
    job: &Job<'_>,
    searches: &[SearchOutcome],
    finished: &Finished,
    original_test: Option<f64>,
) -> TaskSummary {
    let (spec, budget) = (&job.scene.tasks[finished.task], &job.resolved.budgets[finished.task]);
    let prepared = &job.networks[job.tasks[finished.task].network];
    let original = &job.resolved.networks[spec.network].original;
    let (winner, agreement) = (&finished.winner, finished.test.agreement.as_ref());
    let emitted = finished.written().emitted();
    let costs = |network: &Network| full_costs(network, [Cost::Macs, Cost::Params, Cost::ActivationBytes]);
    let [macs, params, activation_bytes] = costs(&emitted);
    let setup = &job.tasks[finished.task];
    let noise_free = &searches[0].rewards[finished.task].noise_free;
    let random = searches.iter().skip(1).find(|search| search.agent == RandomSettings::ENTRY.word);
    TaskSummary {
        name: spec.name.clone(),
        network: prepared.network_name.clone(),
        dataset: prepared.dataset_name.clone(),
        budget: BudgetSummary::of(budget),
        bounds: bounds(budget, &emitted),
        original: {
            let [macs, params, activation_bytes] = costs(original);
            OriginalSummary { macs, params, activation_bytes }
        },
        macs,
        params,
        activation_bytes,
        groups: groups(&prepared.groups, &winner.kept),
        reward_accuracy: winner.score.accuracy,
        reward_accuracy_original: prepared.original_score.accuracy,
        test_accuracy_original: original_test,
        test_accuracy_before_tuning: finished.test.accuracy(),
        test_accuracy_after_polish: accuracy_after(finished, TrainingStage::Polish),
        polish: training_summary(finished, TrainingStage::Polish),
        test_accuracy_after_tuning: accuracy_after(finished, TrainingStage::Tune),
        tuning: training_summary(finished, TrainingStage::Tune),
        reward_output_error: winner.score.output_error,
        reward_divergence: unlabelled_divergence(&winner.score),
        test_output_error: agreement.map(|agreement| agreement.error),
        test_divergence: agreement.and_then(|agreement| agreement.divergence),
        test_same_class: agreement.and_then(|agreement| agreement.same_class),
        outputs: agreement.map_or_else(Vec::new, |agreement| outputs(&prepared.reward.outputs, agreement)),
        noise_free_reward_mean: mean(noise_free),
        against_random: random
            .and_then(|random| AgainstRandom::judge(noise_free, &random.rewards[finished.task].noisy)),
        unchanged: budget.whole() == Some(Whole::AsGiven),
        walk_of_best: setup.is_searched.then_some(winner.walk),
        model_file: model_file(&spec.name),
        onnx_file: None,
        plan_file: None,
    }
}

fn accuracy_after(finished: &Finished, stage: TrainingStage) -> Option<f64> {
    finished.test_after(stage).and_then(TestScore::accuracy)
}

/// What a training of a winner came to, against what that was before.
fn training_summary(finished: &Finished, stage: TrainingStage) -> Option<TrainingSummary> {
    let at = finished.trained.iter().position(|trained| trained.stage == stage)?;
    let FinishedTraining { trained, result, .. } = &finished.trained[at];
    let earlier = finished.trained[..at].iter().rev().find_map(|trained| trained.result.as_ref());
    let before = earlier.map_or(&finished.test, |(_, test)| test);
    let after = result.as_ref().map(|(_, test)| test);
    let [held_out_before, held_out_after] = trained.held_out;
    Some(TrainingSummary {
        images: trained.n_images,
        epochs: trained.n_epochs,
        held_out_before,
        held_out_after,
        kept: result.is_some(),
        failure: trained.failure.clone(),
        test_output_error: after.and_then(|test| Some(test.agreement.as_ref()?.error)),
        test_paired: after
            .and_then(|test| Some(PairedAccuracy::of(test.correct.as_deref()?, before.correct.as_deref()?))),
        test_paired_error: after.and_then(|test| {
            let [after, before] = [test, before].map(|test| test.agreement.as_ref());
            Some(PairedError::of(&after?.image_errors, &before?.image_errors))
        }),
    })
}

/// The run's agent against a control on the test images, both behind the last stage that trained both.
fn paired_after_training(agent: &Finished, control: &Finished) -> Option<PairedAccuracy> {
    let of_stage = |stage: &TrainingStage| {
        let [ours, theirs] = [agent, control].map(|finished| finished.test_after(*stage));
        Some(PairedAccuracy::of(ours?.correct.as_deref()?, theirs?.correct.as_deref()?))
    };
    TrainingStage::ALL.iter().rev().find_map(of_stage)
}

/// What a network makes of each of several bounds.
pub(crate) fn bounds(budget: &ResolvedBudget, network: &Network) -> Vec<BoundSummary> {
    BoundSummary::of_several(budget, |cost| full_cost(network, cost))
}

/// Where labels are known, metrics.jsonl has it.
fn unlabelled_divergence(score: &Score) -> Option<f64> {
    score.divergence.filter(|_| score.accuracy.is_none())
}

fn outputs(parts: &[OutputPart], agreement: &OutputAgreement) -> Vec<OutputSummary> {
    let told =
        parts.iter().zip(&agreement.errors).zip(&agreement.units).map(|((part, &test_error), unit)| OutputSummary {
            name: part.name.clone(),
            values: part.len,
            weight: part.weight,
            test_error,
            relative_to: unit.name().to_owned(),
        });
    told.collect()
}

fn groups(groups: &ChannelGroups, kept: &KeptChannels) -> Vec<GroupSummary> {
    let of = |id: usize| {
        let group = groups.group(id);
        GroupSummary { name: group.name.clone(), channels: group.n_channels, kept: kept.group(id).len() }
    };
    groups.prunable().into_iter().map(of).collect()
}

/// Candidates that were scored for the plan of an agent, beside those of its walks.
fn probes(job: &Job<'_>, agent: &str, task: usize) -> u64 {
    let agents = std::iter::once(&job.scene.agent).chain(job.scene.controls.iter().map(|control| &control.agent));
    let settings = agents.into_iter().find(|spec| spec.entry.word == agent).map(|spec| &*spec.settings);
    let setup = &job.tasks[task];
    let n_probes = |settings| n_probes(&job.networks[setup.network], settings);
    settings.filter(|_| setup.is_searched).map_or(0, n_probes)
}

/// `agents` are the results of the run's agent, which the control is compared with.
fn control_summary(job: &Job<'_>, search: &SearchOutcome, finished: &Finished, agents: &[Finished]) -> ControlSummary {
    let stats = search.tasks[finished.task].stats;
    let rewards = &search.rewards[finished.task].noisy;
    let has_labels = finished.winner.score.accuracy.is_some();
    let agent = agents.iter().find(|f| f.task == finished.task);
    ControlSummary {
        task: job.scene.tasks[finished.task].name.clone(),
        agent: search.agent.to_owned(),
        candidates_scored: stats.n_ended - stats.n_cache_hits + probes(job, search.agent, finished.task),
        reward_accuracy: finished.winner.score.accuracy,
        test_accuracy_before_tuning: finished.test.accuracy(),
        test_accuracy_after_polish: accuracy_after(finished, TrainingStage::Polish),
        test_accuracy_after_tuning: accuracy_after(finished, TrainingStage::Tune),
        test_paired_after_training: agent.and_then(|agent| paired_after_training(agent, finished)),
        reward_output_error: finished.winner.score.output_error,
        test_output_error: finished.test.agreement.as_ref().map(|agreement| agreement.error),
        macs: finished.winner.macs,
        bounds: bounds(&job.resolved.budgets[finished.task], &finished.winner.emitted()),
        reward_accuracy_gain: agent.and_then(|f| Some(f.winner.score.accuracy? - finished.winner.score.accuracy?)),
        test_accuracy_gain: agent.and_then(|f| Some(f.test.accuracy()? - finished.test.accuracy()?)),
        reward_gain: agent.filter(|_| !has_labels).map(|f| {
            let kind = job.scene.reward.kind();
            f.winner.score.reward(kind) - finished.winner.score.reward(kind)
        }),
        test_paired: agent
            .and_then(|f| Some(PairedAccuracy::of(f.test.correct.as_deref()?, finished.test.correct.as_deref()?))),
        test_paired_error: agent.and_then(|f| {
            let [ours, theirs] = [&f.test, &finished.test].map(|test| test.agreement.as_ref());
            Some(PairedError::of(&ours?.image_errors, &theirs?.image_errors))
        }),
        walk_reward_mean: mean(rewards),
        walk_reward_standard_error: standard_error(rewards),
    }
}
