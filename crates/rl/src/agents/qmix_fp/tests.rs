//! Tests of the team on hand-made tasks.

use std::sync::Arc;

use super::features::seen;
use super::joint::Offered;
use super::learner::QmixFpLearner;
use super::loss::{EpisodeBatch, rewards};
use super::net::StageMixer;
use super::replay::{Episode, ScoreSpread};
use super::team::{Team, TeamFrame};
use super::*;
use crate::agent::{EnvironmentSpec, Profile};
use crate::interface::{ActRequest, Learner};
use crate::nn::params::Params;
use crate::rng::RngStream;
use crate::task_plan::{TaskPlan, TaskPlans, hand_made};
use crate::unroll::{Unroll, UnrollState, UnrollStep};

fn environment(plans: &[TaskPlan], walks: u64) -> EnvironmentSpec {
    EnvironmentSpec {
        n_features: 1,
        n_tasks: plans.len(),
        n_actors: 4,
        walk_length_max: plans.iter().map(TaskPlan::n_groups).max().unwrap(),
        walks_planned: walks * plans.len() as u64,
        keep_ratio_min: 0.01,
        seed: 3,
    }
}

fn learner(settings: &QmixFpSettings, plans: &[TaskPlan], walks: u64) -> QmixFpLearner {
    let all = TaskPlans::new(plans.to_vec());
    QmixFpLearner::new(settings.clone(), &environment(plans, walks), Some(&all)).unwrap()
}

fn frame(settings: &QmixFpSettings, plan: &TaskPlan) -> TeamFrame {
    let plans = TaskPlans::new(vec![plan.clone()]);
    TeamFrame::new(settings.clone(), &environment(std::slice::from_ref(plan), 100), Some(&plans))
}

fn request(plan: &TaskPlan, task: u32, walk: u64) -> ActRequest {
    ActRequest {
        task,
        walk,
        n_layers: plan.n_groups() as u32,
        observation: vec![0.5],
        even_ratio: 0.5,
        explore: true,
        ..ActRequest::default()
    }
}

/// One walk behind the wall of its budget: its widths, and the unroll that is learned from.
fn walk(learner: &dyn Learner, plan: &TaskPlan, at: [u64; 2], earns: &dyn Fn(&[usize]) -> f32) -> (Vec<usize>, Unroll) {
    let policy = learner.policy();
    let mut request = request(plan, at[0] as u32, at[1]);
    let mut unroll = Unroll { task: request.task, ..Unroll::default() };
    let mut widths = plan.widths.least();
    for (layer, group) in plan.widths.groups.iter().enumerate() {
        request.layer = layer as u32;
        let decision = policy.act(&[request.clone()]).unwrap().remove(0);
        let wanted = group.nearest(f64::from(decision.keep_ratio) * group.n_channels as f64);
        let affordable = |&&width: &&usize| {
            widths[layer] = width;
            plan.widths.fits(&widths)
        };
        let n = group.allowed.partition_point(|&width| width <= wanted);
        widths[layer] = *group.allowed[..n].iter().rev().find(affordable).unwrap();
        let ends_walk = layer + 1 == plan.n_groups();
        unroll
            .push_state(&[0.5], UnrollState { layer: layer as u32, starts_walk: layer == 0, ..UnrollState::default() });
        unroll.push_step(UnrollStep {
            raw_action: decision.raw_action,
            keep_ratio: widths[layer] as f32 / group.n_channels as f32,
            reward: if ends_walk { earns(&widths) } else { 0.0 },
            ends_walk,
            ..UnrollStep::default()
        });
        request.recurrent = decision.recurrent;
    }
    unroll.repeat_last_state();
    assert!(plan.widths.fits(&widths), "{widths:?} are over budget");
    (widths, unroll)
}

/// Generations of four walks of each task; all widths of each task, in order.
fn search(
    learner: &mut QmixFpLearner,
    plans: &[TaskPlan],
    walks: std::ops::Range<u64>,
    earns: &dyn Fn(&[usize]) -> f32,
) -> Vec<Vec<Vec<usize>>> {
    let mut all = vec![Vec::new(); plans.len()];
    for first in walks.step_by(4) {
        let mut unrolls = Vec::new();
        for (task, plan) in plans.iter().enumerate() {
            for number in first..first + 4 {
                let (widths, unroll) = walk(learner, plan, [task as u64, number], earns);
                all[task].push(widths);
                unrolls.push(unroll);
            }
        }
        learner.learn(&unrolls).unwrap();
    }
    all
}

