//! The agents, one folder or file each. A new one needs its folder and its line in the list below.

pub mod amc;
pub mod cacp;
pub mod ddpg;
pub mod equal_error;
pub mod evolution;
pub mod fixed;
pub mod global_norm;
pub mod impala;
pub mod knapsack;
pub mod mtacp;
mod plan_search;
mod planned;
mod planned_walks;
pub mod ppo;
pub mod qmix_fp;
pub mod random;
pub mod spdy;
pub mod swap_evolution;
pub mod uniform;
pub mod value_of_error;

use crate::agent::{AgentEntry, AgentKind, AgentVisitor};

/// Makes [`AGENTS`] and [`visit_agents`] of one list of settings types.
macro_rules! agents {
    ($($settings:ty),* $(,)?) => {
        /// Every agent of this crate, in the order of help texts; the first is the default.
        pub static AGENTS: &[AgentEntry] = &[$(<$settings>::ENTRY),*];

        /// Shows every agent of [`AGENTS`] to `visitor`, which sees the type of its settings.
        pub fn visit_agents(visitor: &mut impl AgentVisitor) {
            $(visitor.visit::<$settings>();)*
        }
    };
}

agents! {
    mtacp::MtacpSettings,
    uniform::UniformSettings,
    random::RandomSettings,
    knapsack::KnapsackSettings,
    equal_error::EqualErrorSettings,
    global_norm::GlobalNormSettings,
    fixed::FixedSettings,
    spdy::SpdySettings,
    swap_evolution::SwapEvolutionSettings,
    evolution::EvolutionSettings,
    value_of_error::ValueOfErrorSettings,
    amc::AmcSettings,
    cacp::CacpSettings,
    impala::ImpalaSettings,
    ppo::PpoSettings,
    qmix_fp::QmixFpSettings,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::agent::{EnvironmentSpec, build};

    /// Builds every agent with its defaults, read from an empty object.
    #[derive(Default)]
    struct AgentBuilder {
        n_built: usize,
    }

    impl AgentVisitor for AgentBuilder {
        fn visit<K: AgentKind>(&mut self) {
            let settings: K = serde_json::from_str("{}").unwrap();
            assert_eq!(settings.check(), [], "{}", K::ENTRY.name);
            let environment = EnvironmentSpec {
                n_features: 13,
                n_tasks: 2,
                n_actors: 4,
                walk_length_max: 5,
                walks_planned: 100,
                keep_ratio_min: 0.1,
                seed: 1,
            };
            let agent = build(&settings, &environment).unwrap();
            assert_eq!(agent.policy().version(), 0);
            assert_eq!(matches!(agent, crate::Agent::Learning(_)), K::ENTRY.learns, "{}", K::ENTRY.name);
            // What is written reads back as the same.
            let written = serde_json::to_string(&settings).unwrap();
            let again: K = serde_json::from_str(&written).unwrap();
            assert_eq!(serde_json::to_string(&again).unwrap(), written);
            let unknown: Result<K, _> = serde_json::from_str(r#"{"no_such_setting": 1}"#);
            assert!(unknown.is_err(), "{} takes unknown settings", K::ENTRY.name);
            self.n_built += 1;
        }
    }

    #[test]
    fn every_agent_is_built_from_its_defaults_and_its_settings_can_be_written() {
        let mut builder = AgentBuilder::default();
        visit_agents(&mut builder);
        assert_eq!(builder.n_built, AGENTS.len());
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = AGENTS.iter().map(|entry| entry.name).collect();
        let words: BTreeSet<&str> = AGENTS.iter().map(|entry| entry.word).collect();
        assert_eq!((names.len(), words.len()), (AGENTS.len(), AGENTS.len()));
    }
}
