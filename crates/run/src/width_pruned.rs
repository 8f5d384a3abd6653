//! A network with channels removed down to given widths, apart from any scene, and refitted on images if there are any.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use secateur_formats::{StagedFile, stage_network};
use secateur_kernels::{Effort, Norm, OutputAim, RefitAim, RefitData, SequentialRefit, channel_norms};
use secateur_net::{ChannelGroups, KeptChannels, Network, Protocol, drop_zero_biases, prune};
use secateur_onnx::{Compacted, NormNodes, OnnxDocument};

use crate::directory::cut_plan::{CUT_SCRIPT, CutPlan};
use crate::inputs::load::LoadedNetwork;

/// A network that lost channels: those of least norm, weights of the others being what they were, unless it was
/// [refitted](Self::refitted).
#[derive(Clone, Debug)]
pub struct WidthPruned {
    /// The network it was.
    pub source: Arc<LoadedNetwork>,
    /// Its channel groups.
    pub groups: ChannelGroups,
    /// The channels that are left.
    pub kept: KeptChannels,
    /// What is left, with BatchNorm folded.
    pub network: Network,
    /// The same with biases that are zero, if it was refitted.
    refitted: Option<Network>,
}

impl WidthPruned {
    /// The network with every channel.
    ///
    /// # Errors
    /// None for a network that was loaded.
    pub fn whole(source: Arc<LoadedNetwork>, protocol: Protocol) -> anyhow::Result<Self> {
        let groups = ChannelGroups::derive(source.folded.graph(), protocol);
        let kept = KeptChannels::all(&groups);
        Self::keep(source, groups, kept)
    }

    /// The network with so many channels of each group that is named, those of the largest L2 norm over all weights
    /// that would go with them (the group norm of DepGraph, Fang et al. 2023), and all of the others.
    ///
    /// # Errors
    /// A group that there is not, or that cannot be pruned; a width that is 0 or more than there are channels.
    pub fn new(
        source: Arc<LoadedNetwork>,
        protocol: Protocol,
        widths: &BTreeMap<String, usize>,
    ) -> anyhow::Result<Self> {
        let groups = ChannelGroups::derive(source.folded.graph(), protocol);
        let mut lists = KeptChannels::all(&groups).lists().to_vec();
        for (name, &width) in widths {
            let found = groups.groups().iter().position(|group| group.name == *name);
            let group = found.ok_or_else(|| {
                let names: Vec<&str> = groups.prunable().iter().map(|&id| &*groups.group(id).name).collect();
                anyhow!("there is no group '{name}'; those that can be pruned are {}", names.join(", "))
            })?;
            let n = groups.group(group).n_channels;
            ensure!(
                (1..=n).contains(&width),
                "group '{name}' has {n} channels, expected a width from 1 to {n}, got {width}"
            );
            let norms = channel_norms(&source.folded, &groups, group, Norm::L2);
            let mut list: Vec<usize> = (0..n).collect();
            list.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
            list.truncate(width);
            list.sort_unstable();
            lists[group] = list;
        }
        let kept = KeptChannels::new(&groups, lists)?;
        Self::keep(source, groups, kept)
    }

    fn keep(source: Arc<LoadedNetwork>, groups: ChannelGroups, kept: KeptChannels) -> anyhow::Result<Self> {
        let network = drop_zero_biases(&prune(&source.folded, &groups, &kept)?);
        Ok(Self { source, groups, kept, network, refitted: None })
    }

    /// The same widths, refitted on images `[N, H, W, C]` that the network expects, as the last refit of a run does:
    /// channels are chosen anew by what their readers lose, and the weights of what reads pruned channels make up for
    /// those that are gone, so that as little as possible changes of the outputs, which `outputs` says how to compare.
    ///
    /// # Errors
    /// No images, or images of another size; values that are not finite.
    pub fn refitted(&self, images: &[f32], outputs: OutputAim, pool: &rayon::ThreadPool) -> anyhow::Result<Self> {
        let Self { source, groups, .. } = self;
        let aim = RefitAim { effort: Effort::Thorough, outputs };
        let data = RefitData::new(pool, &source.folded, groups, images, aim)?;
        let (refitted, kept) = SequentialRefit::new(pool, &source.folded, groups, &data).run(&self.kept, true)?;
        let network = drop_zero_biases(&refitted);
        Ok(Self { source: source.clone(), groups: groups.clone(), kept, network, refitted: Some(refitted) })
    }

    /// Writes what a run writes for a task, but for a certificate: `model.safetensors`, `model.onnx`, and `plan.json`
    /// with `cut.py`, which cuts the PyTorch module that the network came from. Its check is computed on `pool`.
    ///
    /// # Errors
    /// A folder that cannot be written to; a network that no ONNX file holds.
    pub fn write(&self, folder: &Path, pool: &rayon::ThreadPool) -> anyhow::Result<()> {
        let at = || format!("'{}'", folder.display());
        std::fs::create_dir_all(folder).with_context(at)?;
        let Self { source, groups, kept, network, refitted } = self;
        let pruned = Compacted { folded: &source.folded, groups, kept, network };
        let (document, original) = match &source.document {
            Some(document) => {
                // A document has places for the biases of zero that the network needs no more.
                let network = refitted.clone().map_or_else(|| prune(&source.folded, groups, kept), Ok)?;
                let pruned = Compacted { network: &network, ..pruned };
                (document.pruned(&pruned, NormNodes::Kept)?, Some(document.document()))
            }
            None => (OnnxDocument::of_network(network, &source.name)?, None),
        };
        let plan = CutPlan::new(source, &pruned, pool)?.to_json()?;
        let files = document.to_files(original.unwrap_or(&document), "model.onnx.data")?;
        let data = files.data.into_iter().map(|file| (file.name, file.bytes));
        let others = [("model.onnx", files.model), ("plan.json", plan.into_bytes()), ("cut.py", CUT_SCRIPT.into())];
        for (name, bytes) in data.chain(others.map(|(name, bytes)| (name.to_owned(), bytes))) {
            StagedFile::new(&folder.join(name), &bytes)?.commit()?;
        }
        stage_network(&folder.join("model.safetensors"), network, &source.preprocessing)?.commit()?;
        Ok(())
    }
}
