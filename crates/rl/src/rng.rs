//! Counter-based random streams: a draw depends on its key alone, never on what was drawn before elsewhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Key part of streams that belong to no task.
pub(crate) const NO_TASK: u64 = u64::MAX;

/// ChaCha8 keyed with (seed, task, walk, layer). Equal keys give equal draws on every platform:
/// logarithm and cosine come from `libm`, not from the system.
#[derive(Clone, Debug)]
pub struct RngStream(ChaCha8Rng);

impl RngStream {
    /// The stream of one decision.
    pub fn new(seed: u64, task: u64, walk: u64, layer: u64) -> Self {
        let mut key = [0u8; 32];
        for (chunk, part) in key.chunks_exact_mut(8).zip([seed, task, walk, layer]) {
            chunk.copy_from_slice(&part.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958; the second of the pair is not kept).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_repeat_and_different_keys_differ() {
        let draw = |key: [u64; 4]| RngStream::new(key[0], key[1], key[2], key[3]).uniform().to_bits();
        assert_eq!(draw([7, 1, 2, 3]), draw([7, 1, 2, 3]));
        for position in 0..4 {
            let mut key = [7, 1, 2, 3];
            key[position] += 1;
            assert_ne!(draw([7, 1, 2, 3]), draw(key), "key part {position} is ignored");
        }
    }

    #[test]
    fn zero_key_gives_the_published_chacha8_key_stream() {
        // eSTREAM test vector of ChaCha8, 256-bit zero key, zero IV: 3e00ef2f895f40d6 7f5bb8e81f09a5a1 ...
        let mut stream = RngStream::new(0, 0, 0, 0);
        let word = u64::from_le_bytes([0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
        assert_eq!(stream.uniform(), (word >> 11) as f64 / 9_007_199_254_740_992.0);
    }

    #[test]
    fn normal_draws_have_the_normal_moments() {
        let mut stream = RngStream::new(1, 2, 3, 4);
        let draws: Vec<f64> = (0..200_000).map(|_| stream.normal()).collect();
        let moment = |power: i32| draws.iter().map(|x| x.powi(power)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.01 && moment(3).abs() < 0.03);
        assert!((moment(2) - 1.0).abs() < 0.01 && (moment(4) - 3.0).abs() < 0.08);
    }
}
