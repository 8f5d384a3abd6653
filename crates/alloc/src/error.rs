//! Why no widths can be allocated.

use thiserror::Error;

/// Why no widths can be allocated.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AllocError {
    /// An error curve holds a number that cannot be compared.
    #[error("allocate: group '{group}' has error {error} at width {width}, expected a finite number of at least 0")]
    NotFinite {
        /// The group.
        group: String,
        /// The width.
        width: usize,
        /// The error there.
        error: f64,
    },
    /// A curve that fits no group that may be pruned, or is missing.
    #[error("allocate: the error curve of group '{group}' {what}")]
    Curve {
        /// The group.
        group: String,
        /// What is wrong with it, and what is expected.
        what: String,
    },
    /// A bound on a cost that the allocator was not prepared for.
    #[error("allocate: a bound on {cost}, which was not prepared; name it when the allocator is made")]
    Unprepared {
        /// Name of the cost.
        cost: &'static str,
    },
    /// The least widths cost more than is allowed.
    #[error("allocate: at most {max} {cost} are allowed, the least that can be reached is {minimum}")]
    Unreachable {
        /// Name of the cost.
        cost: &'static str,
        /// What is allowed.
        max: u64,
        /// The least that can be reached.
        minimum: u64,
    },
}
