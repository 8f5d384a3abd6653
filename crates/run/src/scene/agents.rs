//! Agents and controls as scenes name them.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use secateur_rl::{AgentEntry, AgentKind, AgentSettings, AgentVisitor, visit_agents};
use secateur_scene::{Document, Problem, Section, fields_of, to_ron};

use super::template::template;

/// Candidates that a control may be given.
const CANDIDATES: RangeInclusive<usize> = 1..=1_000_000;

/// The agents that scenes can name.
#[derive(Clone)]
pub struct AgentList(Vec<KnownAgent>);

/// An agent of the list, its type forgotten.
#[derive(Clone, Copy)]
struct KnownAgent {
    entry: AgentEntry,
    read: fn(&Section) -> Result<AgentSpec, Problem>,
    settings: fn() -> &'static [&'static str],
}

/// An agent that a scene chose, with all its settings.
#[derive(Clone)]
pub struct AgentSpec {
    /// Its name and nature.
    pub entry: AgentEntry,
    /// Its settings.
    pub settings: Arc<dyn AgentSettings>,
    /// The settings as RON, all of them, in parentheses.
    ron: String,
}

/// A reference that runs beside the agent on every task.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlSpec {
    /// Who decides.
    pub agent: AgentSpec,
    /// Candidates scored per task, 1..=1,000,000; the best of them counts.
    pub candidates: usize,
}

/// By their names.
impl fmt::Debug for AgentList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries().map(|entry| entry.name)).finish()
    }
}

/// Equal when they name the same agents.
impl PartialEq for AgentList {
    fn eq(&self, other: &Self) -> bool {
        self.entries().eq(other.entries())
    }
}

/// The agents of `rl`.
impl Default for AgentList {
    fn default() -> Self {
        let mut list = Self(Vec::new());
        visit_agents(&mut list);
        list
    }
}

impl AgentVisitor for AgentList {
    fn visit<K: AgentKind>(&mut self) {
        self.add::<K>();
    }
}

impl AgentList {
    /// Adds an agent, in place of one of the same name.
    pub fn add<K: AgentKind>(&mut self) {
        self.0.retain(|known| known.entry.name != K::ENTRY.name);
        self.0.push(KnownAgent { entry: K::ENTRY, read: read::<K>, settings: fields_of::<K> });
    }

    /// Every agent, in order.
    pub fn entries(&self) -> impl Iterator<Item = &AgentEntry> {
        self.0.iter().map(|known| &known.entry)
    }

    /// The names of the settings of the agent that scenes call `name`; none for one that is not known.
    pub fn settings_of(&self, name: &str) -> &'static [&'static str] {
        self.0.iter().find(|known| known.entry.name == name).map_or(&[], |known| (known.settings)())
    }

    /// The agent of a scene, its ranges not checked.
    ///
    /// # Errors
    /// An unknown name, settings that are none of the agent's.
    pub(super) fn agent(&self, document: &Document) -> Result<(AgentSpec, Section), Problem> {
        let section = or_default(document, "agent").section("agent")?;
        Ok(((self.named(&section)?.read)(&section)?, section))
    }

    /// The control at this place of a scene's list, its ranges not checked.
    ///
    /// # Errors
    /// As [`Self::agent`].
    pub(super) fn control(&self, document: &Document, place: usize) -> Result<(ControlSpec, Section), Problem> {
        let mut section = or_default(document, "controls").section(&format!("controls[{place}]"))?;
        let known = self.named(&section)?;
        let candidates = match known.entry.candidates {
            Some(default) => section.take("candidates")?.unwrap_or(default),
            None => 1,
        };
        Ok((ControlSpec { agent: (known.read)(&section)?, candidates }, section))
    }

    fn named(&self, section: &Section) -> Result<&KnownAgent, Problem> {
        let known = self.0.iter().find(|known| known.entry.name == section.name());
        known.ok_or_else(|| section.unknown_name(self.0.iter().map(|known| known.entry.name)))
    }
}

/// The scene's own text if the field is there, else the text with the defaults.
fn or_default(document: &Document, field: &str) -> Document {
    if document.value(field).is_some() { document.clone() } else { Document::new("defaults", template()) }
}

fn read<K: AgentKind>(section: &Section) -> Result<AgentSpec, Problem> {
    section.settings::<K>().map(AgentSpec::new)
}

impl AgentSpec {
    /// An agent with these settings.
    pub fn new<K: AgentKind>(settings: K) -> Self {
        let ron = to_ron(&settings);
        Self { entry: K::ENTRY, settings: Arc::new(settings), ron }
    }

    /// As a scene writes it.
    pub(super) fn to_ron(&self) -> String {
        if self.ron == "()" { self.entry.name.to_owned() } else { format!("{}{}", self.entry.name, self.ron) }
    }

    /// Every setting that is out of its range.
    pub(super) fn check(&self, section: &Section) -> Vec<Problem> {
        self.settings.check().iter().map(|bad| section.problem(&bad.path, &bad.problem)).collect()
    }
}

impl ControlSpec {
    /// As a scene writes it.
    pub(super) fn to_ron(&self) -> String {
        let name = self.agent.entry.name;
        match (self.agent.entry.candidates, self.agent.ron.strip_prefix('(')) {
            (None, _) | (_, None) => self.agent.to_ron(),
            (Some(_), Some(")")) => format!("{name}(candidates: {})", self.candidates),
            (Some(_), Some(rest)) => format!("{name}(candidates: {}, {rest}", self.candidates),
        }
    }

    /// Every setting that is out of its range.
    pub(super) fn check(&self, section: &Section) -> Vec<Problem> {
        let mut problems = self.agent.check(section);
        if !CANDIDATES.contains(&self.candidates) {
            let (got, least, most) = (self.candidates, CANDIDATES.start(), CANDIDATES.end());
            problems.push(section.problem("candidates", &format!("is {got}, expected {least}..={most}")));
        }
        problems
    }
}

impl fmt::Debug for AgentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_ron())
    }
}

/// Equal when the same agent has the same settings.
impl PartialEq for AgentSpec {
    fn eq(&self, other: &Self) -> bool {
        (self.entry, &self.ron) == (other.entry, &other.ron)
    }
}
