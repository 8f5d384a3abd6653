//! Worlds with one task of two decisions, and a policy and a learner that only take notes: for the tests of single
//! systems.

use std::sync::{Arc, Mutex};

use bevy_ecs::prelude::*;
use bevy_ecs::system::RunSystemOnce;
use crossbeam::channel::bounded;
use secateur_net::{ChannelGroups, Conv2d, Cost, CostModel, GraphBuilder, Op, Protocol, Shape};
use secateur_rl::{ActRequest, Decision, LearnReport, Learner, Policy, RlError, Unroll};
use secateur_sim::{
    Actor, ActorBundle, Budget, BudgetWall, CostBound, EventLog, Observation, PruneTask, TickFailure, Walk, WidthRules,
};

use crate::components::*;
use crate::events::{SearchEvent, SearchLog};

pub(crate) type Notes<T> = Arc<Mutex<Vec<T>>>;

/// Keeps 0.1 for the first request of a batch, 0.2 for the second, and so on; refuses a request of task 99.
pub(crate) struct NotingPolicy {
    pub(crate) version: u64,
    pub(crate) batches: Notes<Vec<ActRequest>>,
}

impl Policy for NotingPolicy {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        if batch.iter().any(|request| request.task == 99) {
            return Err(refusal());
        }
        self.batches.lock().unwrap().push(batch.to_vec());
        let decide = |i: usize| {
            let place = (i + 1) as f32;
            Decision { keep_ratio: place / 10.0, value: place, recurrent: vec![place; 2], ..Decision::default() }
        };
        Ok((0..batch.len()).map(decide).collect())
    }
}

pub(crate) fn policy(version: u64) -> Arc<NotingPolicy> {
    Arc::new(NotingPolicy { version, batches: Notes::default() })
}

pub(crate) fn refusal() -> RlError {
    RlError::NotFinite { op: "test", what: "loss".into(), value: f64::NAN }
}

/// Notes the tasks of the unrolls of each batch; refuses one of task 98 and panics at one of task 99.
pub(crate) struct NotingLearner {
    pub(crate) batch_size: usize,
    pub(crate) n_updates: u64,
    pub(crate) batches: Notes<Vec<u32>>,
}

impl Learner for NotingLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        10 * walk_length
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        let tasks: Vec<u32> = batch.iter().map(|unroll| unroll.task).collect();
        assert!(!tasks.contains(&99), "injected");
        if tasks.contains(&98) {
            return Err(refusal());
        }
        self.batches.lock().unwrap().push(tasks);
        self.n_updates += 1;
        Ok(LearnReport { numbers: vec![("policy_loss", 0.125)] })
    }

    fn policy(&self) -> Arc<dyn Policy> {
        policy(self.n_updates)
    }

    fn n_updates(&self) -> u64 {
        self.n_updates
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        Ok(Vec::new())
    }

    fn load(&mut self, _: &[u8]) -> Result<(), RlError> {
        Ok(())
    }
}

/// An unroll that is known by its task, whose steps were acted by policies of these versions.
pub(crate) fn unroll(task: u32, policy_version: &[u64]) -> Unroll {
    let raw_action = vec![0.0; policy_version.len()];
    Unroll { task, raw_action, policy_version: policy_version.to_vec(), ..Unroll::default() }
}

/// The wall of a network of two prunable groups, of 4 and 2 channels.
fn wall() -> BudgetWall {
    let mut g = GraphBuilder::new(Shape { c: 1, h: 2, w: 2 });
    let a = g.push("a", Op::Conv2d(Conv2d::square(1, 4, 1, 1, 0)), &[0]);
    let b = g.push("b", Op::Conv2d(Conv2d::square(4, 2, 1, 1, 0)), &[a]);
    let pooled = g.push("pool", Op::GlobalAvgPool, &[b]);
    g.push("out", Op::Linear { in_features: 2, out_features: 2, bias: false }, &[pooled]);
    let graph = g.finish().unwrap();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    let model = Arc::new(CostModel::new(&graph, &groups));
    BudgetWall::new(&groups, model, &WidthRules::new(1, 0.1), &[CostBound { cost: Cost::Macs, max: 26 }]).unwrap()
}

