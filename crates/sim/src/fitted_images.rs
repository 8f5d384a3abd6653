//! Images that a network is fitted on.

/// Images without labels, `[N, H, W, C]`: the first of them rank channels, the first of them are what is refitted on.
/// They are held once, though both purposes read them: a thousand images of 224 x 224 take 600 MB.
#[derive(Clone, Debug, Default)]
pub struct FittedImages {
    values: Vec<f32>,
    n_calibration: usize,
    n_refit: usize,
}

impl FittedImages {
    /// The first `n_calibration` of `values` are those of the calibration images, the first `n_refit` those of the
    /// final refit; all of them where there are fewer.
    pub fn new(values: Vec<f32>, n_calibration: usize, n_refit: usize) -> Self {
        let [n_calibration, n_refit] = [n_calibration, n_refit].map(|n| n.min(values.len()));
        Self { values, n_calibration, n_refit }
    }

    /// Calibration images.
    pub fn calibration(&self) -> &[f32] {
        &self.values[..self.n_calibration]
    }

    /// Images of the final refit.
    pub fn refit(&self) -> &[f32] {
        &self.values[..self.n_refit]
    }

    /// Images of the final refit; others are given back.
    pub(crate) fn into_refit(mut self) -> Vec<f32> {
        self.values.truncate(self.n_refit);
        self.values.shrink_to_fit();
        self.values
    }
}
