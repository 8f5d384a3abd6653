//! What can go wrong between here and the card.

use thiserror::Error;

/// Errors of this crate: operation, expected, got, and which node, candidate or image.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GpuError {
    /// Nothing to compute on.
    #[error("no GPU adapter{}; {}. `secateur doctor` lists what this machine offers",
        wanted.as_ref().map_or_else(String::new, |w| format!(" whose name contains '{w}' (WGPU_ADAPTER_NAME)")),
        if found.is_empty() { "found none through Vulkan, Metal or DX12".to_owned() } else { format!("found {}", found.join(", ")) })]
    NoAdapter {
        /// What WGPU_ADAPTER_NAME asks for.
        wanted: Option<String>,
        /// Names of the adapters that are there.
        found: Vec<String>,
    },
    /// The adapter gives no device.
    #[error("adapter '{adapter}' gives no device: {problem}")]
    NoDevice {
        /// The adapter.
        adapter: String,
        /// What it says.
        problem: String,
    },
    /// The device is gone: driver reset, unplugged, given up.
    #[error("{doing}: the device was lost: {problem}")]
    Lost {
        /// Operation.
        doing: String,
        /// What the driver says.
        problem: String,
    },
    /// The card's memory does not suffice.
    #[error("{doing}: out of memory: {problem}")]
    OutOfMemory {
        /// Operation.
        doing: String,
        /// What the driver says.
        problem: String,
    },
    /// The queue did not finish in time.
    #[error("{doing}: the queue did not finish within {limit_s} s")]
    Timeout {
        /// Operation.
        doing: String,
        /// Seconds waited.
        limit_s: u64,
    },
    /// The driver or wgpu refuses what it was given: a fault of this crate or of the driver.
    #[error("{doing}: refused: {problem}")]
    Refused {
        /// Operation.
        doing: String,
        /// What it says.
        problem: String,
    },
    /// One piece of work that even alone is larger than the adapter allows.
    #[error("{what}: {bytes} bytes are more than the {max} that the adapter can bind at a time")]
    TooLarge {
        /// Which node's activations or weights, or the images.
        what: String,
        /// Bytes needed.
        bytes: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// An operation that is computed on the CPU only.
    #[error("node '{node}': {op} of {inputs} has no shader; --device cpu computes it")]
    NoShader {
        /// The first such node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// Shapes of its inputs, the first four.
        inputs: String,
    },
    /// Candidates of one batch must differ in widths only.
    #[error("candidate {candidate}, node '{node}': expected the topology of candidate 0 ({expected}), got {got}")]
    Topology {
        /// Index of the candidate.
        candidate: usize,
        /// The first node that differs.
        node: String,
        /// Candidate 0's node.
        expected: String,
        /// This candidate's.
        got: String,
    },
    /// Buffers that do not fit each other.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Values the shapes call for.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// Kept sets that do not belong to the network.
    #[error(transparent)]
    Net(#[from] secateur_net::NetError),
}

impl GpuError {
    /// Whether the device failed, so that another try on a rebuilt one may succeed.
    pub const fn is_of_device(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. }
                | Self::OutOfMemory { .. }
                | Self::Timeout { .. }
                | Self::Refused { .. }
                | Self::NoDevice { .. }
        )
    }
}
