//! Runs networks: every operation, and plans of them. Knows nothing of least squares.

pub(crate) mod arithmetic;
pub(crate) mod bf16_kernel;
pub(crate) mod channels;
pub(crate) mod conv;
pub(crate) mod conv_way;
pub(crate) mod elementwise;
pub(crate) mod fusion;
pub(crate) mod layout;
pub(crate) mod maps;
pub(crate) mod mixing;
pub(crate) mod node_kernel;
pub(crate) mod op_kernel;
pub(crate) mod parameters;
pub(crate) mod peak;
pub(crate) mod plan;
pub(crate) mod plan_needs;
pub(crate) mod pool;
pub(crate) mod pooled;
pub(crate) mod reference;
pub(crate) mod transposed;
pub(crate) mod winograd;
