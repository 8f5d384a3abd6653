//! The network as a graph: channel groups, exact counts, surgery. Knows no files, no threads, no arithmetic on
//! activations. The words of the whole workspace are in [`glossary`].
//!
//! # Example
//! Half of the channels of every group that may be pruned:
//! ```
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{ChannelGroups, Cost, CostModel, KeptChannels, Protocol, Shape, arch, prune};
//!
//! let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
//! let groups = ChannelGroups::derive(&graph, Protocol::Inner);
//! let mut kept = KeptChannels::all(&groups);
//! for group in groups.prunable() {
//!     kept.set(group, (0..groups.group(group).n_channels / 2).collect());
//! }
//! let costs = CostModel::new(&graph, &groups);
//! let network = with_random_weights(graph, 1);
//! let compact = prune(&network, &groups, &kept)?;
//!
//! let macs = |widths: &[usize]| costs.count(Cost::Macs, widths);
//! assert_eq!(macs(&groups.full_widths()), 40_551_040);
//! assert!(2 * macs(&kept.widths()) < macs(&groups.full_widths()) + 1_000_000);
//! assert!(compact.graph().nodes().len() == network.graph().nodes().len());
//! # Ok::<_, secateur_net::NetError>(())
//! ```

pub mod arch;
mod conv_transpose;
mod counts;
mod error;
mod fold;
mod graph;
mod graph_fields;
mod graph_file;
mod graph_function;
mod graph_tree;
mod groups;
mod maps;
mod op;
mod pointwise;
pub mod random;
/// The words of this workspace.
#[doc = include_str!("glossary.md")]
pub mod glossary {}
mod schedule;
mod shape;
mod shapes;
mod surgery;
mod tap;
mod unfold;
mod weights;
mod window;

pub use conv_transpose::ConvTranspose2d;
pub use counts::{Cost, CostModel};
pub use error::NetError;
pub use fold::{drop_zero_biases, fold_batch_norm};
pub use graph::{Graph, GraphBuilder, GraphTail, Node, NodeId};
pub use groups::{ChannelGroup, ChannelGroups, GroupChannel, GroupId, Protocol};
pub use op::{Conv2d, Op};
pub use pointwise::Pointwise;
pub use schedule::{FusedStep, Fusion, Location, Operand, Schedule};
pub use shape::Shape;
pub use shapes::output_shape;
pub use surgery::{KeptChannels, filter_inputs, prune, slice_weight};
pub use tap::Tap;
pub use unfold::{ChannelMoments, insert_batch_norms, norm_places};
pub use weights::{Network, Tensor, Weights, parameter_shapes};
pub use window::Window;
