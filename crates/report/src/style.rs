//! Which colour, mark and stroke a name has: the same in all drawings of a page.

use std::collections::BTreeMap;

use crate::run_files::RunFiles;

/// Styles by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Styles(BTreeMap<String, usize>);

impl Styles {
    /// The runs' agents first, then their controls as they come.
    pub(crate) fn of_runs(runs: &[&RunFiles]) -> Self {
        let mut styles = Self::default();
        for run in runs {
            let of_run = |agent: &str| if runs.len() > 1 { format!("{}: {agent}", run.name) } else { agent.to_owned() };
            styles.add(of_run(run.agent()));
            for stage in ["polished", "tuned"] {
                let key = format!("test_accuracy_after_{}", if stage == "tuned" { "tuning" } else { "polish" });
                if run.task_summaries().iter().any(|task| task[&key].is_number()) {
                    styles.add(format!("{}, {stage}", of_run(run.agent())));
                }
            }
            for control in run.control_summaries() {
                styles.add(of_run(control["agent"].as_str().unwrap_or("?")));
            }
            for walk in run.metrics.iter().flat_map(|metrics| &metrics.walks) {
                styles.add(of_run(&walk.agent));
            }
        }
        styles
    }

    /// Of these names, in this order.
    pub(crate) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut styles = Self::default();
        names.for_each(|name| styles.add(name.to_owned()));
        styles
    }

    fn add(&mut self, name: String) {
        let next = self.0.len();
        self.0.entry(name).or_insert(next);
    }

    /// Of a name; unknown ones look like the last.
    pub(crate) fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(7)
    }
}
