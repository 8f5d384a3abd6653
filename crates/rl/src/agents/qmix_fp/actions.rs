//! What the actions of an agent make of the width of its group, and which of them are available.

use super::settings::TeamActions;
use crate::task_plan::TaskPlan;

/// Errors below this are none: their logarithms say nothing.
const ERROR_MIN: f64 = 1e-5;

/// The choices of one group's agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AgentChoices {
    /// Of the levels, ascending; empty for removals.
    levels: Vec<usize>,
    /// Allowed widths, ascending, up to the largest that the budget leaves where all other groups have their least.
    affordable: Vec<usize>,
    /// Shares removed; empty for levels.
    removals: Vec<f64>,
    allowed: Vec<usize>,
}

impl AgentChoices {
    /// Those of the group at `place`.
    pub(super) fn new(rule: &TeamActions, plan: &TaskPlan, place: usize) -> Self {
        let allowed = &plan.widths.groups[place].allowed;
        let mut trial = plan.widths.least();
        let fits = |&width: &usize| {
            trial[place] = width;
            plan.widths.fits(&trial)
        };
        let n_affordable = allowed.partition_point(fits).max(1);
        let affordable = allowed[..n_affordable].to_vec();
        let (levels, removals) = match rule {
            TeamActions::Removals(shares) => (Vec::new(), shares.clone()),
            &TeamActions::Levels(n) => (levels(plan, place, &affordable, n), Vec::new()),
        };
        Self { levels, affordable, removals, allowed: allowed.clone() }
    }

    /// The width behind an action, given the one before it; of an action that there is none of, the same width.
    pub(super) fn after(&self, width: usize, action: usize) -> usize {
        if self.removals.is_empty() {
            return self.levels.get(action).copied().unwrap_or(width);
        }
        let wanted = width as f64 * (1.0 - self.removals.get(action).copied().unwrap_or(0.0));
        let nearest = self.allowed.iter().copied().filter(|&allowed| allowed <= width);
        let distance = |allowed: usize| (allowed as f64 - wanted).abs();
        // Of two equally near, the larger, as everywhere.
        nearest.rev().min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(width)
    }

    /// Whether an action may be taken at this width. A removal may not go below the least width, and what the budget
    /// forbids whatever all others do is not available in the last iteration; where nothing else is, the strongest
    /// removal is.
    pub(super) fn is_available(&self, width: usize, action: usize, is_last: bool) -> bool {
        if self.removals.is_empty() {
            return action < self.levels.len();
        }
        let Some(&share) = self.removals.get(action) else { return false };
        let floor = self.allowed[0] as f64;
        let above_floor = |share: f64| share == 0.0 || width as f64 * (1.0 - share) >= floor;
        let fits = |action: usize| !is_last || self.after(width, action) <= self.affordable[self.affordable.len() - 1];
        if !above_floor(share) {
            return false;
        }
        let strongest = self.removals.iter().rposition(|&share| above_floor(share)).unwrap_or(0);
        fits(action) || (action == strongest && !fits(strongest))
    }

    /// The level of this width, if it is one.
    pub(super) fn level_of(&self, width: usize) -> Option<usize> {
        self.levels.binary_search(&width).ok()
    }
}

/// At most `n` widths: the first and last affordable one, and between them equal steps of the error's logarithm; the
/// knapsack's width takes the place of the nearest in between. All affordable widths where they are as few.
fn levels(plan: &TaskPlan, place: usize, affordable: &[usize], n: usize) -> Vec<usize> {
    let all = affordable.len();
    if all <= n {
        return affordable.to_vec();
    }
    let log = |level: usize| libm::log(plan.error(place, affordable[level]).max(ERROR_MIN));
    let (first, last) = (log(0), log(all - 2));
    let mut taken = vec![false; all];
    (taken[0], taken[all - 1]) = (true, true);
    for step in 1..n - 1 {
        let wanted = first + (last - first) * step as f64 / (n - 1) as f64;
        let level = (1..all - 1).find(|&level| log(level) <= wanted + 1e-12).unwrap_or(all - 2);
        taken[level] = true;
    }
    // Steep places of the curve take several steps at once: what is left goes where widths are farthest apart.
    for _ in taken.iter().filter(|&&taken| taken).count()..n {
        let chosen: Vec<usize> = (0..all).filter(|&level| taken[level]).collect();
        let widest = chosen.windows(2).rev().max_by_key(|pair| pair[1] - pair[0]);
        let Some(&[low, high]) = widest else { break };
        taken[usize::midpoint(low, high)] = true;
    }
    let planned = plan.knapsack[place];
    if let Ok(level) = affordable.binary_search(&planned)
        && !taken[level]
    {
        let between = (1..all - 1).filter(|&other| taken[other]);
        if let Some(nearest) = between.min_by_key(|&other| other.abs_diff(level)) {
            (taken[nearest], taken[level]) = (false, true);
        }
    }
    (0..all).filter(|&level| taken[level]).map(|level| affordable[level]).collect()
}

