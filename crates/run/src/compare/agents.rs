//! The agents of a comparison, from names to what scenes say.

use std::collections::BTreeSet;

use anyhow::{anyhow, ensure};
use secateur_rl::AgentEntry;

use super::CompareSpec;

/// The agents, in the order in which they were named.
#[derive(Debug)]
pub(super) struct Compared(Vec<ComparedAgent>);

#[derive(Debug)]
struct ComparedAgent {
    entry: AgentEntry,
    /// What stands between the parentheses.
    settings: String,
    candidates: usize,
}

impl Compared {
    /// # Errors
    /// Agents that are not known or named twice, no seed or the same one twice, no candidates.
    pub(super) fn of(spec: &CompareSpec) -> anyhow::Result<Self> {
        ensure!(!spec.agents.is_empty(), "--agents names none; expected some, as in --agents mtacp,random");
        ensure!(!spec.seeds.is_empty(), "--seeds names none");
        let seeds: BTreeSet<u64> = spec.seeds.iter().copied().collect();
        ensure!(seeds.len() == spec.seeds.len(), "--seeds has one twice");
        ensure!(spec.candidates > 0, "--candidates is 0, expected at least 1");
        let mut agents: Vec<ComparedAgent> = Vec::new();
        for text in &spec.agents {
            let agent = ComparedAgent::of(text, spec)?;
            let is_new = agents.iter().all(|other| other.entry.name != agent.entry.name);
            ensure!(is_new, "--agents has {} twice; compare two settings of it in two comparisons", agent.entry.word);
            agents.push(agent);
        }
        Ok(Self(agents))
    }

    /// Their names in reports.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|agent| agent.entry.word)
    }

    /// As a scene names them.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(|agent| format!("{}({})", agent.entry.name, agent.settings)).collect()
    }

    /// The first, as a scene's agent.
    pub(super) fn agent(&self) -> String {
        let ComparedAgent { entry, settings, .. } = &self.0[0];
        format!("{}({settings})", entry.name)
    }

    /// The others, as a scene's controls.
    pub(super) fn controls(&self) -> String {
        let control = |agent: &ComparedAgent| {
            let ComparedAgent { entry, settings, candidates } = agent;
            match (entry.candidates, settings.is_empty()) {
                (None, _) => format!("{}({settings})", entry.name),
                (Some(_), true) => format!("{}(candidates: {candidates})", entry.name),
                (Some(_), false) => format!("{}(candidates: {candidates}, {settings})", entry.name),
            }
        };
        self.0[1..].iter().map(control).collect::<Vec<_>>().join(", ")
    }
}

impl ComparedAgent {
    fn of(text: &str, spec: &CompareSpec) -> anyhow::Result<Self> {
        let text = text.trim();
        let (name, settings) = match text.split_once('(') {
            None => (text, ""),
            Some((name, rest)) => {
                let inner = rest.strip_suffix(')');
                (name.trim(), inner.ok_or_else(|| anyhow!("agent '{text}' has no closing parenthesis"))?.trim())
            }
        };
        let known = || spec.run.agents.entries();
        let entry = known().find(|entry| entry.name == name || entry.word == name).ok_or_else(|| {
            let words: Vec<&str> = known().map(|entry| entry.word).collect();
            anyhow!("no agent is called '{name}'; there are {}", words.join(", "))
        })?;
        ensure!(
            !settings.contains("candidates:"),
            "agent '{text}': all agents of a comparison get the same candidates, which --candidates says"
        );
        Ok(Self { entry: *entry, settings: settings.to_owned(), candidates: spec.candidates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::RunSpec;

    fn spec(agents: &[&str]) -> CompareSpec {
        CompareSpec {
            run: RunSpec::new("s.ron"),
            agents: agents.iter().map(|&agent| agent.to_owned()).collect(),
            seeds: vec![1],
            candidates: 30,
        }
    }

    #[test]
    fn words_and_names_with_settings_become_an_agent_and_its_controls() {
        let compared = Compared::of(&spec(&["mtacp", "Random", " Mtacp2".trim_end_matches("Mtacp2"), "knapsack"]));
        assert!(compared.unwrap_err().to_string().contains("no agent is called ''"));
        let compared =
            Compared::of(&spec(&["Mtacp(start: Even)", "random", "knapsack", "SwapEvolution(swaps: 2)"])).unwrap();
        assert_eq!(compared.agent(), "Mtacp(start: Even)");
        let controls = "Random(candidates: 30), Knapsack(), SwapEvolution(candidates: 30, swaps: 2)";
        assert_eq!(compared.controls(), controls);
        assert_eq!(compared.words().collect::<Vec<_>>(), ["mtacp", "random", "knapsack", "swap_evolution"]);
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let refused = |spec: CompareSpec| Compared::of(&spec).unwrap_err().to_string();
        assert!(refused(spec(&[])).contains("--agents names none"));
        assert!(refused(spec(&["mtacpp"])).contains("no agent is called 'mtacpp'; there are mtacp, uniform"));
        assert!(refused(spec(&["mtacp", "Mtacp(start: Even)"])).contains("has mtacp twice"));
        assert!(refused(spec(&["Mtacp(start: Even"])).contains("no closing parenthesis"));
        assert!(refused(spec(&["Random(candidates: 7)"])).contains("--candidates says"));
        assert!(refused(CompareSpec { seeds: vec![], ..spec(&["random"]) }).contains("--seeds names none"));
        assert!(refused(CompareSpec { seeds: vec![1, 1], ..spec(&["random"]) }).contains("one twice"));
        assert!(refused(CompareSpec { candidates: 0, ..spec(&["random"]) }).contains("--candidates is 0"));
    }
}
