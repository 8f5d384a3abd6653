//! The network as a graph: channel groups, exact counts, surgery. Knows no files, no threads, no arithmetic on activations.
//!
//! Words: a *group* is a set of channels that share a footprint; its *width* is the number of channels kept; a *keep ratio* is
//! kept ÷ original. `macs` counts convolutions and Linear nodes only.

pub mod arch;
mod counts;
mod error;
mod fold;
mod graph;
mod graph_fields;
mod graph_file;
mod graph_tree;
mod groups;
pub mod random;
mod schedule;
mod shapes;
mod surgery;
mod weights;

pub use counts::{Cost, CostModel};
pub use error::NetError;
pub use fold::{drop_zero_biases, fold_batch_norm};
pub use graph::{Conv2d, Graph, GraphBuilder, Node, NodeId, Op, Pointwise, Shape, Window};
pub use groups::{ChannelGroup, ChannelGroups, GroupId, Protocol, Slot};
pub use schedule::{FusedStep, Fusion, Location, Operand, Schedule};
pub use surgery::{KeptChannels, filter_inputs, prune, slice_weight};
pub use weights::{Network, Tensor, Weights, parameter_shapes};
