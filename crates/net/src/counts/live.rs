//! Which tensors are in memory at the same time.

use std::collections::BTreeMap;

use super::CostModel;
use crate::{GroupId, NodeId};

impl CostModel {
    /// Bytes of live activations while each node is computed, as sums: for every group on the axis of a live tensor,
    /// the bytes that one of its channels takes. [`crate::Cost::ActivationBytes`] is the largest of these sums.
    ///
    /// # Example
    /// ```
    /// use secateur_net::{ChannelGroups, Cost, CostModel, Protocol, Shape, arch};
    ///
    /// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
    /// let groups = ChannelGroups::derive(&graph, Protocol::Full);
    /// let model = CostModel::new(&graph, &groups);
    /// let widths = groups.full_widths();
    /// let bytes = |live: &Vec<(usize, u64)>| live.iter().map(|&(group, bytes)| bytes * widths[group] as u64).sum();
    /// let peak: Option<u64> = model.live_bytes().iter().map(bytes).max();
    /// assert_eq!(peak, Some(model.count(Cost::ActivationBytes, &widths)));
    /// # Ok::<_, secateur_net::NetError>(())
    /// ```
    pub fn live_bytes(&self) -> Vec<Vec<(GroupId, u64)>> {
        let mut live: BTreeMap<GroupId, u64> = BTreeMap::new();
        let add = |live: &mut BTreeMap<GroupId, u64>, node: NodeId, is_added: bool| {
            for &(group, n) in &self.nodes[node].channels {
                let (bytes, now) = (4 * n as u64 * self.nodes[node].pixels, live.entry(group).or_insert(0));
                *now = if is_added { *now + bytes } else { *now - bytes };
            }
        };
        add(&mut live, 0, true);
        let mut out = vec![live.clone()];
        for id in 1..self.nodes.len() {
            if self.is_in_place(id) {
                continue;
            }
            add(&mut live, id, true);
            out.push(live.clone());
            self.freed_by(id).into_iter().for_each(|tensor| add(&mut live, tensor, false));
        }
        let nonzero = |live: BTreeMap<GroupId, u64>| live.into_iter().filter(|&(_, bytes)| bytes > 0).collect();
        out.into_iter().map(nonzero).collect()
    }
}
