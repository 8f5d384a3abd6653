//! What an agent may be told of its tasks before it acts: which widths a budget allows, what they lose, and which of
//! them lose least.

use std::fmt;
use std::sync::Arc;

use crate::agents::value_of_error::SourceTask;
use crate::error::RlError;
use crate::nn::squash::shifted;

/// A channel group and the widths that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWidths {
    /// Its name, that of its first producer.
    pub name: String,
    /// Channels of the original.
    pub n_channels: usize,
    /// Allowed widths, ascending; at least one, none above `n_channels`.
    pub allowed: Vec<usize>,
}

impl GroupWidths {
    /// The allowed width nearest to so many channels; of two equally near, the larger.
    pub fn nearest(&self, n_channels: f64) -> usize {
        let above = self.allowed.partition_point(|&width| (width as f64) < n_channels);
        let wide = self.allowed[above.min(self.allowed.len() - 1)];
        match above.checked_sub(1).map(|below| self.allowed[below]) {
            Some(narrow) if n_channels - (narrow as f64) < wide as f64 - n_channels => narrow,
            _ => wide,
        }
    }
}

/// Whether widths, one for each group, are within a budget.
type Fits = Arc<dyn Fn(&[usize]) -> bool + Send + Sync>;
/// The widths of least summed error within a budget, the error of each group times its weight.
type Allocate = Arc<dyn Fn(&[f64]) -> Result<Vec<usize>, String> + Send + Sync>;
/// The widths within a budget whose losses have the least sum, each of those that are offered for its group.
type Choose = Arc<dyn Fn(&[Vec<WidthLoss>]) -> Result<Vec<usize>, String> + Send + Sync>;
/// What widths cost, as a share of what the whole network does.
type CostShare = Arc<dyn Fn(&[usize]) -> f64 + Send + Sync>;
/// What widths cost and may cost, for people.
type Tell = Arc<dyn Fn(&[usize]) -> String + Send + Sync>;

/// The groups of a task in walk order, and what of their widths its budget allows. Without groups for a task that is
/// not searched.
#[derive(Clone)]
pub struct TaskWidths {
    /// Name of the task.
    pub name: String,
    /// Its groups.
    pub groups: Vec<GroupWidths>,
    fits: Fits,
    tell: Tell,
}

impl fmt::Debug for TaskWidths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskWidths").field("name", &self.name).field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl TaskWidths {
    /// `fits` says whether widths (one for each group) are within the budget: true for the least of all, and for
    /// narrower widths wherever it is for wider ones. `tell` says what they cost and may cost.
    pub fn new(
        name: String,
        groups: Vec<GroupWidths>,
        fits: impl Fn(&[usize]) -> bool + Send + Sync + 'static,
        tell: impl Fn(&[usize]) -> String + Send + Sync + 'static,
    ) -> Self {
        Self { name, groups, fits: Arc::new(fits), tell: Arc::new(tell) }
    }

    /// Whether the budget allows these widths.
    pub fn fits(&self, widths: &[usize]) -> bool {
        (self.fits)(widths)
    }

    /// What widths cost and may cost.
    pub fn tell(&self, widths: &[usize]) -> String {
        (self.tell)(widths)
    }

    /// The least width of every group.
    pub fn least(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.allowed[0]).collect()
    }

    /// Widths as shares of the groups' channels.
    pub fn keep_ratios(&self, widths: &[usize]) -> Vec<f32> {
        self.groups.iter().zip(widths).map(|(group, &width)| width as f32 / group.n_channels as f32).collect()
    }

    /// Of `0..=n` choices, of which each later one gives widths that are at most as wide, the first that fits; the
    /// least widths where none does.
    pub(crate) fn first_that_fits(&self, n: usize, widths: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
        let (mut too_wide, mut fits) = (0, n + 1);
        while too_wide < fits {
            let middle = too_wide.midpoint(fits);
            match middle > n || self.fits(&widths(middle)) {
                true => fits = middle,
                false => too_wide = middle + 1,
            }
        }
        if fits > n { self.least() } else { widths(fits) }
    }
}

/// A width that a group may take, and what that loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WidthLoss {
    /// One of the group's allowed widths.
    pub width: usize,
    /// Any finite number, the less the better.
    pub loss: f64,
}

/// What tells a group from others, at full width.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupLook {
    /// Output channels of the first layer that reads it.
    pub n_outputs: usize,
    /// Rows of that layer's input.
    pub rows: usize,
    /// Columns of that layer's input.
    pub columns: usize,
    /// Rows of that layer's kernel.
    pub kernel: usize,
    /// Its row stride.
    pub stride: usize,
    /// Multiply-accumulates of every operation that touches the group, as a share of the network's.
    pub macs_share: f64,
}

