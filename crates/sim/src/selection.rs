//! How a scene says that channels are chosen.

use std::sync::Arc;

use secateur_kernels::Norm;
use secateur_net::Network;
use serde::{Deserialize, Serialize};

use crate::error::SimError;
use crate::network::{ActivationEnergy, BatchNormScale, Criterion, GeometricMedian, GroupNorm, RandomOrder};
use crate::plugin::PluginList;

/// How the channels that stay are chosen once a width is fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// Largest sum of absolute weights over the channel's filters and the weights that read it.
    L1,
    /// Largest Euclidean norm of the same weights.
    L2,
    /// Backward elimination on the least-squares error of the consumers, which needs no criterion: each channel that
    /// goes changes what the others are worth.
    #[default]
    Reconstruction,
    /// Largest absolute scale of the BatchNorm behind the channel's producers.
    BnScale,
    /// Largest mean square of the channel's activations on the calibration images.
    ActivationEnergy,
    /// Largest sum of the distances between the channel's filter and all others of its group: what lies near their
    /// geometric median goes.
    Fpgm,
    /// A random order.
    Random,
    /// Largest importance by the criterion of this name, which a plugin brings.
    Custom(String),
}

impl Selection {
    /// The criterion, if the channels are chosen by one; a random order is drawn from `seed`, scales are those of
    /// `original`, the network before its BatchNorm was folded.
    ///
    /// # Errors
    /// [`SimError::UnknownCriterion`]: the name of one that no plugin brings.
    pub fn criterion(
        &self,
        seed: u64,
        plugins: &PluginList,
        original: Option<&Network>,
    ) -> Result<Option<Arc<dyn Criterion>>, SimError> {
        Ok(match self {
            Self::L1 | Self::L2 => self.norm().map(|norm| Arc::new(GroupNorm(norm)) as _),
            Self::Reconstruction => None,
            Self::BnScale => Some(Arc::new(BatchNormScale { original: original.cloned() })),
            Self::ActivationEnergy => Some(Arc::new(ActivationEnergy)),
            Self::Fpgm => Some(Arc::new(GeometricMedian)),
            Self::Random => Some(Arc::new(RandomOrder(seed))),
            Self::Custom(name) => Some(plugins.criterion(name).ok_or_else(|| unknown(name, plugins))?),
        })
    }

    /// The norm, if the channels are chosen by one.
    pub const fn norm(&self) -> Option<Norm> {
        match self {
            Self::L1 => Some(Norm::L1),
            Self::L2 => Some(Norm::L2),
            Self::Reconstruction
            | Self::BnScale
            | Self::ActivationEnergy
            | Self::Fpgm
            | Self::Random
            | Self::Custom(_) => None,
        }
    }
}

fn unknown(name: &str, plugins: &PluginList) -> SimError {
    let known = match plugins.criterion_names()[..] {
        [] => "no plugin of this binary brings one".to_owned(),
        ref names => format!("plugins of this binary bring: {}", names.join(", ")),
    };
    SimError::UnknownCriterion { name: name.to_owned(), known }
}
