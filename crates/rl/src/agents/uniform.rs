//! The same share of every group: the one candidate that needs no search.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec};
use crate::error::{RlError, check_finite};
use crate::interface::{ActRequest, Decision, Policy};

/// Settings of [`Uniform`]: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniformSettings {}

impl AgentSettings for UniformSettings {
    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Agent::Fixed(Arc::new(Uniform)))
    }
}

impl AgentKind for UniformSettings {
    const ENTRY: AgentEntry = AgentEntry {
        name: "Uniform",
        word: "uniform",
        about: "the same keep ratio everywhere: one candidate",
        learns: false,
        shows_policy: false,
        candidates: None,
    };
}

/// Always the even ratio: the same share of every group.
#[derive(Clone, Copy, Debug)]
pub struct Uniform;

impl Policy for Uniform {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            check_finite("act", "even_ratio", &[request.even_ratio])?;
            Ok(Decision { keep_ratio: request.even_ratio, raw_action: request.even_ratio, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_keeps_the_even_ratio() {
        let request = ActRequest { even_ratio: 0.37, explore: true, ..ActRequest::default() };
        assert_eq!(Uniform.act(&[request]).unwrap()[0].keep_ratio, 0.37);
        let request = ActRequest { even_ratio: f32::NAN, ..ActRequest::default() };
        assert!(Uniform.act(&[request]).is_err());
    }
}
