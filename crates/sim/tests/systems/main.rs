//! Each system of a tick alone, in a world of hand-made components. What is expected was worked out by hand.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod criterion;
mod features;
mod hand_made;
mod repair_and_score;
mod reward_and_record;
mod step_times;
mod walk;
