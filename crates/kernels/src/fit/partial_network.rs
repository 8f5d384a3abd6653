//! The half-pruned network of a sequential refit on its way through the graph.

use std::collections::BTreeSet;

use secateur_net::{ChannelGroups, GroupId, KeptChannels, Network, NodeId, prune};

use crate::KernelError;

/// What is kept and refitted so far.
pub(crate) struct PartialNetwork<'a> {
    original: &'a Network,
    groups: &'a ChannelGroups,
    /// Widths to reach.
    pub widths: Vec<usize>,
    /// Channels present: all of a pending group, the chosen ones of others.
    pub kept: KeptChannels,
    /// Groups whose channels are chosen at their consumer.
    pending: BTreeSet<GroupId>,
    /// Full-size network whose refitted weights stand at the positions of the channels they belong to.
    pub work: Network,
    /// `work` without the channels that are not present.
    pub compact: Network,
    /// Nodes whose output differs from the original's.
    changed: Vec<bool>,
}

impl<'a> PartialNetwork<'a> {
    /// Nothing refitted yet. The channels of groups with one consumer for which `reselects` are still to be chosen.
    ///
    /// # Errors
    /// Kept sets of another network.
    pub(crate) fn new(
        original: &'a Network,
        groups: &'a ChannelGroups,
        target: &KeptChannels,
        reselects: impl Fn(GroupId) -> bool,
    ) -> Result<Self, KernelError> {
        let target = KeptChannels::new(groups, target.lists().to_vec())?;
        let all = KeptChannels::all(groups);
        let widths = target.widths();
        let pending: BTreeSet<GroupId> = (0..widths.len())
            .filter(|&g| widths[g] < all.group(g).len() && groups.group(g).consumers.len() == 1 && reselects(g))
            .collect();
        let mut kept = target;
        pending.iter().for_each(|&g| kept.set(g, all.group(g).to_vec()));
        let compact = prune(original, groups, &kept)?;
        let changed = vec![false; original.graph().nodes().len()];
        Ok(Self { original, groups, widths, kept, pending, work: original.clone(), compact, changed })
    }

    /// Positions (of the unpruned node's output) that are present.
    pub(crate) fn positions(&self, node: NodeId) -> Vec<usize> {
        self.kept.positions(self.groups, node)
    }

    /// Whether the first input of `node` differs from the original's, or is about to.
    pub(crate) fn reads_changed(&self, node: NodeId) -> bool {
        let source = self.original.graph().node(node).inputs[0];
        self.changed[source] || !self.pending_in(source).is_empty()
    }

    /// Whether channels of the output of `node` are gone.
    pub(crate) fn loses_channels(&self, node: NodeId) -> bool {
        self.positions(node).len() < self.groups.axis(node).len()
    }

    /// Notes whether the output of `node` differs from the original's.
    pub(crate) fn note_changed(&mut self, node: NodeId, refitted: bool) {
        let removed = self.loses_channels(node);
        let inputs = &self.original.graph().node(node).inputs;
        self.changed[node] = refitted || removed || inputs.iter().any(|&i| self.changed[i]);
    }

    /// Groups on the axis of `source` whose channels are still to be chosen.
    pub(crate) fn pending_in(&self, source: NodeId) -> Vec<GroupId> {
        let there: BTreeSet<GroupId> = self.groups.axis(source).iter().map(|s| s.group).collect();
        there.intersection(&self.pending).copied().collect()
    }

    /// Settles the channels of a pending group.
    pub(crate) fn choose(&mut self, group: GroupId, channels: Vec<usize>) {
        self.kept.set(group, channels);
        self.pending.remove(&group);
    }

    /// Brings `compact` up to date with `work` and `kept`.
    ///
    /// # Errors
    /// None: the kept sets were checked.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        self.compact = prune(&self.work, self.groups, &self.kept)?;
        Ok(())
    }
}
