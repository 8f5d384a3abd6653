//! Ctrl-C and SIGTERM: the first one lets the run end with what it has, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

/// Set once the user asked to stop.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM. SIGHUP is left alone, so that `nohup` works.
    pub(super) fn install() -> anyhow::Result<Self> {
        // A process has one listener, however many runs it makes.
        static INSTALLED: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flag) = &*installed {
            return Ok(Self(flag.clone()));
        }
        let flag = Arc::new(AtomicBool::new(false));
        let seen = flag.clone();
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            crate::screen::note("stopping: the best candidates so far are kept; once more to stop at once");
        })
        .context("listening for Ctrl-C")?;
        #[cfg(unix)]
        listen_for_sigterm(&flag).context("listening for SIGTERM")?;
        *installed = Some(flag.clone());
        Ok(Self(flag))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(unix)]
fn listen_for_sigterm(flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    use signal_hook::consts::SIGTERM;
    // In this order: the first signal finds the flag unset and sets it.
    signal_hook::flag::register_conditional_shutdown(SIGTERM, 130, flag.clone())?;
    signal_hook::flag::register(SIGTERM, flag.clone())?;
    Ok(())
}
