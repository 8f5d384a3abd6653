//! Which plans of a task were scored before.

use std::collections::VecDeque;

/// Plans remembered: more than any search needs, few enough to be copied with every policy.
const REMEMBERED_MAX: usize = 4096;

/// The last plans that were scored, by a hash of their keep ratios.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TriedPlans(VecDeque<u64>);

impl TriedPlans {
    pub(crate) fn contains(&self, keep_ratios: &[f32]) -> bool {
        self.0.contains(&hash(keep_ratios))
    }

    pub(crate) fn add(&mut self, keep_ratios: &[f32]) {
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash(keep_ratios));
    }

    pub(crate) fn save(&self) -> Vec<u64> {
        self.0.iter().copied().collect()
    }

    pub(crate) fn load(hashes: Vec<u64>) -> Self {
        let n_too_many = hashes.len().saturating_sub(REMEMBERED_MAX);
        Self(hashes.into_iter().skip(n_too_many).collect())
    }
}

/// FNV-1a over the bits: the same on every platform. Two plans with the same hash cost a proposal, no more.
fn hash(keep_ratios: &[f32]) -> u64 {
    let bytes = keep_ratios.iter().flat_map(|ratio| ratio.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
