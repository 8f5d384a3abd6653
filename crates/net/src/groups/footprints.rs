//! In which tensors the channels of a class lie.

use super::labels::AxisLabels;

/// Of every class, the tensors it has positions in and how many, in graph order.
pub(super) struct Footprints {
    /// By root, where its entries end; they begin where those of the root before end.
    ends: Vec<u32>,
    entries: Vec<(u32, u32)>,
}

impl Footprints {
    pub(super) fn new(roots: &[u32], tensors: &[AxisLabels]) -> Self {
        let mut ends = vec![0; roots.len()];
        let mut last = vec![u32::MAX; roots.len()];
        for (node, root) in positions(roots, tensors) {
            ends[root] += u32::from(std::mem::replace(&mut last[root], node) != node);
        }
        let mut sum = 0;
        for end in &mut ends {
            // For now where the entries begin.
            sum += std::mem::replace(end, sum);
        }
        let mut entries = vec![(0, 0); sum as usize];
        last.fill(u32::MAX);
        for (node, root) in positions(roots, tensors) {
            if std::mem::replace(&mut last[root], node) != node {
                entries[ends[root] as usize] = (node, 0);
                ends[root] += 1;
            }
            entries[ends[root] as usize - 1].1 += 1;
        }
        Self { ends, entries }
    }

    pub(super) fn of(&self, root: usize) -> &[(u32, u32)] {
        let start = if root == 0 { 0 } else { self.ends[root - 1] };
        &self.entries[start as usize..self.ends[root] as usize]
    }
}

/// Tensor and root of every channel position, tensors in order.
fn positions<'a>(roots: &'a [u32], tensors: &'a [AxisLabels]) -> impl Iterator<Item = (u32, usize)> + 'a {
    let of_tensor = |(node, axis): (usize, &'a AxisLabels)| axis.iter().map(move |&l| (node as u32, l as usize));
    tensors.iter().enumerate().flat_map(of_tensor).map(|(node, label)| (node, roots[label] as usize))
}
