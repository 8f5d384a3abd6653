//! `apply_set`: what it changes, what it leaves, and how it refuses.

use secateur::rl::Profile;
use secateur::rl::agents::mtacp::MtacpSettings;
use secateur::rl::agents::random::RandomSettings;
use secateur::rl::agents::uniform::UniformSettings;
use secateur::scene::{AgentList, AgentSpec, ControlSpec, Scene, SceneError, template};

fn apply_set(text: &str, assignment: &str) -> Result<String, SceneError> {
    secateur::scene::apply_set(text, assignment, &AgentList::default())
}

const TEXT: &str = r#"// header
(
    version: 1, seed: 7, // seven
    networks: [(name: "a", file: "a.safetensors")],
    datasets: [(name: "d", source: Cifar10)],
    budgets: [Macs(ratio: 0.5), Params(max: 9)], // last
)
"#;

fn set(assignment: &str) -> Scene {
    let text = apply_set(TEXT, assignment).expect(assignment);
    Scene::parse("s.ron", &text).unwrap_or_else(|error| panic!("{assignment}\n{error}\n{text}"))
}

#[test]
fn a_value_that_is_there_is_replaced_and_nothing_else() {
    assert_eq!(apply_set(TEXT, "seed=9").unwrap(), TEXT.replace("seed: 7", "seed: 9"));
    assert_eq!(apply_set(TEXT, " budgets[0].ratio = 0.4 ").unwrap(), TEXT.replace("0.5", "0.4"));
    assert_eq!(apply_set(TEXT, "networks[0].name=\"b=c\"").unwrap(), TEXT.replace("\"a\"", "\"b=c\""));
    assert_eq!(apply_set(TEXT, "budgets=[Macs(max: 3)]").unwrap().matches("Macs").count(), 1);
    assert_eq!(
        apply_set(TEXT, "budgets[1]=ActivationBytes(max: 5) // why").unwrap(),
        TEXT.replace("Params(max: 9)", "ActivationBytes(max: 5)")
    );
}

#[test]
fn an_absent_field_is_added_in_the_layout_of_its_neighbours() {
    let text = apply_set(TEXT, "walks_per_task=20").unwrap();
    assert!(text.contains("Params(max: 9)],\n    walks_per_task: 20, // last"), "{text}");
    assert_eq!(set("walks_per_task=20").walks_per_task, 20);
    assert!(apply_set(TEXT, "images.reward=500").unwrap().contains("images: (reward: 500)"));
    let images = set("images.reward=500").images;
    assert_eq!((images.reward, images.refit), (500, 6000));
    assert!(apply_set(TEXT, "networks[0].arch=\"resnet20\"").unwrap().contains("a.safetensors\", arch: \"resnet20\")"));
    assert_eq!(set("networks[0].datasets=[\"d\"]").tasks.len(), 2);
}

#[test]
fn absent_variants_lists_and_maps_start_from_their_defaults() {
    assert_eq!(set("agent=Random").agent, AgentSpec::new(RandomSettings {}));
    assert_eq!(set("agent.profile=Paper").agent, AgentSpec::new(MtacpSettings::of(Profile::Paper)));
    let faster = AgentSpec::new(MtacpSettings { passes: 9, ..MtacpSettings::of(Profile::Tuned) });
    assert_eq!(set("agent.passes=9").agent, faster);
    let controls = [
        ControlSpec { agent: AgentSpec::new(UniformSettings {}), candidates: 1 },
        ControlSpec { agent: AgentSpec::new(RandomSettings {}), candidates: 7 },
    ];
    let set_controls = set("controls[1].candidates=7").controls.clone();
    assert_eq!(set_controls[..2], controls);
    assert_eq!(set("controls=[]").controls, []);
    assert_eq!(set("plugins.penalty.weight=0.1").plugins[0].ron, "(weight: 0.1)");
    assert_eq!(set("plugins.penalty=(weight: 0.1)").plugins[0].ron, "(weight: 0.1)");
    assert_eq!(set("plugins[\"a.b\"]=3").plugins[0].name, "a.b");
}

