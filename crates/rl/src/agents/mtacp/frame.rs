//! What policy and learner share and never change.

use super::net::NetShape;
use super::settings::MtacpSettings;
use crate::error::RlError;

/// Added to softplus, which can round to 0.
pub(super) const VARIANCE_MIN: f32 = 1e-6;

/// What policy and learner share and never change.
pub(super) struct Frame {
    pub(super) settings: MtacpSettings,
    pub(super) net: NetShape,
    pub(super) n_features: usize,
    pub(super) n_tasks: usize,
    pub(super) walk_length_max: usize,
    pub(super) keep_ratio_min: f32,
    pub(super) seed: u64,
}

impl Frame {
    pub(super) fn push_features(&self, features: &mut Vec<f32>, observation: &[f32], even_ratio: f32) {
        features.extend(observation);
        if self.settings.table_gain != 0.0 {
            features.push(even_ratio);
        }
    }

    pub(super) fn table_row(&self, task: u32, layer: u32) -> Result<u32, RlError> {
        let (task, layer) = (task as usize, layer as usize);
        for (what, got, bound) in [("task", task, self.n_tasks), ("layer", layer, self.walk_length_max)] {
            if got >= bound {
                let (what, expected) = (what.to_owned(), format!("less than {bound}"));
                return Err(RlError::OutOfRange { op: "mtacp", what, expected, got: got.to_string() });
            }
        }
        Ok((task * self.walk_length_max + layer) as u32)
    }

    pub(super) fn keep_ratio(&self, raw_action: f32, even_ratio: f32) -> f32 {
        self.settings.squash.keep_ratio(raw_action, even_ratio, self.keep_ratio_min)
    }

    pub(super) fn raw_action(&self, keep_ratio: f32, even_ratio: f32) -> f32 {
        self.settings.squash.raw_action(keep_ratio, even_ratio, self.keep_ratio_min)
    }
}