fn of(profile: Profile) -> QmixFpSettings {
    QmixFpSettings::of(profile)
}

/// A team that has iterations, masks, recurrent agents and targets, on few units.
fn small_paper(mixing: ValueMixing) -> QmixFpSettings {
    QmixFpSettings {
        mixing,
        iterations: 3,
        units: 8,
        gru_units: 6,
        mixer_units: 4,
        hyper_units: 5,
        batch: 4,
        targets: TargetRule::Copied(8),
        ..of(Profile::Paper)
    }
}

#[test]
fn profiles_are_valid_and_paper_has_the_sizes_of_the_released_qmix() {
    for profile in [Profile::Paper, Profile::Tuned] {
        assert_eq!(of(profile).check(), [], "{profile:?}");
    }
    let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    let frame = frame(&of(Profile::Paper), &plan);
    let specs = frame.shape.specs();
    let shape = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap().shape.clone();
    assert_eq!(shape("agent.first.weight")[1], 64);
    assert_eq!(shape("agent.gru.new.hidden.weight"), [64, 64]);
    assert_eq!(shape("agent.head.weight"), [64, 6]);
    assert_eq!(shape("mixer.first.weight.weight"), [64, 3 * 32]);
    let settings = QmixFpSettings { iterations: 11, ..of(Profile::Paper) };
    assert_eq!(settings.check()[0].path, "iterations", "six actions in eleven iterations have no exact code");
    let falling = TeamActions::Removals(vec![0.0, 0.3, 0.2]);
    assert_eq!(QmixFpSettings { actions: falling, ..of(Profile::Paper) }.check()[0].path, "actions[0]");
    assert_eq!(QmixFpSettings { replay: 8, ..of(Profile::Tuned) }.check()[0].path, "batch");
}

/// Values of every action of every agent, drawn; the task's widths before are whole.
struct Case {
    plan: TaskPlan,
    values: Vec<f32>,
    allowed: Vec<bool>,
    mixer: StageMixer,
}

impl Case {
    fn new(seed: u64, n_actions: usize) -> Self {
        let mut rng = RngStream::new(seed, 9, 9, 9);
        let max = [20, 40, 70, 112][seed as usize % 4];
        let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], max);
        let team = Team::new(&of(Profile::Tuned), &plan);
        let values = (0..3 * n_actions).map(|_| rng.normal() as f32).collect();
        let mut allowed: Vec<bool> = (0..3 * n_actions).map(|_| rng.uniform() < 0.7).collect();
        for agent in 0..3 {
            allowed[agent * n_actions] = true;
            for action in 0..n_actions {
                allowed[agent * n_actions + action] &= team.choices[agent].is_available(16, action, true);
            }
        }
        let mut draw = |n: usize| (0..n).map(|_| rng.uniform() as f32).collect::<Vec<f32>>();
        Self { plan, values, allowed, mixer: StageMixer { first: draw(6), second: draw(2), bias: draw(2) } }
    }
}

