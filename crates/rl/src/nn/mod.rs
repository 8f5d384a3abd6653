//! Parts of networks that agents share: weights in one flat vector, Gaussian actions, raw actions as keep ratios.

pub mod gaussian;
pub mod params;
pub mod squash;
