//! `check`: a scene and all it names, without running anything.

use secateur_run::scene::{Scene, template};
use secateur_run::{Card, Resolved, ResolvedBound, wide_layers};

use crate::arguments::CheckArgs;
use crate::extensions::Extensions;
use crate::{Failure, screen};

pub(crate) fn check(arguments: &CheckArgs, extensions: &Extensions) -> Result<(), Failure> {
    let Some(spec) = arguments.spec() else {
        return Ok(screen::result(template().trim_end())?);
    };
    let (scene, resolved) = secateur_run::check(&extensions.spec(spec), &extensions.plugins)?;
    // Opened only to see whether there is one, as a run would.
    Card::of(&scene).map(drop)?;
    Ok(screen::result(describe(&scene, &resolved))?)
}

fn describe(scene: &Scene, resolved: &Resolved) -> String {
    let mut lines = Vec::new();
    for network in &resolved.networks {
        lines.push(format!("network   {}: '{}'", network.name, network.path.display()));
        lines.extend(network.assumptions.iter().map(|assumption| format!("          {assumption}")));
    }
    for dataset in &resolved.datasets {
        let (train, test) = (dataset.train.len(), dataset.test.len());
        lines.push(format!("data set  {}: {train} training images, {test} test images", dataset.name));
        lines.extend(dataset.notes().iter().map(|note| format!("          {note}")));
    }
    for (task, budget) in scene.tasks.iter().zip(&resolved.budgets) {
        let bound = |ResolvedBound { cost, max, original, minimum, .. }: &ResolvedBound| {
            let reach = match budget.whole() {
                Some(_) => "nothing needs to be pruned".to_owned(),
                None => format!("least reachable {minimum}"),
            };
            format!("at most {max} {} of {original}, {reach}", cost.name())
        };
        let bounds: Vec<String> = budget.bounds.iter().map(bound).collect();
        lines.push(format!("task      {}: {}", task.name, bounds.join("; ")));
    }
    lines.extend(wide_layers(scene, resolved).into_iter().map(|layer| format!("note      {layer}")));
    lines.push(format!("{} is valid, tasks: {}", scene.origin(), scene.tasks.len()));
    lines.join("\n")
}
