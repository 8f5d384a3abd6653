//! Several bounds in one budget, and shares of channels that groups keep.

use secateur::scene::{AgentList, BudgetBound, Cost, KeepSpec, Scene, apply_set};
use secateur_sim::KeepRange;

/// Line 2 is the network's, line 4 that of the budgets.
fn text(keep: &str, budgets: &str) -> String {
    format!(
        "(version: 1, seed: 7,\nnetworks: [(name: \"a\", file: \"a\", keep: {keep})],\ndatasets: [(name: \"d\", source: \
         Cifar10)],\nbudgets: [{budgets}])"
    )
}

fn scene(keep: &str, budgets: &str) -> Scene {
    Scene::parse("s.ron", &text(keep, budgets)).unwrap_or_else(|error| panic!("{error}"))
}

const JOINT: &str = "Budget([Macs(ratio: 0.5), Params(ratio: 0.4), ActivationBytes(max: 200000)]), Macs(ratio: 0.5)";
const KEEP: &str =
    r#"{"features.0": 1.0, "layer4.*": (min: 0.5), "b": (max: 0.8), "c": (min: 0.25, max: 0.75), "d": 1}"#;

#[test]
fn a_budget_of_several_bounds_is_one_task_named_by_all_of_them() {
    let scene = scene("{}", JOINT);
    let names: Vec<&str> = scene.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(names, ["a-d-macs0.5-params0.4-activation_bytes200000", "a-d-macs0.5"]);
    let bounds: Vec<(Cost, BudgetBound)> = scene.budgets[0].bounds.iter().map(|b| (b.kind, b.bound)).collect();
    assert_eq!(
        bounds,
        [
            (Cost::Macs, BudgetBound::Ratio(0.5)),
            (Cost::Params, BudgetBound::Ratio(0.4)),
            (Cost::ActivationBytes, BudgetBound::Max(200_000)),
        ]
    );
    // A list of one is that one.
    let one = |budgets: &str| Scene::parse("s.ron", &text("{}", budgets)).unwrap();
    assert_eq!(one("Budget([Macs(ratio: 0.5)])"), one("Macs(ratio: 0.5)"));
}

#[test]
fn groups_keep_a_share_or_a_range_of_shares() {
    let scene = scene(KEEP, "Macs(ratio: 0.5)");
    let spec = |pattern: &str, min, max| KeepSpec { pattern: pattern.to_owned(), range: KeepRange { min, max } };
    let expected = [
        spec("b", 0.0, 0.8),
        spec("c", 0.25, 0.75),
        spec("d", 1.0, 1.0),
        spec("features.0", 1.0, 1.0),
        spec("layer4.*", 0.5, 1.0),
    ];
    assert_eq!(scene.networks[0].keep, expected);
}

#[test]
fn the_resolved_scene_says_the_same() {
    let scene = scene(KEEP, JOINT);
    assert_eq!(Scene::parse("again.ron", &scene.to_ron()).unwrap(), scene, "{}", scene.to_ron());
}

#[test]
fn bounds_of_a_list_and_entries_of_keep_can_be_set() {
    let set = |text: &str, assignment: &str| apply_set(text, assignment, &AgentList::default());
    let with = |assignment: &str| {
        let edited = set(&text(KEEP, JOINT), assignment).unwrap_or_else(|error| panic!("{error}"));
        Scene::parse("s.ron", &edited).unwrap()
    };
    assert_eq!(with("budgets[0][1].ratio=0.3").budgets[0].bounds[1].bound, BudgetBound::Ratio(0.3));
    assert_eq!(with("budgets=[Budget([Macs(ratio: 0.5), Params(max: 9)])]").budgets[0].bounds.len(), 2);
    assert_eq!(with("networks[0].keep={\"x\": 0.5}").networks[0].keep.len(), 1);
    assert_eq!(with("networks[0].keep[\"x.*\"]=0.5").networks[0].keep.len(), 6);
    let plain = text("{}", JOINT).replace(", keep: {}", "");
    let added = set(&plain, "networks[0].keep={\"x\": (min: 0.5)}").unwrap();
    assert_eq!(Scene::parse("s.ron", &added).unwrap().networks[0].keep.len(), 1);
    let error = set(&plain, "networks[0].keep={\"x\": \"half\"}").unwrap_err().to_string();
    assert!(error.contains("a share such as 0.5"), "{error}");
}

