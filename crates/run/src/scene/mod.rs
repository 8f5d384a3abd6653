//! Scenes: a RON text in, checked values out. Opens no file and knows no network.
//!
//! [`SceneFile`] mirrors the text, every choice typed by its owner; [`Scene::parse`] checks it and is the only way to a
//! [`Scene`]. Every problem is a [`SceneError`] with line, column and the source line. The agents that scenes can name
//! are an [`AgentList`].

mod agents;
mod bounds;
mod check;
mod choices;
mod file;
mod parsed;
mod recipes;
mod tasks;
mod template;

pub use secateur_formats::DatasetSource;
pub use secateur_net::{Cost, Protocol};
pub use secateur_scene::{Difference, PluginConfig, Problem, SceneError, Section, first_difference};

pub use agents::{AgentList, AgentSpec, ControlSpec};
pub use choices::{Device, HistoryChoice, Images, LabelUse, RewardChoice};
pub use file::{BudgetFile, DatasetFile, KeepFile, KeepRangeFile, NetworkFile, SCENE_VERSION, SceneFile};
pub(crate) use parsed::edit;
pub use parsed::{
    BoundSpec, BudgetBound, BudgetSpec, DatasetSpec, KeepSpec, NetworkSpec, SIDES, Scene, SceneData, TaskSpec,
    apply_set,
};
pub use recipes::{Polish, Tune, TuneBeforeScore, TuneOptimiser};
pub use template::template;
