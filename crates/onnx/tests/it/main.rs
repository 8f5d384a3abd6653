//! Documents read from bytes, well formed and not.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

mod computed;
mod cut;
mod export;
mod external;
mod hand_made;
mod import;
mod mutations;
mod real_files;
mod refitted;
mod refused;
mod values;
