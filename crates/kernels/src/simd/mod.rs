//! Vectors: memory for them, instruction sets, and what is written once for all of them. Knows nothing of networks.

pub(crate) mod aligned;
pub(crate) mod interleave;
pub(crate) mod isa;
pub(crate) mod lanes;
pub(crate) mod pairs;
pub(crate) mod prefetch;
pub(crate) mod products;
