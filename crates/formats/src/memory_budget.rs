//! A bound on what a file may make us allocate.

use crate::FileProblem;

/// Bytes that may still be allocated for one file: a small multiple of its size, so that neither a zip bomb nor many
/// tensors over one storage nor a tensor with step 0 can exhaust memory.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: usize,
    left: usize,
}

impl MemoryBudget {
    /// For a file of `n_bytes`. Half-precision weights double in size, tied weights are repeated and compression may
    /// gain a little; more than 16 times is not a network, nor is 4 times and a gigabyte.
    pub(crate) fn for_file(n_bytes: usize) -> Self {
        let limit =
            n_bytes.saturating_mul(16).saturating_add(1 << 20).min(n_bytes.saturating_mul(4).saturating_add(1 << 30));
        Self { limit, left: limit }
    }

    /// Takes `n_bytes` for `what`.
    pub(crate) fn spend(&mut self, n_bytes: usize, what: &str) -> Result<(), FileProblem> {
        self.left = self.left.checked_sub(n_bytes).ok_or_else(|| {
            let limit = self.limit;
            FileProblem::malformed(
                "weights",
                format!("{what} needs {n_bytes} bytes; a file of this size may unfold to {limit}"),
            )
        })?;
        Ok(())
    }
}
