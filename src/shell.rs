//! What makes the program at home in a shell: completions and manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::{Failure, screen};

pub(crate) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  secateur completions bash > ~/.local/share/bash-completion/completions/secateur
  secateur completions zsh > ~/.zfunc/_secateur
  secateur completions fish > ~/.config/fish/completions/secateur.fish";

pub(crate) const MAN_EXAMPLES: &str = "\
Examples:
  secateur man --out ~/.local/share/man/man1      secateur.1, secateur-run.1, ...; then `man secateur-run`
  secateur man | man -l -                         the first page, without installing it";

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write a page for the program and one for each command into this folder, instead of printing the first
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &CompletionsArgs, mut program: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "secateur", &mut script);
    Ok(screen::result(String::from_utf8_lossy(&script).trim_end())?)
}

pub(crate) fn man(arguments: &ManArgs, program: Command) -> Result<(), Failure> {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page)?;
        return Ok(screen::result(String::from_utf8_lossy(&page).trim_end())?);
    };
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(program, folder));
    let named = written.with_context(|| format!("the pages cannot be written to '{}'", folder.display()));
    named.map_err(Failure::BadArguments)?;
    screen::note(format_args!("the pages are in '{}'", folder.display()));
    Ok(())
}
