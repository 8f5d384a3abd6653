//! What every search over plans must do, on hand-made tasks.

use crate::agent::{Agent, AgentSettings, EnvironmentSpec, build_planned};
use crate::interface::{ActRequest, Learner};
use crate::task_plan::{TaskPlan, TaskPlans};
use crate::unroll::{Unroll, UnrollState, UnrollStep};

/// What a search found.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    /// Widths of its first walk.
    pub(crate) first: Vec<usize>,
    /// Those that earned most.
    pub(crate) widths: Vec<usize>,
}

fn environment(plan: &TaskPlan, walks: u64) -> EnvironmentSpec {
    EnvironmentSpec {
        n_features: 1,
        n_tasks: 1,
        n_actors: 4,
        walk_length_max: plan.n_groups(),
        walks_planned: walks,
        keep_ratio_min: 0.01,
        seed: 3,
    }
}

fn learner(settings: &dyn AgentSettings, plan: &TaskPlan, walks: u64) -> Box<dyn Learner> {
    let plans = TaskPlans::new(vec![plan.clone()]);
    match build_planned(settings, &environment(plan, walks), Some(&plans)).unwrap() {
        Agent::Learning(learner) => learner,
        Agent::Fixed(_) => panic!("does not learn"),
    }
}

/// One walk: the widths, and the unroll that is learned from.
fn walk(learner: &dyn Learner, plan: &TaskPlan, number: u64, earns: &dyn Fn(&[usize]) -> f32) -> (Vec<usize>, Unroll) {
    let (policy, groups) = (learner.policy(), &plan.widths.groups);
    let mut unroll = Unroll::default();
    let (mut widths, mut recurrent) = (Vec::new(), Vec::new());
    for (layer, group) in groups.iter().enumerate() {
        let request = ActRequest {
            walk: number,
            layer: layer as u32,
            n_layers: groups.len() as u32,
            observation: vec![0.5],
            even_ratio: 0.5,
            recurrent,
            explore: true,
            ..ActRequest::default()
        };
        let decision = policy.act(&[request]).unwrap().remove(0);
        widths.push((decision.keep_ratio * group.n_channels as f32).round() as usize);
        let ends_walk = layer + 1 == groups.len();
        unroll
            .push_state(&[0.5], UnrollState { layer: layer as u32, starts_walk: layer == 0, ..UnrollState::default() });
        unroll.push_step(UnrollStep {
            raw_action: decision.raw_action,
            keep_ratio: decision.keep_ratio,
            reward: if ends_walk { earns(&widths) } else { 0.0 },
            ends_walk,
            ..UnrollStep::default()
        });
        recurrent = decision.recurrent;
    }
    unroll.repeat_last_state();
    assert!(plan.widths.fits(&widths), "{widths:?} are over budget");
    (widths, unroll)
}

/// Generations of four walks, until `walks` are walked.
pub(crate) fn best_of_search(
    settings: &dyn AgentSettings,
    plan: &TaskPlan,
    walks: u64,
    earns: impl Fn(&[usize]) -> f32,
) -> Found {
    let mut learner = learner(settings, plan, walks);
    let mut all: Vec<Vec<usize>> = Vec::new();
    for generation in 0..walks / 4 {
        let ended: Vec<_> = (0..4).map(|i| walk(&*learner, plan, 4 * generation + i, &earns)).collect();
        let unrolls: Vec<Unroll> = ended.iter().map(|(_, unroll)| unroll.clone()).collect();
        learner.learn(&unrolls).unwrap();
        all.extend(ended.into_iter().map(|(widths, _)| widths));
    }
    let best = all.iter().max_by(|a, b| earns(a).total_cmp(&earns(b))).unwrap();
    Found { first: all[0].clone(), widths: best.clone() }
}

/// A search that is saved and loaded goes on as if it had not been, and refuses what is no state of it.
pub(crate) fn check_search(settings: &dyn AgentSettings, plan: &TaskPlan) {
    let earns = |widths: &[usize]| -(widths[0] as f32 - 3.0).abs();
    let mut whole = learner(settings, plan, 60);
    let mut halves = learner(settings, plan, 60);
    for generation in 0..15 {
        if generation == 7 {
            let saved = halves.save().unwrap();
            halves = learner(settings, plan, 60);
            halves.load(&saved).unwrap();
            assert_eq!(halves.save().unwrap(), saved);
        }
        for search in [&mut whole, &mut halves] {
            let unrolls: Vec<Unroll> = (0..4).map(|i| walk(&**search, plan, 4 * generation + i, &earns).1).collect();
            search.learn(&unrolls).unwrap();
        }
        assert_eq!(whole.save().unwrap(), halves.save().unwrap(), "generation {generation}");
    }
    let before = whole.save().unwrap();
    assert!(whole.load(&before[..before.len() / 2]).is_err());
    let mut nan = walk(&*whole, plan, 99, &earns).1;
    nan.reward[0] = f32::NAN;
    assert!(whole.learn(&[nan]).is_err());
    assert_eq!(whole.save().unwrap(), before, "a failed call changes nothing");
    let unplanned = crate::agent::build(settings, &environment(plan, 4)).unwrap();
    let request = ActRequest { n_layers: plan.n_groups() as u32, ..ActRequest::default() };
    assert!(unplanned.policy().act(&[request]).is_err(), "without a plan it cannot act");
}
