//! What a worker needs of a search to score its candidates, as bytes: the networks, and the images that walks are
//! refitted and paid on. No scene, no files, and none of the images that only the search itself looks at.

use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_kernels::{Isa, Precision};
use secateur_net::{Graph, Network, Protocol, Tensor};
use secateur_sim::{
    FittedImages, IndexOf, Inputs, OutputPart, PluginList, Pool, Prepared, Repair, RewardInputs, RewardKind,
};
use serde::{Deserialize, Serialize};

use crate::build::build;
use crate::inputs::resolve::Resolved;
use crate::prepare::{self, Computes};
use crate::scene::{Scene, TuneBeforeScore};

/// Changes whenever what is encoded does.
const MAGIC: &[u8] = b"secateur worker inputs 2\n";

/// All of it.
#[derive(Serialize, Deserialize)]
pub(super) struct WorkerInputs {
    /// blake3 of what decides about scores.
    pub(super) search: String,
    pub(super) machine: ScoringMachine,
    pub(super) tune: Option<TuneBeforeScore>,
    /// In the order in which the tasks name them.
    pairs: Vec<PairInputs>,
}

/// What of a machine decides about the last digits of scores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScoringMachine {
    program: String,
    build: String,
    instructions: String,
}

/// A network and a data set.
#[derive(Serialize, Deserialize)]
struct PairInputs {
    network_name: String,
    dataset_name: String,
    /// Index, and of how many.
    network: [usize; 2],
    dataset: [usize; 2],
    /// JSON, as in our safetensors files.
    graph: String,
    /// Name, shape, values.
    weights: Vec<(String, Vec<usize>, Vec<f32>)>,
    protocol: Protocol,
    repair: Repair,
    precision: Precision,
    walk_images: usize,
    /// Those that walks are refitted on, and candidates tuned: calibration and refit images begin with the same.
    fitted: Vec<f32>,
    /// Values of the calibration images and of the refit images among them.
    n_fitted: [usize; 2],
    reward_images: Vec<f32>,
    labels: Option<Vec<u16>>,
    reward: RewardKind,
    outputs: Vec<OutputPart>,
}

impl ScoringMachine {
    pub(super) fn this() -> Self {
        Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            build: build().unwrap_or_default(),
            instructions: format!("{:?}", Isa::detect()),
        }
    }

    /// How scores of this machine may differ from those of the search's; none where they do not.
    pub(super) fn difference(&self, of_search: &Self) -> Option<String> {
        let (ours, theirs) = (self, of_search);
        if ours.instructions != theirs.instructions {
            let (ours, theirs) = (&ours.instructions, &theirs.instructions);
            return Some(format!(
                "it computes with {ours} where the search has {theirs}, which gives other last digits"
            ));
        }
        if ours.program != theirs.program {
            let (ours, theirs) = (&ours.program, &theirs.program);
            return Some(format!("it has secateur {ours} where the search has {theirs}"));
        }
        let short = |build: &str| if build.is_empty() { "unknown".to_owned() } else { build[..12].to_owned() };
        (ours.build != theirs.build || ours.build.is_empty()).then(|| {
            let (ours, theirs) = (short(&ours.build), short(&theirs.build));
            format!("it has another build of secateur {} ({ours}) than the search ({theirs})", self.program)
        })
    }
}

impl WorkerInputs {
    /// What there is to send of a scene. Draws its images anew.
    pub(super) fn of(scene: &Scene, resolved: &Resolved, pool: &Pool, search: &str) -> anyhow::Result<Self> {
        let plugins = PluginList::default();
        let pair = |pair| {
            let computes = Computes { pool: &pool.0, card: None };
            let inputs = prepare::inputs((scene, &plugins), resolved, computes, pair)?;
            Ok(PairInputs::of(inputs, scene.tune_before_score))
        };
        let pairs = prepare::pairs(scene).into_iter().map(pair).collect::<anyhow::Result<_>>()?;
        Ok(Self { search: search.to_owned(), machine: ScoringMachine::this(), tune: scene.tune_before_score, pairs })
    }