/// What is known of a task before it is searched. All lists are in walk order.
#[derive(Clone)]
pub struct TaskPlan {
    /// Groups and budget.
    pub widths: TaskWidths,
    /// Relative squared error of what reads a group, at each of its allowed widths: does not rise with the width.
    pub errors: Vec<Vec<f64>>,
    /// Euclidean norm of all weights that go with each channel of a group.
    pub norms: Vec<Vec<f64>>,
    /// What one unit of each group's error counts.
    pub weights: Vec<f64>,
    /// Widths of least weighted error within the budget.
    pub knapsack: Vec<usize>,
    /// Before each group of a walk that keeps those widths: the ratio that this and every later group can share.
    pub even_ratios: Vec<f32>,
    /// The largest drop of weighted error, per unit of the bounded cost, that the next width of any group would bring.
    pub shadow_price: f64,
    /// What tells the groups apart.
    pub looks: Vec<GroupLook>,
    /// What the first bound allows, as a share of what the whole network costs.
    pub budget_share: f64,
    /// What earlier runs found on tasks like this one, nearest first.
    pub sources: Arc<[SourceTask]>,
    allocate: Allocate,
    choose: Choose,
    cost_share: CostShare,
}

impl fmt::Debug for TaskPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPlan")
            .field("widths", &self.widths)
            .field("knapsack", &self.knapsack)
            .finish_non_exhaustive()
    }
}

impl TaskPlan {
    /// A plan with the widths that `allocate` finds for `weights`; the rest, to be filled in, is empty.
    ///
    /// # Errors
    /// What `allocate` returns.
    pub fn new(
        widths: TaskWidths,
        errors: Vec<Vec<f64>>,
        weights: Vec<f64>,
        allocate: impl Fn(&[f64]) -> Result<Vec<usize>, String> + Send + Sync + 'static,
    ) -> Result<Self, RlError> {
        let mut plan = Self {
            widths,
            errors,
            norms: Vec::new(),
            weights: Vec::new(),
            knapsack: Vec::new(),
            even_ratios: Vec::new(),
            shadow_price: 0.0,
            looks: Vec::new(),
            budget_share: 1.0,
            sources: Arc::new([]),
            allocate: Arc::new(allocate),
            choose: Arc::new(|_| Err("what widths cost is not known".to_owned())),
            cost_share: Arc::new(|_| 1.0),
        };
        plan.knapsack = plan.allocate(&weights)?;
        plan.weights = weights;
        Ok(plan)
    }

    /// The plan with what its widths cost: `choose` finds the widths of least summed loss within the budget,
    /// `cost_share` the first bounded cost of widths as a share of the whole network's.
    #[must_use]
    pub fn with_costs(
        mut self,
        choose: impl Fn(&[Vec<WidthLoss>]) -> Result<Vec<usize>, String> + Send + Sync + 'static,
        cost_share: impl Fn(&[usize]) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.choose = Arc::new(choose);
        self.cost_share = Arc::new(cost_share);
        self
    }

    /// Groups of the task.
    pub fn n_groups(&self) -> usize {
        self.widths.groups.len()
    }

    /// Share of its channels that the knapsack keeps of the group at `place`, moved with what earlier groups left of
    /// the budget: by as many logits as lie between `even_ratio` and the one that was planned for.
    pub(crate) fn shifted_ratio(&self, place: usize, even_ratio: f32, keep_ratio_min: f32) -> f32 {
        let planned = self.knapsack[place] as f32 / self.widths.groups[place].n_channels as f32;
        shifted(planned, [even_ratio, self.even_ratios[place]], keep_ratio_min)
    }

    /// The widths within the budget that lose least, the error of each group times its weight.
    ///
    /// # Errors
    /// [`RlError::Plan`] where there are none.
    pub fn allocate(&self, weights: &[f64]) -> Result<Vec<usize>, RlError> {
        (self.allocate)(weights).map_err(|what| RlError::Plan { task: self.widths.name.clone(), what })
    }

    /// The widths within the budget whose losses have the least sum. For each group there are some of its widths,
    /// ascending; those of least width together must be within the budget. Of equal losses the narrower width.
    ///
    /// # Errors
    /// [`RlError::Plan`] where no widths are within the budget, or a loss is not finite.
    pub fn choose(&self, offered: &[Vec<WidthLoss>]) -> Result<Vec<usize>, RlError> {
        (self.choose)(offered).map_err(|what| RlError::Plan { task: self.widths.name.clone(), what })
    }

    /// The first bounded cost of widths, as a share of what the whole network costs.
    pub fn cost_share(&self, widths: &[usize]) -> f64 {
        (self.cost_share)(widths)
    }

    /// Error of a group at one of its widths.
    pub(crate) fn error(&self, place: usize, width: usize) -> f64 {
        let level = self.widths.groups[place].allowed.partition_point(|&allowed| allowed < width);
        self.errors[place].get(level).copied().unwrap_or(0.0)
    }
}

/// One plan for every task of a run.
#[derive(Clone, Debug)]
pub struct TaskPlans(Arc<[TaskPlan]>);

impl TaskPlans {
    /// In the order of the tasks.
    pub fn new(plans: Vec<TaskPlan>) -> Self {
        Self(plans.into())
    }

    /// All of them.
    pub fn all(&self) -> &[TaskPlan] {
        &self.0
    }

