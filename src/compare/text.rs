//! What a comparison says on the screen.

use secateur_run::{AgentScores, Comparison, Spread, TaskScores};

use crate::table::Table;

pub(super) fn text(comparison: &Comparison) -> String {
    let Comparison { tasks, ranking, .. } = comparison;
    let scores: Vec<String> = tasks.iter().map(|task| format!(">{task}")).collect();
    let has_volume = comparison.agents.iter().any(|agent| agent.hypervolume.is_some());
    let mut header = vec!["agent", ">mean rank"];
    header.extend(scores.iter().map(String::as_str));
    header.push(">mean");
    header.extend(has_volume.then_some(">hypervolume"));
    header.extend([">search s", ">outside %"]);
    let mut rewards = Table::new(&header);
    for (place, agent) in comparison.agents.iter().enumerate() {
        let near = if place > 0 && comparison.is_near_best(place) { "~" } else { "" };
        let mut row = vec![agent.agent.clone(), format!("{:.2}{near}", ranking.mean_ranks[place])];
        row.extend(agent.tasks.iter().map(|task| with_candidates(comparison, task)));
        row.push(spread(&agent.score));
        row.extend(has_volume.then(|| agent.hypervolume.as_ref().map_or_else(String::new, spread)));
        row.push(format!("{:.1}", agent.search_s.mean));
        row.push(format!("{:.1}", 100.0 * agent.outside_evaluation.mean));
        rewards.row(row);
    }
    let n_seeds = comparison.seeds.len();
    let difference = ranking.critical_difference.map_or_else(
        || "too many agents, or too few, for a critical difference".to_owned(),
        |difference| {
            format!(
                "mean ranks over {} pairs of task and seed that are less than {difference:.2} apart may be chance (~: from the best; Nemenyi, \
                 95 %)",
                ranking.blocks
            )
        },
    );
    format!(
        "best reward ({}) after {} scored candidates per task, mean ± standard error of {n_seeds} seed{}\n{rewards}\n\n{}{difference}\n\
         everything is in '{}': compare.json, curves.csv, curves.svg, and a run directory for each seed",
        comparison.reward,
        comparison.candidates,
        if n_seeds == 1 { "" } else { "s" },
        tested(comparison).map_or_else(String::new, |table| format!("{table}\n\n")),
        comparison.directory.display()
    )
}

fn spread(spread: &Spread) -> String {
    match spread.of_seeds.len() {
        1 => format!("{:.4}", spread.mean),
        _ => format!("{:.4} ± {:.4}", spread.mean, spread.standard_error),
    }
}

/// The best reward, and after how many candidates where these are fewer than others had.
fn with_candidates(comparison: &Comparison, task: &TaskScores) -> String {
    let fewest = task.candidates.iter().min().copied().unwrap_or(0);
    let fewer = if fewest < comparison.candidates { format!(" ({fewest})") } else { String::new() };
    spread(&task.score) + &fewer
}

/// The final networks on the test images; none where nothing was tested.
fn tested(comparison: &Comparison) -> Option<Table> {
    let of = |task: &TaskScores| task.test_accuracy.clone().or_else(|| task.test_output_error.clone());
    let agents: Vec<&AgentScores> =
        comparison.agents.iter().filter(|agent| agent.tasks.iter().all(|task| of(task).is_some())).collect();
    let first = agents.first()?.tasks.first()?;
    let what = if first.test_accuracy.is_some() { "test top-1" } else { "test output error" };
    let header: Vec<String> = comparison.tasks.iter().map(|task| format!(">{task}")).collect();
    let mut columns = vec![what];
    columns.extend(header.iter().map(String::as_str));
    let better = format!(">seeds better, worse than {}", comparison.reference);
    columns.push(&better);
    let mut table = Table::new(&columns);
    for agent in agents {
        let mut row = vec![agent.agent.clone()];
        row.extend(agent.tasks.iter().filter_map(of).map(|value| spread(&value)));
        let counts = agent.tasks.iter().filter_map(|task| task.against_reference);
        let (better, worse, all) = counts.fold((0, 0, 0), |(better, worse, all), c| {
            (better + c.better, worse + c.worse, all + c.better + c.worse + c.not_distinguishable)
        });
        row.push(if all == 0 { String::new() } else { format!("{better}, {worse} of {all}") });
        table.row(row);
    }
    Some(table)
}
