//! Classes with the same footprint, as groups.

use std::collections::HashMap;

use super::{DocumentLabels, LabelArray, ParameterUse};
use crate::OnnxError;
use crate::names::node_name;

/// Channels that share a footprint and are removed one by one, each everywhere at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentGroup {
    /// Name of the first node that produces it, or of its output where the node has none.
    pub name: String,
    /// Channels in the unpruned network.
    pub n_channels: usize,
    /// Why it may not be pruned.
    pub frozen: Option<String>,
    /// Nodes whose filters belong to it, by number.
    pub producers: Vec<usize>,
}

/// A node that channels cannot be followed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenNode {
    /// Its number in the graph.
    pub node: usize,
    /// Its name, which may be empty.
    pub name: String,
    /// Its operation.
    pub operation: String,
    /// Why.
    pub reason: String,
}

/// All groups of a document, in the order of their first producers, and where their channels are.
#[derive(Clone, Debug)]
pub struct DocumentGroups {
    groups: Vec<DocumentGroup>,
    frozen_nodes: Vec<FrozenNode>,
    /// By label, its group and which channel of it.
    slots: Vec<DocumentChannel>,
    arrays: HashMap<String, LabelArray>,
    uses: Vec<ParameterUse>,
}

/// A channel of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DocumentChannel {
    /// Its group.
    pub group: usize,
    /// Which of the group's channels.
    pub channel: usize,
}

/// Of every group, which channels stay.
pub type KeptFlags = Vec<Vec<bool>>;

impl DocumentGroups {
    /// The groups.
    pub fn groups(&self) -> &[DocumentGroup] {
        &self.groups
    }

    /// Nodes that channels cannot be followed through.
    pub fn frozen_nodes(&self) -> &[FrozenNode] {
        &self.frozen_nodes
    }

    /// Everything.
    pub fn keep_all(&self) -> KeptFlags {
        self.groups.iter().map(|group| vec![true; group.n_channels]).collect()
    }

    /// The channels along a value's channel axis, one for each place; none of a value whose channels are not followed.
    pub fn channels(&self, value: &str) -> Option<Vec<DocumentChannel>> {
        let array = self.arrays.get(value)?;
        let of = |&label: &u32| self.slots[label as usize];
        Some(array.iter().map(of).collect())
    }

    pub(crate) fn uses(&self) -> &[ParameterUse] {
        &self.uses
    }

    pub(crate) fn array(&self, value: &str) -> Option<&LabelArray> {
        self.arrays.get(value)
    }

    /// Whether the channel of a label stays.
    pub(crate) fn is_kept(&self, label: u32, kept: &KeptFlags) -> bool {
        let DocumentChannel { group, channel } = self.slots[label as usize];
        kept[group][channel]
    }
}

/// Several groups of one producer get a number.
fn number_names(groups: &mut [DocumentGroup]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for group in groups {
        let n = seen.entry(group.name.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            group.name = format!("{}#{n}", group.name);
        }
    }
}

/// What the channels of a group have in common.
type Footprint = (Vec<(u32, u32)>, Option<String>);

impl DocumentLabels<'_> {
    /// Freezes what leaves the network, and puts classes into groups.
    pub(super) fn finish(mut self) -> Result<DocumentGroups, OnnxError> {
        for output in &self.document.graph().output {
            if let Some(labels) = self.arrays.get(output.name()) {
                self.classes.freeze(labels.iter().copied(), "network output");
            }
        }
        let n = self.classes.len();
        let roots: Vec<u32> = (0..n as u32).map(|label| self.classes.root(label)).collect();
        let footprints = self.footprints(&roots);
        let mut first_producer: HashMap<u32, usize> = HashMap::new();
        for &(node, label) in &self.produced {
            first_producer.entry(roots[label as usize]).or_insert(node);
        }
        let mut groups: Vec<DocumentGroup> = Vec::new();
        let mut known: HashMap<Footprint, usize> = HashMap::new();
        let mut slots = vec![DocumentChannel { group: 0, channel: 0 }; n];
        for root in (0..n as u32).filter(|&label| roots[label as usize] == label) {
            let reason = self.classes.reason(root).map(str::to_owned);
            let key = (footprints[root as usize].clone(), reason);
            let group = *known.entry(key).or_insert(groups.len());
            if group == groups.len() {
                groups.push(self.describe(root, first_producer.get(&root).copied()));
            }
            slots[root as usize] = DocumentChannel { group, channel: groups[group].n_channels };
            groups[group].n_channels += 1;
        }
        for &(node, label) in &self.produced {
            let producers = &mut groups[slots[roots[label as usize] as usize].group].producers;
            if producers.last() != Some(&node) {
                producers.push(node);
            }
        }
        groups.iter_mut().for_each(|group| {
            if group.n_channels == 1 {
                group.frozen.get_or_insert_with(|| "is a single channel".to_owned());
            }
            group.producers.sort_unstable();
            group.producers.dedup();
        });
        number_names(&mut groups);
        for label in 0..n {
            slots[label] = slots[roots[label] as usize];
        }
        let Self { arrays, uses, frozen_nodes, .. } = self;
        Ok(DocumentGroups { groups, frozen_nodes, slots, arrays, uses })
    }

    /// By root, the tensors that a class has places in, and how many.
    fn footprints(&self, roots: &[u32]) -> Vec<Vec<(u32, u32)>> {
        let mut footprints: Vec<Vec<(u32, u32)>> = vec![Vec::new(); roots.len()];
        for (tensor, value) in self.order.iter().enumerate() {
            for &label in &self.arrays[value] {
                let footprint = &mut footprints[roots[label as usize] as usize];
                match footprint.last_mut() {
                    Some((last, n)) if *last == tensor as u32 => *n += 1,
                    _ => footprint.push((tensor as u32, 1)),
                }
            }
        }
        footprints
    }

    fn describe(&self, root: u32, producer: Option<usize>) -> DocumentGroup {
        let name = producer.map_or_else(String::new, |number| {
            let node = &self.document.graph().node[number];
            match (node.name(), node.output.first()) {
                ("", Some(output)) => output.clone(),
                ("", None) => node_name(number, node),
                (name, _) => name.to_owned(),
            }
        });
        let frozen = self.classes.reason(root).map(str::to_owned);
        DocumentGroup { name, n_channels: 0, frozen, producers: Vec::new() }
    }
}
