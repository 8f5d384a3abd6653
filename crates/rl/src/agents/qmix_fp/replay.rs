//! Episodes that are remembered, and learned from again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::actions::{decode, encode};
use super::features::TeamStage;
use super::team::{Team, TeamFrame};
use crate::error::{RlError, check_length};
use crate::rng::RngStream;
use crate::state::{StateReader, StateWriter};
use crate::unroll::Unroll;

/// Key part of the streams that episodes are drawn with: no task has this number.
const REPLAY: u64 = u64::MAX - 1;
/// Least standard deviation of a task's scores that is believed: one image of a thousand.
const SIGMA_MIN: f64 = 1e-3;

/// All that is kept of a walk: widths and what was seen follow from it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Episode {
    pub(super) task: u32,
    /// Of each iteration, of each agent.
    pub(super) actions: Vec<Vec<u8>>,
    /// Of the candidate.
    pub(super) score: f32,
    /// Cost of the candidate as the environment made it, as a share of the whole network's.
    pub(super) cost_share: f32,
}

impl Episode {
    /// The episode of a whole walk.
    ///
    /// # Errors
    /// An unroll that is no walk of this team.
    pub(super) fn of_walk(frame: &TeamFrame, unroll: &Unroll) -> Result<Self, RlError> {
        unroll.check(frame.environment.n_features)?;
        let team = frame.team("learn", unroll.task)?;
        check_length("learn", "walk", team.n_agents(), unroll.n_steps())?;
        let groups = team.plan.widths.groups.iter();
        let widths: Vec<usize> = (groups.zip(&unroll.keep_ratio))
            .map(|(group, &ratio)| group.nearest(f64::from(ratio) * group.n_channels as f64))
            .collect();
        let cost_share = team.plan.cost_share(&widths) as f32;
        Self::of_codes(frame, unroll.task, &unroll.raw_action, [unroll.reward.iter().sum(), cost_share])
    }

    /// The episode of these codes, one for each agent, with score and cost.
    fn of_codes(frame: &TeamFrame, task: u32, codes: &[f32], numbers: [f32; 2]) -> Result<Self, RlError> {
        let (n_actions, n_iterations) = (frame.shape.n_actions, frame.settings.iterations);
        let team = frame.team("learn", task)?;
        let mut actions = vec![Vec::with_capacity(codes.len()); n_iterations];
        for (agent, &code) in codes.iter().enumerate() {
            let of_agent = decode(code, n_actions, n_iterations).ok_or_else(|| refused(agent, code))?;
            of_agent.iter().zip(&mut actions).for_each(|(&action, all)| all.push(action));
        }
        let episode = Self { task, actions, score: numbers[0], cost_share: numbers[1] };
        for (stage, actions) in episode.stages(frame, team).iter().zip(&episode.actions) {
            let is_last = frame.is_last(stage.iteration);
            let available =
                |agent: usize| team.choices[agent].is_available(stage.widths[agent], actions[agent].into(), is_last);
            if let Some(agent) = (0..codes.len()).find(|&agent| !available(agent)) {
                return Err(refused(agent, codes[agent]));
            }
        }
        Ok(episode)
    }

    /// Where the episode stood before each iteration.
    pub(super) fn stages(&self, frame: &TeamFrame, team: &Team) -> Vec<TeamStage> {
        let mut stage = TeamStage::first(team, self.task);
        let mut stages = Vec::with_capacity(self.actions.len());
        for actions in &self.actions {
            let next = stage.after(team, actions);
            stages.push(std::mem::replace(&mut stage, next));
        }
        debug_assert_eq!(stages.len(), frame.settings.iterations);
        stages
    }

    /// The actions of each agent as one number.
    pub(super) fn codes(actions: &[Vec<u8>], n_actions: usize) -> Vec<f32> {
        let n_agents = actions.first().map_or(0, Vec::len);
        let of = |agent: usize| encode(actions.iter().map(move |actions| usize::from(actions[agent])), n_actions);
        (0..n_agents).map(of).collect()
    }
}

fn refused(agent: usize, code: f32) -> RlError {
    RlError::OutOfRange {
        op: "learn",
        what: format!("raw_action[{agent}]"),
        expected: "a code of available actions".to_owned(),
        got: code.to_string(),
    }
}

/// Mean and standard deviation of a task's scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ScoreSpread {
    pub(super) mean: f64,
    pub(super) sigma: f64,
}

/// What the learner remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EpisodeReplay {
    /// The oldest first.
    pub(super) episodes: VecDeque<Arc<Episode>>,
    /// The best of each task, whether it is still among them or not.
    pub(super) best: Vec<Option<Arc<Episode>>>,
}

impl EpisodeReplay {
    pub(super) fn new(n_tasks: usize) -> Self {
        Self { episodes: VecDeque::new(), best: vec![None; n_tasks] }
    }

