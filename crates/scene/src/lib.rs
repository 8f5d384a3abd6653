//! The text of scenes: RON in, values of whatever type in, every mistake with line, column and the source line. Opens
//! no file and knows none of the choices that a scene makes: each is typed by its owner, and put together above. This
//! is the only crate that knows RON.
//!
//! [`Document`] is a text and where each value of it stands; [`Section`] is a choice by name, `Mtacp(profile: Paper)`,
//! whose settings only the one who knows the name can read; [`PluginConfig`] is that for plugins. [`apply_set`] edits a
//! text for the command line's `--set`.
//!
//! ```
//! use secateur_scene::Document;
//! use serde::Deserialize;
//!
//! #[derive(Debug, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Picture {
//!     width: u32,
//! }
//!
//! let scene = Document::new("my.ron", "(width: 640)");
//! assert_eq!(scene.read::<Picture>().unwrap().width, 640);
//! let scene = Document::new("my.ron", "(\n    widht: 640,\n)");
//! let mistake = scene.error(vec![scene.read::<Picture>().unwrap_err()]).to_string();
//! assert!(mistake.contains("my.ron:2:5") && mistake.contains("did you mean `width`"), "{mistake}");
//! ```
//!
//! Words are explained in the glossary of `secateur-net`.

mod difference;
mod document;
mod error;
mod fields;
mod locate;
mod path;
mod plugin;
mod ron_error;
mod section;
mod set;
mod suggest;
mod walk;

pub use difference::{Difference, first_difference};
pub use document::{Document, MapEntry, to_ron, to_ron_pretty};
pub use error::{Problem, SceneError};
pub use fields::fields_of;
pub use plugin::PluginConfig;
/// RON that is kept as it is written, unread.
pub use ron::value::RawValue;
pub use ron_error::clip;
pub use section::Section;
pub use set::{Format, apply_set};
pub use suggest::{did_you_mean, nearest_names};
