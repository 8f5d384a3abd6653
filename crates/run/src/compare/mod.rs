//! Agents side by side on one scene: the same tasks, images, repair and numbers of scored candidates, several seeds.

mod agents;
mod curve;
mod hypervolume;
mod ranking;
mod records;
mod report;

use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use secateur_formats::write_atomic;
use secateur_history::History;
use secateur_sim::PluginList;
use serde::{Deserialize, Serialize};

pub use curve::{CurvePoint, Spread};
pub use ranking::AgentRanking;
pub use report::{AgentScores, Comparison, PairedCounts, TaskScores};

use crate::error::RunError;
use crate::history::place::history_of;
use crate::observer::Observer;
use crate::run;
use crate::scene::{HistoryChoice, Scene};
use crate::spec::RunSpec;
use agents::Compared;
use records::SeedRecords;

/// What says in a comparison's directory what is compared.
const SETTINGS_FILE: &str = "comparison.json";

/// What to compare.
///
/// ```no_run
/// use secateur_run::{CompareSpec, RunSpec, compare};
/// use secateur_sim::PluginList;
///
/// let spec = CompareSpec {
///     run: RunSpec::new("scenes/quickstart.ron"),
///     agents: vec!["mtacp".into(), "SwapEvolution(swaps: 2)".into(), "random".into()],
///     seeds: vec![7, 8, 9],
///     candidates: 100,
/// };
/// let comparison = compare(&spec, &PluginList::default(), &mut ())?;
/// println!("best of all: {}", comparison.agents[0].agent);
/// # Ok::<(), secateur_run::RunError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CompareSpec {
    /// The scene and the means; its directory gets a run directory for every seed.
    pub run: RunSpec,
    /// Agents by name, settings in parentheses where they are not the defaults; no kind twice. The first is the one
    /// that paired tests hold the others against.
    pub agents: Vec<String>,
    /// Seeds, at least one, each once.
    pub seeds: Vec<u64>,
    /// Candidates that each agent has scored for each task; repeated ones do not count, and five times as many walks
    /// are the end.
    pub candidates: usize,
}

/// What a comparison that goes on must have in common with the one that began.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ComparedSettings {
    scene: String,
    sets: Vec<String>,
    agents: Vec<String>,
    seeds: Vec<u64>,
    candidates: usize,
    /// What the agents learn from, where they learn of earlier runs: the runs of the comparison are none of them.
    #[serde(default)]
    history_at: Option<String>,
}

/// Runs the scene once for every seed with all agents, and compares what they found. Candidates are refitted once and
/// not in pairs unless the scene's changes (`sets`) say otherwise.
///
/// # Errors
/// As [`run`]; agents, seeds or a directory that cannot be used. A comparison that was stopped or killed goes on with
/// `resume`, under the same settings.
pub fn compare(spec: &CompareSpec, plugins: &PluginList, observer: &mut dyn Observer) -> Result<Comparison, RunError> {
    let compared = Compared::of(spec).map_err(RunError::BadArguments)?;
    // Before anything is written, so that mistakes in the scene or an agent's settings leave nothing behind.
    let (scene, _) = crate::check(&seed_spec(spec, &compared, spec.seeds[0], PathBuf::new()), plugins)?;
    let (directory, history_at) =
        claim(spec, &compared, snapshot(&spec.run, &scene)).map_err(RunError::BadArguments)?;
    let mut records = Vec::new();
    for (at, &seed) in spec.seeds.iter().enumerate() {
        let of_seed = directory.join(format!("seed-{seed}"));
        // A search that failed leaves a summary, too, so what is complete is noted here.
        let done = directory.join(format!("seed-{seed}.done"));
        if !done.exists() {
            observer.note(&format!("seed {seed}, {} of {}: '{}'", at + 1, spec.seeds.len(), of_seed.display()));
            let run_spec = seed_spec(spec, &compared, seed, of_seed.clone());
            let resume = of_seed.exists();
            run(&RunSpec { resume, history_at: history_at.clone(), ..run_spec }, plugins, observer)?;
            write_atomic(&done, b"").map_err(anyhow::Error::from)?;
        }
        records.push(SeedRecords::read(&of_seed, spec.candidates)?);
    }
    Ok(Comparison::of(spec, &compared, directory, &records)?)
}

/// The seed that a scene says.
///
/// # Errors
/// [`RunError::BadScene`].
pub fn scene_seed(spec: &RunSpec) -> Result<u64, RunError> {
    Ok(spec.read_scene()?.seed)
}

