//! The acting half of the team.

use std::sync::Arc;

use candle_core::Tensor;

use super::super::plan_search::{TriedPlans, below};
use super::features::{Seen, TeamStage, seen};
use super::joint::Offered;
use super::net::{AgentInput, StageMixer};
use super::replay::Episode;
use super::settings::TeamActions;
use super::team::{Team, TeamFrame};
use crate::error::{During, RlError, check_finite, check_length};
use crate::interface::{ActRequest, Decision, Policy};
use crate::rng::RngStream;

/// A published policy: it decides for all agents of a walk before the walk's first group, and later groups read from
/// the recurrent state what theirs decided: keep ratios of all groups, then the codes of their agents' actions.
#[derive(Clone)]
pub(super) struct TeamPolicy {
    pub(super) version: u64,
    pub(super) frame: Arc<TeamFrame>,
    pub(super) weights: Vec<Tensor>,
    /// That an agent explores.
    pub(super) chance: f64,
    /// By task, the best episode so far.
    pub(super) best: Vec<Option<Arc<Episode>>>,
    /// By task.
    pub(super) tried: Vec<TriedPlans>,
}

/// A joint action of every iteration, and the widths that it leads to.
struct JointPlan {
    actions: Vec<Vec<u8>>,
    widths: Vec<usize>,
}

/// How one walk explores.
struct Explores<'a> {
    /// By iteration, the joint actions that it explores around; what the team values most where there are none.
    around: Option<&'a [Vec<u8>]>,
    /// An agent that explores in any case.
    forced: Option<usize>,
    chance: f64,
}