/// A walk before its decision at place `cursor`.
pub(crate) fn walk(number: u64, cursor: usize) -> Walk {
    Walk { cursor, last_action: 0.5 * cursor as f32, ..Walk::new(number, false, vec![1, 2, 1, 2]) }
}

/// A world with one task of index 5.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) task: Entity,
}

impl Ground {
    /// Actors act with a policy of version 3, and the queue holds `queue_capacity` trajectories.
    pub(crate) fn new(queue_capacity: usize) -> Self {
        let mut world = World::new();
        let (sender, receiver) = bounded(queue_capacity);
        world.insert_resource(TrajectorySender(sender));
        world.insert_resource(TrajectoryReceiver(receiver));
        world.insert_resource(CurrentPolicy(policy(3)));
        world.init_resource::<BatchRule>();
        world.init_resource::<EnvSteps>();
        world.init_resource::<EventLog>();
        world.init_resource::<TickFailure>();
        world.init_resource::<SearchLog>();
        world.init_resource::<TrainFailure>();
        let network = world.spawn_empty().id();
        let task = PruneTask { index: 5, name: "two-half".into(), network, budget_ratio: 0.5 };
        let task = world.spawn((task, Budget(Arc::new(wall())))).id();
        Self { world, task }
    }

    /// An actor that acts, at the start of a walk of this number, and collects unrolls of `length` steps.
    pub(crate) fn actor(&mut self, index: usize, number: u64, length: usize) -> Entity {
        let of_process = ActorBundle {
            observation: Observation { features: vec![0.25, 0.75], even_ratio: 0.5 },
            ..ActorBundle::new(Actor { index, task: self.task }, walk(number, 0))
        };
        let experience = Experience { length, ..Experience::default() };
        self.world.spawn((of_process, AgentBundle::default(), experience)).id()
    }

    pub(crate) fn learner(&mut self, batch_size: usize) -> (Entity, Notes<Vec<u32>>) {
        let batches = Notes::default();
        let learner = NotingLearner { batch_size, n_updates: 3, batches: batches.clone() };
        let state = LearnerState(Mutex::new(Box::new(learner)));
        let stats = LearnerStats { n_updates: 3, ..LearnerStats::default() };
        (self.world.spawn((state, stats)).id(), batches)
    }

    /// Puts trajectories with these tickets into the queue, whose tasks are their tickets, too.
    pub(crate) fn queue(&self, tickets: &[u64]) {
        let sender = &self.world.resource::<TrajectorySender>().0;
        for &ticket in tickets {
            sender.try_send(Queued { ticket, unroll: unroll(ticket as u32, &[]) }).unwrap();
        }
    }

    pub(crate) fn n_queued(&self) -> usize {
        self.world.resource::<TrajectoryReceiver>().0.len()
    }

    pub(crate) fn set<C: Component>(&mut self, entity: Entity, component: C) {
        self.world.entity_mut(entity).insert(component);
    }

    pub(crate) fn get<C: Component + Clone>(&self, entity: Entity) -> C {
        self.world.get::<C>(entity).unwrap().clone()
    }

    pub(crate) fn events(&self) -> &[SearchEvent] {
        &self.world.resource::<SearchLog>().0
    }

    pub(crate) fn policy_version(&self) -> u64 {
        self.world.resource::<CurrentPolicy>().0.version()
    }

    /// Trajectories on their way to the queue, by actor and sequence.
    pub(crate) fn trajectories(&mut self) -> Vec<(Provenance, Unroll)> {
        let mut query = self.world.query::<(&Provenance, &Trajectory)>();
        let mut out: Vec<_> = query.iter(&self.world).map(|(p, t)| (*p, t.0.clone())).collect();
        out.sort_by_key(|(p, _)| (p.actor_index, p.sequence));
        out
    }

    /// Runs this system, and nothing else.
    pub(crate) fn run<M>(&mut self, system: impl IntoSystem<(), (), M>) {
        self.world.run_system_once(system).unwrap();
    }
}
