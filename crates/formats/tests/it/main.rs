//! The boundary of the crate: files in, files out, hostile files refused.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

mod archives;
mod arrays;
mod flowers;
mod fuzz_seeds;
mod graph_files;
mod handmade;
mod hostile;
mod image_files;
mod image_folders;
mod irregular_files;
mod names;
mod real_models;
mod refused_pickles;
mod round_trip;
mod safetensors_files;
mod torch_files;
mod torch_made;
