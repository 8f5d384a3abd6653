//! A network small enough to count by hand, and a world with one task on it.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use bevy_ecs::system::RunSystemOnce;
use secateur_kernels::{Precision, RemovalPath};
use secateur_net::{Conv2d, Cost, GraphBuilder, GroupId, KeptChannels, Network, Op, Protocol, Shape, Tensor};
use secateur_sim::{
    Actor, ActorBundle, ArrivalTicks, BatchSize, Budget, BudgetWall, BuildBatch, Cached, CandidateBundle, CandidateId,
    CostBound, Criterion, EndsAfter, EventLog, FeatureScale, Finalists, FittedImages, IndexOf, Inputs, Kept,
    LateScores, Macs, MadeBy, N_FEATURES, NoiseFree, ObservationSpace, OnTask, PluginList, Pool, Prepared,
    ProcessEvent, PruneTask, Repair, Reward, RewardInputs, RewardKind, Score, ScoreArrivals, ScoreCache, Selection,
    Settings, SimError, Spent, TaskStats, TickFailure, Walk, WalkEnd, WidthRules, build_batch, spawn_network,
};

/// The four channels of the first convolution, and the two of the second: the walk's two decisions. Groups 0 and 3 are
/// the network's input and output.
pub const A: GroupId = 1;
pub const B: GroupId = 2;

/// 26 of 52 multiply-accumulates.
pub const BUDGET: u64 = 26;

/// A convolution of 1 to 4 channels, one of 4 to 2, both 1x1 on 2x2 pixels, their mean, a linear map of 2 to 2. With
/// `a` and `b` channels kept it takes `4 a + 4 a b + 2 b` multiply-accumulates.
pub fn network() -> Network {
    let mut g = GraphBuilder::new(Shape { c: 1, h: 2, w: 2 });
    let a = g.push("a", Op::Conv2d(Conv2d::square(1, 4, 1, 1, 0)), &[0]);
    let b = g.push("b", Op::Conv2d(Conv2d::square(4, 2, 1, 1, 0)), &[a]);
    let pooled = g.push("pool", Op::GlobalAvgPool, &[b]);
    g.push("out", Op::Linear { in_features: 2, out_features: 2, bias: false }, &[pooled]);
    let weight = |shape: &[usize]| Tensor::new(shape.to_vec(), vec![1.0; shape.iter().product()]).unwrap();
    let named = |name: &str, shape: &[usize]| (format!("{name}.weight"), weight(shape));
    let weights = [named("a", &[4, 1, 1, 1]), named("b", &[2, 4, 1, 1]), named("out", &[2, 2])];
    Network::new(g.finish().unwrap(), weights.into()).unwrap()
}

/// Widths of all groups with `a` and `b` channels kept.
pub fn widths(a: usize, b: usize) -> Vec<usize> {
    vec![1, a, b, 2]
}

/// The first `a` and `b` channels.
pub fn kept(a: usize, b: usize) -> KeptChannels {
    let lists = vec![vec![0], (0..a).collect(), (0..b).collect(), vec![0, 1]];
    prepared().kept(lists).unwrap()
}

pub fn pool() -> Pool {
    Pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()))
}

/// The network with removal paths that its weights would not give: the first convolution loses its channels 0, 2, 3 in
/// this order, the second its channel 1.
pub fn prepared() -> Prepared {
    let mut prepared = prepared_by(Selection::L1.criterion(0, &PluginList::default(), None).unwrap()).unwrap();
    let path = |removed: &[usize], errors: &[f64]| {
        Arc::new(RemovalPath { removed: removed.to_vec(), errors: errors.to_vec() })
    };
    prepared.paths = vec![path(&[0, 2, 3], &[0.0, 0.1, 0.3, 0.9]), path(&[1], &[0.0, 0.5])];
    prepared
}

/// The network with its channels ranked.
pub fn prepared_by(criterion: Option<Arc<dyn Criterion>>) -> Result<Prepared, SimError> {
    let inputs = Inputs {
        network_name: "two".into(),
        dataset_name: "ramp".into(),
        network_index: IndexOf::ONLY,
        dataset_index: IndexOf::ONLY,
        network: network(),
        protocol: Protocol::Inner,
        criterion,
        norm_orders: Default::default(),
        repair: Repair::Off,
        walk_images: 0,
        precision: Precision::F32,
        fitted: FittedImages::new(vec![0.5, -1.0, 2.0, 0.25], 4, 4),
        reward: RewardInputs::labelled(vec![1.0, 2.0, 3.0, 4.0], vec![0]),
    };
    Prepared::new(&pool().0, inputs, |_| 1, |_, _| {})
}

