//! Bounds on the length of gradients.

/// The Euclidean norm of `gradient`, and the factor that makes it at most `most` long: 1 where it is no longer, as
/// PyTorch's `clip_grad_norm_`.
pub fn clip_norm(gradient: &[f32], most: f32) -> (f64, f32) {
    let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let factor = (f64::from(most) / (norm + 1e-6)).min(1.0);
    (norm, factor as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gradients_are_shortened() {
        let (norm, factor) = clip_norm(&[3.0, 4.0], 1.0);
        assert_eq!(norm, 5.0);
        assert!((factor - 0.2).abs() < 1e-6);
        assert_eq!(clip_norm(&[3.0, 4.0], 6.0), (5.0, 1.0));
        assert_eq!(clip_norm(&[], 1.0), (0.0, 1.0));
    }
}
