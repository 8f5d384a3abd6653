//! What makes the program at home in a shell: completions and manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use secateur_formats::write_atomic;

use crate::arguments::Arguments;
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

pub(crate) fn completions(arguments: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "secateur", &mut script);
    Ok(screen::result(String::from_utf8_lossy(&script).trim_end())?)
}

pub(crate) fn man(arguments: &ManArgs) -> Result<(), Failure> {
    let mut program = Arguments::command();
    program.build();
    let Some(folder) = &arguments.out else {
        let page = page(program)?;
        return Ok(screen::result(String::from_utf8_lossy(&page).trim_end())?);
    };
    let made =
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()));
    made.map_err(Failure::BadArguments)?;
    let commands: Vec<clap::Command> = program.get_subcommands().cloned().collect();
    let n = commands.len() + 1;
    for (name, command) in [("secateur".to_owned(), program)].into_iter().chain(commands.into_iter().map(|command| {
        let name = format!("secateur-{}", command.get_name());
        // The page's title is the name that `man` knows it by.
        (name.clone(), command.name(name))
    })) {
        let written = write_atomic(&folder.join(format!("{name}.1")), &page(command)?);
        written.map_err(|error| Failure::BadArguments(error.into()))?;
    }
    screen::note(format_args!("{n} pages are in '{}'", folder.display()));
    Ok(())
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}
