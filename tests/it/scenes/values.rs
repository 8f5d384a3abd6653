//! What a checked scene holds: defaults, tasks, plugins, and its way back to text.

use secateur::formats::procedural;
use secateur::rl::Profile;
use secateur::rl::agents::knapsack::KnapsackSettings;
use secateur::rl::agents::mtacp::{MtacpSettings, SigmaRule, UnrollRule};
use secateur::rl::agents::random::RandomSettings;
use secateur::rl::agents::swap_evolution::SwapEvolutionSettings;
use secateur::rl::agents::uniform::UniformSettings;
use secateur::scene::{AgentSpec, BudgetBound, ControlSpec, Cost, DatasetSource, Images, RewardChoice, Scene};
use serde::Deserialize;

const SHORT: &str = r#"(version: 1, seed: 7, networks: [(name: "resnet20", file: "resnet20.safetensors")],
    datasets: [(name: "cifar10", source: Cifar10)], budgets: [Macs(ratio: 0.5)])"#;

/// Uses every field, with nothing at its default.
const FULL: &str = r##"#![enable(implicit_some)]
// purpose
(
    version: 1,
    seed: 18446744073709551615,
    networks: [
        (name: "resnet20", file: "../resnet20.safetensors", arch: "resnet20",
         mean: [0.485, 0.456, 0.406], std: Some([0.229, 0.224, 0.225]), datasets: ["shapes"]),
        (name: "net_2.b", file: r#"/abs "x".pth"#),
    ],
    datasets: [
        (name: "cifar10", source: Cifar10),
        (name: "shapes", source: Procedural(kind: Textures, seed: 1, train: 8000, test: 2000)),
    ],
    budgets: [Macs(ratio: 0.3), Macs(max: 20_000_000), Params(ratio: 1), ActivationBytes(ratio: 1e-7), Params(max: 1)],
    protocol: Full,
    channel_multiple: 8,
    keep_ratio_min: 0.25,
    selection: L2,
    repair: Off,
    finalists: 64,
    spend_leftover: false,
    images: (reward: 10, refit: 30, seed: 5),
    reward: Kl,
    agent: Mtacp(profile: Paper),
    actors_per_task: 2,
    walks_per_task: 3,
    scheduler: Lockstep,
    queue_capacity: 1,
    controls: [Random(candidates: 5)],
    plugins: {
        "penalty": /* why */ (weight: 0.1, // ten per cent
                              names: ["é", "b"]), // behind
        "a.b": Some(3),
    },
)"##;

fn full() -> Scene {
    Scene::parse("full.ron", FULL).expect("sound")
}

#[test]
fn what_a_short_scene_leaves_out_has_the_documented_defaults() {
    let scene = Scene::parse("s.ron", SHORT).unwrap();
    assert_eq!((scene.channel_multiple, scene.finalists, scene.actors_per_task), (1, 8, 4));
    assert_eq!((scene.walks_per_task, scene.queue_capacity), (300, 64));
    assert_eq!((scene.keep_ratio_min, scene.spend_leftover), (0.1, true));
    assert_eq!(
        scene.images,
        Images { reward: 2000, calibration: 2000, walk: 128, refit: 6000, probe: 500, finalists: 20_000, seed: 0 }
    );
    assert_eq!(scene.agent, AgentSpec::new(MtacpSettings::of(Profile::Tuned)));
    let controls = [
        ControlSpec { agent: AgentSpec::new(UniformSettings {}), candidates: 1 },
        ControlSpec { agent: AgentSpec::new(RandomSettings {}), candidates: 100 },
        ControlSpec { agent: AgentSpec::new(KnapsackSettings::default()), candidates: 1 },
        ControlSpec { agent: AgentSpec::new(SwapEvolutionSettings::default()), candidates: 100 },
    ];
    assert_eq!(scene.controls, controls);
    assert_eq!(scene.reward, RewardChoice::Kl);
    assert!(scene.plugins.is_empty());
}

#[test]
fn the_paper_profile_changes_defaults_but_not_what_is_written() {
    let with = |more: &str| Scene::parse("s.ron", &SHORT.replace("seed: 7,", &format!("seed: 7, {more},"))).unwrap();
    let paper = with("agent: Mtacp(profile: Paper)");
    assert_eq!((paper.keep_ratio_min, paper.spend_leftover, &paper.reward), (0.2, false, &RewardChoice::Accuracy));
    let written = with("agent: Mtacp(profile: Paper), keep_ratio_min: 0.1, spend_leftover: true, reward: Kl");
    assert_eq!((written.keep_ratio_min, written.spend_leftover, &written.reward), (0.1, true, &RewardChoice::Kl));
    let empty = with("agent: Mtacp(), controls: []");
    assert_eq!((empty.agent.clone(), empty.controls.len()), (AgentSpec::new(MtacpSettings::of(Profile::Tuned)), 0));
}

#[test]
fn tasks_are_networks_by_their_datasets_by_budgets_in_that_order() {
    let scene = full();
    let names: Vec<&str> = scene.tasks.iter().map(|task| task.name.as_str()).collect();
    let budgets = ["macs0.3", "macs20000000", "params1.0", "activation_bytes1e-7", "params1"];
    let pairs = ["resnet20-shapes", "net_2.b-cifar10", "net_2.b-shapes"];
    let expected: Vec<String> =
        pairs.iter().flat_map(|pair| budgets.map(|budget| format!("{pair}-{budget}"))).collect();
    assert_eq!(names, expected);
    let task = &scene.tasks[6];
    assert_eq!((task.network, task.dataset, task.budget), (1, 0, 1));
    assert_eq!(scene.budgets[1].bounds[0].kind, Cost::Macs);
    assert_eq!(scene.budgets[1].bounds[0].bound, BudgetBound::Max(20_000_000));
    let expected =
        DatasetSource::Procedural { kind: procedural::Kind::Textures, seed: 1, train: 8000, test: 2000, size: None };
    assert_eq!(scene.datasets[1].source, expected);
}

#[test]
fn a_ratio_of_the_original_count_is_rounded_down() {
    let scene = full();
    // 40,551,040 is ResNet-20's count of MACs; 0.3 of it is 12,165,312 exactly.
    assert_eq!(scene.budgets[0].bounds[0].max(40_551_040), 12_165_312);
    assert_eq!(scene.budgets[0].bounds[0].max(9), 2);
    assert_eq!(scene.budgets[1].bounds[0].max(9), 20_000_000);
    assert_eq!(scene.budgets[2].bounds[0].max(269_722), 269_722);
}

#[test]
fn the_resolved_scene_parses_back_to_an_equal_one_and_is_stable() {
    for scene in [full(), Scene::parse("s.ron", SHORT).unwrap()] {
        let text = scene.to_ron();
        let again = Scene::parse("resolved.ron", &text).unwrap();
        assert_eq!(scene, again, "{text}");
        assert_eq!(again.to_ron(), text);
        assert_eq!(scene.networks[0].normalisation, again.networks[0].normalisation);
    }
}

#[test]
fn the_resolved_scene_spells_out_every_default() {
    let text = Scene::parse("s.ron", SHORT).unwrap().to_ron();
    for field in
        ["keep_ratio_min: 0.1", "spend_leftover: true", "agent: Mtacp(", "datasets: [\"cifar10\"]", "plugins: {}"]
    {
        assert!(text.contains(field), "{field} in\n{text}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Penalty {
    weight: f64,
    names: Vec<String>,
    #[serde(default)]
    scale: Option<u8>,
}

#[test]
fn a_plugin_reads_its_own_settings() {
    let scene = full();
    let names: Vec<&str> = scene.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["a.b", "penalty"]);
    let expected = Penalty { weight: 0.1, names: vec!["é".to_owned(), "b".to_owned()], scale: None };
    assert_eq!(scene.plugins[1].parse::<Penalty>().unwrap(), expected);
    assert_eq!(scene.plugins[0].parse::<Option<u8>>().unwrap(), Some(3));
}

#[test]
fn a_mistake_in_a_plugins_settings_is_reported_in_the_scene_file() {
    let with = |settings: &str| SHORT.replace("seed: 7,", &format!("seed: 7,\nplugins: {{\"p\": {settings}}},"));
    for (settings, place, words) in [
        ("(weigth: 1, names: [])", (2, 17), "did you mean `weight`?"),
        ("(weight: 1,\n names: [\"é\", 3])", (3, 15), "`names[1]`: expected a string, got `3`"),
        ("(names: [])", (2, 16), "lacks the field `weight`"),
        ("(weight: 1, names: [], scale: 300)", (2, 46), "out of the range"),
        ("7", (2, 16), "expected fields in parentheses, got `7`"),
    ] {
        let scene = Scene::parse("s.ron", &with(settings)).unwrap();
        let error = scene.plugins[0].parse::<Penalty>().unwrap_err();
        assert_eq!(error.line_col(), place, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn every_setting_of_an_agent_can_be_given_over_the_defaults_of_its_profile() {
    let with = |agent: &str| {
        let text = SHORT.replace("seed: 7,", &format!("seed: 7, agent: {agent},"));
        let scene = Scene::parse("s.ron", &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scene, Scene::parse("r.ron", &scene.to_ron()).unwrap(), "{}", scene.to_ron());
        scene.agent.clone()
    };
    let tuned = || MtacpSettings::of(Profile::Tuned);
    let slow = MtacpSettings { learning_rate: 3e-4, ..tuned() };
    assert_eq!(with("Mtacp(learning_rate: 3e-4)"), AgentSpec::new(slow));
    let changed = MtacpSettings {
        trunk: vec![5],
        sigma: SigmaRule::Annealed { first: 0.5, last: 0.25 },
        unroll: UnrollRule::Fixed(7),
        imitated_walks: 0,
        ..MtacpSettings::of(Profile::Paper)
    };
    let text = "Mtacp(unroll: Fixed(7), profile: Paper, trunk: [5], sigma: Annealed(first: 0.5, last: 0.25), imitated_walks: 0)";
    assert_eq!(with(text), AgentSpec::new(changed));
    let other_optimizer =
        "Mtacp(optimizer: RmsProp(decay: 0.9, eps: 0.1, momentum: 0), clip: (rho: 2), standardise: false)";
    assert!(with(other_optimizer) != AgentSpec::new(tuned()));
}

#[test]
fn any_agent_can_be_a_control_with_a_budget_of_candidates() {
    let text = SHORT.replace("seed: 7,", "seed: 7, controls: [Mtacp(candidates: 40, passes: 2), Random(), Uniform()],");
    let scene = Scene::parse("s.ron", &text).unwrap();
    let candidates: Vec<usize> = scene.controls.iter().map(|control| control.candidates).collect();
    assert_eq!(candidates, [40, 100, 1]);
    let learner = MtacpSettings { passes: 2, ..MtacpSettings::of(Profile::Tuned) };
    assert_eq!(scene.controls[0].agent, AgentSpec::new(learner));
    assert_eq!(scene, Scene::parse("r.ron", &scene.to_ron()).unwrap(), "{}", scene.to_ron());
}
