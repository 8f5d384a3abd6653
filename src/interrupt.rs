//! Ctrl-C and SIGTERM. While there is nothing to keep, the first one ends the run at once: its directory is as whole as
//! after kill -9. Later the first one lets the run end with what it has, and the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::screen;

/// Time that a run has after SIGTERM to end with what it has: whoever sends it does not wait for long, and a checkpoint
/// is there.
const GRACE: Duration = Duration::from_secs(10);
/// Exit code of a run that was asked to stop.
const INTERRUPTED: i32 = 130;

/// Set once the user asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_set: AtomicBool,
    /// Whether there is something to keep.
    keeps: AtomicBool,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    CtrlC,
    #[cfg(unix)]
    Term,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM. SIGHUP is left alone, so that `nohup` works.
    pub(crate) fn install() -> anyhow::Result<Self> {
        // A process has one listener, however many runs it makes.
        static INSTALLED: Mutex<Option<Arc<Flags>>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flags) = &*installed {
            return Ok(Self(flags.clone()));
        }
        let interrupt = Self(Arc::default());
        let seen = interrupt.clone();
        ctrlc::set_handler(move || seen.set(Signal::CtrlC)).context("listening for Ctrl-C")?;
        #[cfg(unix)]
        listen(&interrupt).context("listening for SIGTERM")?;
        *installed = Some(interrupt.0.clone());
        Ok(interrupt)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// From now on the first signal lets the run end with what it has.
    pub(crate) fn keep(&self) {
        self.0.keeps.store(true, Ordering::SeqCst);
    }

    /// On a thread of its own, where printing and waiting are allowed.
    fn set(&self, signal: Signal) {
        let again = self.0.is_set.swap(true, Ordering::SeqCst);
        if again || !self.0.keeps.load(Ordering::SeqCst) {
            screen::status("interrupted");
            std::process::exit(INTERRUPTED);
        }
        screen::note("stopping: the best candidates so far are kept; once more to stop at once");
        if signal != Signal::CtrlC {
            std::thread::spawn(|| {
                std::thread::sleep(GRACE);
                screen::status("interrupted before the best candidates were refitted; --resume goes on");
                std::process::exit(INTERRUPTED);
            });
        }
    }
}

/// Lets a limit on the size of files be told by the write that exceeds it, and by that file's name, where the signal of
/// it would end the process without a word.
///
/// # Errors
/// What the system refused.
pub(crate) fn survive_size_limits() -> std::io::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())?;
    Ok(())
}

#[cfg(unix)]
fn listen(interrupt: &Interrupt) -> std::io::Result<()> {
    use signal_hook::consts::SIGTERM;
    use signal_hook::iterator::Signals;
    let mut signals = Signals::new([SIGTERM])?;
    let interrupt = interrupt.clone();
    let listen = move || signals.forever().for_each(|_| interrupt.set(Signal::Term));
    std::thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}
