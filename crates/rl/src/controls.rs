//! Policies that learn nothing, to compare with.

use crate::error::{RlError, check_finite};
use crate::interface::{ActRequest, Decision, Policy};
use crate::rng::RngStream;

/// Always the even ratio: the same share of every group.
#[derive(Clone, Copy, Debug)]
pub struct Uniform;

impl Policy for Uniform {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            check_finite("act", "even_ratio", &[request.even_ratio])?;
            Ok(Decision { keep_ratio: request.even_ratio, raw_action: request.even_ratio, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

/// Keep ratios drawn evenly from [`keep_ratio_min`, 1]; without exploration, the middle of it.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Least keep ratio.
    pub keep_ratio_min: f32,
    /// Seed of the run.
    pub seed: u64,
}

impl Policy for Random {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let mut rng = RngStream::new(self.seed, request.task.into(), request.walk, request.layer.into());
            let place = if request.explore { rng.uniform() as f32 } else { 0.5 };
            let keep_ratio = (self.keep_ratio_min + (1.0 - self.keep_ratio_min) * place).min(1.0);
            Decision { keep_ratio, raw_action: keep_ratio, ..Decision::default() }
        };
        Ok(batch.iter().map(decide).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_keeps_the_even_ratio() {
        let request = ActRequest { even_ratio: 0.37, explore: true, ..ActRequest::default() };
        assert_eq!(Uniform.act(&[request]).unwrap()[0].keep_ratio, 0.37);
        let request = ActRequest { even_ratio: f32::NAN, ..ActRequest::default() };
        assert!(Uniform.act(&[request]).is_err());
    }

    #[test]
    fn random_fills_the_range_and_repeats() {
        let policy = Random { keep_ratio_min: 0.2, seed: 3 };
        let requests: Vec<ActRequest> =
            (0..500).map(|walk| ActRequest { walk, explore: true, ..ActRequest::default() }).collect();
        let ratios: Vec<f32> = policy.act(&requests).unwrap().iter().map(|d| d.keep_ratio).collect();
        assert!(ratios.iter().all(|r| (0.2..=1.0).contains(r)));
        let mean = ratios.iter().sum::<f32>() / 500.0;
        assert!((mean - 0.6).abs() < 0.03, "{mean}");
        assert_eq!(policy.act(&requests[7..8]).unwrap()[0].keep_ratio, ratios[7]);
    }
}
