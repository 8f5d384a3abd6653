//! What can go wrong when a network is compiled or run.

use thiserror::Error;

use crate::Isa;

/// Errors of this crate: operation, expected, got, and which node or image.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// A buffer of the wrong length.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which buffer, of which node.
        what: String,
        /// Values the shapes call for.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// Images that do not come in whole numbers.
    #[error("images: {got} values are not a multiple of the {per_image} values of one image")]
    PartialImage {
        /// Values given.
        got: usize,
        /// Values per image.
        per_image: usize,
    },
    /// As many labels as images are needed.
    #[error("labels: expected {expected}, one per image, got {got}")]
    LabelCount {
        /// Number of images.
        expected: usize,
        /// Number of labels.
        got: usize,
    },
    /// A prediction cannot be read off logits that are not numbers.
    #[error(
        "image {image}: its logits hold NaN or infinity; is the image not finite, or do weights or activations overflow f32?"
    )]
    NanLogits {
        /// Index of the first such image.
        image: usize,
    },
    /// Predictions are 16-bit class indices.
    #[error("{got} classes are more than the {max} that a prediction can name")]
    TooManyClasses {
        /// Largest number of classes.
        max: usize,
        /// Classes of the network.
        got: usize,
    },
    /// A node was given another number of inputs than it reads.
    #[error("node '{node}': expected {expected} inputs, got {got}")]
    InputCount {
        /// The node.
        node: String,
        /// Inputs it reads.
        expected: usize,
        /// Inputs given.
        got: usize,
    },
    /// A node index past the end of the graph.
    #[error("the graph has {n_nodes} nodes, there is no node {node}")]
    NoSuchNode {
        /// Index asked for.
        node: usize,
        /// Nodes of the graph.
        n_nodes: usize,
    },
    /// A parameter is not there or does not have the length of its operation.
    #[error("parameter '{name}': expected {expected} values, got {}", got.map_or_else(|| "none".to_owned(), |n| n.to_string()))]
    Parameter {
        /// Full name.
        name: String,
        /// Values the operation calls for.
        expected: usize,
        /// Values found; `None` when the parameter is missing.
        got: Option<usize>,
    },
    /// An operation whose output would not fit in memory.
    #[error("node '{node}': its output of {shape:?} rows, columns and channels is too large")]
    OutputTooLarge {
        /// The node.
        node: String,
        /// Rows, columns, channels.
        shape: [usize; 3],
    },
    /// The processor lacks the instructions asked for.
    #[error("this processor does not have {isa:?}")]
    IsaUnavailable {
        /// Instruction set asked for.
        isa: Isa,
    },
    /// The processor lacks the instructions that `Precision::Bf16` needs.
    #[error("precision bf16: this processor does not have AVX512-BF16; use precision f32")]
    Bf16Unavailable,
    /// NaN or infinity where numbers are needed.
    #[error("{what} met NaN or infinity; are the images and weights finite?")]
    NotFinite {
        /// Which computation.
        what: String,
    },
    /// An operation that cannot be trained through.
    #[error(
        "node '{node}': training has no gradient of {op}; train a network without it, or keep what is in front of it as it is"
    )]
    NoGradient {
        /// The node.
        node: String,
        /// Its operation.
        op: &'static str,
    },
    /// A network without a trainable parameter that its output depends on.
    #[error(
        "the network has no weights to train: none of its {n_nodes} nodes has parameters that its output depends on"
    )]
    NothingToTrain {
        /// Nodes of the network.
        n_nodes: usize,
    },
    /// A value that cannot be held against a teacher's.
    #[error(
        "the value of node '{node}' cannot be matched: a plan does not keep it, or both networks have it in other shapes"
    )]
    NoMatch {
        /// The node.
        node: String,
    },
    /// More images than a training plan was made for.
    #[error("a training step takes from 1 to {most} images, got {got}")]
    BatchSize {
        /// Largest batch of the plan.
        most: usize,
        /// Images given.
        got: usize,
    },
    /// A label that is no class.
    #[error(
        "image {image}: its label is {label}, the network has {n_classes} outputs; is it made for another data set?"
    )]
    LabelRange {
        /// Index of the first such image.
        image: usize,
        /// Its label.
        label: u16,
        /// Outputs of the network.
        n_classes: usize,
    },
    /// A setting out of its range.
    #[error("{name} is {value}, expected {range}")]
    Setting {
        /// Which one.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// Surgery or parameters that do not fit.
    #[error(transparent)]
    Net(#[from] secateur_net::NetError),
}
