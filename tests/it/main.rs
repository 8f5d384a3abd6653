//! Tests of the whole program, in one binary, since each of them links everything.

mod agents;
mod bad_input;
mod bad_onnx;
mod bench;
mod certificate;
mod check_and_run;
mod golden;
mod gpu;
mod hostile_graphs;
mod inspect_onnx;
mod layering;
mod learner_failure;
mod library;
mod loading;
mod onnx_network;
mod onnx_run;
mod plan;
mod plugins;
mod real_files;
mod real_network;
mod resume;
mod run;
mod run_directory;
mod scenes;
mod tidy;
mod unlabelled;
