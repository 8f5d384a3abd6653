//! The `secateur` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    secateur::cli().run()
}
