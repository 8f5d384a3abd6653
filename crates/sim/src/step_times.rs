//! Where the time of a tick goes, step by step.

use std::time::{Duration, Instant};

use bevy_app::App;
use bevy_ecs::prelude::*;

use crate::{Step, Tick};

/// Time spent in each step so far, in the order of [`Step::ALL`].
#[derive(Resource, Clone, Debug)]
pub struct StepTimes {
    /// One per step.
    pub spent: [Duration; Step::ALL.len()],
    since: Instant,
}

/// Measures every step of the tick from now on, in the resource [`StepTimes`]. Costs two clock readings per step.
pub fn measure_steps(app: &mut App) {
    app.insert_resource(StepTimes { spent: [Duration::ZERO; Step::ALL.len()], since: Instant::now() });
    for (i, step) in Step::ALL.into_iter().enumerate() {
        let begin = |mut times: ResMut<StepTimes>| times.since = Instant::now();
        let end = move |mut times: ResMut<StepTimes>| {
            let spent = times.since.elapsed();
            times.spent[i] += spent;
        };
        let begin = begin.before(step);
        match i.checked_sub(1) {
            None => app.add_systems(Tick, begin),
            Some(before) => app.add_systems(Tick, begin.after(Step::ALL[before]).after(EndOf(before))),
        };
        app.add_systems(Tick, end.after(step).in_set(EndOf(i)));
    }
}

/// The end of a step's measurement.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct EndOf(usize);
