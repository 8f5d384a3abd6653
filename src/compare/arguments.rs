//! The arguments of `compare`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secateur_run::{CompareSpec, RunSpec};

use crate::Failure;
use crate::options::{HistoryArgs, MemoryArgs, RootArgs, ThreadArgs};

pub(crate) const COMPARE_EXAMPLES: &str = "\
Examples:
  secateur compare scenes/quickstart.ron --agents mtacp,random,swap_evolution --seeds 3 --candidates 60
  secateur compare my.ron --agents 'Mtacp(start: Even),knapsack,spdy' --seeds 7,11 --out runs/starts
  secateur compare my.ron --out runs/starts --agents 'Mtacp(start: Even),knapsack,spdy' --seeds 7,11 --resume

All agents have the same tasks, images, repair and number of scored candidates per task; a candidate that was scored before
does not count again, and five times as many walks are the end. The directory gets a run directory for each seed, compare.json
(everything), curves.csv and curves.svg (best reward over candidates and over seconds). Paired tests on the test images hold
the first agent against each other. Candidates are refitted once at the end, not in pairs, unless --set says otherwise.";

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The scene; its agent, controls, seed and walks_per_task do not count
    #[arg(value_name = "SCENE.ron")]
    scene: PathBuf,
    /// Agents by name, with settings in parentheses where these are not the defaults; `secateur check --template`
    /// explains them
    #[arg(long, value_name = "AGENT,…", default_value = "mtacp,value_of_error,swap_evolution,knapsack,random,uniform")]
    agents: String,
    /// How many seeds, from the scene's on, or which: 7,8,9
    #[arg(long, value_name = "N|SEED,SEED,…", default_value = "3", value_parser = seeds)]
    seeds: Seeds,
    /// Candidates that each agent has scored for each task
    #[arg(long, value_name = "N", default_value = "100")]
    candidates: NonZeroUsize,
    /// Directory; must be new or empty unless --resume [default: runs/<name of the scene file>-compared]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a comparison that was stopped or killed
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    roots: RootArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    history: HistoryArgs,
    /// Change the scene: images.reward=500; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Print compare.json instead of the tables
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing but the results
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Which seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seeds {
    /// So many, from the scene's on.
    Count(u32),
    /// These.
    List(Vec<u64>),
}

/// A small number alone counts seeds; a list names them.
fn seeds(text: &str) -> Result<Seeds, String> {
    let expected = "expected how many seeds (1 to 100), or a list of them as in 7,8,9; a single one is written as 7,";
    if let Ok(count) = text.trim().parse() {
        return if (1..=100).contains(&count) { Ok(Seeds::Count(count)) } else { Err(expected.to_owned()) };
    }
    let list = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse);
    let list: Vec<u64> = list.collect::<Result<_, _>>().map_err(|_| expected.to_owned())?;
    if list.is_empty() { Err(expected.to_owned()) } else { Ok(Seeds::List(list)) }
}

/// Cuts at commas that are not within parentheses, brackets, braces or a text.
fn split_agents(text: &str) -> Vec<String> {
    let (mut depth, mut in_text) = (0i32, false);
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match c {
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text => depth -= 1,
            _ => {}
        }
        match parts.last_mut() {
            Some(last) if c != ',' || depth > 0 || in_text => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl CompareArgs {
    /// The scene and the means.
    pub(super) fn spec(&self) -> RunSpec {
        RunSpec {
            sets: self.set.clone(),
            out: self.out.clone(),
            resume: self.resume,
            checkpoint_every: Duration::from_secs(30),
            data_root: self.roots.data_root.clone(),
            model_root: self.roots.model_root.clone(),
            threads: self.threads.threads,
            memory: self.memory.memory,
            history: self.history.history.clone(),
            ..RunSpec::new(&self.scene)
        }
    }

    /// What is compared; the run is to be replaced by one that knows all agents.
    pub(super) fn compare_spec(&self) -> Result<CompareSpec, Failure> {
        let run = self.spec();
        let seeds = match &self.seeds {
            Seeds::List(list) => list.clone(),
            Seeds::Count(count) => {
                let first = secateur_run::scene_seed(&run)?;
                (0..u64::from(*count)).map(|i| first.wrapping_add(i)).collect()
            }
        };
        Ok(CompareSpec { run, agents: split_agents(&self.agents), seeds, candidates: self.candidates.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_cut_at_commas_outside_of_their_settings() {
        let agents = split_agents("Mtacp(start: Even, trunk: [1, 2]), random,Fixed(widths: {\"a,b)\": 3}),");
        assert_eq!(agents, ["Mtacp(start: Even, trunk: [1, 2])", "random", "Fixed(widths: {\"a,b)\": 3})"]);
        assert!(split_agents(" , ").is_empty());
    }

    #[test]
    fn a_number_counts_seeds_and_a_list_names_them() {
        assert_eq!(seeds("3"), Ok(Seeds::Count(3)));
        assert_eq!(seeds("7, 9"), Ok(Seeds::List(vec![7, 9])));
        assert_eq!(seeds("7,"), Ok(Seeds::List(vec![7])));
        for bad in ["0", "101", "", ",", "x", "7,x", "-1"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