#[test]
fn budgets_that_say_nothing_or_too_much_are_refused_at_their_place() {
    for (budgets, place, words) in [
        ("Budget([])", "4:11", "`budgets[0]` has no bound, expected at least one, such as `Macs(ratio: 0.5)`"),
        ("Budget()", "4:11", "budgets[0]"),
        ("Budget(Macs(ratio: 0.5))", "4:11", "`budgets[0]`: expected a list `[…]`"),
        ("Budget([Macs(ratio: 0.5), Macs(max: 9)])", "4:37", "`budgets[0][1]` bounds macs again, as entry [0] does"),
        ("Budget([Macs(ratio: 0.5), Params(ratio: 1.5)])", "4:51", "`budgets[0][1].ratio` is 1.5"),
        ("Budget([Macs(ratio: 0.5), Params(max: 0)])", "4:49", "`budgets[0][1].max` is 0, expected at least 1"),
        ("Budget([Macs(ratio: 0.5), Params()])", "4:37", "`budgets[0][1]` has neither"),
        ("Budget([Macs(ratio: 0.5), Budget([Params(max: 9)])])", "4:37", "is a list of bounds in another"),
        ("Budget([Macs(ratio: 0.5), Flops(ratio: 0.5)])", "4:37", "unknown value `Flops`"),
        (
            "Budget([Macs(ratio: 0.5), Params(max: 9)]), Budget([Params(max: 9), Macs(ratio: 0.50)])",
            "4:55",
            "`budgets[1]` has the same bounds as `budgets[0]`",
        ),
        ("Macs(ratio: 0.5), Budget([Macs(ratio: 0.5)])", "4:29", "`budgets[1]` is the same bound as `budgets[0]`"),
    ] {
        refused(&text("{}", budgets), place, words);
    }
}

#[test]
fn shares_that_cannot_be_kept_are_refused_at_their_place() {
    for (keep, place, words) in [
        (r#"{"x": 0.0}"#, "2:42", "`networks[0].keep`: `x` keeps 0 of the channels, expected a share in (0, 1]"),
        (r#"{"x": 1.5}"#, "2:42", "`x` keeps 1.5"),
        (r#"{"x": -1}"#, "2:42", "`x` keeps -1"),
        (r#"{"x": NaN}"#, "2:42", "`x` keeps NaN"),
        (r#"{"x": (min: -0.1)}"#, "2:42", "`x` keeps -0.1"),
        (r#"{"x": (max: 0.0)}"#, "2:42", "`x` keeps 0 of"),
        (r#"{"x": (min: 0.8, max: 0.4)}"#, "2:42", "keeps from 0.8 to 0.4 of the channels, which is no range"),
        (r#"{"x": ()}"#, "2:42", "has neither `min` nor `max`"),
        (r#"{"": 1.0}"#, "2:42", "names nothing, expected the name of a group, or a pattern such as `layer4.*`"),
        (r#"{"x": 1.0, "x": 0.5}"#, "2:52", "the pattern `x` is there twice"),
        (r#"{"x": (minimum: 0.5)}"#, "2:48", "unknown field `minimum`"),
        (r#"{"x": "half"}"#, "2:47", "a share such as 0.5 or a range such as (min: 0.5)"),
        (r#"{"x": [0.5]}"#, "2:47", "a share such as 0.5 or a range such as (min: 0.5)"),
        (r#"["x"]"#, "2:41", "networks[0].keep"),
    ] {
        refused(&text(keep, "Macs(ratio: 0.5)"), place, words);
    }
}

fn refused(text: &str, place: &str, words: &str) {
    let shown = Scene::parse("s.ron", text).expect_err(text).to_string();
    assert!(shown.contains(&format!("--> s.ron:{place}\n")), "expected {place} for\n{text}\ngot\n{shown}");
    assert!(shown.contains(words), "expected {words:?} for\n{text}\ngot\n{shown}");
}