    /// That of one task.
    ///
    /// # Errors
    /// [`RlError::OutOfRange`] for a task that there is none for.
    pub fn of(&self, task: u32) -> Result<&TaskPlan, RlError> {
        self.0.get(task as usize).ok_or_else(|| RlError::OutOfRange {
            op: "act",
            what: "task".to_owned(),
            expected: format!("one of {} with a plan", self.0.len()),
            got: task.to_string(),
        })
    }
}

/// Small tasks for tests, worked out by hand.
#[cfg(test)]
pub(crate) mod hand_made {
    use super::{GroupLook, GroupWidths, TaskPlan, TaskWidths, WidthLoss};

    /// Groups `a`, `b`, … of so many channels, every width allowed; a channel of group `i` costs `costs[i]`, and all
    /// may cost `max`.
    pub(crate) fn widths(channels: &[usize], costs: &'static [usize], max: usize) -> TaskWidths {
        let group = |i: usize, n: usize| GroupWidths {
            name: char::from(b'a' + i as u8).to_string(),
            n_channels: n,
            allowed: (1..=n).collect(),
        };
        let cost = move |widths: &[usize]| widths.iter().zip(costs).map(|(width, cost)| width * cost).sum::<usize>();
        let tell = move |widths: &[usize]| format!("{} of {max}", cost(widths));
        TaskWidths::new(
            "task".to_owned(),
            channels.iter().enumerate().map(|(i, &n)| group(i, n)).collect(),
            move |w| cost(w) <= max,
            tell,
        )
    }

    /// As [`widths`], the error of each group one less the root of the share that it keeps, all of one weight.
    pub(crate) fn curved(channels: &[usize], costs: &'static [usize], max: usize) -> TaskPlan {
        let errors = channels.iter().map(|&n| (1..=n).map(|w| 1.0 - (w as f64 / n as f64).sqrt()).collect()).collect();
        let mut plan = plan(widths(channels, costs, max), errors, vec![1.0; channels.len()]);
        let cost = move |widths: &[usize]| widths.iter().zip(costs).map(|(width, cost)| width * cost).sum::<usize>();
        let full = cost(channels) as f64;
        plan.budget_share = max as f64 / full;
        let look = |&n: &usize| GroupLook { n_outputs: n, rows: 8, columns: 8, kernel: 3, stride: 1, macs_share: 0.1 };
        plan.looks = channels.iter().map(look).collect();
        let of = plan.widths.clone();
        plan.with_costs(move |offered| cheapest(&of, offered), move |widths| cost(widths) as f64 / full)
    }

    /// Tries everything that is offered.
    fn cheapest(task: &TaskWidths, offered: &[Vec<WidthLoss>]) -> Result<Vec<usize>, String> {
        let mut best: Option<(f64, Vec<usize>)> = None;
        let mut at = vec![0; offered.len()];
        loop {
            let widths: Vec<usize> = at.iter().zip(offered).map(|(&i, offered)| offered[i].width).collect();
            let loss: f64 = at.iter().zip(offered).map(|(&i, offered)| offered[i].loss).sum();
            if task.fits(&widths) && best.as_ref().is_none_or(|(least, _)| loss < *least) {
                best = Some((loss, widths));
            }
            let Some(i) = (0..at.len()).find(|&i| at[i] + 1 < offered[i].len()) else { break };
            at[i] += 1;
            at[..i].fill(0);
        }
        best.map(|(_, widths)| widths).ok_or_else(|| "nothing that is offered fits".to_owned())
    }

    /// As [`widths`], with these errors; allocates by trying everything.
    pub(crate) fn plan(widths: TaskWidths, errors: Vec<Vec<f64>>, weights: Vec<f64>) -> TaskPlan {
        let (of, curves) = (widths.clone(), errors.clone());
        let allocate = move |weights: &[f64]| {
            let mut best = (f64::INFINITY, Vec::new());
            let mut now = of.least();
            loop {
                let error: f64 = (0..now.len()).map(|i| weights[i] * curves[i][now[i] - 1]).sum();
                if of.fits(&now) && error < best.0 {
                    best = (error, now.clone());
                }
                let Some(i) = (0..now.len()).find(|&i| now[i] < of.groups[i].n_channels) else { return Ok(best.1) };
                now[i] += 1;
                now[..i].fill(1);
            }
        };
        TaskPlan::new(widths, errors, weights, allocate).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_width_is_the_larger_of_two_equally_near() {
        let group = GroupWidths { name: "g".to_owned(), n_channels: 20, allowed: vec![4, 8, 16, 20] };
        let nearest = [0.0, 5.9, 6.0, 8.0, 12.1, 17.9, 99.0].map(|n| group.nearest(n));
        assert_eq!(nearest, [4, 4, 8, 8, 16, 16, 20]);
    }

    #[test]
    fn the_first_choice_that_fits_is_found_and_the_least_widths_where_none_does() {
        let task = hand_made::widths(&[10], &[1], 4);
        for n in [0, 1, 5, 6, 7, 40] {
            let found = task.first_that_fits(n, |choice| vec![10usize.saturating_sub(choice).max(1)]);
            assert_eq!(found, [if n >= 6 { 4 } else { 1 }], "{n}");
        }
    }
}
