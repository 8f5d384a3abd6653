//! Classes with the same footprint, as groups.

use std::collections::HashMap;

use super::{DocumentLabels, LabelArray, ParameterUse};
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

/// Producers once each; a single channel stays; several groups of one producer get a number.
fn finish_groups(groups: &mut [DocumentGroup]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for group in groups {
        group.producers.sort_unstable();
        group.producers.dedup();
        if group.n_channels == 1 {
            group.frozen.get_or_insert_with(|| "is a single channel".to_owned());
        }
        let n = seen.entry(group.name.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            group.name = format!("{}#{n}", group.name);
        }
    }
}

/// Of every class, the tensors that it has places in and how many, one class behind the other.
struct ClassFootprints {
    /// By root, where its entries end; they begin where those of the label before end.
    ends: Vec<u32>,
    entries: Vec<FootprintEntry>,
}

/// How many places of a tensor belong to a class.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct FootprintEntry {
    tensor: u32,
    places: u32,
}

impl ClassFootprints {
    fn new(roots: &[u32], tensors: &[&LabelArray]) -> Self {
        // Tensor and root of every place, tensors in order.
        let places = || {
            let root = |&label: &u32| roots[label as usize] as usize;
            (0..tensors.len())
                .flat_map(move |tensor| tensors[tensor].iter().map(move |label| (tensor as u32, root(label))))
        };
        let mut last = vec![u32::MAX; roots.len()];
        let mut ends = vec![0; roots.len()];
        for (tensor, root) in places() {
            ends[root] += u32::from(std::mem::replace(&mut last[root], tensor) != tensor);
        }
        let mut sum = 0;
        // For now where the entries begin.
        ends.iter_mut().for_each(|end| sum += std::mem::replace(end, sum));
        let mut entries = vec![FootprintEntry::default(); sum as usize];
        last.fill(u32::MAX);
        for (tensor, root) in places() {
            if std::mem::replace(&mut last[root], tensor) != tensor {
                entries[ends[root] as usize].tensor = tensor;
                ends[root] += 1;
            }
            entries[ends[root] as usize - 1].places += 1;
        }
        Self { ends, entries }
    }

    fn of(&self, root: u32) -> &[FootprintEntry] {
        let start = if root == 0 { 0 } else { self.ends[root as usize - 1] };
        &self.entries[start as usize..self.ends[root as usize] as usize]
    }
}

impl DocumentLabels<'_> {
    /// Freezes what leaves the network, and puts classes into groups: those of the same footprint and reason.
    pub(super) fn finish(mut self) -> DocumentGroups {
        for output in &self.document.graph().output {
            if let Some(labels) = self.arrays.get(output.name()) {
                self.classes.freeze(labels.iter().copied(), "network output");
            }
        }
        let n = self.classes.len();
        let roots: Vec<u32> = (0..n as u32).map(|label| self.classes.root(label)).collect();
        let tensors: Vec<&LabelArray> = self.order.iter().map(|value| &self.arrays[value]).collect();
        let footprints = ClassFootprints::new(&roots, &tensors);
        let mut first_producer: Vec<Option<u32>> = vec![None; n];
        for made in &self.produced {
            for label in made.labels.clone() {
                first_producer[roots[label as usize] as usize].get_or_insert(made.node as u32);
            }
        }
        let mut groups: Vec<DocumentGroup> = Vec::new();
        let mut known: HashMap<(&[FootprintEntry], Option<&str>), usize> = HashMap::new();
        let mut slots = vec![DocumentChannel { group: 0, channel: 0 }; n];
        for root in (0..n as u32).filter(|&label| roots[label as usize] == label) {
            let key = (footprints.of(root), self.classes.reason(root));
            let group = *known.entry(key).or_insert(groups.len());
            if group == groups.len() {
                groups.push(self.describe(root, first_producer[root as usize].map(|node| node as usize)));
            }
            slots[root as usize] = DocumentChannel { group, channel: groups[group].n_channels };
            groups[group].n_channels += 1;
        }
        for made in &self.produced {
            for label in made.labels.clone() {
                let producers = &mut groups[slots[roots[label as usize] as usize].group].producers;
                if producers.last() != Some(&made.node) {
                    producers.push(made.node);
                }
            }
        }
        finish_groups(&mut groups);
        for label in 0..n {
            slots[label] = slots[roots[label] as usize];
        }
        let Self { arrays, uses, frozen_nodes, .. } = self;
        DocumentGroups { groups, frozen_nodes, slots, arrays, uses }
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