/// The actions of all iterations of one agent as one number that an f32 holds exactly.
pub(super) fn encode(actions: impl DoubleEndedIterator<Item = usize>, n_actions: usize) -> f32 {
    actions.rev().fold(0, |code, action| code * n_actions + action) as f32
}

/// Those actions again; none where the number is no code of so many.
pub(super) fn decode(code: f32, n_actions: usize, n_iterations: usize) -> Option<Vec<u8>> {
    let mut rest = code as u64;
    if code < 0.0 || rest as f32 != code {
        return None;
    }
    let mut next = || {
        let action = (rest % n_actions as u64) as u8;
        rest /= n_actions as u64;
        action
    };
    let actions = (0..n_iterations).map(|_| next()).collect();
    (rest == 0).then_some(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_plan::hand_made;

    /// Of groups of 16 at costs 1 and 4 within 30: alone, the first may be whole and the second at most 7.
    #[test]
    fn levels_are_affordable_widths_in_equal_steps_of_log_error_with_the_knapsacks_among_them() {
        let plan = hand_made::curved(&[16, 16], &[1, 4], 30);
        let of = |n, place| AgentChoices::new(&TeamActions::Levels(n), &plan, place);
        assert_eq!(of(12, 1).levels, [1, 2, 3, 4, 5, 6, 7], "as few as these are all taken");
        let first = of(5, 0);
        assert_eq!((first.levels.len(), first.levels[0], first.levels[4]), (5, 1, 16));
        assert!(first.level_of(plan.knapsack[0]).is_some(), "{first:?}, {:?}", plan.knapsack);
        // Errors 1 - root(w / 16): 0.75 at 1, 0.032 at 15. Steps of a quarter of log(0.75 / 0.032) = 3.16:
        // at most 0.341 from width 7 on, 0.155 from 12 on, 0.070 from 14 on.
        let mut seven = plan;
        seven.knapsack = vec![7, 1];
        let found = levels(&seven, 0, &(1..=16).collect::<Vec<_>>(), 5);
        assert_eq!(found, [1, 7, 12, 14, 16]);
        assert!((0..5).all(|action| first.is_available(16, action, true)) && !first.is_available(16, 5, true));
        assert_eq!(first.after(3, 4), 16, "levels do not depend on the width before");
    }

    /// Least width 4 of 20, at most 9 within the budget: 10 channels may lose up to half.
    #[test]
    fn removals_keep_to_floor_and_budget() {
        let mut plan = hand_made::curved(&[20], &[1], 9);
        plan.widths.groups[0].allowed = vec![4, 6, 8, 9, 10, 12, 16, 20];
        let choices = AgentChoices::new(&TeamActions::Removals(vec![0.0, 0.1, 0.3, 0.6]), &plan, 0);
        assert_eq!(
            [0, 1, 2, 3].map(|action| choices.after(10, action)),
            [10, 9, 8, 4],
            "8 is nearer to 7 than 6 is not"
        );
        let available = |width, is_last| [0, 1, 2, 3].map(|action| choices.is_available(width, action, is_last));
        assert_eq!(available(10, false), [true, true, true, true]);
        assert_eq!(available(10, true), [false, true, true, true], "10 are over the budget");
        assert_eq!(available(8, true), [true, true, true, false], "below the floor");
        assert_eq!(available(4, true), [true, false, false, false]);
        assert_eq!(available(20, true), [false, false, false, true]);
        let weak = AgentChoices::new(&TeamActions::Removals(vec![0.0, 0.1]), &plan, 0);
        assert!(!weak.is_available(20, 0, true) && weak.is_available(20, 1, true), "the strongest is left");
    }

    #[test]
    fn codes_hold_every_sequence_of_actions() {
        for sequence in [[0u8, 0, 0], [5, 0, 3], [5, 5, 5]] {
            let code = encode(sequence.iter().map(|&action| usize::from(action)), 6);
            assert_eq!(decode(code, 6, 3).unwrap(), sequence);
        }
        for bad in [-1.0, 0.5, 216.0, f32::NAN, f32::INFINITY] {
            assert_eq!(decode(bad, 6, 3), None, "{bad}");
        }
    }
}
