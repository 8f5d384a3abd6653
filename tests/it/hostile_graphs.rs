//! The binary on graphs that declare more than they hold: files of a few kilobytes that would take gigabytes or hours
//! are refused, or end, within a bound. Every file is made here; the inputs that went wrong elsewhere are tried too
//! where they are found.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Address space of each command, KiB, where a shell can limit it: no more is allocated, not even for a moment.
const LIMIT_KIB: usize = 1_400_000;
/// Each command takes a fraction of this in release builds.
const LIMIT_TIME: Duration = Duration::from_secs(30);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `net.safetensors`: images of `input`, nodes `(operation, inputs)` behind the input, one tensor to each name and
    /// shape.
    fn write(&self, input: [usize; 3], nodes: &[(Value, Vec<usize>)], tensors: &[(&str, &[usize])], n_classes: usize) {
        let [c, h, w] = input;
        let mut list = vec![json!({"name": "input", "op": "Input", "inputs": []})];
        let node = |(i, (op, inputs)): (usize, &(Value, Vec<usize>))| json!({"name": format!("n{}", i + 1), "op": op, "inputs": inputs});
        list.extend(nodes.iter().enumerate().map(node));
        let graph = json!({"input": {"c": c, "h": h, "w": w}, "nodes": list}).to_string();
        let per_channel = json!(vec![0.5; c]).to_string();
        let mut header = json!({"__metadata__": {
            "secateur.format": "1", "secateur.graph": graph, "secateur.mean": per_channel, "secateur.std": per_channel,
            "secateur.classes": n_classes.to_string(),
        }});
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            header[*name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        }
        let header = header.to_string();
        let data = 0.25f32.to_le_bytes().repeat(end / 4);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        fs::write(self.0.path().join("net.safetensors"), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let start = Instant::now();
        let mut command = if cfg!(unix) {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -v {LIMIT_KIB}; exec \"$0\" \"$@\"")]);
            shell.arg(env!("CARGO_BIN_EXE_secateur"));
            shell
        } else {
            Command::new(env!("CARGO_BIN_EXE_secateur"))
        };
        let output = command.args(arguments).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap();
        assert!(start.elapsed() < LIMIT_TIME, "{arguments:?} took {:?}", start.elapsed());
        output
    }

    /// Exit code and all that was said.
    fn outcome(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.run(arguments);
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert!(!text.contains("panicked") && !text.contains("memory allocation"), "{arguments:?}: {text}");
        (status.code(), text)
    }

    /// Refused by exit code 2 with all of `parts`.
    #[track_caller]
    fn refused(&self, arguments: &[&str], parts: &[&str]) {
        let (code, text) = self.outcome(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: expected '{part}' in: {text}");
        }
    }

    #[track_caller]
    fn ends(&self, arguments: &[&str]) -> String {
        let (code, text) = self.outcome(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        text
    }

    /// A scene with the network on drawn images.
    fn write_scene(&self) {
        let scene = r#"(version: 1, seed: 1, networks: [(name: "n", file: "./net.safetensors")],
            datasets: [(name: "d", source: Procedural(kind: Shapes, seed: 1, train: 60, test: 10))],
            budgets: [Macs(ratio: 0.8)], images: (reward: 20, calibration: 20, refit: 20), walks_per_task: 2)"#;
        fs::write(self.0.path().join("scene.ron"), scene).unwrap();
    }
}

const INSPECT: &[&str] = &["inspect", "net"];
const EVAL: &[&str] = &["eval", "net", "--dataset", "shapes", "--limit", "1"];
const CHECK: &[&str] = &["check", "scene.ron"];
const RUN: &[&str] = &["run", "scene.ron", "--out", "out"];

fn conv(from: usize, to: usize) -> Value {
    json!({"Conv2d": {"in_channels": from, "out_channels": to, "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0],
        "dilation": [1, 1], "groups": 1, "bias": false}})
}

fn pad(channels: usize, around: usize) -> Value {
    json!({"Pad": {"channels": [0, channels], "rows": [around, around], "cols": [around, around]}})
}

/// A convolution of drawn images to 10 channels, `middle` (numbered from 2), and the mean of the last of them.
fn for_drawn_images(middle: &[(Value, Vec<usize>)]) -> Vec<(Value, Vec<usize>)> {
    let mut nodes = vec![(conv(3, 10), vec![0])];
    nodes.extend_from_slice(middle);
    nodes.push((json!("GlobalAvgPool"), vec![nodes.len()]));
    nodes
}

