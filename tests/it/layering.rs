//! Rules of the repository that a program can check: which crate may use which, and a few habits. Each message says how
//! to fix it.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use secateur::scene::Scene;

/// Longest file, in lines.
const LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is part of the repository")
}

/// Files below `folder` with this extension; build output and hidden folders are left out.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "runs" {
            out.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// `name: a, b` lines of the code block under the heading "Layers"; `-` is nothing, `all` everything.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = architecture();
    let section = text.split("\n## Layers").nth(1).expect("ARCHITECTURE.md has a heading '## Layers'");
    let block = section.split("```").nth(1).expect("a code block follows the heading");
    let lines = block.lines().filter_map(|line| line.split_once(':'));
    let mut arrows: BTreeMap<String, BTreeSet<String>> = lines
        .map(|(name, uses)| {
            let uses = uses.split(',').map(str::trim).filter(|u| *u != "-").map(str::to_owned).collect();
            (name.trim().to_owned(), uses)
        })
        .collect();
    let all: BTreeSet<String> = arrows.keys().cloned().collect();
    arrows.values_mut().filter(|uses| uses.contains("all")).for_each(|uses| *uses = all.clone());
    arrows
}

fn metadata() -> serde_json::Value {
    let arguments = ["metadata", "--offline", "--no-deps", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Dependencies between the crates of the workspace, by short name. What tests and examples use is not a layer.
fn actual_arrows() -> Vec<(String, String)> {
    let metadata = metadata();
    let short = |name: &str| name.strip_prefix("secateur-").unwrap_or(name).to_owned();
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let from = short(package["name"].as_str().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if dependency["kind"] != "dev" && (to == "secateur" || to.starts_with("secateur-")) {
                arrows.push((from.clone(), short(to)));
            }
        }
        arrows.push((from, String::new()));
    }
    arrows
}

#[test]
fn crates_use_only_what_the_architecture_page_allows() {
    let allowed = allowed_arrows();
    for (from, to) in actual_arrows() {
        let uses = allowed.get(&from).unwrap_or_else(|| {
            panic!("crate '{from}' is not in the block under 'Layers' of ARCHITECTURE.md; add a line `{from}: …`")
        });
        assert!(
            to.is_empty() || uses.contains(&to),
            "'{from}' depends on '{to}', which ARCHITECTURE.md does not allow; move the code down a layer, or add the arrow \
             there in a commit of its own that says why"
        );
    }
}

/// A permission that nobody uses is a door that stands open.
#[test]
fn every_arrow_of_the_architecture_page_is_used() {
    let actual: BTreeSet<(String, String)> = actual_arrows().into_iter().collect();
    for (from, uses) in allowed_arrows() {
        let sources =
            if from == "secateur" { root().join("src") } else { root().join("crates").join(&from).join("src") };
        let text: String = files(&sources, "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        for to in uses.iter().filter(|to| **to != from) {
            assert!(
                actual.contains(&(from.clone(), to.clone())) && text.contains(&format!("secateur_{to}")),
                "ARCHITECTURE.md allows '{from}' to use '{to}', and no source does: remove it from the line of '{from}' and from its \
                 Cargo.toml"
            );
        }
    }
}

/// Of this workspace it uses what follows shapes through an ONNX model, which knows nothing of `net`'s counting.
#[test]
fn the_certificate_shares_no_code_with_the_search() {
    let arrows = actual_arrows();
    let used: Vec<_> =
        arrows.iter().filter(|(from, to)| from == "certify" && !to.is_empty()).map(|(_, to)| to.as_str()).collect();
    assert_eq!(used, ["onnx"]);
    for path in files(&root().join("crates/onnx/src/facts"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secateur_net"), "{} counts for certificates, and uses 'net'", path.display());
    }
}

/// The design has the shaders in `kernels`; ARCHITECTURE.md says why they are a crate of their own.
#[test]
fn only_the_crate_gpu_knows_wgpu() {
    for package in metadata()["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let is_wgpu = matches!(dependency["name"].as_str().unwrap(), "wgpu" | "naga");
            assert!(
                !is_wgpu || package["name"] == "secateur-gpu",
                "{} depends on wgpu; ask secateur-gpu",
                package["name"]
            );
        }
    }
}

#[test]
fn layers_have_no_cycle() {
    let allowed = allowed_arrows();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while done.len() < allowed.len() {
        let ready = |(name, uses): &(&String, &BTreeSet<String>)| {
            !done.contains(name.as_str()) && uses.iter().all(|u| u == *name || done.contains(u.as_str()))
        };
        let next = allowed.iter().find(ready).map(|(name, _)| name.as_str());
        done.insert(
            next.expect("the layers of ARCHITECTURE.md form a cycle, or name a crate without a line of its own"),
        );
    }
}

#[test]
fn paths_on_the_architecture_page_exist() {
    let folders = ["crates/", "src/", "tests/", "scenes/", "shaders/", "benches/", "examples/", "docs/"];
    for quoted in architecture().split('`').skip(1).step_by(2) {
        let is_path = folders.iter().any(|folder| quoted.starts_with(folder)) && !quoted.contains(['*', '<', ' ']);
        assert!(!is_path || root().join(quoted).exists(), "ARCHITECTURE.md names '{quoted}', which is gone");
    }
}

#[test]
fn files_are_short_and_named_by_their_content() {
    for path in files(root(), "rs") {
        let n_lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            n_lines <= LINES_MAX,
            "{} has {n_lines} lines, at most {LINES_MAX}: split it by content",
            path.display()
        );
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let says_nothing = ["utils", "util", "helpers", "helper", "common", "misc"].contains(&name.as_str());
        assert!(!says_nothing, "{}: name the file by what is in it", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not contain them.
    let words = [["#[ign", "ore"], ["tod", "o!("], ["unimplem", "ented!("], ["dbg", "!("]].map(|parts| parts.concat());
    for path in files(root(), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} contains `{word}`: finish it or delete it", path.display());
        }
    }
}

#[test]
fn every_scene_parses() {
    for path in files(&root().join("scenes"), "ron") {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(error) = Scene::parse(&path.display().to_string(), &text) {
            panic!("{error}");
        }
        assert!(text.starts_with("//"), "{}: begin with a comment: purpose, expected result, run time", path.display());
    }
}