#[test]
fn the_joint_action_within_the_budget_is_that_of_most_value_and_never_unavailable() {
    let settings = of(Profile::Tuned);
    let n_actions = settings.n_actions();
    let (mut n_bound, mut n_free) = (0, 0);
    for seed in 0..120 {
        let case = Case::new(seed, n_actions);
        let team = Team::new(&settings, &case.plan);
        let (widths, allowed, values) = (team.whole(), &case.allowed[..], &case.values[..]);
        let offered = Offered { team: &team, widths: &widths, values, allowed, n_actions };
        let mut best: Option<(f32, Vec<u8>)> = None;
        for code in 0..n_actions.pow(3) {
            let joint = [code % n_actions, code / n_actions % n_actions, code / n_actions / n_actions];
            let index = |agent: usize| agent * n_actions + joint[agent];
            let joint_u8: Vec<u8> = joint.iter().map(|&action| action as u8).collect();
            if (0..3).any(|agent| !case.allowed[index(agent)]) || !fits(&team, &widths, &joint_u8) {
                continue;
            }
            let value: f32 = (0..3).map(|agent| case.values[index(agent)]).sum();
            if best.as_ref().is_none_or(|(most, _)| value > *most) {
                best = Some((value, joint_u8));
            }
        }
        let found = offered.within_budget(None).unwrap();
        assert_eq!(found, best.map(|(_, joint)| joint), "seed {seed}");
        let greedy = offered.greedy().unwrap();
        n_free += usize::from(found.as_ref() == Some(&greedy));
        n_bound += usize::from(found.as_ref().is_some_and(|found| *found != greedy));
        let mixed = offered.within_budget(Some(&case.mixer)).unwrap();
        assert_eq!(mixed.is_some(), found.is_some());
        for joint in [&found, &mixed].into_iter().flatten() {
            assert!(fits(&team, &widths, joint));
            assert!((0..3).all(|agent| case.allowed[agent * n_actions + usize::from(joint[agent])]));
        }
        assert!((0..3).all(|agent| case.allowed[agent * n_actions + usize::from(greedy[agent])]));
    }
    assert!(n_bound > 20 && n_free > 20, "{n_bound} bound by the budget, {n_free} not");
}

fn fits(team: &Team, widths: &[usize], joint: &[u8]) -> bool {
    team.plan.widths.fits(&team.after(widths, joint))
}

/// A mixer that counts the second agent's value four times as much: what is right for the sum is wrong for the team.
#[test]
fn the_mixers_slopes_weigh_what_the_budget_is_spent_on() {
    let plan = hand_made::curved(&[2, 2], &[1, 1], 3);
    let settings = QmixFpSettings { actions: TeamActions::Levels(3), ..of(Profile::Tuned) };
    let team = Team::new(&settings, &plan);
    // One channel or two: the first agent gains 1.0 by the second one, the other 0.5. Both together are too many.
    let (values, allowed) = ([0.0, 1.0, 0.0, 0.0, 0.5, 0.0], [true, true, false, true, true, false]);
    let offered = Offered { team: &team, widths: &[2, 2], values: &values, allowed: &allowed, n_actions: 3 };
    assert_eq!(offered.within_budget(None).unwrap(), Some(vec![1, 0]));
    let mixer = StageMixer { first: vec![0.5, 2.0], second: vec![1.0], bias: vec![0.0] };
    assert_eq!(offered.within_budget(Some(&mixer)).unwrap(), Some(vec![0, 1]));
    let nan = [f32::NAN; 6];
    let broken = Offered { values: &nan, ..offered };
    assert!(broken.within_budget(None).is_err());
}

/// Weights of a team of two whose values are known: no layer but the head's bias says anything.
fn biased(frame: &TeamFrame, values: &[f32]) -> Params {
    let mut params = Params::new(frame.shape.specs(), 1);
    let mut from = 0;
    let specs = params.specs().to_vec();
    for spec in specs {
        let n: usize = spec.shape.iter().product();
        let fill = &mut params.values_mut()[from..from + n];
        if spec.name == "agent.head.bias" {
            fill.copy_from_slice(values)
        } else {
            fill.fill(0.0)
        }
        from += n;
    }
    params
}

