//! `plan.json`: what was removed from a network, for cutting the user's own PyTorch module, and `cut.py`, which does
//! it.
//!
//! `plan.json` is one object; each layer stands on a line of its own:
//! * `format` (1), `program`, `network` (its name), `weights` (the file beside it with the weights of the pruned
//!   network);
//! * `layers`: one for each operation with parameters, in the order of the network ([`PlannedLayer`]). `name` is the
//!   layer's in `weights` (`<name>.weight`, …); BatchNorm behind a convolution is folded into it there, and has no
//!   entry;
//! * `splits`: places where channels are taken apart, and how many channels each part has and keeps ([`PlannedSplit`]);
//! * `check`: images that anybody can make again, and what the pruned network makes of them ([`PlanCheck`]).

mod check;
mod layers;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use anyhow::Context;
pub use check::{OutputMark, PlanCheck};
pub use layers::{PlannedLayer, PlannedSplit};
use secateur_onnx::Compacted;
use secateur_sim::{Prepared, Winner};
use serde::Serialize;

use super::entries::{CUT_SCRIPT_FILE, PLAN_FILE, TaskFile};
use crate::inputs::load::LoadedNetwork;

/// Version of the file's content.
const FORMAT: u32 = 1;
/// The file with a pruned network's weights, which stands beside the plan.
const WEIGHTS: &str = "model.safetensors";

/// The Python file that cuts a module by a plan.
pub const CUT_SCRIPT: &str = include_str!("../../../python/cut.py");

/// What was removed from a network. [`CutPlan::to_json`] gives `plan.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct CutPlan {
    /// The network's name.
    pub network: String,
    /// Every operation with parameters, in the order of the network.
    pub layers: Vec<PlannedLayer>,
    /// Where channels are taken apart.
    pub splits: Vec<PlannedSplit>,
    /// What the pruned network computes.
    pub check: PlanCheck,
}

impl CutPlan {
    /// The plan of a network that `source` was pruned to; `pruned.network` is what is written. Its outputs are computed
    /// on `pool`.
    ///
    /// # Errors
    /// A pruned network that does not belong to `source`.
    pub fn new(source: &LoadedNetwork, pruned: &Compacted<'_>, pool: &rayon::ThreadPool) -> anyhow::Result<Self> {
        let (mut check, marks) = check::check(pruned.network, pool)?;
        if source.ends_early.is_some() {
            (check.logits, check.output) = (None, None);
        }
        let layers = layers::layers(source, pruned, &marks)?;
        Ok(Self { network: source.name.clone(), layers, splits: layers::splits(pruned), check })
    }

    /// The file's text.
    ///
    /// # Errors
    /// None for a plan that was made here.
    pub fn to_json(&self) -> anyhow::Result<String> {
        let program = format!("secateur {}", env!("CARGO_PKG_VERSION"));
        let mut out = format!("{{\n\"format\": {FORMAT},\n");
        for (key, text) in [("program", program.as_str()), ("network", &self.network), ("weights", WEIGHTS)] {
            writeln!(out, "\"{key}\": {},", json(&text)?)?;
        }
        writeln!(out, "\"layers\": {},", lines(&self.layers)?)?;
        writeln!(out, "\"splits\": {},", lines(&self.splits)?)?;
        writeln!(out, "\"check\": {}\n}}", json(&self.check)?)?;
        Ok(out)
    }
}

/// The plan of a task's network, and the file that cuts a module by it.
///
/// # Errors
/// As [`CutPlan::new`].
pub(crate) fn plan_files(
    source: &LoadedNetwork,
    prepared: &Prepared,
    winner: &Winner,
    pool: &rayon::ThreadPool,
) -> anyhow::Result<Vec<TaskFile>> {
    let (groups, kept, network) = (&prepared.groups, &winner.kept, winner.emitted());
    let pruned = Compacted { folded: &prepared.network, groups, kept, network: &network };
    let plan = CutPlan::new(source, &pruned, pool)?.to_json()?;
    Ok(vec![
        TaskFile { name: PLAN_FILE, bytes: plan.into_bytes() },
        TaskFile { name: CUT_SCRIPT_FILE, bytes: CUT_SCRIPT.as_bytes().to_vec() },
    ])
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(value).context("plan.json")
}

/// A list with an element on each line.
fn lines(list: &[impl Serialize]) -> anyhow::Result<String> {
    let lines: Vec<String> = list.iter().map(json).collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]", lines.join(",\n")))
}