#[test]
fn several_assignments_follow_each_other() {
    let mut text = template().to_owned();
    for assignment in ["images.reward=5", "images.refit=6", "plugins.p.w=1", "plugins.p.v=2", "plugins.q=()", "seed=1"]
    {
        text = apply_set(&text, assignment).unwrap();
    }
    let scene = Scene::parse("s.ron", &text).unwrap();
    assert_eq!((scene.images.reward, scene.images.refit, scene.seed), (5, 6, 1));
    assert_eq!((scene.plugins[0].ron.as_str(), scene.plugins[1].ron.as_str()), ("(w: 1, v: 2)", "()"));
}

#[test]
fn a_header_attribute_an_empty_struct_and_a_comment_at_the_end_are_no_obstacle() {
    let text = format!("#![enable(implicit_some)]\n{}", TEXT.replace("// last", "images: ()"));
    let text = apply_set(&text, "images.seed=3").unwrap();
    assert_eq!(Scene::parse("s.ron", &text).unwrap().images.seed, 3);
    let no_comma = TEXT.replace("9)], // last", "9)] // last");
    let text = apply_set(&no_comma, "finalists=3").unwrap();
    assert_eq!(Scene::parse("s.ron", &text).unwrap().finalists, 3);
}

#[test]
fn a_missing_required_field_can_be_set() {
    let text = apply_set(&TEXT.replace("seed: 7,", ""), "seed=5").unwrap();
    assert_eq!(Scene::parse("s.ron", &text).unwrap().seed, 5);
}

#[test]
fn bad_assignments_point_at_the_assignment_and_name_the_closest_field() {
    for (assignment, column, words) in [
        ("walk_per_task=3", 1, "did you mean `walks_per_task`?"),
        ("imagez.reward=3", 1, "did you mean `images`?"),
        ("images.rewards=3", 8, "did you mean `reward`?"),
        ("budgets[0].ratioo=3", 12, "did you mean `ratio`?"),
        ("budgets[2].ratio=0.3", 1, "`budgets` has 2 entries, so there is no entry [2]"),
        ("seed.x=3", 1, "`seed` is `7`, which has no field `x`"),
        ("budgets.x=3", 1, "`budgets` is `[Macs(ratio: 0.5), Params(max: 9)]`, which has no field `x`"),
        ("images[0]=3", 1, "there is no list"),
        ("images.x[0]=3", 1, "there is no list"),
        ("agent.profile=Papr", 15, "did you mean `Paper`?"),
        ("agent.passses=2", 7, "did you mean `passes`?"),
        ("agent=Randm", 7, "did you mean `Random`?"),
        ("protocol=Fulll", 10, "did you mean `Full`?"),
        ("walks_per_task=many", 16, "`walks_per_task`: expected a whole number, got `many`"),
        ("networks[0].file=b.safetensors", 18, "text needs double quotes"),
        ("networks[0].file=b", 18, "expected a string, got `b`"),
        ("seed", 1, "expected `path=value`"),
        ("seed=", 6, "is not a RON value"),
        ("seed=1, version: 2", 6, "is not a RON value"),
        ("seed=1) (", 6, "is not a RON value"),
        ("=1", 1, "expected a path"),
        ("a[=1", 2, "`[` without `]`"),
        ("", 1, "expected `path=value`"),
    ] {
        let error = apply_set(TEXT, assignment).expect_err(assignment);
        assert_eq!((error.origin(), error.line_col()), ("--set", (1, column)), "{assignment}\n{error}");
        assert!(error.to_string().contains(words), "{assignment}\n{error}");
    }
}

#[test]
fn a_text_that_is_not_ron_is_refused_as_such() {
    for text in ["", "(", "(seed: 7", "(seed 7)", "[1, 2"] {
        let error = apply_set(text, "seed=9").unwrap_err();
        assert_eq!(error.origin(), "scene", "{error}");
    }
}
