//! Rules of the house that are read off the source text. Each message says how to fix what it found. A rule is a function that
//! returns what breaks it, one line each; exceptions are counted lists that may only shrink.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod imports;
mod matches;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imports::ImportGraph;

/// Most files that may import each other in a circle: two or three that belong together, which one person keeps in mind.
const CIRCLE_MAX: usize = 3;

/// Crates whose largest circle is larger, with its size today. The number may only go down, and the line goes when it is gone.
const LARGER_CIRCLES: &[(&str, usize)] = &[("crates/formats/src", 4)];

/// Floors of a crate from the ground up: a file may import from its own floor and from those below it, never from one above.
const FLOORS: &[(&str, &[&str])] = &[("crates/kernels/src", &["simd/", "engine/", "fit/"])];

/// Enums that grow, whose every variant is written out wherever one is matched, so that the compiler finds the places of a new one.
const WRITTEN_OUT: &[&str] = &["Op"];

/// Crates whose first page has no example yet; the list may only shrink.
const WITHOUT_EXAMPLE: &[&str] = &["crates/rl/src", "crates/scene/src"];

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
        let largest = circles.first().map_or(0, |circle| circle.len());
        let exception = LARGER_CIRCLES.iter().find(|(name, _)| *name == folder).map(|(_, size)| *size);
        let max = exception.unwrap_or(CIRCLE_MAX);
        let too_large = circles.iter().filter(|circle| circle.len() > max);
        broken.extend(too_large.map(|circle| format!("{folder}: {circle:?}")));
        if exception.is_some_and(|size| largest < size) {
            broken
                .push(format!("{folder}: the largest circle has {largest} files now: write that into LARGER_CIRCLES"));
        }
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
        match (page.contains("```"), WITHOUT_EXAMPLE.contains(&folder.as_str())) {
            (false, false) => broken.push(format!("{folder}/lib.rs shows no example")),
            (true, true) => broken.push(format!("{folder}/lib.rs has an example now: take it off WITHOUT_EXAMPLE")),
            (true, false) | (false, true) => {}
        }
    }
    hold("write about ten lines that are compiled under the crate's first words:", &broken);
}
