//! Scene files: RON text in, checked values out. Opens no file and knows no network; this is the only crate that knows RON.
//!
//! [`SceneFile`] mirrors the text; [`Scene::parse`] checks it and is the only way to a [`Scene`]. Every problem is a
//! [`SceneError`] with line, column and the source line; [`apply_set`] edits the text for the command line's `--set`.
//!
//! Words are explained in the glossary of `secateur-net`.

mod check;
mod choices;
mod difference;
mod error;
mod file;
mod locate;
mod path;
mod plugin;
mod ron_error;
mod scene;
mod set;
mod suggest;
mod tasks;
mod template;
mod walk;

pub use choices::{Agent, Control, DatasetSource, Images, ProceduralKind, Profile, Protocol};
pub use choices::{Device, Precision};
pub use choices::{ExecutorKind, RepairMode, RewardKind, SchedulerKind, SelectionMethod};
pub use difference::{Difference, first_difference};
pub use error::{Problem, SceneError};
pub use file::{BudgetFile, DatasetFile, NetworkFile, SceneFile};
pub use plugin::PluginConfig;
pub use scene::{Budget, BudgetBound, BudgetKind, DatasetSpec, NetworkSpec, Scene, SceneData, TaskSpec};
pub use set::apply_set;
pub use template::template;

/// The one version of the scene format that this program reads and writes.
pub const SCENE_VERSION: u32 = 1;
