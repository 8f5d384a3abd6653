//! Records a run while it goes on, and never is a reason for it to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secateur_history::{History, RunRecord};

use super::directory::read_run;
use crate::directory::checkpoint::Identity;
use crate::scene::AgentList;

/// Where a run is recorded, if it is.
pub(crate) struct Recorder {
    /// None once it failed: a run is told of that once.
    file: Option<PathBuf>,
    directory: PathBuf,
    identity: Arc<Identity>,
}

impl Recorder {
    pub(crate) fn new(file: Option<PathBuf>, directory: &Path, identity: Arc<Identity>) -> Self {
        Self { file, directory: directory.to_owned(), identity }
    }

    /// The file, while it can be used.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Writes down how far the run is, and how many scores earlier runs had computed for it; `warn` is told why it
    /// cannot be.
    pub(crate) fn record(&mut self, agents: &AgentList, known_scores: Option<u64>, warn: &mut dyn FnMut(&str)) {
        let Some(file) = &self.file else { return };
        let recorded = read_run(&self.directory, agents, Some(&self.identity)).and_then(|(run, _)| {
            // Opened anew each time: a run takes hours, and others may move the file meanwhile.
            Ok(History::open(file)?.record(&RunRecord { known_scores, ..run })?)
        });
        if let Err(error) = recorded {
            warn(&format!("warning: {error:#}; the run goes on, and is not recorded"));
            self.file = None;
        }
    }
}
