//! Allocates a budget to the groups of a network: the widths that meet it at the least sum of weighted layer errors.
//! Knows no image, no file and no thread; an error curve is a list of numbers, whoever measured it.
//!
//! Costs are what [`CostModel`] counts. MACs and parameters are quadratic in the widths: a group costs what it makes
//! and what reads it, and two groups share a term where one makes what the other reads. Peak activation memory is a
//! maximum of sums. The groups are decided one after the other; what matters of those decided before are the widths
//! of the few that still share a term with one to come, the *frontier* (none with protocol `Inner` on CIFAR ResNets,
//! one on a chain such as VGG). Lagrangian relaxation over these states gives a lower bound for every partial
//! allocation, and dynamic programming over pairs (cost, error) keeps only what that bound leaves a chance: the
//! result is the optimum, not an approximation. Where the frontier is too large for a table the widths are first
//! chosen coarsely, then finely around the choice; where it is far too large (dense concatenations) by descent.
//! [`Allocation::lower_bound`] says what is proven.
//!
//! Several bounds hold at once: a bound on peak memory forbids states, in the same tables; one on MACs and one on
//! parameters get a price each, and the dynamic programming keeps triples (cost, cost, error). What is returned is
//! always within every bound. It is the optimum as long as the triples are few enough (2^18 behind a decision);
//! beyond, it is at most the distance to [`Allocation::lower_bound`] away from it.
//!
//! Words are explained in [`secateur_net::glossary`].
//!
//! # Example
//! ```
//! use secateur_alloc::{Allocator, GroupCurve};
//! use secateur_net::{ChannelGroups, Cost, CostModel, Protocol, Shape, arch};
//!
//! let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
//! let groups = ChannelGroups::derive(&graph, Protocol::Inner);
//! let model = CostModel::new(&graph, &groups);
//! // Every removed channel costs as much error as any other of its group.
//! let curve = |group| {
//!     let n = groups.group(group).n_channels;
//!     GroupCurve { group, widths: (1..=n).collect(), errors: (1..=n).map(|w| 1.0 - w as f64 / n as f64).collect() }
//! };
//! let curves: Vec<GroupCurve> = groups.prunable().into_iter().map(curve).collect();
//! let allocation = Allocator::new(&groups, &model, &curves, &[Cost::Macs])?.within(&[(Cost::Macs, 20_275_520)])?;
//! assert!(allocation.costs[0] <= 20_275_520 && model.count(Cost::Macs, &allocation.widths) == allocation.costs[0]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod allocator;
mod costs;
mod descent;
mod error;
mod instance;
mod labels;
mod order;
mod prices;
mod relaxation;

#[cfg(doc)]
use secateur_net::CostModel;

pub use allocator::{Allocation, Allocator, GroupCurve};
pub use error::AllocError;
