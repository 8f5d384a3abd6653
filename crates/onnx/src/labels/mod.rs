//! Channel groups of a document: which channels must be removed together, found by following labels through every
//! operation.
//!
//! Every place of every tensor has a label, kept as an array of the tensor's own rank. Convolutions and products start
//! new labels, operations that combine elements join them, operations that move elements move labels the same way, and
//! what is not known freezes what enters it. A *channel* is a class of joined labels; channels with the same footprint
//! (as many places in the same tensors) form a group, of which any subset may be removed.

mod arrays;
mod classes;
mod combine;
mod follow;
mod groups;
mod parameters;
mod reshape;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

pub(crate) use arrays::{LabelArray, varying};
pub(crate) use classes::Classes;
pub use groups::{DocumentChannel, DocumentGroup, DocumentGroups, FrozenNode, KeptFlags};
pub(crate) use parameters::{ParameterUse, RowLabels};

use crate::constants::Constants;
use crate::document::OnnxDocument;
use crate::facts::Facts;
use crate::names::captured;

/// Labels while they are followed.
struct DocumentLabels<'a> {
    document: &'a OnnxDocument,
    facts: &'a Facts,
    classes: Classes,
    constants: Constants<'a>,
    /// Values that graphs within nodes read: parameters among them stay whole.
    captured: BTreeSet<&'a str>,
    /// By value, in the order in which the values are made.
    arrays: HashMap<String, LabelArray>,
    order: Vec<String>,
    /// Values that are computed from shapes when the network runs, and the tensors whose shapes those are.
    of_shapes: HashMap<String, BTreeSet<String>>,
    /// By source and axis, the labels of parameters with several axes: two uses of one parameter lose the same rows.
    parameters: HashMap<String, Vec<RowLabels>>,
    uses: Vec<ParameterUse>,
    frozen_nodes: Vec<FrozenNode>,
    /// Labels of all arrays together.
    n_places: usize,
    /// Labels that nodes start.
    produced: Vec<Started>,
}

/// Labels that a node starts.
struct Started {
    node: usize,
    labels: Range<u32>,
}

/// Follows labels through the whole document.
pub(crate) fn follow(document: &OnnxDocument, facts: &Facts) -> DocumentGroups {
    let mut labels = DocumentLabels {
        document,
        facts,
        classes: Classes::default(),
        constants: Constants::new(document, facts),
        captured: document.graph().node.iter().flat_map(captured).collect(),
        arrays: HashMap::new(),
        order: Vec::new(),
        of_shapes: HashMap::new(),
        parameters: HashMap::new(),
        uses: Vec::new(),
        frozen_nodes: Vec::new(),
        produced: Vec::new(),
        n_places: 0,
    };
    labels.start();
    for (number, node) in document.graph().node.iter().enumerate() {
        labels.node(number, node);
    }
    labels.finish()
}

impl DocumentGroups {
    /// Derives the groups of a document; what cannot be followed is in [`DocumentGroups::frozen_nodes`].
    pub fn of(document: &OnnxDocument, facts: &Facts) -> Self {
        follow(document, facts)
    }
}
