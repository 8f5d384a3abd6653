//! Secateur prunes trained convolutional networks to a provable budget. This crate is the command line, and the door to the
//! library: the other crates under their short names. Only this crate prints, reads arguments and knows paths and exit codes.
//!
//! `secateur::cli().run()` is the whole binary.
//!
//! Words are explained in [`net::glossary`].

pub use secateur_formats as formats;
pub use secateur_gpu as gpu;
pub use secateur_kernels as kernels;
pub use secateur_net as net;
pub use secateur_rl as rl;
pub use secateur_scene as scene;
pub use secateur_sim as sim;
pub use secateur_train as train;

mod advice;
mod arguments;
mod bench;
mod card;
pub mod certificate;
mod check;
mod cli;
mod doctor;
mod eval;
mod failure;
mod inspect;
pub mod load;
pub mod memory;
mod pipeline_files;
pub mod reachable;
pub mod resolve;
pub mod roots;
mod run;
mod scene_file;
mod screen;
mod table;
mod wide_layers;

pub use cli::{Cli, cli};
pub use failure::Failure;
#[doc(hidden)]
pub use run::{read_checkpoint, seal_checkpoint};
