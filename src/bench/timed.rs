//! An agent whose own arithmetic is timed, so that what is around it can be told from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use secateur_rl::{ActRequest, Agent, Decision, LearnReport, Learner, Policy, RlError, Unroll};

/// Time spent so far, nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopwatch(Arc<AtomicU64>);

impl Stopwatch {
    fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.0.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    pub(super) fn spent(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Time in [`Policy::act`] and [`Learner::learn`].
#[derive(Clone, Debug, Default)]
pub(super) struct AgentTimes {
    pub(super) acting: Stopwatch,
    pub(super) learning: Stopwatch,
}

impl AgentTimes {
    /// The same agent, timed.
    pub(super) fn of(&self, agent: Agent) -> Agent {
        match agent {
            Agent::Fixed(policy) => Agent::Fixed(self.policy(policy)),
            Agent::Learning(learner) => Agent::Learning(Box::new(TimedLearner { learner, times: self.clone() })),
        }
    }

    fn policy(&self, policy: Arc<dyn Policy>) -> Arc<dyn Policy> {
        Arc::new(TimedPolicy { policy, acting: self.acting.clone() })
    }
}

struct TimedPolicy {
    policy: Arc<dyn Policy>,
    acting: Stopwatch,
}

impl Policy for TimedPolicy {
    fn version(&self) -> u64 {
        self.policy.version()
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        self.acting.time(|| self.policy.act(batch))
    }
}

struct TimedLearner {
    learner: Box<dyn Learner>,
    times: AgentTimes,
}

impl Learner for TimedLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        self.learner.unroll_length(walk_length)
    }

    fn batch_size(&self) -> usize {
        self.learner.batch_size()
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        let Self { learner, times } = self;
        times.learning.time(|| learner.learn(batch))
    }

    fn policy(&self) -> Arc<dyn Policy> {
        self.times.policy(self.learner.policy())
    }

    fn n_updates(&self) -> u64 {
        self.learner.n_updates()
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        self.learner.save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        self.learner.load(bytes)
    }
}
