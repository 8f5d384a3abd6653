//! Where the values of a training step lie: those that outlive a phase in memory of each group of images, the others in
//! memory of each thread. Values that are not needed at the same time share it.

use crate::grad::program::{Instruction, ValueId};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValuePlace {
    /// This buffer of its group of images.
    Group(usize),
    /// This buffer of the thread that works on the group.
    Worker(usize),
}

/// The places of all values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    /// By value.
    pub places: Vec<Option<ValuePlace>>,
    /// Lengths of a group's buffers, for one image.
    pub group_lens: Vec<usize>,
    /// Of a thread's.
    pub worker_lens: Vec<usize>,
}

impl Placement {
    /// Of the values that `instructions`, which stand in order of phases, read and write; `lens` are their lengths.
    pub(crate) fn new(instructions: &[Instruction], lens: &[usize]) -> Self {
        let mut last_read = vec![0; lens.len()];
        let mut phases = vec![(usize::MAX, 0); lens.len()];
        for (at, instruction) in instructions.iter().enumerate() {
            for &value in instruction.reads.iter().chain(&instruction.write) {
                last_read[value] = at;
                let (first, last) = phases[value];
                phases[value] = (first.min(instruction.phase), last.max(instruction.phase));
            }
        }
        let mut placement = Self { places: vec![None; lens.len()], ..Self::default() };
        let mut free = [Vec::new(), Vec::new()];
        for (at, instruction) in instructions.iter().enumerate() {
            if let Some(value) = instruction.write.filter(|&value| placement.places[value].is_none()) {
                let outlives_phase = phases[value].0 < phases[value].1;
                placement.place(value, lens[value], outlives_phase, &mut free);
            }
            let mut done: Vec<ValueId> = instruction.reads.iter().chain(&instruction.write).copied().collect();
            done.sort_unstable();
            done.dedup();
            for value in done.into_iter().filter(|&value| last_read[value] == at) {
                match placement.places[value] {
                    Some(ValuePlace::Group(slot)) => free[0].push(slot),
                    Some(ValuePlace::Worker(slot)) => free[1].push(slot),
                    None => {}
                }
            }
        }
        placement
    }

    /// Gives `value` the smallest free buffer that holds it, else the largest that there is, grown.
    fn place(&mut self, value: ValueId, len: usize, outlives_phase: bool, free: &mut [Vec<usize>; 2]) {
        let (lens, free) =
            if outlives_phase { (&mut self.group_lens, &mut free[0]) } else { (&mut self.worker_lens, &mut free[1]) };
        let fitting = (0..free.len()).filter(|&i| lens[free[i]] >= len).min_by_key(|&i| lens[free[i]]);
        let best = fitting.or_else(|| (0..free.len()).max_by_key(|&i| lens[free[i]]));
        let slot = best.map_or_else(
            || {
                lens.push(0);
                lens.len() - 1
            },
            |i| free.swap_remove(i),
        );
        lens[slot] = lens[slot].max(len);
        self.places[value] = Some(if outlives_phase { ValuePlace::Group(slot) } else { ValuePlace::Worker(slot) });
    }
}