/// Multiply-accumulates of these widths.
pub fn macs(a: usize, b: usize) -> u64 {
    (4 * a + 4 * a * b + 2 * b) as u64
}

/// A world with the network, and one task that may cost [`BUDGET`].
pub struct Process {
    pub world: World,
    pub task: Entity,
    pub network: Entity,
}

impl Process {
    pub fn new() -> Self {
        let mut world = World::new();
        let prepared = prepared();
        let bound = CostBound { cost: Cost::Macs, max: BUDGET };
        let wall =
            BudgetWall::new(&prepared.groups, prepared.model.clone(), &WidthRules::new(1, 0.1), &[bound]).unwrap();
        let scale = FeatureScale::of(prepared.shapes.iter());
        world.insert_resource(ObservationSpace { scale, n_features: N_FEATURES });
        world.insert_resource(pool());
        world.init_resource::<ScoreCache>();
        world.init_resource::<TickFailure>();
        world.init_resource::<BatchSize>();
        world.init_resource::<LateScores>();
        world.init_resource::<ArrivalTicks>();
        world.add_schedule(Schedule::new(ScoreArrivals));
        let mut batches = Schedule::new(BuildBatch);
        batches.add_systems(build_batch);
        world.add_schedule(batches);
        world.init_resource::<EventLog>();
        world.insert_resource(Settings {
            channel_multiple: 1,
            keep_ratio_min: 0.1,
            spend_leftover: false,
            reward: RewardKind::Accuracy,
            finalists: 2,
            actors_per_task: 1,
            walks_per_task: 10,
            ends_after: EndsAfter::Walks,
            noise_free: NoiseFree { every: 0, last: 0 },
        });
        let network = spawn_network(&mut world, 0, &Arc::new(prepared));
        let task = PruneTask { index: 0, name: "two-half".into(), network, budget_ratio: 0.5 };
        let stats = TaskStats { n_wanted: 10, ..TaskStats::default() };
        let task = world.spawn((task, Budget(Arc::new(wall)), stats, Finalists { capacity: 2, best: Vec::new() })).id();
        Self { world, task, network }
    }

    /// An actor that acts, at the start of a walk of this number.
    pub fn actor(&mut self, index: usize, walk: u64) -> Entity {
        let actor = Actor { index, task: self.task };
        self.world.spawn(ActorBundle::new(actor, Walk::new(walk, false, widths(1, 1)))).id()
    }

    /// A candidate of these widths, repaired and scored by nobody yet, and the actor whose walk it ended.
    pub fn ended(&mut self, index: usize, walk: u64, (a, b): (usize, usize)) -> Ended {
        let actor = self.actor(index, walk);
        let candidate = CandidateBundle {
            id: CandidateId { task: 0, walk },
            made_by: MadeBy { actor, index },
            on: OnTask { task: self.task, network: self.network },
            kept: Kept(kept(a, b)),
            macs: Macs(macs(a, b)),
            spent: Spent::default(),
            reward: Reward::default(),
        };
        let candidate = self.world.spawn(candidate).id();
        self.set(actor, WalkEnd(Some(candidate)));
        Ended { actor, candidate }
    }

    /// The same with a score, and paid its accuracy.
    pub fn scored(&mut self, index: usize, walk: u64, widths: (usize, usize), accuracy: f64) -> Ended {
        let ended = self.ended(index, walk, widths);
        self.set(ended.candidate, (Score::labelled(accuracy, 0.0), Reward(accuracy as f32)));
        ended
    }

    pub fn set<B: Bundle>(&mut self, entity: Entity, components: B) {
        self.world.entity_mut(entity).insert(components);
    }

    pub fn find<C: Component + Clone>(&self, entity: Entity) -> Option<C> {
        self.world.get::<C>(entity).cloned()
    }

    pub fn is_cached(&self, candidate: Entity) -> bool {
        self.find::<Cached>(candidate).is_some()
    }

    pub fn get<C: Component + Clone>(&self, entity: Entity) -> C {
        self.world.get::<C>(entity).unwrap().clone()
    }

    pub fn settings(&mut self) -> Mut<'_, Settings> {
        self.world.resource_mut::<Settings>()
    }

    pub fn failure(&self) -> Option<SimError> {
        self.world.resource::<TickFailure>().0.clone()
    }

    pub fn events(&self) -> &[ProcessEvent] {
        &self.world.resource::<EventLog>().0
    }

    /// Runs this system, and nothing else.
    pub fn run<M>(&mut self, system: impl IntoSystem<(), (), M>) {
        self.world.run_system_once(system).unwrap();
    }
}

/// An actor at the end of its walk, and its candidate.
#[derive(Clone, Copy)]
pub struct Ended {
    pub actor: Entity,
    pub candidate: Entity,
}
