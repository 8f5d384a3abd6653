//! Sizes that all forms of minimal filtering here share.

/// Output pixels along each side of a tile, or of a row's piece.
pub(crate) const TILE: usize = 4;
/// Points at which a square tile is multiplied: a square of side `TILE + 2`.
pub(crate) const POINTS: usize = 36;
/// Points at which `TILE` pixels of a row are multiplied.
pub(crate) const ROW_POINTS: usize = TILE + 2;