/// Two groups of 16 channels at costs 1 and 3; removals of none, a quarter or half. In two iterations the first agent
/// removes a quarter, then half: 16, 12, 6; the second none, then a quarter: 16, 16, 12. Shares of the cost 64: 1,
/// 60/64, 42/64. Saved costs are paid at 0.8, the score at the end is 0.5.
#[test]
fn double_q_targets_are_those_worked_out_by_hand() {
    let plan = hand_made::curved(&[16, 16], &[1, 3], 60);
    let settings = QmixFpSettings {
        mixing: ValueMixing::Vdn,
        actions: TeamActions::Removals(vec![0.0, 0.25, 0.5]),
        iterations: 2,
        team_reward: TeamReward::Savings(0.8),
        discount: 0.5,
        ..of(Profile::Paper)
    };
    let frame_of = |settings: &QmixFpSettings| frame(settings, &plan);
    let frame = frame_of(&settings);
    let team = &frame.teams[0];
    let actions = vec![vec![1, 0], vec![2, 1]];
    let episode = Arc::new(Episode { task: 0, actions, score: 0.5, cost_share: 42.0 / 64.0 });
    let stages = episode.stages(&frame, team);
    assert_eq!([&stages[0].widths, &stages[1].widths], [&[16, 16], &[12, 16]]);
    assert_eq!(stages[1].after(team, &[2, 1]).widths, [6, 12]);
    let spread = ScoreSpread { mean: 0.25, sigma: 0.5 };
    let paid = rewards(&frame, &episode, &stages, spread);
    let expected = [0.8 * 4.0 / 64.0, 0.8 * 18.0 / 64.0 + 0.5];
    assert!((paid[0] - expected[0]).abs() < 1e-6 && (paid[1] - expected[1]).abs() < 1e-6, "{paid:?}");
    let standardised = frame_of(&QmixFpSettings { standardise: true, ..settings.clone() });
    assert!((rewards(&standardised, &episode, &stages, spread)[1] - expected[1]).abs() < 1e-6, "(0.5 - 0.25) / 0.5");

    // Live values say 1, 3, 2: the second action is chosen. Frozen ones say it is worth 10, not their own best, 40.
    // Two agents: 0.05 + 0.5 * 20; alone each 0.05 + 0.5 * 10. The last iteration is worth what it is paid.
    let (live, target) = (biased(&frame, &[1.0, 3.0, 2.0]), biased(&frame, &[20.0, 10.0, 40.0]));
    let tensors = |params: &Params| params.tensors().unwrap();
    let episodes = [Arc::clone(&episode)];
    let returns = |frame: &TeamFrame| {
        let batch = EpisodeBatch::new(frame, &episodes, &[spread]).unwrap();
        let returns = batch.returns_of(&tensors(&live), &tensors(&target)).unwrap();
        returns.iter().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
    };
    let close = |got: &[f32], expected: f32| got.iter().all(|got| (got - expected).abs() < 1e-5);
    let of_team = returns(&frame);
    assert!(close(&of_team[0], 10.05) && close(&of_team[1], expected[1]), "{of_team:?}");
    let alone = returns(&frame_of(&QmixFpSettings { mixing: ValueMixing::Independent, ..settings.clone() }));
    assert_eq!(alone[0].len(), 2);
    assert!(close(&alone[0], 5.05) && close(&alone[1], expected[1]), "{alone:?}");
    // What was taken is worth 3 + 1 at first, then 2 + 3.
    let batch = EpisodeBatch::new(&frame, &episodes, &[spread]).unwrap();
    let loss = batch.loss(&tensors(&live), &tensors(&target)).unwrap();
    let expected = ((4.0f32 - 10.05).powi(2) + (5.0 - expected[1]).powi(2)) / 2.0;
    assert!((loss.total.to_scalar::<f32>().unwrap() - expected).abs() < 1e-3);
    assert!((loss.value_mean - 4.5).abs() < 1e-6);
}

/// The budget of 30 forbids the second group more than 9 channels, whatever the first keeps: of the 12 that it has in
/// the last iteration a quarter or half must go. Targets must not be of what cannot be done.
#[test]
fn targets_are_of_available_actions_only() {
    let plan = hand_made::curved(&[16, 16], &[1, 3], 30);
    let settings = QmixFpSettings {
        mixing: ValueMixing::Vdn,
        actions: TeamActions::Removals(vec![0.0, 0.25, 0.5]),
        iterations: 2,
        discount: 1.0,
        team_reward: TeamReward::Score,
        ..of(Profile::Paper)
    };
    let frame = frame(&settings, &plan);
    let actions = vec![vec![0, 1], vec![0, 2]];
    let episodes = [Arc::new(Episode { task: 0, actions, score: 0.0, cost_share: 0.5 })];
    let weights = biased(&frame, &[5.0, 2.0, 1.0]).tensors().unwrap();
    let batch = EpisodeBatch::new(&frame, &episodes, &[ScoreSpread { mean: 0.0, sigma: 1.0 }]).unwrap();
    let returns = batch.returns_of(&weights, &weights).unwrap();
    // The first agent's best, 5, and 2, the second best of the second agent.
    assert_eq!(returns[0].to_vec1::<f32>().unwrap(), [7.0]);
}