impl Policy for TeamPolicy {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let (layer, n) = (request.layer as usize, request.n_layers as usize);
            let plan = if layer == 0 { self.decide(request)? } else { request.recurrent.clone() };
            check_length("act", "plan of the team", 2 * n, plan.len())?;
            check_finite("act", "plan of the team", &plan)?;
            let (Some(&keep_ratio), Some(&raw_action)) = (plan[..n].get(layer), plan.get(n + layer)) else {
                return Err(RlError::OutOfRange {
                    op: "act",
                    what: "layer".to_owned(),
                    expected: format!("less than {n}"),
                    got: layer.to_string(),
                });
            };
            Ok(Decision { keep_ratio, raw_action, recurrent: plan, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

impl TeamPolicy {
    fn decide(&self, request: &ActRequest) -> Result<Vec<f32>, RlError> {
        let team = self.frame.team("act", request.task)?;
        check_length("act", "groups of the plan", team.n_agents(), request.n_layers as usize)?;
        let plan =
            if request.explore { self.explored(team, request)? } else { self.joint_plan(team, request.task, None)? };
        let mut numbers = team.plan.widths.keep_ratios(&plan.widths);
        numbers.extend(Episode::codes(&plan.actions, self.frame.shape.n_actions));
        Ok(numbers)
    }

    fn explored(&self, team: &Team, request: &ActRequest) -> Result<JointPlan, RlError> {
        let exploration = &self.frame.settings.exploration;
        let mut rng = RngStream::new(self.frame.environment.seed, request.task.into(), request.walk, 0);
        let knapsack = self.knapsack(team).filter(|_| request.walk < exploration.around_knapsack);
        if let (Some(actions), 0) = (&knapsack, request.walk) {
            return Ok(JointPlan { actions: actions.clone(), widths: team.plan.knapsack.clone() });
        }
        let task = request.task as usize;
        let mut proposal = 0;
        loop {
            let best = self.best[task].as_ref().filter(|_| rng.uniform() < exploration.around_best);
            let around = knapsack.as_deref().or_else(|| best.map(|best| &best.actions[..]));
            // Walks of one tick do not know of each other: in turn, another agent explores in any case.
            let forced =
                (proposal > 0 || around.is_some()).then(|| (request.walk as usize + proposal) % team.n_agents());
            let explores = Explores { around, forced, chance: self.chance };
            let plan = self.joint_plan(team, request.task, Some(&mut Exploring { explores, rng: &mut rng }))?;
            proposal += 1;
            let is_new = !self.tried[task].contains(&team.plan.widths.keep_ratios(&plan.widths));
            if is_new || proposal >= exploration.proposals {
                return Ok(plan);
            }
        }
    }

    /// The actions that lead to the knapsack's widths, if there are such.
    fn knapsack(&self, team: &Team) -> Option<Vec<Vec<u8>>> {
        if !matches!(self.frame.settings.actions, TeamActions::Levels(_)) {
            return None;
        }
        let level = |agent: usize| Some(team.choices[agent].level_of(team.plan.knapsack[agent])? as u8);
        let actions = (0..team.n_agents()).map(level).collect::<Option<Vec<u8>>>()?;
        Some(vec![actions; self.frame.settings.iterations])
    }

    /// All iterations, one after the other.
    fn joint_plan(
        &self,
        team: &Team,
        task: u32,
        mut exploring: Option<&mut Exploring<'_>>,
    ) -> Result<JointPlan, RlError> {
        let shape = &self.frame.shape;
        let mut stage = TeamStage::first(team, task);
        let mut hidden = shape.no_hidden(shape.n_agents)?;
        let mut actions = Vec::with_capacity(self.frame.settings.iterations);
        for iteration in 0..self.frame.settings.iterations {
            let seen = seen(&self.frame, team, &stage);
            let read = AgentInput { n_rows: shape.n_agents, inputs: &seen.inputs, saved: &seen.saved };
            let said = shape.values(&self.weights, &read, hidden.as_ref())?;
            hidden = said.hidden;
            let values = said.values.flatten_all().and_then(|t| t.to_vec1::<f32>()).during("read values")?;
            let keeps_budget = self.frame.keeps_budget(iteration);
            let mixer = match keeps_budget {
                true => shape.mixing(&self.weights, &seen.state)?.map(|mixing| mixing.at(0)).transpose()?,
                false => None,
            };
            let valued = Valued { team, stage: &stage, seen: &seen, values: &values, mixer: mixer.as_ref() };
            let joint = match &mut exploring {
                None => valued.offered(&self.frame, &seen.available).best(keeps_budget, valued.mixer)?,
                Some(exploring) => exploring.joint(&self.frame, &valued)?,
            };
            stage = stage.after(team, &joint);
            actions.push(joint);
        }
        let mut widths = stage.widths;
        if self.frame.keeps_budget(self.frame.settings.iterations - 1) {
            team.spend(&mut widths);
        }
        Ok(JointPlan { actions, widths })
    }
}

/// What the agents say of a stage.
struct Valued<'a> {
    team: &'a Team,
    stage: &'a TeamStage,
    seen: &'a Seen,
    values: &'a [f32],
    mixer: Option<&'a StageMixer>,
}

impl<'a> Valued<'a> {
    fn offered(&self, frame: &TeamFrame, allowed: &'a [bool]) -> Offered<'a> {
        let (team, widths, values) = (self.team, &self.stage.widths[..], self.values);
        Offered { team, widths, values, allowed, n_actions: frame.shape.n_actions }
    }
}

/// A walk that explores, with its noise.
struct Exploring<'a> {
    explores: Explores<'a>,
    rng: &'a mut RngStream,
}

impl Exploring<'_> {
    /// The joint action of an iteration: some agents explore, the others do what the team then values most within the
    /// budget, near what is explored around. Where that is too much for the budget the others are free, and where that
    /// is not enough either, nobody explores.
    fn joint(&mut self, frame: &TeamFrame, valued: &Valued<'_>) -> Result<Vec<u8>, RlError> {
        let keeps_budget = frame.keeps_budget(valued.stage.iteration);
        let available = &valued.seen.available;
        let around = self.explores.around.map(|all| &all[valued.stage.iteration]);
        let centre = match around {
            Some(around) => around.clone(),
            None => valued.offered(frame, available).best(keeps_budget, valued.mixer)?,
        };
        let moves = self.moves(frame, available, &centre);
        if moves.iter().all(Option::is_none) && around.is_none() {
            return Ok(centre);
        }
        if !keeps_budget {
            return Ok(moves.iter().zip(&centre).map(|(moved, &stays)| moved.unwrap_or(stays)).collect());
        }
        let reach = around.map(|_| frame.settings.exploration.reach);
        for reach in [reach, None] {
            let allowed = self.allowed(frame, available, &centre, Moved { moves: &moves, reach });
            if let Some(joint) = valued.offered(frame, &allowed).within_budget(valued.mixer)? {
                return Ok(joint);
            }
        }
        valued.offered(frame, available).best(keeps_budget, valued.mixer)
    }

    /// The actions of the agents that explore.
    fn moves(&mut self, frame: &TeamFrame, available: &[bool], centre: &[u8]) -> Vec<Option<u8>> {
        let n_actions = frame.shape.n_actions;
        let near = frame.settings.exploration.near;
        let mut of = |agent: usize| {
            let explores = self.rng.uniform() < self.explores.chance || self.explores.forced == Some(agent);
            if !explores {
                return None;
            }
            let now = usize::from(centre[agent]);
            let is_near = |action: usize| near == 0 || (action != now && action.abs_diff(now) <= near);
            let is_choice = |&action: &usize| available[agent * n_actions + action] && is_near(action);
            let choices: Vec<usize> = (0..n_actions).filter(is_choice).collect();
            (!choices.is_empty()).then(|| choices[below(self.rng, choices.len())] as u8)
        };
        (0..centre.len()).map(&mut of).collect()
    }

    /// What each agent may choose from.
    fn allowed(&self, frame: &TeamFrame, available: &[bool], centre: &[u8], moved: Moved<'_>) -> Vec<bool> {
        let n_actions = frame.shape.n_actions;
        let mut allowed = vec![false; available.len()];
        for (agent, &now) in centre.iter().enumerate() {
            for action in 0..n_actions {
                let index = agent * n_actions + action;
                allowed[index] = match (moved.moves[agent], moved.reach) {
                    (Some(explored), _) => usize::from(explored) == action,
                    (None, Some(reach)) => available[index] && usize::from(now).abs_diff(action) <= reach,
                    (None, None) => available[index],
                };
            }
        }
        allowed
    }
}

/// Who explores, and how far the others may go.
#[derive(Clone, Copy)]
struct Moved<'a> {
    moves: &'a [Option<u8>],
    /// None: anywhere.
    reach: Option<usize>,
}
