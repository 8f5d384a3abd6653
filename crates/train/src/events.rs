//! What happened in a search, in order.

use std::collections::BTreeMap;

use bevy_ecs::prelude::*;
use secateur_sim::EventLog;

/// Something worth recording.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchEvent {
    /// It happened in the pruning process.
    Process(secateur_sim::ProcessEvent),
    /// A learner updated its policy: named numbers, in a fixed order.
    Learned {
        /// Updates so far.
        n_updates: u64,
        /// Losses and the like.
        numbers: Vec<(&'static str, f64)>,
        /// How many steps of the batch had which lag, in updates between the policy that acted and the one that learns.
        lags: BTreeMap<u64, u64>,
    },
    /// Where time went between two updates of a learner that has a thread of its own.
    Scheduled {
        /// Updates so far.
        n_updates: u64,
        /// Times in seconds and shares.
        numbers: Vec<(&'static str, f64)>,
    },
}

/// Events since the driver last looked, but for those at the end that are in the process's [`EventLog`] still.
#[derive(Resource, Debug, Default)]
pub struct SearchLog(pub Vec<SearchEvent>);

impl SearchLog {
    /// Takes over what the process noted so far, so that what comes next stands behind it.
    pub fn follow(&mut self, process: &mut EventLog) {
        self.0.extend(process.0.drain(..).map(SearchEvent::Process));
    }
}
