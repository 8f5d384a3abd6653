//! What a budget allows the groups of a task, as agents are told it.

use secateur_net::ChannelGroups;
use secateur_rl::{GroupWidths, TaskWidths};
use secateur_sim::BudgetWall;

/// The groups behind a wall, and what it allows.
pub(crate) fn task_widths(name: &str, groups: &ChannelGroups, wall: &BudgetWall) -> TaskWidths {
    let group = |(place, &group): (usize, &usize)| GroupWidths {
        name: groups.group(group).name.clone(),
        n_channels: groups.group(group).n_channels,
        allowed: wall.bounds(place).widths().to_vec(),
    };
    let all = wall.order().iter().enumerate().map(group).collect();
    let whole = |wall: &BudgetWall, widths: &[usize]| {
        let mut of_all = wall.least_widths().to_vec();
        wall.order().iter().zip(widths).for_each(|(&group, &width)| of_all[group] = width);
        of_all
    };
    let (fits, tells) = (wall.clone(), wall.clone());
    TaskWidths::new(
        name.to_owned(),
        all,
        move |widths| fits.allows(&whole(&fits, widths)),
        move |widths| tells.tell(&whole(&tells, widths)),
    )
}
