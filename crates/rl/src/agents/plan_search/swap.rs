//! Swaps of width between groups, which keep to the budget.

use super::below;
use crate::rng::RngStream;
use crate::task_plan::TaskPlan;

/// Pairs of groups that are tried for one swap.
const PAIRS_MAX: usize = 16;
/// A swap moves between these shares of a group's channels, 2 to the power of minus so much.
const STEP_LOG2: [f64; 2] = [3.0, 6.0];

/// One swap or several: as many as the smaller of two dice of `most` sides shows.
pub(crate) fn swapped(task: &TaskPlan, widths: &mut [usize], most: usize, rng: &mut RngStream) {
    let n_swaps = 1 + below(rng, most).min(below(rng, most));
    (0..n_swaps).for_each(|_| swap(task, widths, rng));
}

/// Takes width from one group and gives another what the budget then allows. Where one step down does not pay for one
/// step up, the first group gives as much as the other's step costs. Nothing where no pair can swap.
fn swap(task: &TaskPlan, widths: &mut [usize], rng: &mut RngStream) {
    let n = widths.len();
    let groups = &task.widths.groups;
    for _ in 0..PAIRS_MAX {
        let (down, up) = (below(rng, n), below(rng, n));
        let share = libm::exp2(-(STEP_LOG2[0] + (STEP_LOG2[1] - STEP_LOG2[0]) * rng.uniform()));
        let (allowed_down, allowed_up) = (&groups[down].allowed, &groups[up].allowed);
        let (from, to) = (level(allowed_down, widths[down]), level(allowed_up, widths[up]));
        if down == up || from == 0 || to + 1 == allowed_up.len() {
            continue;
        }
        let before = [widths[down], widths[up]];
        let fewer = widths[down] as f64 - (share * groups[down].n_channels as f64).max(1.0);
        let mut lower = level(allowed_down, groups[down].nearest(fewer)).min(from - 1);
        widths[up] = allowed_up[to + 1];
        loop {
            widths[down] = allowed_down[lower];
            if task.widths.fits(widths) || lower == 0 {
                break;
            }
            lower -= 1;
        }
        if !task.widths.fits(widths) {
            (widths[down], widths[up]) = (before[0], before[1]);
            continue;
        }
        let fits = |&width: &usize| {
            widths[up] = width;
            task.widths.fits(widths)
        };
        let n_fit = allowed_up[to + 1..].partition_point(fits);
        widths[up] = allowed_up[to + n_fit];
        return;
    }
}

fn level(allowed: &[usize], width: usize) -> usize {
    allowed.partition_point(|&w| w < width).min(allowed.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_plan::hand_made;

    #[test]
    fn a_swap_gives_what_it_takes_wherever_that_is_possible() {
        // A step of the second group costs as much as eight of the first.
        let plan = hand_made::curved(&[16, 4], &[1, 8], 24);
        for seed in 0..200 {
            let mut rng = RngStream::new(seed, 0, 0, 0);
            let mut widths = vec![8, 2];
            swap(&plan, &mut widths, &mut rng);
            assert!(matches!(widths[..], [16, 1] | [..1, _]) || widths == [8, 2], "{widths:?}");
            assert!(plan.widths.fits(&widths));
        }
        let mut alone = vec![3];
        swap(&hand_made::curved(&[4], &[1], 3), &mut alone, &mut RngStream::new(1, 0, 0, 0));
        assert_eq!(alone, [3], "one group alone has none to swap with");
    }
}
