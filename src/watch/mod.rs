//! `watch`: a run on the terminal while it goes on.

mod drawn;
mod lines;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use secateur_report::WatchedRun;

use crate::{Failure, screen};
use drawn::{WatchView, once};

pub(crate) const WATCH_EXAMPLES: &str = "\
Examples:
  secateur watch runs/first            in a second terminal, or over ssh, while `secateur run` goes on
  secateur watch runs/first --once     one look, as plain text, for a log
  secateur watch runs/first --json     the same for programs

Shows the stage with the time left, the walks and the best candidate of every agent and task, the best reward over candidates,
what the learner tells (entropy, lag, losses) and the epochs of trainings; results and the error it failed with, once it ended.
Reads the directory and writes nothing. Left and right choose the task that is drawn, up and down move what does not
fit, q quits.";

/// Between two looks at the directory.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// And at least this many times the time that a look took: the run needs the processor, too.
const REST: u32 = 20;
/// Columns of a frame that is no terminal's.
const PLAIN_COLUMNS: u16 = 100;

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Print one frame as plain text and end
    #[arg(long)]
    once: bool,
    /// Print the numbers of one look as JSON and end
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

pub(crate) fn watch(arguments: &WatchArgs) -> Result<(), Failure> {
    let run = read(&arguments.run)?;
    if arguments.json || arguments.once {
        let columns = if std::io::stdout().is_terminal() { terminal::size().ok() } else { None };
        let columns = columns.map_or(PLAIN_COLUMNS, |(columns, _)| columns);
        return screen::show(&run, arguments.json, |run| once(run, columns, SystemTime::now()));
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::BadArguments(anyhow!(
            "there is no terminal to draw on, or to read keys from: --once prints one frame, `secateur report` writes a page"
        )));
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on; --once prints one frame")?;
    let ended = follow(&mut terminal, &arguments.run, run);
    ratatui::restore();
    ended
}

fn read(run: &Path) -> Result<WatchedRun, Failure> {
    WatchedRun::read(run).map_err(|nothing| Failure::BadArguments(nothing.into()))
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAction {
    Quit,
    /// Another task is drawn: the next one, or the one before.
    Turn(isize),
    /// What does not fit is moved by rows.
    Scroll(i16),
    Nothing,
}

fn action(code: KeyCode, modifiers: KeyModifiers) -> KeyAction {
    match code {
        KeyCode::Char('q') | KeyCode::Esc => KeyAction::Quit,
        // A terminal in raw mode sends no signal.
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => KeyAction::Quit,
        KeyCode::Right | KeyCode::Tab | KeyCode::Char('l') => KeyAction::Turn(1),
        KeyCode::Left | KeyCode::BackTab | KeyCode::Char('h') => KeyAction::Turn(-1),
        KeyCode::Down | KeyCode::Char('j') => KeyAction::Scroll(1),
        KeyCode::Up | KeyCode::Char('k') => KeyAction::Scroll(-1),
        KeyCode::PageDown => KeyAction::Scroll(10),
        KeyCode::PageUp => KeyAction::Scroll(-10),
        _ => KeyAction::Nothing,
    }
}

/// Draws until it is asked to quit. A directory that can no longer be read keeps its last numbers, and says so.
fn follow(terminal: &mut ratatui::DefaultTerminal, path: &Path, mut run: WatchedRun) -> Result<(), Failure> {
    let (mut task, mut scrolled) = (0usize, 0u16);
    let (mut looked, mut took, mut gone) = (Instant::now(), Duration::ZERO, None);
    loop {
        let view = WatchView { run: &run, task, scrolled, gone: gone.as_deref(), now: SystemTime::now() };
        scrolled = scrolled.min(view.hidden_rows(terminal.size().context("the terminal's size")?));
        let view = WatchView { scrolled, ..view };
        terminal.draw(|frame| frame.render_widget(&view, frame.area())).context("drawing on the terminal")?;
        let wait = LOOK_EVERY.max(took * REST).saturating_sub(looked.elapsed());
        if event::poll(wait).context("reading keys")? {
            // A resize is drawn by the next round, as everything is.
            if let Event::Key(key) = event::read().context("reading keys")?
                && key.kind != KeyEventKind::Release
            {
                match action(key.code, key.modifiers) {
                    KeyAction::Quit => return Ok(()),
                    KeyAction::Turn(by) => {
                        task = task.saturating_add_signed(by).min(run.tasks.len().saturating_sub(1));
                    }
                    KeyAction::Scroll(by) => scrolled = scrolled.saturating_add_signed(by),
                    KeyAction::Nothing => {}
                }
            }
            continue;
        }
        looked = Instant::now();
        match WatchedRun::read(path) {
            Ok(read) => (run, gone) = (read, None),
            Err(nothing) => gone = Some(nothing.to_string()),
        }
        took = looked.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_last_line_says() {
        let plain = |code| action(code, KeyModifiers::NONE);
        for quits in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(plain(quits), KeyAction::Quit);
        }
        assert_eq!(action(KeyCode::Char('c'), KeyModifiers::CONTROL), KeyAction::Quit);
        assert_eq!(plain(KeyCode::Char('c')), KeyAction::Nothing);
        assert_eq!((plain(KeyCode::Right), plain(KeyCode::Left)), (KeyAction::Turn(1), KeyAction::Turn(-1)));
    }
}