const DRAWN: [usize; 3] = [3, 32, 32];
const WEIGHT: &[(&str, &[usize])] = &[("n1.weight", &[10, 3, 1, 1])];

#[test]
fn millions_of_channels_without_weights_are_refused_with_what_they_would_take() {
    let place = Place::new();
    place.write_scene();
    let tensors: &[(&str, &[usize])] = &[("n1.weight", &[1, 1, 1, 1])];
    for power in [24, 28] {
        place.write([1, 1, 1], &[(conv(1, 1), vec![0]), (pad((1 << power) - 1, 0), vec![1])], tensors, 1 << power);
        let size = (1u64 << power).to_string();
        place.refused(INSPECT, &["channel groups take up to", "MiB allowed", &size, "'n2'", "--memory"]);
        place.refused(CHECK, &["scene.ron:1", "channel groups take up to", "--memory"]);
        place.refused(RUN, &["scene.ron:1", "channel groups take up to"]);
    }
    let doubled = |n: usize| -> Vec<(Value, Vec<usize>)> {
        let doubled = (1..=n).map(|i| (json!("Concat"), vec![i, i]));
        [(conv(1, 1), vec![0])].into_iter().chain(doubled).collect()
    };
    place.write([1, 1, 1], &doubled(26), tensors, 1 << 26);
    place.refused(INSPECT, &["channel groups take up to", "'n27'"]);
    place.write([1, 1, 1], &doubled(16), tensors, 1 << 16);
    place.ends(INSPECT);
    place.refused(&["inspect", "net", "--memory", "1M"], &["more than the 1.0 MiB allowed"]);
    place.ends(&["inspect", "net", "--memory", "100M"]);
    place.refused(&["inspect", "net", "--memory", "much"], &["--memory", "800M or 4G"]);
}

#[test]
fn planes_and_many_of_them_are_refused_before_they_are_taken() {
    let place = Place::new();
    place.write_scene();
    let sigmoid = || json!({"Pointwise": "Sigmoid"});
    let one_plane = for_drawn_images(&[(pad(0, 1234), vec![1]), (sigmoid(), vec![2])]);
    let mut middle = vec![(pad(0, 134), vec![1])];
    middle.extend((0..50).map(|_| (sigmoid(), vec![2])));
    middle.push((json!("Add"), (3..53).collect()));
    let many_planes = for_drawn_images(&middle);
    let mut middle: Vec<(Value, Vec<usize>)> = (0..9000).map(|_| (sigmoid(), vec![1])).collect();
    middle.push((json!("Add"), (2..9002).collect()));
    let thousands = for_drawn_images(&middle);
    for nodes in [one_plane, many_planes, thousands] {
        place.write(DRAWN, &nodes, WEIGHT, 10);
        place.ends(INSPECT);
        let parts = ["network 'net'", "GiB of memory", "of activations for each thread", "allowed", "--memory"];
        place.refused(EVAL, &parts);
        let mut few = EVAL.to_vec();
        few.extend(["--memory", "100M", "--threads", "1"]);
        place.refused(&few, &["more than the 100.0 MiB allowed"]);
        place.refused(CHECK, &["scene.ron:1", "of activations for each thread", "--memory"]);
    }
    // What fits is computed.
    place.write(DRAWN, &for_drawn_images(&[(pad(0, 100), vec![1]), (sigmoid(), vec![2])]), WEIGHT, 10);
    let text = place.ends(EVAL);
    assert!(text.lines().last().unwrap().starts_with("top1 "), "{text}");
}

#[test]
fn sizes_that_no_64_bits_count_are_refused_when_read() {
    let place = Place::new();
    let pool = |side: u64| json!({"AvgPool": {"kernel": [side, side], "stride": [side, side], "padding": [side / 2, side / 2]}});
    place.write(DRAWN, &for_drawn_images(&[(pool(1 << 32), vec![1])]), WEIGHT, 10);
    for command in [INSPECT, EVAL] {
        place.refused(command, &["node 'n2'", "AvgPool", "64 bits"]);
    }
    for (input, op) in [([1 << 22, 1 << 21, 1 << 21], json!("Flatten")), ([1, 1 << 20, 1 << 20], json!("Softmax"))] {
        let bytes = json!({"input": {"c": input[0], "h": input[1], "w": input[2]}, "nodes": [
            {"name": "input", "op": "Input", "inputs": []}, {"name": "n1", "op": op, "inputs": [0]}]});
        let header = json!({"__metadata__": {"secateur.format": "1", "secateur.graph": bytes.to_string(), "secateur.mean": "[0]",
            "secateur.std": "[1]", "secateur.classes": "1"}}).to_string();
        fs::write(
            place.0.path().join("net.safetensors"),
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat(),
        )
        .unwrap();
        place.refused(INSPECT, &["too large"]);
    }
}

