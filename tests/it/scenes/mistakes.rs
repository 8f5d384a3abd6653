//! Every kind of mistake: where it is reported, in which words, with which suggestion.

use secateur::kernels::Precision;
use secateur::scene::{Scene, SceneError};

/// Line 1 is `(version: 1, seed: 7,`, then networks, datasets, budgets; `more` is line 5.
fn scene_with(networks: &str, datasets: &str, budgets: &str, more: &str) -> String {
    format!("(version: 1, seed: 7,\nnetworks: [{networks}],\ndatasets: [{datasets}],\nbudgets: [{budgets}],\n{more})")
}

const NETWORK: &str = r#"(name: "a", file: "a.safetensors")"#;
const DATASET: &str = r#"(name: "d", source: Cifar10)"#;
const BUDGET: &str = "Macs(ratio: 0.5)";

fn with_more(more: &str) -> String {
    scene_with(NETWORK, DATASET, BUDGET, more)
}

fn with_network(network: &str) -> String {
    scene_with(network, DATASET, BUDGET, "")
}

fn with_dataset(dataset: &str) -> String {
    scene_with(NETWORK, dataset, BUDGET, "")
}

fn with_budget(budget: &str) -> String {
    scene_with(NETWORK, DATASET, budget, "")
}

fn error_of(text: &str) -> SceneError {
    Scene::parse("s.ron", text).expect_err(text)
}

/// Each (text, line:column, words of the message).
fn check(cases: &[(String, &str, &[&str])]) {
    for (text, place, words) in cases {
        let shown = error_of(text).to_string();
        assert!(shown.contains(&format!("--> s.ron:{place}\n")), "expected {place} for\n{text}\ngot\n{shown}");
        for word in *words {
            assert!(shown.contains(word), "expected {word:?} for\n{text}\ngot\n{shown}");
        }
    }
}

#[test]
fn the_sound_scene_is_sound() {
    Scene::parse("s.ron", &with_more("")).unwrap();
}

