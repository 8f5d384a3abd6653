//! Training: images that are learned from, a training on its way, the stages of a run that train its winners, and what
//! candidates are trained before they are scored.

pub(crate) mod before_score;
pub(crate) mod images;
pub(crate) mod matched;
pub(crate) mod normalised;
pub(crate) mod session;
pub(crate) mod stages;
pub(crate) mod trained;
