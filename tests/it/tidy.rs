//! Rules of the house that are read off the source text. Each message says how to fix what it found. A rule is a
//! function that returns what breaks it, one line each; what is not yet as it should be is counted, and the counts may
//! only shrink.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod imports;
mod matches;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imports::ImportGraph;

/// Most files that may import each other in a circle: two or three that belong together, which one person keeps in
/// mind.
const CIRCLE_MAX: usize = 3;

/// Floors of a crate from the ground up: a file may import from its own floor and from those below it, never from one
/// above.
const FLOORS: &[(&str, &[&str])] = &[("crates/kernels/src", &["simd/", "engine/", "fit/", "grad/"])];

/// Enums that grow, whose every variant is written out wherever one is matched, so that the compiler finds the places
/// of a new one.
const WRITTEN_OUT: &[&str] = &["Op"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folders with the sources of a crate, relative to the repository.
fn source_folders() -> Vec<String> {
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().file_name());
    let folders = crates.map(|name| format!("crates/{}/src", name.to_string_lossy()));
    let mut folders: Vec<String> = folders.filter(|folder| root().join(folder).is_dir()).collect();
    folders.push("src".into());
    folders.sort();
    folders
}

/// Rust files below `folder`, by name relative to it.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let base = root().join(folder);
    let mut out = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![base.clone()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&base).unwrap().to_string_lossy().replace('\\', "/");
            out.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    assert!(!out.is_empty(), "no sources below {folder}: mend the list in this file");
    out
}

/// Fails with all that breaks a rule, under a line that says what to do about it.
#[track_caller]
fn hold(what_to_do: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what_to_do}\n  {}", broken.join("\n  "));
}

#[test]
fn no_more_than_three_files_import_each_other_in_a_circle() {
    let mut broken = Vec::new();
    for folder in source_folders() {
        let graph = ImportGraph::new(&sources(&folder));
        let circles = graph.circles();
        let too_large = circles.iter().filter(|circle| circle.len() > CIRCLE_MAX);
        broken.extend(too_large.map(|circle| format!("{folder}: {circle:?}")));
    }
    hold("move what two files share into a file below both, so that imports go one way:", &broken);
}

#[test]
fn floors_import_only_from_below() {
    let mut broken = Vec::new();
    for (folder, floors) in FLOORS {
        let floor = |file: &str| floors.iter().position(|floor| file.starts_with(floor));
        for floor in *floors {
            assert!(root().join(folder).join(floor).is_dir(), "{folder}/{floor} is gone: mend FLOORS");
        }
        let graph = ImportGraph::new(&sources(folder));
        let upwards = graph.arrows().filter(|(from, to)| floor(from).is_some_and(|from| Some(from) < floor(to)));
        broken.extend(upwards.map(|(from, to)| format!("{folder}: {from} imports {to}")));
    }
    hold("move what the lower floor needs down to it, or what needs it up:", &broken);
}

/// A new operation must not count 0 multiply-accumulates, or have no parameters, because nobody thought of it.
#[test]
fn matches_over_operations_name_all_of_them() {
    let mut broken = Vec::new();
    for folder in source_folders() {
        for (file, text) in sources(&folder) {
            for enumeration in WRITTEN_OUT {
                let arms = matches::catch_all_arms(&text, enumeration);
                broken.extend(arms.into_iter().map(|arm| format!("{folder}/{file}: {arm}")));
            }
        }
    }
    hold("write the variants out instead of:", &broken);
}

#[test]
fn first_pages_of_crates_show_an_example_and_lead_to_the_glossary() {
    let mut broken = Vec::new();
    for folder in source_folders() {
        let text = fs::read_to_string(root().join(&folder).join("lib.rs")).unwrap();
        let page: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if !page.contains("glossary") {
            broken.push(format!("{folder}/lib.rs does not lead to the glossary of secateur-net"));
        }
        if !page.contains("```") {
            broken.push(format!("{folder}/lib.rs shows no example"));
        }
    }
    hold("write about ten lines that are compiled under the crate's first words:", &broken);
}

/// What a habit is, how often it is found in source texts, and the most that may be left.
type Habit = (&'static str, fn(&[String]) -> usize, usize);

/// Habits that are being dropped: how often each is found in the sources today, tests left out. A number may only go
/// down.
const COUNTS: &[Habit] = &[
    ("comment lines of more than 120 characters: break them", long_comment_lines, 0),
    ("names that stand for two or more types: give each its own", types_of_one_name, 0),
    ("parameters that are tuples: make them a struct with named fields", tuple_parameters, 48),
];

fn long_comment_lines(texts: &[String]) -> usize {
    let is_long = |line: &&str| line.trim_start().starts_with("//") && line.chars().count() > 120;
    texts.iter().map(|text| text.lines().filter(is_long).count()).sum()
}

fn types_of_one_name(texts: &[String]) -> usize {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with("//")).take(4).collect();
        let after = words.iter().position(|word| matches!(*word, "struct" | "enum" | "trait"));
        let Some(name) = after.filter(|&at| words[..at].iter().all(|word| word.starts_with("pub"))) else { continue };
        let name =
            words.get(name + 1).map_or("", |word| word.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(""));
        *found.entry(name.to_owned()).or_default() += 1;
    }
    found.values().filter(|&&n| n > 1).count()
}

fn tuple_parameters(texts: &[String]) -> usize {
    let code = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| line.matches("): (").count()).sum()
}

#[test]
fn habits_that_are_being_dropped_are_not_taken_up_again() {
    let is_test = |file: &str| file.contains("tests") || file.contains("hand_made");
    let of_folder =
        |folder: String| sources(&folder).into_iter().filter(|(file, _)| !is_test(file)).map(|(_, text)| text);
    let texts: Vec<String> = source_folders().into_iter().flat_map(of_folder).collect();
    let mut broken = Vec::new();
    for (habit, count, most) in COUNTS {
        let n = count(&texts);
        if n > *most {
            broken.push(format!("{n} {habit}; at most {most} are left"));
        } else if n < *most {
            broken.push(format!("{n} {habit}; there were {most}: write the lower number into COUNTS"));
        }
    }
    hold("mend this, in a file that you touch anyway:", &broken);
}