#[test]
fn misspelt_fields_and_variants_get_a_suggestion() {
    check(&[
        (
            with_more("walk_per_task: 3"),
            "5:1",
            &["unknown field `walk_per_task` in the scene", "did you mean `walks_per_task`?"],
        ),
        (with_more("epochs: 3"), "5:1", &["unknown field `epochs`", "expected one of `version`, `seed`"]),
        (
            with_network(r#"(name: "a", fil: "a")"#),
            "2:24",
            &["unknown field `fil` in `networks[0]`", "did you mean `file`?"],
        ),
        (
            with_budget("Macs(ratioo: 0.5)"),
            "4:16",
            &["unknown field `ratioo` in `budgets[0]`", "did you mean `ratio`?"],
        ),
        (with_budget("Mac(ratio: 0.5)"), "4:11", &["`budgets[0]`: unknown value `Mac`", "did you mean `Macs`?"]),
        (with_more("protocol: Fulll"), "5:11", &["`protocol`: unknown value `Fulll`", "did you mean `Full`?"]),
        (with_more("selection: Hessian"), "5:12", &["expected one of `L1`, `L2`, `Reconstruction`, `BnScale`"]),
        (
            with_more("agent: Mtacp(profil: Paper)"),
            "5:14",
            &["unknown field `profil` in `agent`", "did you mean `profile`?"],
        ),
        (
            with_more("agent: Mtacp(profile: Papr)"),
            "5:23",
            &["`agent.profile`: unknown value `Papr`", "did you mean `Paper`?"],
        ),
        (with_more("agent: mtacp()"), "5:8", &["unknown value `mtacp`", "did you mean `Mtacp`?"]),
        (with_more("agent: Mtacp"), "5:8", &["expected fields in parentheses, got `Mtacp`", "write `Mtacp()`"]),
        (with_more("images: (rewards: 3)"), "5:10", &["unknown field `rewards` in `images`", "did you mean `reward`?"]),
        (with_more("controls: [Uniform, Randm(candidates: 3)]"), "5:21", &["`controls[1]`", "did you mean `Random`?"]),
        (with_dataset(r#"(name: "d", source: Cifar11)"#), "3:32", &["`datasets[0].source`", "did you mean `Cifar10`?"]),
        (
            with_dataset(r#"(name: "d", source: Procedural(kind: Shape, seed: 1, train: 1, test: 1))"#),
            "3:49",
            &["`datasets[0].source.kind`", "did you mean `Shapes`?"],
        ),
    ]);
}

#[test]
fn missing_and_repeated_fields_are_named() {
    check(&[
        (with_more("").replace("seed: 7,", ""), "1:1", &["the scene lacks the field `seed`", "add `seed: …`"]),
        (with_network(r#"(name: "a")"#), "2:12", &["`networks[0]` lacks the field `file`"]),
        (with_more("seed: 8"), "5:1", &["the scene has the field `seed` twice"]),
        (with_more("plugins: {\"p\": (), \"p\": ()}"), "5:20", &["`plugins`: the name `p` is there twice"]),
        (String::new(), "1:1", &["the text ends"]),
        ("()".to_owned(), "1:1", &["the scene lacks the field `version`"]),
    ]);
}

#[test]
fn values_of_the_wrong_kind_say_what_was_expected() {
    check(&[
        (with_more("walks_per_task: \"x\""), "5:17", &["`walks_per_task`: expected a whole number, got `\"x\"`"]),
        (with_more("walks_per_task: 3.5"), "5:17", &["`walks_per_task`: expected a whole number, got `3.5`"]),
        (with_more("walks_per_task: -3"), "5:17", &["`walks_per_task`", "`-3`"]),
        (with_more("walks_per_task: 99999999999999999999999"), "5:17", &["`walks_per_task`", "out of the range"]),
        (with_more("keep_ratio_min: a"), "5:17", &["`keep_ratio_min`: expected a number, got `a`"]),
        (with_more("spend_leftover: 1"), "5:17", &["`spend_leftover`: expected `true` or `false`, got `1`"]),
        (with_more("images: 5"), "5:9", &["`images`: expected fields in parentheses, got `5`"]),
        (with_more("controls: Uniform"), "5:11", &["`controls`: expected a list `[…]`, got `Uniform`"]),
        (with_more("plugins: [1]"), "5:10", &["`plugins`: expected a map `{…}`, got `[1]`"]),
        (
            with_network(r#"(name: a, file: "a")"#),
            "2:19",
            &["`networks[0].name`: expected a string, got `a`", "double quotes"],
        ),
        (with_network(r#"(name: "a", file: "a", mean: 0.5)"#), "2:41", &["`networks[0].mean`: expected a list"]),
        (
            with_network(r#"(name: "a", file: "a", mean: [0.5, "x"])"#),
            "2:47",
            &["`networks[0].mean[1]`: expected a number"],
        ),
    ]);
}

#[test]
fn broken_syntax_is_shown_where_reading_stopped() {
    check(&[
        (with_more("").replace("seed: 7,", "seed: 7"), "2:1", &["comma"]),
        (with_more("") + ")", "5:2", &["nothing may follow"]),
        (with_more("controls: [Uniform"), "5:19", &[""]),
        ("(version: 1, seed: 7, networks: [".to_owned(), "1:34", &["the text ends"]),
        ("(version: 1, /* seed".to_owned(), "1:16", &["unclosed block comment"]),
    ]);
}

#[test]
fn numbers_outside_their_range_are_refused() {
    check(&[
        (with_budget("Macs(ratio: 0.0)"), "4:23", &["`budgets[0].ratio` is 0, expected a number in (0, 1]"]),
        (with_budget("Macs(ratio: 1.5)"), "4:23", &["`budgets[0].ratio` is 1.5"]),
        (with_budget("Params(ratio: NaN)"), "4:25", &["`budgets[0].ratio` is NaN"]),
        (with_budget("Params(ratio: inf)"), "4:25", &["`budgets[0].ratio` is inf"]),
        (with_budget("Macs(max: 0)"), "4:21", &["`budgets[0].max` is 0, expected at least 1"]),
        (with_budget("Macs()"), "4:11", &["`budgets[0]` has neither, expected exactly one of `ratio` and `max`"]),
        (with_budget("Macs(ratio: 0.5, max: 7)"), "4:11", &["`budgets[0]` has both"]),
        (with_more("channel_multiple: 0"), "5:19", &["`channel_multiple` is 0, expected 1..=64"]),
        (with_more("channel_multiple: 65"), "5:19", &["`channel_multiple` is 65"]),
        (with_more("keep_ratio_min: 0"), "5:17", &["`keep_ratio_min` is 0, expected a number in (0, 1]"]),
        (with_more("keep_ratio_min: -NaN"), "5:17", &["`keep_ratio_min`"]),
        (with_more("finalists: 0"), "5:12", &["`finalists` is 0, expected 1..=64"]),
        (with_more("images: (reward: 0)"), "5:18", &["`images.reward` is 0, expected at least 1"]),
        (with_more("images: (calibration: 0)"), "5:23", &["`images.calibration` is 0"]),
        (with_more("images: (refit: 0)"), "5:17", &["`images.refit` is 0"]),
        (with_more("actors_per_task: 0"), "5:18", &["`actors_per_task` is 0"]),
        (with_more("walks_per_task: 0"), "5:17", &["`walks_per_task` is 0"]),
        (with_more("queue_capacity: 0"), "5:17", &["`queue_capacity` is 0"]),
        (with_more("queue_capacity: 18446744073709551615"), "5:17", &["`queue_capacity` is 18446744073709551615"]),
        (with_more("controls: [Random(candidates: 0)]"), "5:31", &["`controls[0].candidates` is 0"]),
        (
            with_dataset(r#"(name: "d", source: Procedural(kind: Shapes, seed: 1, train: 0, test: 99999999))"#),
            "3:73",
            &["`datasets[0].source.train` is 0", "s.ron:3:82", "`datasets[0].source.test` is 99999999"],
        ),
        (with_network(r#"(name: "a", file: "a", mean: [0.5], std: [0])"#), "2:54", &["`networks[0].std[0]` is 0"]),
        (with_network(r#"(name: "a", file: "a", mean: [NaN], std: [1])"#), "2:42", &["`networks[0].mean[0]` is NaN"]),
        (with_network(r#"(name: "a", file: "a", mean: [0.5, 1], std: [1])"#), "2:56", &["has 1 numbers, expected 2"]),
        (with_network(r#"(name: "a", file: "a", mean: [], std: [])"#), "2:41", &["`networks[0].mean` is empty"]),
        (with_network(r#"(name: "a", file: "a", mean: [0.5])"#), "2:41", &["without `std`"]),
        (with_network(r#"(name: "a", file: "a", std: [0.5])"#), "2:40", &["without `mean`"]),
    ]);
}

#[test]
fn empty_lists_mean_zero_tasks() {
    check(&[
        (with_network(""), "2:11", &["`networks` is empty, so the scene has zero tasks"]),
        (with_dataset(""), "3:11", &["`datasets` is empty, so the scene has zero tasks"]),
        (with_budget(""), "4:10", &["`budgets` is empty, so the scene has zero tasks"]),
        (
            with_network(r#"(name: "a", file: "a", datasets: [])"#),
            "2:45",
            &["`networks[0].datasets` is empty", "zero tasks"],
        ),
    ]);
}

#[test]
fn names_must_be_unique_known_and_file_safe() {
    check(&[
        (
            with_network(&format!("{NETWORK}, {NETWORK}")),
            "2:55",
            &["`networks[1].name` is `a` again, as in `networks[0]`"],
        ),
        (with_dataset(&format!("{DATASET}, {DATASET}")), "3:49", &["`datasets[1].name` is `d` again"]),
        (
            with_budget("Macs(ratio: 0.5), Macs(ratio: 0.50)"),
            "4:29",
            &["`budgets[1]` is the same bound as `budgets[0]`"],
        ),
        (with_network(r#"(name: "../a", file: "a")"#), "2:19", &["does not start with a dot"]),
        (with_network(r#"(name: "a/b", file: "a")"#), "2:19", &["contains '/'"]),
        (with_network(r#"(name: "", file: "a")"#), "2:19", &["has 0 characters, expected 1..=64"]),
        (with_network(&format!(r#"(name: "{}", file: "a")"#, "x".repeat(65))), "2:19", &["has 65 characters"]),
        (with_network(r#"(name: "é", file: "a")"#), "2:19", &["contains 'é'"]),
        (with_network(r#"(name: "a", file: "")"#), "2:30", &["`networks[0].file`", "expected a file name"]),
        (with_more("plugins: {\"a b\": ()}"), "5:11", &["contains ' '"]),
        (
            scene_with(
                r#"(name: "a", file: "a", datasets: ["cifar-10"])"#,
                r#"(name: "cifar10", source: Cifar10)"#,
                BUDGET,
                "",
            ),
            "2:46",
            &["`networks[0].datasets[0]` names the unknown data set `cifar-10`", "did you mean `cifar10`?"],
        ),
        (with_network(r#"(name: "a", file: "a", datasets: ["d", "d"])"#), "2:51", &["names `d` again"]),
        (
            scene_with(
                r#"(name: "a-b", file: "a", datasets: ["c"]), (name: "a", file: "a", datasets: ["b-c"])"#,
                r#"(name: "c", source: Cifar10), (name: "b-c", source: Cifar10)"#,
                BUDGET,
                "",
            ),
            "2:62",
            &["second task named `a-b-c-macs0.5`", "as `networks[0]` does"],
        ),
        (with_more("controls: [Random(candidates: 3), Random()]"), "5:35", &["`controls[1]` repeats a control"]),
    ]);
}

#[test]
fn another_version_is_refused_before_its_unknown_fields() {
    let text = "(\n  version: 2, seed: 7, wholly: New)";
    check(&[(text.to_owned(), "2:12", &["scene format 2 is not supported, expected 1", "`version: 1`"])]);
    check(&[("(version: 4294967297)".to_owned(), "1:11", &["scene format 4294967297 is not supported"])]);
}

#[test]
fn too_many_tasks_are_refused_without_expanding_them() {
    let many = |f: &dyn Fn(usize) -> String| (1..=1000).map(f).collect::<Vec<_>>().join(",");
    let text = scene_with(
        &many(&|i| format!(r#"(name: "n{i}", file: "a")"#)),
        &many(&|i| format!(r#"(name: "d{i}", source: Cifar10)"#)),
        &many(&|i| format!("Macs(max: {i})")),
        "",
    );
    check(&[(text, "4:10", &["make 1000000000 tasks, at most 4096 are allowed"])]);
}

#[test]
fn mistakes_about_the_scheduler_are_explained() {
    check(&[
        (with_more("scheduler: Asynk"), "5:12", &["`scheduler`: unknown value `Asynk`", "did you mean `Async`?"]),
        (with_more("scheduler: BoundedLag"), "5:12", &["write `BoundedLag()` to take all its defaults"]),
        (with_more("scheduler: BoundedLag(max: 1001)"), "5:28", &["`scheduler.max` is 1001, expected 0..=1000"]),
        (
            with_more("scheduler: BoundedLag(lag: 1)"),
            "5:23",
            &["unknown field `lag` in `scheduler`", "expected one of `max`"],
        ),
        (with_more("scheduler: BoundedLag(max: -1)"), "5:28", &["scheduler.max"]),
        (with_more("executor: Threads"), "5:11", &["`executor`: unknown value `Threads`", "`Single`, `Multi`"]),
    ]);
}

#[test]
fn bf16_is_the_processors_and_not_the_cards() {
    check(&[
        (with_more("precision: Bf17"), "5:12", &["`precision`: unknown value `Bf17`", "did you mean `Bf16`?"]),
        (with_more("device: Gpu, precision: Bf16"), "5:25", &["`precision` is Bf16", "`device` is Gpu"]),
    ]);
    assert_eq!(Scene::parse("s.ron", &with_more("")).unwrap().precision, Precision::F32);
    assert_eq!(Scene::parse("s.ron", &with_more("precision: Bf16")).unwrap().precision, Precision::Bf16);
}

#[test]
fn mistakes_in_an_agents_settings_are_told_where_they_stand() {
    check(&[
        (with_more("agent: Mtacp(learning_rat: 1)"), "5:14", &["in `agent`", "did you mean `learning_rate`?"]),
        (with_more("agent: Mtacp(epochs: 1)"), "5:14", &["expected one of `profile`, `trunk`, `lstm_units`"]),
        (with_more("agent: Mtacp(\n  passes: 2.5)"), "6:11", &["`agent.passes`: expected a whole number, got `2.5`"]),
        (with_more("agent: Mtacp(passes: 0)"), "5:22", &["`agent.passes` is 0, expected 1..=1000"]),
        (
            with_more("agent: Mtacp(learning_rate: -1e-3)"),
            "5:29",
            &["`agent.learning_rate` is -0.001, expected a number above 0, at most 1.0"],
        ),
        (with_more("agent: Mtacp(learning_rate: NaN)"), "5:29", &["`agent.learning_rate` is NaN"]),
        (with_more("agent: Mtacp(gradient_norm_max: 1e99)"), "5:33", &["`agent.gradient_norm_max` is inf"]),
        (with_more("agent: Mtacp(trunk: [64, 0])"), "5:26", &["`agent.trunk[1]` is 0, expected 1..=1024"]),
        (with_more("agent: Mtacp(unroll: Fixed(0))"), "5:28", &["`agent.unroll[0]` is 0, expected 1..=100000"]),
        (with_more("agent: Mtacp(sigma: Annealed(first: 1, last: 0))"), "5:46", &["`agent.sigma.last` is 0.0"]),
        (
            with_more("agent: Mtacp(sigma: Learnt)"),
            "5:21",
            &["`agent.sigma`: unknown value", "did you mean `Learned`?"],
        ),
        (
            with_more("agent: Mtacp(optimizer: Adam(beta1: 1, beta2: 0, eps: 1))"),
            "5:37",
            &["`agent.optimizer.beta1` is 1"],
        ),
        (with_more("agent: Mtacp(clip: (rho: -1))"), "5:26", &["`agent.clip.rho` is -1.0"]),
        (with_more("agent: Mtacp(profile: Paper, profile: Paper)"), "5:30", &["`agent` has the field `profile` twice"]),
        (with_more("agent: Uniform(profile: Paper)"), "5:16", &["unknown field `profile` in `agent`"]),
        (with_more("agent: 5"), "5:8", &["`agent`: expected a name, got `5`"]),
        (with_more("agent: \"Mtacp\""), "5:8", &["`agent`: expected a name, got `\"Mtacp\"`"]),
        (with_more("controls: [Random]"), "5:12", &["`controls[0]`: expected fields", "write `Random()`"]),
        (with_more("controls: [Random(candidats: 3)]"), "5:19", &["did you mean `candidates`?"]),
        (with_more("controls: [Mtacp(candidates: 3, passes: 0)]"), "5:41", &["`controls[0].passes` is 0"]),
        (with_more("controls: [Uniform(candidates: 3)]"), "5:20", &["unknown field `candidates` in `controls[0]`"]),
    ]);
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_text() {
    let text = scene_with(
        r#"(name: "a/", file: "")"#,
        DATASET,
        "Macs(ratio: 7), Params()",
        "keep_ratio_min: 2, images: (reward: 0), controls: [Uniform, Uniform]",
    );
    let error = error_of(&text);
    let places: Vec<(usize, usize)> = error.problems().iter().map(|problem| problem.line_col()).collect();
    assert_eq!(places, [(2, 19), (2, 31), (4, 23), (4, 27), (5, 17), (5, 37), (5, 61)]);
    assert_eq!(error.line_col(), (2, 19));
    assert_eq!(error.to_string().matches("error: ").count(), 7);
}

#[test]
fn columns_count_characters_and_comments_do_not_shift_them() {
    let text = with_more("/* é ∑ ) */ finalists /* : 1 */ : // ü\n  /* é */ 99");
    check(&[(text, "6:11", &["`finalists` is 99"])]);
}

#[test]
fn a_problem_found_while_resolving_points_into_the_scene() {
    let text = with_more("images: (reward: 500)");
    let scene = Scene::parse("s.ron", &text).unwrap();
    for (path, place) in [
        ("budgets[0].ratio", (4, 23)),
        ("budgets[0]", (4, 11)),
        ("networks[0].file", (2, 30)),
        ("networks[0].arch", (2, 12)),
        ("images.reward", (5, 18)),
        ("images.refit", (5, 9)),
        ("finalists", (1, 1)),
        ("plugins[\"x\"].y", (1, 1)),
        ("not a path", (1, 1)),
    ] {
        let error = scene.error_at(path, "too small", Some("the minimum is 0.3055".to_owned()));
        assert_eq!(error.line_col(), place, "{path}");
        assert_eq!(scene.line_col(path), place, "{path}");
        let shown = error.to_string();
        assert!(shown.contains(&format!("s.ron:{}:{}", place.0, place.1)) && shown.contains("the minimum is 0.3055"));
    }
}

#[test]
fn two_errors_merge_in_the_order_of_the_text() {
    let scene = Scene::parse("s.ron", &with_more("")).unwrap();
    let merged = scene.error_at("budgets[0]", "b", None).merge(scene.error_at("seed", "a", None));
    let messages: Vec<&str> = merged.problems().iter().map(|problem| problem.message()).collect();
    assert_eq!(messages, ["a", "b"]);
}
