//! In which order every prunable group loses its channels.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use secateur_kernels::{ChannelSpan, Reader, RemovalPath, eliminate};
use secateur_net::GroupId;

use super::criterion::{Criterion, RankedGroup};
use crate::caught::panic_message;
use crate::error::SimError;

/// How channels are ranked.
pub(super) struct Ranking<'a> {
    pub(super) pool: &'a rayon::ThreadPool,
    pub(super) network_name: &'a str,
    /// None for backward elimination.
    pub(super) criterion: Option<&'a dyn Criterion>,
    /// Orders that were worked out elsewhere.
    pub(super) known: &'a HashMap<GroupId, Vec<usize>>,
}

impl Ranking<'_> {
    /// The removal path of every prunable group, in walk order; `of` is the first of them. Each goes down to
    /// `n_kept_min(channels)`.
    pub(super) fn paths(
        &self,
        of: RankedGroup<'_>,
        n_kept_min: impl Fn(usize) -> usize,
        mut progress: impl FnMut(f64),
    ) -> Result<Vec<Arc<RemovalPath>>, SimError> {
        let order = of.groups.prunable();
        let mut paths = Vec::with_capacity(order.len());
        for (place, &group) in order.iter().enumerate() {
            progress(place as f64 / order.len() as f64);
            let of = RankedGroup { group, place, ..of };
            let removal = self.order(&of)?;
            let n = of.n_channels();
            let path = eliminate(self.pool, &readers(&of), n, n_kept_min(n), removal.as_deref());
            let path = path.map_err(|source| SimError::ErrorCurve {
                network: self.network_name.to_owned(),
                group: of.groups.group(group).name.clone(),
                source: Box::new(source),
            })?;
            paths.push(Arc::new(path));
        }
        Ok(paths)
    }

    /// The channels of a group, the first to go first; none where elimination finds out.
    fn order(&self, of: &RankedGroup<'_>) -> Result<Option<Vec<usize>>, SimError> {
        let Some(criterion) = self.criterion else { return Ok(None) };
        if let Some(known) = self.known.get(&of.group) {
            return Ok(Some(known.clone()));
        }
        let fail = |what: String| SimError::Criterion {
            criterion: criterion.name().to_owned(),
            network: self.network_name.to_owned(),
            layer: of.groups.group(of.group).name.clone(),
            what,
        };
        let importance = catch_unwind(AssertUnwindSafe(|| criterion.importance(of)))
            .unwrap_or_else(|payload| Err(format!("it panicked: {}", panic_message(&*payload))))
            .map_err(fail)?;
        let n = of.n_channels();
        if importance.len() != n || importance.iter().any(|x| x.is_nan()) {
            return Err(fail(format!("expected a number for each of {n} channels, got {importance:?}")));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| importance[a].total_cmp(&importance[b]).then(b.cmp(&a)));
        Ok(Some(order))
    }
}

/// The linear maps that read the group.
fn readers<'a>(of: &RankedGroup<'a>) -> Vec<Reader<'a>> {
    let (n, group, groups) = (of.n_channels(), of.group, of.groups);
    let of_equations = of.calibration.equations.iter().filter_map(|equations| {
        let axis = groups.axis(of.network.graph().node(equations.map.node).inputs[0]);
        let ChannelSpan { first: from, len } = equations.map.inputs;
        axis[from..from + len]
            .iter()
            .any(|s| s.group == group)
            .then(|| Reader::new(equations, |p| (axis[p].group == group).then_some(axis[p].channel), n))
    });
    let of_wide = of.calibration.contributions.iter().filter(|c| c.channels.iter().any(|slot| slot.group == group));
    of_equations.chain(of_wide.map(|c| Reader::of_contributions(c, group, n))).collect()
}