#[test]
fn gradient_equals_finite_differences_of_the_loss() {
    let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    for mixing in [ValueMixing::Qmix, ValueMixing::Independent] {
        let settings = QmixFpSettings { prior: 0.5, ..small_paper(mixing) };
        let frame = frame(&settings, &plan);
        let episode = |score: f32, last: [u8; 3]| {
            let actions = vec![vec![1, 2, 3], vec![0, 1, 0], last.to_vec()];
            Arc::new(Episode { task: 0, actions, score, cost_share: 0.4 })
        };
        let episodes = [episode(0.7, [1, 1, 2]), episode(0.2, [0, 3, 1])];
        let batch = EpisodeBatch::new(&frame, &episodes, &[ScoreSpread { mean: 0.0, sigma: 1.0 }]).unwrap();
        let mut params = Params::new(frame.shape.specs(), 4);
        // The head begins at zero, where little else has a gradient.
        let mut rng = RngStream::new(1, 1, 1, 1);
        params.values_mut().iter_mut().for_each(|weight| *weight += 0.1 * rng.normal() as f32);
        let target = params.tensors().unwrap();
        let variables = params.variables().unwrap();
        let live: Vec<_> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let loss = batch.loss(&live, &target).unwrap();
        let gradient = crate::nn::params::flat_gradient(&variables, &loss.total.backward().unwrap()).unwrap();
        let at = |index: usize, step: f32| {
            let mut moved = params.clone();
            moved.values_mut()[index] += step;
            f64::from(batch.loss(&moved.tensors().unwrap(), &target).unwrap().total.to_scalar::<f32>().unwrap())
        };
        let mut n_felt = 0;
        for index in (0..gradient.len()).step_by(7).chain([gradient.len() - 1]) {
            let slope = (at(index, 4e-3) - at(index, -4e-3)) / 8e-3;
            let got = f64::from(gradient[index]);
            n_felt += usize::from(got.abs() > 1e-3);
            assert!((got - slope).abs() < 2e-3 + 0.03 * slope.abs(), "{mixing:?}, weight {index}: {got}, {slope}");
        }
        assert!(n_felt > 10, "{n_felt}");
    }
}

/// Removals with floors and a budget, all agents exploring: no walk takes what is not available, and the wall holds.
#[test]
fn no_walk_takes_an_action_that_is_not_available() {
    let mut plan = hand_made::curved(&[16, 12, 8], &[1, 2, 4], 30);
    plan.widths.groups.iter_mut().for_each(|group| group.allowed.retain(|width| *width >= 3));
    for budget in [BudgetRule::Wall, BudgetRule::Knapsack] {
        let settings = QmixFpSettings { budget, ..small_paper(ValueMixing::Qmix) };
        let learner = learner(&settings, std::slice::from_ref(&plan), 100);
        let frame = frame(&settings, &plan);
        let (mut n_masked, mut n_taken) = (0, 0);
        for number in 0..60 {
            let unroll = walk(&learner, &plan, [0, number], &|_| 0.5).1;
            // Refuses codes of actions that are not available.
            let episode = Episode::of_walk(&frame, &unroll).unwrap();
            let team = &frame.teams[0];
            for (stage, actions) in episode.stages(&frame, team).iter().zip(&episode.actions) {
                let available = seen(&frame, team, stage).available;
                n_masked += available.iter().filter(|available| !**available).count();
                n_taken += actions.len();
            }
        }
        assert!(n_masked > 60 && n_taken == 60 * 9, "{n_masked} masked of {n_taken}");
    }
}

#[test]
fn walks_begin_at_the_knapsack_and_explore_around_it() {
    let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    let mut learner = learner(&of(Profile::Tuned), std::slice::from_ref(&plan), 40);
    let all = search(&mut learner, std::slice::from_ref(&plan), 0..20, &|_| 0.5);
    assert_eq!(all[0][0], plan.knapsack);
    let different: std::collections::BTreeSet<&Vec<usize>> = all[0].iter().collect();
    assert!(different.len() >= 11, "{all:?}");
    for widths in different {
        let could_widen = (0..3).any(|place| {
            let mut wider = widths.clone();
            wider[place] += 1;
            wider[place] <= 16 && plan.widths.fits(&wider)
        });
        assert!(!could_widen, "{widths:?} leave some of the budget");
    }
}

