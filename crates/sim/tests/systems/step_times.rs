//! The two systems around each step that measure it.

use std::time::{Duration, Instant};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_sim::{Step, StepTimes, Tick, measure_steps};

const NAP: Duration = Duration::from_millis(5);

#[test]
fn time_is_counted_once_and_in_the_step_that_takes_it() {
    let mut app = App::empty();
    let mut schedule = Schedule::new(Tick);
    Step::ALL.windows(2).for_each(|steps| {
        schedule.configure_sets((steps[0], steps[1]).chain());
    });
    schedule.add_systems((|| std::thread::sleep(NAP)).in_set(Step::Learn));
    app.add_schedule(schedule);
    measure_steps(&mut app);
    let start = Instant::now();
    app.world_mut().run_schedule(Tick);
    let elapsed = start.elapsed();
    let times = app.world().resource::<StepTimes>();
    let learning = Step::ALL.iter().position(|step| *step == Step::Learn).unwrap();
    assert!(times.spent[learning] >= NAP, "{:?}", times.spent);
    assert!(times.spent.iter().sum::<Duration>() <= elapsed, "{:?} of {elapsed:?}", times.spent);
}
