//! A task's network as an ONNX model.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use secateur_certify::{CertifiedDocument, certify_onnx};
use secateur_onnx::{Compacted, DocumentNetwork, NormNodes, OnnxDocument};
use secateur_sim::{Prepared, Winner};

use super::entries::{ONNX_DATA_FILE, ONNX_FILE, TaskFile};
use crate::inputs::budgets::{ResolvedBudget, Whole};
use crate::inputs::load::LoadedNetwork;
use crate::inputs::onnx_document::{MEAN_KEY, STD_KEY};

/// The files of an ONNX model, and what is counted of them.
pub(crate) struct OnnxFiles {
    /// Data first, so that no model stands there without.
    pub(crate) files: Vec<TaskFile>,
    pub(crate) certificate: CertifiedDocument,
}

impl OnnxFiles {
    /// The document that the network came from, with what is left of it; of a network that came otherwise, a new one.
    /// Where the user's document cannot hold the network it is a new one, too, and the reason stands beside.
    ///
    /// # Errors
    /// A network that no ONNX file holds.
    pub(crate) fn new(
        network: &LoadedNetwork,
        prepared: &Prepared,
        winner: &Winner,
        budget: &ResolvedBudget,
    ) -> anyhow::Result<(Self, Option<anyhow::Error>)> {
        let Some(source) = &network.document else { return Ok((Self::generated(network, winner, budget)?, None)) };
        match Self::of_document(source, network, prepared, winner, budget) {
            Ok(files) if files.holds() => Ok((files, None)),
            Ok(_) => {
                let why =
                    anyhow!("it has parameters that the network does not need, which the budget leaves no room for");
                Ok((Self::generated(network, winner, budget)?, Some(why)))
            }
            Err(why) => Ok((Self::generated(network, winner, budget)?, Some(why))),
        }
    }

    fn holds(&self) -> bool {
        self.certificate.budgets.iter().all(|budget| budget.ok)
    }

    fn of_document(
        source: &DocumentNetwork,
        network: &LoadedNetwork,
        prepared: &Prepared,
        winner: &Winner,
        budget: &ResolvedBudget,
    ) -> anyhow::Result<Self> {
        if budget.whole() == Some(Whole::AsGiven) {
            return Self::of(source, source.document(), budget);
        }
        let (groups, kept) = (&prepared.groups, &winner.kept);
        let pruned = Compacted { folded: &prepared.network, groups, kept, network: &winner.network };
        let hash = blake3::hash(&source.document().to_bytes()).to_hex().to_string();
        let properties = [properties(network, budget)?, vec![("secateur.source.blake3", hash)]].concat();
        let write = |norms: NormNodes| -> anyhow::Result<Self> {
            let document = source.pruned(&pruned, norms)?;
            Self::of(source, &document.with_properties(&properties), budget)
        };
        // A BatchNorm has a scale and a shift where the network that was searched has a bias.
        let as_given = write(NormNodes::Kept)?;
        if as_given.holds() { Ok(as_given) } else { write(NormNodes::Folded) }
    }

    /// A document of our own.
    fn generated(network: &LoadedNetwork, winner: &Winner, budget: &ResolvedBudget) -> anyhow::Result<Self> {
        let document = OnnxDocument::of_network(&winner.emitted(), &network.name)?;
        let model = document.with_properties(&properties(network, budget)?).to_bytes();
        let certificate = certify_onnx(Path::new(ONNX_FILE), &model, None, &budget.named())?;
        Ok(Self { files: vec![TaskFile { name: ONNX_FILE, bytes: model }], certificate })
    }

    fn of(source: &DocumentNetwork, document: &OnnxDocument, budget: &ResolvedBudget) -> anyhow::Result<Self> {
        let written = document.to_files(source.document(), ONNX_DATA_FILE)?;
        let certificate = certify_onnx(Path::new(ONNX_FILE), &written.model, source.size(), &budget.named())?;
        let mut files = Vec::new();
        for data in written.data {
            ensure!(
                data.name == ONNX_DATA_FILE,
                "the whole network is within the budget, and keeps data in '{}': copy the files that were given",
                data.name
            );
            files.push(TaskFile { name: ONNX_DATA_FILE, bytes: data.bytes });
        }
        files.push(TaskFile { name: ONNX_FILE, bytes: written.model });
        Ok(Self { files, certificate })
    }
}

/// What an ONNX model says of how it was made, and what `eval` needs to know of its images.
fn properties(network: &LoadedNetwork, budget: &ResolvedBudget) -> anyhow::Result<Vec<(&'static str, String)>> {
    let bounds: Vec<String> = budget.named().iter().map(|(kind, max)| format!("{kind} of at most {max}")).collect();
    let json = |numbers: &[f32]| serde_json::to_string(numbers).context("mean and std");
    Ok(vec![
        ("secateur.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("secateur.budget", bounds.join(", ")),
        (MEAN_KEY, json(&network.preprocessing.mean)?),
        (STD_KEY, json(&network.preprocessing.std)?),
    ])
}