/// Three groups that must be narrow together: what a group's channels are worth depends on the others, and the summed
/// errors, which know nothing of it, lead elsewhere.
fn together(widths: &[usize]) -> f32 {
    let away = [6.0, 14.0, 9.0].iter().zip(widths).map(|(best, &w)| (w as f32 - best).powi(2)).sum::<f32>();
    (-0.01 * away).exp()
}

fn best_of(all: &[Vec<usize>]) -> f32 {
    all.iter().map(|widths| together(widths)).fold(0.0, f32::max)
}

#[test]
fn the_team_finds_what_the_errors_do_not_say() {
    let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    for mixing in [ValueMixing::Qmix, ValueMixing::Vdn, ValueMixing::Independent] {
        let settings = QmixFpSettings { mixing, actions: TeamActions::Levels(16), ..of(Profile::Tuned) };
        let mut learner = learner(&settings, std::slice::from_ref(&plan), 160);
        let all = search(&mut learner, std::slice::from_ref(&plan), 0..160, &together).remove(0);
        let (first, best) = (together(&all[0]), best_of(&all));
        eprintln!("{mixing:?}: first {first}, best {best}, last {:?}", all.last());
        assert!(best > 0.9 && first < 0.4, "{mixing:?}: {first}, {best}");
    }
}

/// Two groups of three channels that are worth something only together, all widths tried at random: the product of how
/// wide both are is no sum, and nothing that one agent can know of alone.
fn product(widths: &[usize]) -> f32 {
    (widths[0] - 1) as f32 * (widths[1] - 1) as f32 / 4.0
}

#[test]
fn a_mixed_value_explains_the_teams_reward_better_than_a_sum_and_a_sum_better_than_agents_alone() {
    let plan = hand_made::curved(&[3, 3], &[1, 1], 6);
    let plans = std::slice::from_ref(&plan);
    let left = |mixing: ValueMixing| {
        let settings = QmixFpSettings {
            mixing,
            budget: BudgetRule::Wall,
            actions: TeamActions::Levels(3),
            prior: 0.0,
            standardise: false,
            learning_rate: 5e-3,
            exploration: Exploration { first: 1.0, last: 1.0, near: 0, ..of(Profile::Paper).exploration },
            ..of(Profile::Tuned)
        };
        let mut learner = learner(&settings, plans, 120);
        search(&mut learner, plans, 0..116, &product);
        let last: Vec<Unroll> = (116..120).map(|number| walk(&learner, &plan, [0, number], &product).1).collect();
        let loss = learner.learn(&last).unwrap().get("loss").unwrap();
        let request = ActRequest { explore: false, ..request(&plan, 0, 0) };
        (loss, learner.policy().act(&[request]).unwrap().remove(0).recurrent[..2].to_vec())
    };
    let [(mixed, best), (sum, _), (alone, _)] =
        [ValueMixing::Qmix, ValueMixing::Vdn, ValueMixing::Independent].map(left);
    eprintln!("{mixed} {sum} {alone}");
    assert!(mixed < 0.2 * sum && sum < 0.8 * alone, "{mixed} {sum} {alone}");
    assert_eq!(best, [1.0, 1.0], "what is best together is what the team does");
}

