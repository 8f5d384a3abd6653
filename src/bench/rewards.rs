//! `bench rewards`: which reward, on how many images, ranks candidates best.

use secateur_run::{N_TOP, RankingReport, rank_rewards};

use super::arguments::BenchRewardsArgs;
use super::json;
use crate::extensions::Extensions;
use crate::interrupt::Interrupt;
use crate::progress::RunProgress;
use crate::table::Table;
use crate::{Failure, screen};

pub(super) fn rewards(arguments: &BenchRewardsArgs, extensions: &Extensions) -> Result<(), Failure> {
    let spec = extensions.spec(arguments.spec());
    let n_images: Vec<usize> = arguments.images.iter().map(|n| n.get()).collect();
    let mut progress = RunProgress::new(false, Interrupt::install()?);
    let report = rank_rewards(&spec, arguments.candidates, &n_images, &extensions.plugins, &mut progress)?;
    screen::result(to_text(&report))?;
    json::write(arguments.json.as_deref(), &report)
}

fn to_text(report: &RankingReport) -> String {
    let mut lines = Vec::new();
    for task in &report.tasks {
        lines.push(format!(
            "{}: {} candidates; on {} held-back images the best has {:.2} %, the median {:.2} %",
            task.name,
            task.candidates,
            task.held_back_images,
            100.0 * task.best_accuracy,
            100.0 * task.median_accuracy
        ));
        let top = format!(">top-{N_TOP} recall");
        let mut table = Table::new(&["reward", ">images", ">ms/candidate", ">Kendall's tau", &top, ">regret, points"]);
        for row in &task.rows {
            table.row([
                row.reward.clone(),
                row.images.to_string(),
                format!("{:.0}", 1e3 * row.candidate_s),
                format!("{:.3}", row.kendall),
                format!("{:.2}", row.top_recall),
                format!("{:.2}", 100.0 * row.regret),
            ]);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}
