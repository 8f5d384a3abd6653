//! Random, mutated and oversized input ends in a value or an error, never in a panic.

use proptest::prelude::*;
use secateur::scene::{AgentList, Scene, SceneError, template};

fn apply_set(text: &str, assignment: &str) -> Result<String, SceneError> {
    secateur::scene::apply_set(text, assignment, &AgentList::default())
}

/// Parses, renders, looks up: everything that touches the text.
fn exercise(text: &str) {
    match Scene::parse("s.ron", text) {
        Ok(scene) => {
            assert_eq!(scene, Scene::parse("r.ron", &scene.to_ron()).expect("a resolved scene parses"), "{text}");
            let reseeded = apply_set(text, "seed=9").unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(Scene::parse("r.ron", &reseeded).map(|scene| scene.seed).ok(), Some(9), "{reseeded}");
            for path in ["budgets[0].ratio", "networks[0].file", "plugins.p", ""] {
                scene.error_at(path, "x", None).to_string();
            }
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(error.to_string().contains("s.ron:"), "{error}");
            let n_lines = text.split('\n').count();
            assert!(error.problems().iter().all(|problem| (1..=n_lines).contains(&problem.line_col().0)));
            error.to_coloured();
        }
    }
    for assignment in ["seed=9", "budgets[0].ratio=0.4", "images.reward=500", "plugins.p.w=(1)", text] {
        if let Ok(edited) = apply_set(text, assignment) {
            Scene::parse("s.ron", &edited).ok();
        }
    }
    if let Ok(edited) = apply_set(template(), &format!("plugins.p={text}")) {
        Scene::parse("s.ron", &edited).ok();
    }
}

/// Pieces that make likely-looking text.
const PIECES: [&str; 36] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "'",
    "\\",
    "/*",
    "*/",
    "//",
    "\n",
    " ",
    "r#\"",
    "\"#",
    "b'",
    "#![",
    "seed",
    "version: 1",
    "Some(",
    "None",
    "Macs(ratio: 0.5)",
    "NaN",
    "-",
    "1e999",
    "0x",
    "é",
    "\u{2028}",
    "\u{0}",
    "plugins: {",
    "..",
    "r#",
    "99999999999999999999999999999999999999999",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES.as_slice()), 0..40).prop_map(|pieces| pieces.concat())
}

/// A scene with some bytes cut out and some pieces put in.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..30usize, prop::sample::select(PIECES.as_slice()));
    prop::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text = template().replace("plugins: {}", "plugins: {\"p\": (a: [1, (2)], b: Some(\"x\"))}");
        for (at, n_removed, piece) in edits {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.ceil_char_boundary((start + n_removed).min(text.len()));
            text.replace_range(start..end, piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_pieces_never_panic(text in pieces()) {
        exercise(&text);
    }

    #[test]
    fn mutated_scenes_never_panic(text in mutated()) {
        exercise(&text);
    }

    #[test]
    fn sound_values_survive_the_round_trip(
        (seed, max, ratio, keep) in (any::<u64>(), 1..u64::MAX, 1e-300..=1.0f64, f64::MIN_POSITIVE..=1.0),
        (mean, reward, walks) in (prop::collection::vec(-1e30..1e30f32, 1..5), 1..usize::MAX, 1..1_000_000_000u64),
        file in "[^\\x00]{1,20}",
        plugin in pieces(),
    ) {
        let std: Vec<f32> = mean.iter().map(|m| m.abs() + f32::MIN_POSITIVE).collect();
        let text = format!(
            "(version: 1, seed: {seed}, networks: [(name: \"a\", file: \"{}\", mean: {mean:?}, std: {std:?})], \
             datasets: [(name: \"d\", source: Cifar10)], budgets: [Macs(max: {max}), Params(ratio: {ratio:?})], \
             keep_ratio_min: {keep:?}, images: (reward: {reward}), walks_per_task: {walks}, plugins: {{\"p\": [\"x\"]}})",
            file.escape_default(),
        );
        let scene = Scene::parse("s.ron", &text).unwrap();
        prop_assert_eq!(&scene.networks[0].file, &file);
        prop_assert_eq!(&scene, &Scene::parse("r.ron", &scene.to_ron()).unwrap());
        // Any settings of a plugin that are RON survive verbatim.
        if let Ok(edited) = apply_set(&text, &format!("plugins.p={plugin}"))
            && let Ok(scene) = Scene::parse("s.ron", &edited)
        {
            let again = Scene::parse("r.ron", &scene.to_ron()).unwrap();
            prop_assert_eq!(&scene.plugins[0].ron, &again.plugins[0].ron);
        }
    }
}

#[test]
fn ten_thousand_levels_of_nesting_are_refused_without_overflow() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{1: ", "}"), ("Some(", ")"), ("(a: ", ")"), ("/*", "*/"), ("X(", ")")]
    {
        let nested = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        exercise(&nested);
        exercise(&nested[..nested.len() / 2]);
        let text = template().replace("plugins: {}", &format!("plugins: {{\"p\": {nested}}}"));
        assert!(Scene::parse("s.ron", &text).is_err(), "{open}");
    }
}

#[test]
fn huge_numbers_and_long_lines_are_refused_with_short_messages() {
    let digits = "9".repeat(1_000_000);
    for field in ["seed", "queue_capacity", "keep_ratio_min", "version", "unheard_of"] {
        let text = format!("(version: 1, {field}: {digits})");
        let error = Scene::parse("s.ron", &text).unwrap_err();
        assert!(error.to_string().len() < 2000, "{field}: {} bytes", error.to_string().len());
    }
    let name = "x".repeat(1_000_000);
    for text in [format!("({name}: 1)"), format!("(version: 1, protocol: {name})"), format!("(\"{name}\")")] {
        let error = Scene::parse("s.ron", &text).unwrap_err();
        assert!(error.to_string().len() < 2000, "{} bytes", error.to_string().len());
    }
}

#[test]
fn a_large_scene_full_of_mistakes_is_refused_in_time_linear_in_its_size() {
    let names = "(name: \"\", file: \"\"),".repeat(4000);
    let text = format!("(version: 1, seed: 1, networks: [{names}], datasets: [], budgets: [])");
    assert_eq!(Scene::parse("s.ron", &text).unwrap_err().problems().len(), 3 * 4000 - 1 + 2);
    let text = format!("(version: 1, seed: 1, networks: [{names}{names}], datasets: [], budgets: [])");
    let error = Scene::parse("s.ron", &text).unwrap_err();
    assert!(error.to_string().contains("`networks` has 8000 entries, at most 4096 are allowed"));
}

/// The seeds of the fuzz target, and all their single changed bytes: scenes or errors, never a panic.
#[test]
fn seeds_of_the_fuzz_target_are_survived() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/scenes");
    let files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap()).collect();
    assert!(files.len() >= 2, "{}", files.len());
    for seed in files {
        let (scene, edit) = seed.rsplit_once("\n---\n").unwrap();
        Scene::parse("seed.ron", &apply_set(scene, edit).unwrap()).unwrap();
        for at in 0..scene.len() {
            for byte in [b'(', b'"', b'9', b' '] {
                let mut changed = scene.as_bytes().to_vec();
                changed[at] = byte;
                let changed = String::from_utf8_lossy(&changed);
                drop(Scene::parse("seed.ron", &changed).map_err(|error| error.to_string()));
                drop(apply_set(&changed, edit));
            }
        }
    }
}
