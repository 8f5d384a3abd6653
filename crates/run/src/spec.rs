//! What to run, and with what means.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::RunError;
use crate::inputs::memory::MemoryBound;
use crate::inputs::roots::Roots;
use crate::inputs::scene_file::{read_scene, scene_dir};
use crate::scene::{AgentList, Scene};
use crate::threads::n_threads;

/// One run of a scene: what the command line says, for programs.
///
/// ```
/// use std::time::Duration;
/// use secateur_run::RunSpec;
///
/// let spec = RunSpec {
///     sets: vec!["walks_per_task=50".into(), "budgets[0].ratio=0.4".into()],
///     out: Some("runs/short".into()),
///     checkpoint_every: Duration::from_secs(10),
///     ..RunSpec::new("scenes/quickstart.ron")
/// };
/// assert!(!spec.resume && spec.threads.is_none());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    /// The scene file.
    pub scene: PathBuf,
    /// The scene itself, in place of what is in the file; the file's name is then what messages show.
    pub text: Option<String>,
    /// The agents that the scene can name: those of `rl`, and what is added.
    pub agents: AgentList,
    /// Changes to the scene, `path=value` each, in order.
    pub sets: Vec<String>,
    /// The run directory, new or empty unless the run is resumed; without one, `runs/<name of the scene file>`.
    pub out: Option<PathBuf>,
    /// Whether to go on from the run directory's last checkpoint.
    pub resume: bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Folder of data sets; without one, that of `SECATEUR_DATA`, else `./data`.
    pub data_root: Option<PathBuf>,
    /// Folder of networks; without one, that of `SECATEUR_MODELS`, else `./models`.
    pub model_root: Option<PathBuf>,
    /// Threads that compute; without a number, one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Bytes that finding a network's channel groups and evaluating it may take; without a number, [`MemoryBound`] says
    /// how many.
    pub memory: Option<u64>,
    /// The history that the run is recorded in, `none` for none; without it, what the scene says.
    pub history: Option<PathBuf>,
    /// Name of a snapshot of the history: in place of all runs that are finished there, the run learns from those that
    /// were then, and so ends as the one did whose `summary.json` names it.
    pub history_at: Option<String>,
    /// Whether scores that the history knows are taken from there, if the scene allows it. Without, a run takes the
    /// time of one that scores all its candidates.
    pub reuses_scores: bool,
}

impl RunSpec {
    /// The scene as it stands, every setting at its default.
    pub fn new(scene: impl Into<PathBuf>) -> Self {
        Self {
            scene: scene.into(),
            text: None,
            agents: AgentList::default(),
            sets: Vec::new(),
            out: None,
            resume: false,
            checkpoint_every: Duration::from_secs(30),
            data_root: None,
            model_root: None,
            threads: None,
            memory: None,
            history: None,
            history_at: None,
            reuses_scores: true,
        }
    }

    /// Where networks and data are looked for.
    pub fn roots(&self) -> Roots {
        Roots::new(self.data_root.clone(), self.model_root.clone(), scene_dir(&self.scene))
    }

    pub(crate) fn read_scene(&self) -> Result<Scene, RunError> {
        read_scene(&self.scene, self.text.as_deref(), &self.sets, &self.agents)
    }

    pub(crate) fn memory_bound(&self) -> Result<MemoryBound, RunError> {
        Ok(MemoryBound::new(self.memory, n_threads(self.threads)?))
    }
}
