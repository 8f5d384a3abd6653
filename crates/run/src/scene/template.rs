//! A scene to start from.

/// A scene with every field at its default and a comment on each: purpose, allowed values.
pub fn template() -> &'static str {
    include_str!("template.ron")
}

#[cfg(test)]
mod tests {
    use super::template;
    use crate::scene::{AgentList, Scene};

    #[test]
    fn the_template_parses_and_spells_out_exactly_the_defaults() {
        let scene = Scene::parse("template.ron", template()).unwrap();
        let short = r#"(version: 1, seed: 7, networks: [(name: "resnet20", file: "resnet20.safetensors")],
            datasets: [(name: "cifar10", source: Cifar10)], budgets: [Macs(ratio: 0.5)])"#;
        assert_eq!(scene, Scene::parse("short.ron", short).unwrap());
    }

    #[test]
    fn the_commented_out_fields_are_valid_too() {
        let with_all = template()
            .replace("            // arch", "            arch")
            .replace("            // mean", "            mean")
            .replace("            // size", "            size")
            .replace("            // keep", "            keep");
        let with_all =
            with_all.replace("            // std", "            std").replace("// datasets: [", "datasets: [");
        let with_all = with_all.replace("// (name: \"shapes\"", "(name: \"shapes\"");
        let scene = Scene::parse("template.ron", &with_all).unwrap();
        assert_eq!(scene.networks[0].arch.as_deref(), Some("resnet20"));
        assert_eq!((scene.datasets.len(), scene.tasks.len()), (2, 1));
        assert!(scene.networks[0].normalisation.is_some());
        assert_eq!(scene.networks[0].size, Some([32, 32]));
        assert_eq!(scene.networks[0].keep.len(), 3);
        let joint =
            template().replace("budgets: [Macs(ratio: 0.5)]", "budgets: [Budget([Macs(ratio: 0.5), Params(max: 9)])]");
        assert_eq!(Scene::parse("template.ron", &joint).unwrap().budgets[0].bounds.len(), 2);
    }

    /// How the lines of settings begin.
    const MTACP: &str = "//   ";
    const DDPG: &str = "//  * ";

    #[test]
    fn every_agent_and_every_setting_of_it_is_explained() {
        let agents = AgentList::default();
        for entry in agents.entries() {
            assert!(template().contains(entry.name), "the template does not tell of {}", entry.name);
            for setting in agents.settings_of(entry.name) {
                // Those of networks have a line each.
                let before = match entry.name {
                    "Mtacp" | "Impala" | "Ppo" => MTACP,
                    "Amc" | "Cacp" => DDPG,
                    _ => "; ",
                };
                let is_told = template().contains(&format!("{before}{setting}: ")) || *setting == "profile";
                assert!(is_told, "the template does not tell of {}'s setting {setting}", entry.name);
            }
        }
    }

    /// The defaults that the comments state, for both profiles, are the profiles' defaults.
    #[test]
    fn the_defaults_that_are_told_are_the_defaults() {
        defaults_are_told("Mtacp", MTACP);
        defaults_are_told("Amc", DDPG);
    }

    fn defaults_are_told(name: &str, before: &str) {
        let told = template().lines().filter_map(|line| line.trim().strip_prefix(before)?.split_once(": "));
        let sides: Vec<(&str, [&str; 2])> = told
            .map(|(name, text)| {
                // What explains stands behind several blanks, or is absent.
                let values = text.split("  ").next().unwrap_or_default();
                let (tuned, paper) = values.split_once(" | ").unwrap_or((values, values));
                (name, [tuned.trim(), paper.trim()])
            })
            .collect();
        // All but the profile itself.
        assert_eq!(sides.len() + 1, AgentList::default().settings_of(name).len());
        for (i, profile) in ["Tuned", "Paper"].into_iter().enumerate() {
            let agent = |settings: String| {
                let text = template().replace("agent: Mtacp(profile: Tuned)", &format!("agent: {name}({settings})"));
                Scene::parse("template.ron", &text).unwrap_or_else(|error| panic!("{error}")).agent.clone()
            };
            let all: String = sides.iter().map(|(name, values)| format!("{name}: {}, ", values[i])).collect();
            let all = all.replace("0.333,", "0.3333333333333333,");
            assert_eq!(agent(format!("profile: {profile}, {all}")), agent(format!("profile: {profile}")));
        }
    }
}
