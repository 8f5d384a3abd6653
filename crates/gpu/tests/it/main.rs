//! The shaders on any adapter found, against the CPU engine; and what can be checked without an adapter.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

mod adapter;
mod functions;
mod golden;
mod masked;
mod measuring;
mod networks;
mod norms;
mod recovery;
mod replay;
mod shaders;
