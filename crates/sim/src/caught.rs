//! Panics as values.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why guarded work did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caught<E> {
    /// An error, which repeating would not cure.
    Error(E),
    /// A panic, with its message.
    Panic(String),
}

impl<E: fmt::Display> fmt::Display for Caught<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// Turns a panic of `work` into a value. What `work` shares with others must be whole after a panic: read only, or a
/// cache whose entries are put in whole, or given up by the caller.
///
/// # Errors
/// Those of `work`, and its panic.
pub fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, Caught<E>> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Caught::Error),
        Err(payload) => Err(Caught::Panic(panic_message(&*payload))),
    }
}

/// What a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