#[test]
fn hours_of_work_are_refused() {
    let place = Place::new();
    let pool = json!({"MaxPool": {"kernel": [511, 511], "stride": [1, 1], "padding": [255, 255]}});
    place.write(DRAWN, &for_drawn_images(&[(pad(0, 240), vec![1]), (pool, vec![2])]), WEIGHT, 10);
    place.refused(EVAL, &["network 'net'", "operations for one image"]);
}

#[test]
fn ten_thousand_groups_and_a_hundred_thousand_nodes_are_inspected_at_once() {
    let place = Place::new();
    let n = 10_000;
    let mut nodes = vec![(conv(3, 2), vec![0])];
    nodes.extend((1..=n).map(|i| (conv(2, 2), vec![i])));
    let names: Vec<String> = (1..=n + 1).map(|i| format!("n{i}.weight")).collect();
    let mut tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[2, 2, 1, 1][..])).collect();
    tensors[0].1 = &[2, 3, 1, 1];
    place.write([3, 1, 1], &nodes, &tensors, 2);
    let start = Instant::now();
    let text = place.ends(&["inspect", "net", "--json"]);
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    let report: Value = serde_json::from_str(&text).unwrap();
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), n + 2);
    // 2 x 2 MACs of 4 n + 6 make it, 2 x 2 read it.
    assert_eq!(groups[n / 2]["macs_share"], 8.0 / (4 * n + 6) as f64);
    let chain: Vec<(Value, Vec<usize>)> = (1..100_000).map(|i| (json!({"Pointwise": "Relu"}), vec![i])).collect();
    place.write(DRAWN, &for_drawn_images(&chain), WEIGHT, 10);
    place.ends(INSPECT);
    place.ends(EVAL);
}

/// The folder of inputs that went wrong, beside the data; says so when it is not there.
fn cases() -> Option<PathBuf> {
    let folder = std::env::var_os("SECATEUR_DATA").map(|data| Path::new(&data).join("../cases"));
    let found = folder.filter(|folder| folder.is_dir());
    if found.is_none() {
        assert!(
            std::env::var_os("SECATEUR_REQUIRE_DATA").is_none(),
            "SECATEUR_DATA must be set, with the folder `cases` beside it"
        );
        eprintln!("SKIPPED: no folder `cases` beside the data root; set SECATEUR_DATA");
    }
    found
}

#[test]
fn inputs_that_went_wrong_are_refused_or_bounded() {
    let Some(cases) = cases() else { return };
    let place = Place::new();
    let path = |file: &str| cases.join(file).to_str().unwrap().to_owned();
    let inspect = |file: &str| place.outcome(&["inspect", &path(file)]);
    let eval = |file: &str| place.outcome(&["eval", &path(file), "--dataset", "shapes", "--limit", "1"]);
    for file in ["bomb-pad2_24", "bomb-concat2_26", "bomb-e2500", "bomb-e300x50"] {
        let file = format!("hostile/{file}.safetensors");
        assert!(matches!(inspect(&file).0, Some(0 | 2)), "{file}");
        assert_eq!(eval(&file).0, Some(2), "{file}");
    }
    let refusals = [
        ("hostile/bomb-AvgPool2_32", &["AvgPool", "64 bits"][..]),
        ("hostile/negative-variance", &["running_var", "at element 0", "above 0"]),
        ("files/negative_variance", &["'stem.bn.running_var' is -1 at element 3"]),
        (
            "files/avg_exclude_pad",
            &["graph node `p` (AvgPool): unknown key `count_include_pad`; known: kernel, stride, padding"],
        ),
    ];
    for (file, parts) in refusals {
        for (code, text) in [inspect(&format!("{file}.safetensors")), eval(&format!("{file}.safetensors"))] {
            assert_eq!(code, Some(2), "{file}: {text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{file}: {text}");
        }
    }
    for command in ["check", "run"] {
        place.refused(&[command, &path("hostile/negative-variance.ron")], &["running_var", "negative-variance.ron:1"]);
    }
    let sound = path("files/flags_none.safetensors");
    let text = place.ends(&["eval", &sound, "--dataset", "cifar10", "--limit", "1000"]);
    assert!(text.ends_with("top1 0.3600 (360 of 1000)\n"), "{text}");
}