/// The run of one seed.
fn seed_spec(spec: &CompareSpec, compared: &Compared, seed: u64, out: PathBuf) -> RunSpec {
    let defaults = ["finalists=1".to_owned(), "refit_in_pairs=false".to_owned()];
    let fixed = [
        format!("seed={seed}"),
        format!("walks_per_task={}", spec.candidates),
        "ends_after=Scored".to_owned(),
        format!("agent={}", compared.agent()),
        format!("controls=[{}]", compared.controls()),
    ];
    let sets = defaults.into_iter().chain(spec.run.sets.iter().cloned()).chain(fixed).collect();
    // Agents are compared by their times, too.
    RunSpec { sets, out: Some(out), reuses_scores: false, ..spec.run.clone() }
}

/// What all runs learn from; none where the scene learns nothing of earlier runs, and where there is no history.
fn snapshot(spec: &RunSpec, scene: &Scene) -> Option<String> {
    if spec.history_at.is_some() || !scene.history.as_ref().is_some_and(HistoryChoice::learns) {
        return spec.history_at.clone();
    }
    // Made where it is not there: the second run is not to learn from the first.
    Some(History::open(&history_of(spec, scene)?).ok()?.snapshot().ok()?.to_string())
}

/// The directory, which says what is compared there, and the snapshot that the comparison began with.
fn claim(
    spec: &CompareSpec,
    compared: &Compared,
    history_at: Option<String>,
) -> anyhow::Result<(PathBuf, Option<String>)> {
    let stem = spec.run.scene.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let directory = spec.run.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{stem}-compared")));
    let file = directory.join(SETTINGS_FILE);
    let settings = ComparedSettings {
        scene: spec.run.scene.display().to_string(),
        sets: spec.run.sets.clone(),
        agents: compared.texts(),
        seeds: spec.seeds.clone(),
        candidates: spec.candidates,
        history_at,
    };
    if spec.run.resume && file.exists() {
        let text = std::fs::read_to_string(&file).with_context(|| format!("--resume: '{}'", file.display()))?;
        let before: ComparedSettings = serde_json::from_str(&text)
            .with_context(|| format!("--resume: '{}' is not what a comparison writes", file.display()))?;
        return check_same(&before, &settings).map(|()| (directory, before.history_at));
    }
    let is_empty = match std::fs::read_dir(&directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => std::fs::symlink_metadata(&directory).is_err(),
    };
    ensure!(
        is_empty,
        "'{}' is not an empty directory; go on there with --resume, or name a new one with --out",
        directory.display()
    );
    std::fs::create_dir_all(&directory).with_context(|| format!("--out '{}'", directory.display()))?;
    write_atomic(&file, serde_json::to_string_pretty(&settings)?.as_bytes())?;
    Ok((directory, settings.history_at))
}

fn check_same(before: &ComparedSettings, now: &ComparedSettings) -> anyhow::Result<()> {
    let differs = |what: &str, before: String, now: String| {
        anyhow!("--resume: that comparison is of {what} {before}, this one of {now}; name another directory with --out")
    };
    let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let changes = |sets: &[String]| if sets.is_empty() { "none".to_owned() } else { sets.join(" ") };
    if before.scene != now.scene {
        return Err(differs("the scene", before.scene.clone(), now.scene.clone()));
    }
    if before.agents != now.agents {
        return Err(differs("agents", before.agents.join(","), now.agents.join(",")));
    }
    if before.seeds != now.seeds {
        return Err(differs("seeds", list(&before.seeds), list(&now.seeds)));
    }
    if before.candidates != now.candidates {
        return Err(differs("candidates", before.candidates.to_string(), now.candidates.to_string()));
    }
    if before.sets != now.sets {
        return Err(differs("changes to the scene:", changes(&before.sets), changes(&now.sets)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_goes_on_only_as_it_began() {
        let settings = |agents: &[&str], seeds: &[u64], candidates| ComparedSettings {
            scene: "a.ron".to_owned(),
            sets: Vec::new(),
            agents: agents.iter().map(|&agent| agent.to_owned()).collect(),
            seeds: seeds.to_vec(),
            candidates,
            history_at: None,
        };
        let before = settings(&["Mtacp()", "Random"], &[7, 8], 30);
        assert!(check_same(&before, &before).is_ok());
        let refused = |now| check_same(&before, &now).unwrap_err().to_string();
        assert!(refused(settings(&["Mtacp()"], &[7, 8], 30)).contains("agents Mtacp(),Random, this one of Mtacp()"));
        assert!(refused(settings(&["Mtacp()", "Random"], &[7], 30)).contains("seeds 7,8, this one of 7"));
        assert!(refused(settings(&["Mtacp()", "Random"], &[7, 8], 31)).contains("candidates 30, this one of 31"));
        let changed =
            ComparedSettings { sets: vec!["finalists=2".to_owned()], ..settings(&["Mtacp()", "Random"], &[7, 8], 30) };
        assert!(refused(changed).contains("none, this one of finalists=2"));
    }
}
