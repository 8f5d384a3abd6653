//! Systems whose order is not given may run in any order: the result is the same. What two systems share behind the
//! world's back, such as the two ends of the queue, no ambiguity check sees.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bevy_app::App;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings};
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{PruningPlugin, Reward, Step, Tick, write_reward};
use tiny::{MTACP, Options, run, search, with_plugin};

/// Shuffles the tick, and notes in which order some systems ran that share nothing the world knows of.
struct Shuffled {
    seed: u64,
    order: Arc<Mutex<Vec<usize>>>,
}

/// Systems of that kind.
const N_IDLE: usize = 6;

impl PruningPlugin for Shuffled {
    fn name(&self) -> &str {
        "shuffled"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let settings = ScheduleBuildSettings {
            ambiguity_detection: LogLevel::Error,
            shuffle_seed: Some(self.seed),
            ..ScheduleBuildSettings::default()
        };
        app.edit_schedule(Tick, |schedule| {
            schedule.set_build_settings(settings.clone());
        });
        for i in 0..N_IDLE {
            let order = self.order.clone();
            app.add_systems(Tick, (move || order.lock().unwrap().push(i)).in_set(Step::Act));
        }
        Ok(())
    }
}

#[test]
fn shuffled_schedules_give_the_same_search() {
    let result = |options: Options| {
        // A queue that is often full shows who came first.
        let (events, _, mut search) = run(&Options { queue_capacity: 2, ..options });
        (events, search.save().unwrap())
    };
    let expected = result(Options::new(MTACP));
    let mut orders = BTreeSet::new();
    for seed in 0..12 {
        let order = Arc::new(Mutex::new(Vec::new()));
        let plugin = Shuffled { seed, order: order.clone() };
        assert!(result(with_plugin(MTACP, plugin, "\"shuffled\": ()")) == expected, "seed {seed}");
        orders.insert(order.lock().unwrap()[..N_IDLE].to_vec());
    }
    assert!(orders.len() > 6, "hardly anything was shuffled: {orders:?}");
}

/// Two systems that both write rewards, in no given order.
struct Ambiguous;

impl PruningPlugin for Ambiguous {
    fn name(&self) -> &str {
        "ambiguous"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let double = |mut all: Query<&mut Reward>| all.iter_mut().for_each(|mut reward| reward.0 *= 2.0);
        let add = |mut all: Query<&mut Reward>| all.iter_mut().for_each(|mut reward| reward.0 += 1.0);
        app.add_systems(Tick, (double, add).in_set(Step::Reward).after(write_reward));
        Ok(())
    }
}

#[test]
fn systems_whose_order_matters_and_is_not_given_are_refused() {
    let mut search = search(&with_plugin(MTACP, Ambiguous, "\"ambiguous\": ()"));
    assert!(search.tick().unwrap_err().to_string().contains("conflict"));
}
