//! A scene to start from.

/// A scene with every field at its default and a comment on each: purpose, allowed values.
pub fn template() -> &'static str {
    include_str!("template.ron")
}

#[cfg(test)]
mod tests {
    use super::template;
    use crate::Scene;

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
            .replace("            // mean", "            mean");
        let with_all =
            with_all.replace("            // std", "            std").replace("// datasets: [", "datasets: [");
        let with_all = with_all.replace("// (name: \"shapes\"", "(name: \"shapes\"");
        let scene = Scene::parse("template.ron", &with_all).unwrap();
        assert_eq!(scene.networks[0].arch.as_deref(), Some("resnet20"));
        assert_eq!((scene.datasets.len(), scene.tasks.len()), (2, 1));
        assert!(scene.networks[0].normalisation.is_some());
    }
}
