//! Training: images that are learned from, a training on its way, and the stages of a run that train its winners.

pub(crate) mod images;
pub(crate) mod matched;
pub(crate) mod normalised;
pub(crate) mod session;
pub(crate) mod stages;
pub(crate) mod trained;
