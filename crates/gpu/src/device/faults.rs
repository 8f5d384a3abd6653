//! What goes wrong on a device, noted until somebody asks.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::Device;

use crate::{Gpu, GpuError};

/// What the driver reported, whenever it did.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) lost: Mutex<Option<String>>,
    /// The first error since the last look; those after it are its consequences.
    pub(super) error: Mutex<Option<Fault>>,
    /// Whether a wait took too long.
    pub(super) hangs: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    OutOfMemory(String),
    Refused(String),
}

impl From<&wgpu::Error> for Fault {
    fn from(error: &wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { source } => Self::OutOfMemory(source.to_string()),
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                Self::Refused(description.clone())
            }
        }
    }
}

/// Where the errors of a device are noted from here on.
pub(super) fn watched(device: &Device) -> Arc<Faults> {
    let faults = Arc::new(Faults::default());
    let on_error = faults.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let mut first = on_error.error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (&error).into());
    }));
    let on_loss = faults.clone();
    device.set_device_lost_callback(move |reason, message| {
        let mut lost = on_loss.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert_with(|| format!("{reason:?} {message}"));
    });
    faults
}

impl Gpu {
    /// Whether anything went wrong so far.
    ///
    /// # Errors
    /// What did.
    pub(crate) fn check(&self, doing: &str) -> Result<(), GpuError> {
        let doing = doing.to_owned();
        if let Some(problem) = self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(GpuError::Lost { doing, problem });
        }
        match self.faults.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(Fault::OutOfMemory(problem)) => Err(GpuError::OutOfMemory { doing, problem }),
            Some(Fault::Refused(problem)) => Err(GpuError::Refused { doing, problem }),
        }
    }
}
