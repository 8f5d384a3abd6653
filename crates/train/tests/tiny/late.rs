//! Scores that come from elsewhere, some looks later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{
    Awaited, CandidateFault, CandidateId, Compact, Evaluator, OnTask, Pool, PrunedNetwork, PruningPlugin, Score,
    ScoreArrivals, ScoredElsewhere, Step, Tick, ToBuild, ToScore, recall_scores, repair_candidates,
};

/// A plugin that has candidates scored elsewhere, beside what another plugin does.
#[derive(Clone)]
pub struct Late<P> {
    pub inner: P,
    /// After how many looks a candidate's score is there; none where it is scored here.
    pub delay: fn(CandidateId) -> Option<u64>,
    /// Whether networks are built elsewhere, too: then every score is one half.
    pub builds: bool,
    /// Whether what is brought first of every third walk is a fault.
    pub faults: bool,
    /// Whose fault was brought, also before the search was saved and continued.
    pub faulted: Arc<Mutex<BTreeSet<CandidateId>>>,
    pub on_the_way: OnTheWay,
}

impl<P> Late<P> {
    pub fn new(inner: P, delay: fn(CandidateId) -> Option<u64>) -> Self {
        Self { inner, delay, builds: false, faults: false, faulted: Arc::default(), on_the_way: Arc::default() }
    }
}

/// Looks left, and the score that is there then: elsewhere, so that it outlives the search.
pub type OnTheWay = Arc<Mutex<BTreeMap<CandidateId, (u64, Score)>>>;

impl<P: PruningPlugin> PruningPlugin for Late<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        self.inner.build(app, config)?;
        let delay = self.delay;
        let on_the_way = self.on_the_way.clone();
        let send_once = move |id: CandidateId, delay: u64, score: Score| {
            on_the_way.lock().unwrap().entry(id).or_insert((delay, score));
        };
        let send = send_once.clone();
        let send_built =
            move |mut commands: Commands,
                  (pool, evaluator): (Res<Pool>, Res<Evaluator>),
                  networks: Query<&PrunedNetwork>,
                  built: Query<(Entity, &CandidateId, &OnTask, &Compact), ToScore>| {
                for (entity, id, on, compact) in &built {
                    let Some(delay) = delay(*id) else { continue };
                    let prepared = &networks.get(on.network).unwrap().prepared;
                    let score = evaluator.0.score(&pool.0, prepared, &compact.0).unwrap();
                    send(*id, delay, score);
                    commands.entity(entity).insert(ScoredElsewhere);
                }
            };
        let send = send_once.clone();
        let send_unbuilt = move |mut commands: Commands, unbuilt: Query<(Entity, &CandidateId), ToBuild>| {
            for (entity, id) in &unbuilt {
                let Some(delay) = delay(*id) else { continue };
                send(*id, delay, Score::labelled(0.5, 0.0));
                commands.entity(entity).insert(ScoredElsewhere);
            }
        };
        if self.builds {
            app.add_systems(Tick, send_unbuilt.in_set(Step::Repair).after(recall_scores).before(repair_candidates));
        } else {
            app.add_systems(Tick, send_built.in_set(Step::Repair).after(repair_candidates));
        }
        let (faults, faulted, on_the_way) = (self.faults, self.faulted.clone(), self.on_the_way.clone());
        let bring = move |mut commands: Commands, awaited: Query<(Entity, &CandidateId), Awaited>| {
            let mut on_the_way = on_the_way.lock().unwrap();
            for (entity, id) in &awaited {
                let (left, score) = on_the_way.get_mut(id).unwrap();
                *left = left.saturating_sub(1);
                if *left > 0 {
                    continue;
                }
                if faults && id.walk.is_multiple_of(3) && faulted.lock().unwrap().insert(*id) {
                    commands.entity(entity).insert(CandidateFault("injected elsewhere".into()));
                } else {
                    commands.entity(entity).insert(*score);
                }
                on_the_way.remove(id);
            }
        };
        app.add_systems(ScoreArrivals, bring);
        Ok(())
    }
}
