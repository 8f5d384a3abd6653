//! Pages of run directories and comparisons, whole and damaged, read again by an HTML and an XML parser.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod bad_input;
mod comparisons;
mod page;
mod run_directory;
mod runs;
