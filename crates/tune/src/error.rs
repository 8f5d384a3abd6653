//! What can go wrong when training is set up.

use thiserror::Error;

/// Errors of this crate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TuneError {
    /// A setting out of its range.
    #[error("{name} is {value}, expected {range}")]
    Setting {
        /// Which one.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// A loss or gradient that is NaN or infinite.
    #[error("step {step}: the loss or its gradient is not finite; the learning rate rises to {peak}, try {lower}")]
    NotFinite {
        /// From 0.
        step: usize,
        /// Highest learning rate.
        peak: String,
        /// One that may do.
        lower: String,
    },
    /// A state that belongs elsewhere.
    #[error("the checkpoint is of a training with another {what}; start afresh, or with what it was made with")]
    OtherTraining {
        /// What differs.
        what: &'static str,
    },
    /// A network or targets that cannot be trained with.
    #[error(transparent)]
    Kernel(#[from] secateur_kernels::KernelError),
}

/// `value` if it is sound.
pub(crate) fn checked(name: &'static str, value: f32, is_sound: bool, range: &'static str) -> Result<(), TuneError> {
    if is_sound { Ok(()) } else { Err(TuneError::Setting { name, value: value.to_string(), range }) }
}
