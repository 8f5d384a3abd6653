//! The threads that compute.

use std::num::NonZeroUsize;

use anyhow::{Context, anyhow};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::RunError;

/// A larger number is a mistake in typing.
const THREADS_MAX: usize = 1024;

/// Threads asked for, else one for each core.
///
/// # Errors
/// [`RunError::BadArguments`] for a number beyond reason.
pub fn n_threads(asked: Option<NonZeroUsize>) -> Result<usize, RunError> {
    let all_cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let n = asked.map_or_else(all_cores, NonZeroUsize::get);
    if n > THREADS_MAX {
        return Err(RunError::BadArguments(anyhow!("--threads: expected at most {THREADS_MAX}, got {n}")));
    }
    Ok(n)
}

/// A pool of as many threads as asked for, else of one for each core.
///
/// # Errors
/// As [`n_threads`]; threads that the system does not give.
pub fn thread_pool(asked: Option<NonZeroUsize>) -> Result<ThreadPool, RunError> {
    let n = n_threads(asked)?;
    let pool = ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("compute {i}")).build();
    Ok(pool.context("start the threads that compute")?)
}
