//! The curves of a comparison as comma-separated values.

use std::fmt::Write;

use secateur_run::Comparison;

/// A line for every candidate that was better than all before it, and for the last of each search. Names of agents and
/// tasks hold no comma.
pub(super) fn csv(comparison: &Comparison) -> String {
    let mut out = "agent,task,seed,candidates,best_reward,search_s\n".to_owned();
    for agent in &comparison.agents {
        for task in &agent.tasks {
            for (seed, steps) in comparison.seeds.iter().zip(&task.steps) {
                for (n, best, seconds) in steps {
                    let _ = writeln!(out, "{},{},{seed},{n},{best},{seconds:.3}", agent.agent, task.task);
                }
            }
        }
    }
    out
}