    /// Takes note of an episode; the oldest goes where there are more than `n_max`.
    pub(super) fn add(&mut self, episode: Episode, n_max: usize) {
        let (task, episode) = (episode.task as usize, Arc::new(episode));
        if self.best[task].as_ref().is_none_or(|best| episode.score > best.score) {
            self.best[task] = Some(Arc::clone(&episode));
        }
        self.episodes.push_back(episode);
        while self.episodes.len() > n_max {
            self.episodes.pop_front();
        }
    }

    /// `n` different episodes for the gradient step of this number.
    pub(super) fn draw(&self, n: usize, seed: u64, step: u64) -> Vec<Arc<Episode>> {
        let mut rng = RngStream::new(seed, REPLAY, step, 0);
        let mut places: Vec<usize> = (0..self.episodes.len()).collect();
        for at in 0..n.min(places.len()) {
            let other = at + super::super::plan_search::below(&mut rng, places.len() - at);
            places.swap(at, other);
        }
        places.iter().take(n).map(|&place| Arc::clone(&self.episodes[place])).collect()
    }

    /// By task, how its scores are spread; 0 and 1 where there are none.
    pub(super) fn spreads(&self) -> Vec<ScoreSpread> {
        let of = |task: usize| {
            let scores = || self.episodes.iter().filter(|e| e.task as usize == task).map(|e| f64::from(e.score));
            let n = scores().count() as f64;
            if n == 0.0 {
                return ScoreSpread { mean: 0.0, sigma: 1.0 };
            }
            let mean = scores().sum::<f64>() / n;
            let variance = scores().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
            ScoreSpread { mean, sigma: variance.sqrt().max(SIGMA_MIN) }
        };
        (0..self.best.len()).map(of).collect()
    }

    pub(super) fn save(&self, n_actions: usize, writer: &mut StateWriter) {
        let put = |name: &str, episodes: &[&Arc<Episode>], writer: &mut StateWriter| {
            let codes: Vec<f32> = episodes.iter().flat_map(|e| Episode::codes(&e.actions, n_actions)).collect();
            let tasks: Vec<u64> = episodes.iter().map(|e| e.task.into()).collect();
            let numbers: Vec<f32> = episodes.iter().flat_map(|e| [e.score, e.cost_share]).collect();
            writer.put_u64(format!("{name}.tasks"), &tasks);
            writer.put_f32(format!("{name}.codes"), &codes);
            writer.put_f32(format!("{name}.scores"), &numbers);
        };
        put("replay", &self.episodes.iter().collect::<Vec<_>>(), writer);
        put("best", &self.best.iter().flatten().collect::<Vec<_>>(), writer);
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`RlError::State`]: damaged episodes, or those of other settings or tasks.
    pub(super) fn load(frame: &TeamFrame, reader: &StateReader<'_>) -> Result<Self, RlError> {
        let read = |name: &str| -> Result<Vec<Episode>, RlError> {
            let wrong = |what: &str| RlError::State { what: format!("{name}: {what}") };
            let (tasks, codes) = (reader.u64(&format!("{name}.tasks"))?, reader.f32(&format!("{name}.codes"))?);
            let numbers = reader.f32(&format!("{name}.scores"))?;
            if numbers.len() != 2 * tasks.len() || !numbers.iter().all(|number| number.is_finite()) {
                return Err(wrong("expected a finite score and cost for each episode"));
            }
            let mut rest = &codes[..];
            let mut episode = |place: usize| {
                let task = u32::try_from(tasks[place]).map_err(|_| wrong("a task of another run"))?;
                let n_agents = frame.team("load", task).map_err(RlError::state)?.n_agents();
                let codes = rest.get(..n_agents).ok_or_else(|| wrong("expected a code for each agent"))?;
                rest = &rest[n_agents..];
                Episode::of_codes(frame, task, codes, [numbers[2 * place], numbers[2 * place + 1]])
                    .map_err(RlError::state)
            };
            let episodes = (0..tasks.len()).map(&mut episode).collect::<Result<_, _>>()?;
            if rest.is_empty() { Ok(episodes) } else { Err(wrong("expected a code for each agent, got more")) }
        };
        let mut replay = Self::new(frame.environment.n_tasks);
        for episode in read("best")? {
            let task = episode.task as usize;
            replay.best[task] = Some(Arc::new(episode));
        }
        let episodes = read("replay")?;
        if episodes.len() > frame.settings.replay {
            let what = format!("replay: expected at most {} episodes, got {}", frame.settings.replay, episodes.len());
            return Err(RlError::State { what });
        }
        replay.episodes = episodes.into_iter().map(Arc::new).collect();
        Ok(replay)
    }
}
