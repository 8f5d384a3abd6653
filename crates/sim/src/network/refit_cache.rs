//! Refitted weights of single layers, so that a layer that keeps what it kept before costs nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secateur_kernels::{KernelError, NormalEquations, Refit};

/// Most bytes of refitted weights that are remembered; past it they are computed anew.
const BYTES_MAX: usize = 1 << 30;

/// Place of the equations, and the kept inputs.
type Key = (usize, Vec<usize>);

/// Refitted weights by equations and kept inputs.
#[derive(Debug, Default)]
pub(super) struct RefitCache(Mutex<CachedRefits>);

#[derive(Debug, Default)]
struct CachedRefits {
    by_kept: HashMap<Key, Arc<Refit>>,
    bytes: usize,
}

impl RefitCache {
    /// The refit of `equations`, which are at place `index`, to the inputs `kept`.
    ///
    /// # Errors
    /// NaN in the equations.
    pub(super) fn get_or_solve(
        &self,
        index: usize,
        equations: &NormalEquations,
        kept: Vec<usize>,
    ) -> Result<Arc<Refit>, KernelError> {
        let key = (index, kept);
        if let Some(refit) = self.lock().by_kept.get(&key) {
            return Ok(refit.clone());
        }
        let refit = Arc::new(equations.refit(&key.1)?);
        Ok(self.remember(key, refit))
    }

    /// Keeps a refit if there is room. Two threads that missed the same one both come here, and share what came first.
    fn remember(&self, key: Key, refit: Arc<Refit>) -> Arc<Refit> {
        let bytes = 4 * (refit.weight.len() + refit.bias.len());
        let mut cache = self.lock();
        let CachedRefits { by_kept, bytes: total } = &mut *cache;
        match by_kept.entry(key) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(free) if *total + bytes <= BYTES_MAX => {
                *total += bytes;
                free.insert(refit).clone()
            }
            Entry::Vacant(_) => refit,
        }
    }

    /// A panic elsewhere leaves at worst a missing entry, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, CachedRefits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refit_that_two_threads_missed_is_kept_and_counted_once() {
        let cache = RefitCache::default();
        let refit = || Arc::new(Refit { weight: vec![1.0; 6], bias: vec![0.5; 2] });
        let held = || {
            let cache = cache.lock();
            (cache.bytes, cache.by_kept.len())
        };
        let first = cache.remember((3, vec![0, 2]), refit());
        assert!(Arc::ptr_eq(&cache.remember((3, vec![0, 2]), refit()), &first));
        assert_eq!(held(), (32, 1));
        cache.remember((4, vec![0, 2]), refit());
        assert_eq!(held(), (64, 2));
    }
}