    pub(super) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        postcard::to_extend(self, MAGIC.to_vec()).context("encoding what workers need")
    }

    pub(super) fn decode(bytes: &[u8]) -> anyhow::Result<Self> {
        let bytes = bytes.strip_prefix(MAGIC);
        let bytes = bytes.context("these are no inputs of a worker of this version of secateur")?;
        postcard::from_bytes(bytes).context("the inputs of a worker are damaged")
    }

    /// Networks ready to be scored. Which channels a candidate keeps is decided already, so none are ranked.
    pub(super) fn prepare(self, pool: &Pool) -> anyhow::Result<Vec<Arc<Prepared>>> {
        let prepare = |pair: PairInputs| {
            let name = format!("preparing {} on {}", pair.network_name, pair.dataset_name);
            let prepared =
                pair.inputs().and_then(|inputs| Ok(Prepared::with_paths(&pool.0, inputs, Vec::new(), |_, _| {})?));
            Ok(Arc::new(prepared.context(name)?))
        };
        self.pairs.into_iter().map(prepare).collect()
    }
}

fn named_values(name: &str, values: &Tensor) -> (String, Vec<usize>, Vec<f32>) {
    (name.to_owned(), values.shape().to_vec(), values.data().to_vec())
}

impl PairInputs {
    fn of(inputs: Inputs, tune: Option<TuneBeforeScore>) -> Self {
        let Inputs { network_index, dataset_index, network, fitted, reward, .. } = inputs;
        let image_len = network.graph().input().len();
        let n_refit = fitted.refit().len() / image_len;
        let n_tuned = tune.map_or(0, |tune| tune.n_images(n_refit));
        let [n_calibration, n_refit] = match inputs.repair {
            Repair::Off => [0, n_tuned],
            Repair::Original => [fitted.calibration().len() / image_len, n_tuned],
            Repair::Sequential => [0, n_tuned.max(inputs.walk_images.min(n_refit))],
        };
        let n_fitted = [n_calibration, n_refit].map(|n| n * image_len);
        let [calibration, refit] = [&fitted.calibration()[..n_fitted[0]], &fitted.refit()[..n_fitted[1]]];
        let fitted = if calibration.len() > refit.len() { calibration } else { refit }.to_vec();
        Self {
            network_name: inputs.network_name,
            dataset_name: inputs.dataset_name,
            network: [network_index.index, network_index.of],
            dataset: [dataset_index.index, dataset_index.of],
            graph: serde_json::to_string(network.graph()).unwrap_or_default(),
            weights: network.weights().iter().map(|(name, values)| named_values(name, values)).collect(),
            protocol: inputs.protocol,
            repair: inputs.repair,
            precision: inputs.precision,
            walk_images: inputs.walk_images,
            fitted,
            n_fitted,
            reward_images: reward.images,
            labels: reward.labels,
            reward: reward.kind,
            outputs: reward.outputs,
        }
    }

    fn inputs(self) -> anyhow::Result<Inputs> {
        let graph: Graph = serde_json::from_str(&self.graph).context("graph")?;
        let weight = |(name, shape, data)| Ok((name, Tensor::new(shape, data)?));
        let weights = self.weights.into_iter().map(weight).collect::<anyhow::Result<_>>()?;
        let network = Network::new(graph, weights)?;
        let n_values = self.fitted.len();
        ensure!(n_values.is_multiple_of(network.graph().input().len()), "images of another size than the network's");
        let [n_calibration, n_refit] = self.n_fitted;
        let of = |[index, of]: [usize; 2]| IndexOf { index, of };
        Ok(Inputs {
            network_name: self.network_name,
            dataset_name: self.dataset_name,
            network_index: of(self.network),
            dataset_index: of(self.dataset),
            network,
            protocol: self.protocol,
            criterion: None,
            norm_orders: Default::default(),
            repair: self.repair,
            walk_images: self.walk_images,
            precision: self.precision,
            fitted: FittedImages::new(self.fitted, n_calibration, n_refit),
            reward: RewardInputs {
                images: self.reward_images,
                labels: self.labels,
                kind: self.reward,
                outputs: self.outputs,
            },
        })
    }
}