#[test]
fn a_team_that_is_saved_goes_on_bit_for_bit_and_refuses_what_is_no_state_of_it() {
    let plans = [hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70), hand_made::curved(&[16, 8], &[1, 3], 24)];
    let tuned = QmixFpSettings { iterations: 2, gru_units: 5, batch: 8, replay: 20, ..of(Profile::Tuned) };
    for settings in [small_paper(ValueMixing::Qmix), small_paper(ValueMixing::Vdn), tuned] {
        let (mut whole, mut halves) = (learner(&settings, &plans, 60), learner(&settings, &plans, 60));
        for generation in 0..6u64 {
            if generation == 3 {
                let saved = halves.save().unwrap();
                halves = learner(&settings, &plans, 60);
                halves.load(&saved).unwrap();
                assert!(halves.save().unwrap() == saved);
            }
            let walks = 4 * generation..4 * generation + 4;
            let before = search(&mut whole, &plans, walks.clone(), &together_or_any);
            assert_eq!(before, search(&mut halves, &plans, walks, &together_or_any));
            assert!(whole.save().unwrap() == halves.save().unwrap(), "generation {generation}");
        }
        let saved = whole.save().unwrap();
        for n in [0, 7, 100, saved.len() / 2, saved.len() - 1] {
            assert!(matches!(whole.load(&saved[..n]), Err(RlError::State { .. })), "cut at {n}");
        }
        assert!(whole.load(&learner(&of(Profile::Tuned), &plans[..1], 60).save().unwrap()).is_err());
        assert!(whole.save().unwrap() == saved, "a failed load changes nothing");
    }
}

fn together_or_any(widths: &[usize]) -> f32 {
    if widths.len() == 3 { together(widths) } else { 0.5 + 0.01 * widths[0] as f32 }
}

#[test]
fn malformed_batches_are_refused_and_change_nothing() {
    let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    let plans = std::slice::from_ref(&plan);
    // So few are remembered that each is learned from at once.
    let few = QmixFpSettings { replay: 4, ..small_paper(ValueMixing::Qmix) };
    for settings in [few, of(Profile::Tuned)] {
        let mut learner = learner(&settings, plans, 60);
        search(&mut learner, plans, 0..20, &together);
        let before = learner.save().unwrap();
        let good = walk(&learner, &plan, [0, 20], &together).1;
        let broken = |change: &dyn Fn(&mut Unroll)| {
            let mut unroll = good.clone();
            change(&mut unroll);
            unroll
        };
        for (what, bad) in [
            ("NaN", broken(&|u| u.reward[2] = f32::NAN)),
            ("no action", broken(&|u| u.raw_action[1] = 0.5)),
            ("an unavailable action", broken(&|u| u.raw_action[1] = 16_000_000.0)),
            (
                "half a walk",
                broken(&|u| {
                    u.truncate(2);
                    u.repeat_last_state();
                }),
            ),
            ("another task", broken(&|u| u.task = 1)),
            // The square of its error is not finite.
            ("a huge score", broken(&|u| u.reward[2] = f32::MAX)),
        ] {
            let batch = vec![good.clone(); 3].into_iter().chain([bad]).collect::<Vec<_>>();
            let result = learner.learn(&batch);
            // A score that is standardised is finite again.
            if what != "a huge score" || !settings.standardise {
                assert!(result.is_err(), "{what}");
                assert!(learner.save().unwrap() == before, "{what} changed the learner");
            }
        }
        assert!(learner.learn(&[]).is_err());
    }
    let unplanned = QmixFpLearner::new(of(Profile::Tuned), &environment(plans, 4), None).unwrap();
    assert!(unplanned.policy().act(&[request(&plan, 0, 0)]).is_err(), "without a plan it cannot act");
    let planned = learner(&of(Profile::Tuned), plans, 4);
    let bad = ActRequest { layer: 1, recurrent: vec![0.5; 3], ..request(&plan, 0, 0) };
    assert!(planned.policy().act(&[bad]).is_err(), "the plan of another task");
}

/// Decisions of a request do not depend on the others beside it.
#[test]
fn a_joint_decision_depends_on_its_own_request_only() {
    let plans = [hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70), hand_made::curved(&[16, 8], &[1, 3], 24)];
    let mut learner = learner(&of(Profile::Tuned), &plans, 40);
    search(&mut learner, &plans, 0..12, &together_or_any);
    let requests: Vec<ActRequest> = (0..6).map(|i| request(&plans[i % 2], (i % 2) as u32, 12 + i as u64)).collect();
    let together = learner.policy().act(&requests).unwrap();
    for (request, expected) in requests.iter().zip(&together) {
        assert_eq!(learner.policy().act(std::slice::from_ref(request)).unwrap(), std::slice::from_ref(expected));
    }
}
