//! Linear maps with too many inputs for normal equations, whose matrix grows with the square of the inputs and the time
//! to factor it with the cube: a Linear node behind a Flatten of 512 maps of 7x7 pixels would take 5 GB and minutes a
//! refit.
//!
//! Such a map, and any with fewer rows than columns, is refitted from no more rows than it has inputs (see
//! `problem/wide.rs`), and the channels that it reads are ranked by what they add to its outputs (see
//! `contributions.rs`).

use std::collections::BTreeSet;

use secateur_net::{ChannelGroups, Graph, NodeId};

use crate::LinearMap;

/// Most columns of normal equations, the intercept included: 302 MB of f64. A 3x3 convolution of 682 channels has as
/// many.
const COLUMNS_MAX: usize = 6_144;
/// Memory that the normal equations of all maps of one network may take together; past it the widest of them do
/// without.
const EQUATIONS_BYTES: u64 = 4 << 30;
/// Most rows of a wide map's problem: their products with each other take 134 MB of f64.
const ROWS_MAX: usize = 4_096;
/// Memory for the rows of a wide map's problem, f32.
const ROWS_BYTES: usize = 512 << 20;
/// Fewest rows, however wide the map is: one vector of images.
const ROWS_MIN: usize = 16;

/// The nodes of `graph` whose linear maps are too wide for normal equations. It depends on nothing but the graph, so
/// that results do not depend on the machine's memory.
///
/// # Example
/// ```
/// use secateur_kernels::wide_nodes;
/// use secateur_net::{ChannelGroups, Protocol, Shape, arch};
///
/// let graph = arch::build("vgg16", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// assert!(wide_nodes(&graph, &ChannelGroups::derive(&graph, Protocol::Inner)).is_empty());
/// # Ok::<_, secateur_net::NetError>(())
/// ```
pub fn wide_nodes(graph: &Graph, groups: &ChannelGroups) -> BTreeSet<NodeId> {
    let mut wide = BTreeSet::new();
    // Columns and bytes of the maps whose equations are gathered.
    let mut gathered: Vec<(usize, NodeId, u64)> = Vec::new();
    for node in 1..graph.nodes().len() {
        let columns: Vec<usize> = LinearMap::of(graph, node).iter().map(LinearMap::columns).collect();
        let Some(&widest) = columns.iter().max() else { continue };
        if widest > COLUMNS_MAX {
            wide.insert(node);
        } else if reads_prunable(graph, groups, node) {
            gathered.push((widest, node, columns.iter().map(|&d| 8 * (d * d) as u64).sum()));
        }
    }
    gathered.sort_unstable();
    let mut total: u64 = gathered.iter().map(|(.., bytes)| bytes).sum();
    while total > EQUATIONS_BYTES
        && let Some((_, node, bytes)) = gathered.pop()
    {
        wide.insert(node);
        total -= bytes;
    }
    wide
}

/// Whether normal equations of `n_columns` columns from all pixels of all images would be those of more unknowns than
/// rows: then the space of the rows is the smaller one, and equations of no more rank than there are rows would drown
/// in rounding.
pub(crate) const fn has_few_rows(n_columns: usize, n_images: usize, n_pixels: usize) -> bool {
    n_images.saturating_mul(n_pixels) < n_columns
}

/// Whether `node` reads a channel that may be removed.
pub(crate) fn reads_prunable(graph: &Graph, groups: &ChannelGroups, node: NodeId) -> bool {
    let source = graph.node(node).inputs.first();
    source.is_some_and(|&i| groups.axis(i).iter().any(|s| groups.group(s.group).frozen.is_none()))
}

/// Most rows of a wide problem of `n_columns` columns.
pub fn wide_rows_max(n_columns: usize) -> usize {
    (ROWS_BYTES / (4 * n_columns.max(1))).clamp(ROWS_MIN, ROWS_MAX)
}

/// Bytes that a refit from `n_rows` rows takes beside activations and weights: the rows in f32, their products with
/// each other as they are summed, put together and factored, and what is known of every row's outputs, in f64.
pub const fn wide_refit_bytes(n_rows: usize, n_columns: usize, n_outputs: usize) -> usize {
    n_rows * (4 * n_columns + 20 * n_rows + 72 * n_outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Op, Protocol, Shape};

    fn wide_of(flattened: usize, n_convs: usize, channels: usize) -> BTreeSet<NodeId> {
        let mut builder = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
        let mut last = builder.push("first", Op::Conv2d(Conv2d::square(3, channels, 1, 1, 0)), &[0]);
        for i in 0..n_convs {
            last = builder.push(format!("c{i}"), Op::Conv2d(Conv2d::square(channels, channels, 3, 1, 1)), &[last]);
        }
        last = builder.push("wide", Op::Conv2d(Conv2d::square(channels, flattened, 1, 1, 0)), &[last]);
        builder.push("fc", Op::Linear { in_features: flattened, out_features: 10, bias: true }, &[last]);
        let graph = builder.finish().unwrap();
        wide_nodes(&graph, &ChannelGroups::derive(&graph, Protocol::Inner))
    }

    #[test]
    fn a_map_is_wide_from_the_documented_number_of_columns_on() {
        assert!(wide_of(COLUMNS_MAX - 1, 0, 4).is_empty());
        assert_eq!(wide_of(COLUMNS_MAX, 0, 4), BTreeSet::from([3]));
    }

    #[test]
    fn of_many_maps_the_widest_are_wide_until_the_others_fit_in_memory() {
        // 30 equations of 4,609 columns are 5.1 GB, 25 are 4.25 * 10^9 bytes and fit.
        assert_eq!(wide_of(100, 25, 512), BTreeSet::new());
        assert_eq!(wide_of(100, 30, 512), BTreeSet::from_iter(27..32));
    }

    #[test]
    fn rows_are_bounded_by_their_number_and_their_memory() {
        assert_eq!(wide_rows_max(16_385), ROWS_MAX);
        assert_eq!(wide_rows_max(100_000), 1_342);
        assert_eq!(wide_rows_max(usize::MAX / 8), ROWS_MIN);
    }
}
