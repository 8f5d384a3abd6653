//! `bench` through the binary: what it counts, not how fast it is.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::path::Path;
use std::process::{Command, Output};

use secateur::sim::Step;
use serde_json::Value;

fn bench(what: &str, extra: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.args(["bench", what]).args(extra).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).output().unwrap()
}

/// What it prints, and what it writes as JSON.
fn measured(what: &str, extra: &[&str]) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let output = bench(what, &[extra, &["--json", file.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    (text, serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
}

fn report(extra: &[&str]) -> Value {
    let (text, report) = measured("schedulers", extra);
    assert!(text.contains("walks/s"));
    report
}

/// Whether there is a GPU adapter; a loud skip where there is none and none is required.
fn has_adapter() -> bool {
    let found = !secateur::gpu::adapters().is_empty();
    let is_required = std::env::var("SECATEUR_REQUIRE_GPU").as_deref() == Ok("1");
    assert!(found || !is_required, "SECATEUR_REQUIRE_GPU=1, but no adapter was found");
    if !found {
        eprintln!("SKIPPED: no GPU adapter (Debian: mesa-vulkan-drivers and libvulkan1 bring a software one)");
    }
    found
}

fn number(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} in {run}"))
}

fn check_runs(report: &Value, n_runs: usize, n_walks: f64) {
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), n_runs);
    for run in runs {
        assert_eq!(number(run, "walks"), n_walks);
        assert!((number(run, "walks_per_s") * number(run, "wall_s") - n_walks).abs() < 1e-6);
        assert!(number(run, "act_s") > 0.0 && number(run, "learn_s") > 0.0);
        assert!(number(run, "free_env_steps_per_s") > number(run, "env_steps_per_s"));
        assert!((0.0..1.0).contains(&number(run, "scheduling_share")));
        let shares = run["step_shares"].as_array().unwrap();
        let total: f64 = shares.iter().map(|share| share[1].as_f64().unwrap()).sum();
        assert!(shares.len() == Step::ALL.len() && total > 0.0 && total <= 1.0, "{run}");
        if let Some(max) = run["scheduler"].as_str().unwrap().strip_prefix("bounded_lag:") {
            assert!(number(run, "lag_max") <= max.parse().unwrap());
        }
        let best: Vec<f64> =
            run["best_reward_at_s"].as_array().unwrap().iter().map(|p| p[1].as_f64().unwrap()).collect();
        // Every tenth of the walks, also where one tick ends more than a tenth.
        assert!(best.len() == 10 && best.is_sorted(), "{run}");
        let lags = ["lag_p50", "lag_p95", "lag_max"].map(|name| run[name].as_u64().unwrap());
        assert!(lags.is_sorted(), "{run}");
        assert_eq!(run["learner_share"].is_null(), run["scheduler"] == "lockstep");
    }
}

#[test]
fn synthetic_searches_are_measured_under_every_scheduler_and_executor() {
    let report = report(&[
        "--score-ms",
        "0.5",
        "--walks",
        "24",
        "--actors",
        "1,3",
        "--variants",
        "lockstep,async,bounded_lag:0",
        "--executors",
        "single,multi",
        "--threads",
        "2",
    ]);
    check_runs(&report, 12, 24.0);
    assert_eq!((number(&report, "score_ms"), number(&report, "learn_ms")), (0.5, 0.25));
    assert!(number(&report, "queue_trajectories_per_s") > 0.0);
}

#[test]
fn a_scene_is_measured_with_its_own_agent() {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let mut arguments = vec![scene.to_str().unwrap(), "--walks", "4", "--actors", "2", "--variants", "lockstep,async"];
    for set in [
        "budgets=[Macs(ratio: 0.6)]",
        "images=(reward: 50, calibration: 50, walk: 20, refit: 20)",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 20)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 20))]",
    ] {
        arguments.extend(["--set", set]);
    }
    let report = report(&arguments);
    check_runs(&report, 2, 8.0);
    assert!(report["score_ms"].is_null() && report["environment"].as_str().unwrap().contains("quickstart"));
}

#[test]
fn what_the_arguments_leave_out_is_taken_from_the_scene() {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let mut arguments = vec![scene.to_str().unwrap()];
    for set in [
        "budgets=[Macs(ratio: 0.6)]",
        "images=(reward: 50, calibration: 50, walk: 20, refit: 20)",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 20)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 20))]",
        "walks_per_task=2",
        "actors_per_task=1",
        "queue_capacity=3",
        "scheduler=BoundedLag(max: 2)",
        "executor=Multi",
    ] {
        arguments.extend(["--set", set]);
    }
    let report = report(&arguments);
    assert_eq!(report["queue_capacity"], 3);
    let runs = report["runs"].as_array().unwrap();
    let which = |run: &Value| (run["scheduler"].clone(), run["executor"].clone(), run["actors"].clone());
    for (run, scheduler) in runs.iter().zip(["lockstep", "async", "bounded_lag:1", "bounded_lag:2"]) {
        assert_eq!(which(run), (scheduler.into(), "multi".into(), 2.into()));
        assert_eq!(number(run, "walks"), 4.0);
    }
    assert_eq!(runs.len(), 4);
    let on_card = bench("schedulers", &[&arguments[..], &["--set", "device=Gpu"]].concat());
    assert_eq!(on_card.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&on_card.stderr).contains("add --set device=Cpu"));
}

#[test]
fn measurements_that_could_not_be_written_are_refused_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (nowhere, folder) = (dir.path().join("no/such/folder.json"), dir.path().to_owned());
    for what in ["eval", "kernels", "schedulers"] {
        for (file, why) in [(&nowhere, "No such file"), (&folder, "it is a folder")] {
            let output = bench(what, &["--json", file.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(2), "{what}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.stdout.is_empty() && text.contains("--json") && text.contains(why), "{text}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn arguments_out_of_range_are_refused() {
    for (argument, value) in [
        ("--score-ms", "101"),
        ("--score-ms", "NaN"),
        ("--variants", "fast"),
        ("--actors", "0"),
        ("--walks", "0"),
        ("--set", "seed=8"),
    ] {
        let output = bench("schedulers", &[argument, value]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(argument));
    }
}

/// Half of ResNet-20's inner channels, random weights: no model root holds the network.
fn eval_of_resnet20(extra: &[&str]) -> (String, Value) {
    let models = tempfile::tempdir().unwrap();
    let root = ["--model-root", models.path().to_str().unwrap(), "--network", "resnet20", "--keep", "0.5"];
    measured("eval", &[&root[..], extra].concat())
}

#[test]
fn candidates_on_the_processor_are_measured_with_compiling_and_both_refits() {
    let (text, eval) = eval_of_resnet20(&["--images", "3", "--batch", "2", "--repair-images", "5", "--threads", "1"]);
    for (name, expected) in [("images", 3.0), ("batch", 2.0), ("repair_images", 5.0), ("threads", 1.0), ("keep", 0.5)] {
        assert_eq!(number(&eval, name), expected, "{name}");
    }
    // Stem 442,368; three stages of half the convolutions' 14,155,776 or, where the stride is 2, 12,976,128; classifier
    // 640.
    assert_eq!(number(&eval, "macs"), (442_368 + 7_077_888 + 2 * 6_488_064 + 640) as f64);
    let is = |name: &str, expected: f64| {
        assert!((number(&eval, name) / expected - 1.0).abs() < 1e-9, "{name}: {} against {expected}", eval[name]);
    };
    let (macs, images_per_s) = (number(&eval, "macs"), number(&eval, "images_per_s"));
    is("gflops", 2e-9 * macs * images_per_s);
    is("peak_share", number(&eval, "gflops") / number(&eval, "peak_gflops_per_core"));
    let share = |repair: &str| (number(&eval, "plan_s") + number(&eval, repair)) * images_per_s / 3.0;
    is("plan_and_repair_share", share("repair_s"));
    is("plan_and_repair_original_share", share("repair_original_s"));
    for rate in ["candidates_per_s", "candidates_per_s_with_repair"] {
        assert!(number(&eval, rate) > 0.0, "{eval}");
    }
    for name in ["images_per_s", "candidates_per_s_with_repair", "Sequential (default)", "Original", "peak_share"] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn instruction_sets_and_precisions_are_measured_one_by_one() {
    use secateur::kernels::{Isa, Precision};
    let few = ["--images", "1", "--repair-images", "1", "--threads", "1"];
    for isa in Isa::available() {
        let name = format!("{isa:?}");
        let (text, eval) = eval_of_resnet20(&[&few[..], &["--isa", &name.to_lowercase()]].concat());
        assert_eq!((&eval["isa"], &eval["precision"]), (&name.as_str().into(), &"f32".into()));
        assert!(text.contains(&format!("{name} f32")), "{text}");
    }
    let output = bench("eval", &["--isa", "avx2", "--precision", "bf16"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--isa"));
    if Precision::Bf16.is_available() {
        let (_, eval) = eval_of_resnet20(&[&few[..], &["--precision", "bf16"]].concat());
        assert_eq!((&eval["isa"], &eval["precision"]), (&"Avx512".into(), &"bf16".into()));
    } else {
        eprintln!("SKIPPED bf16: this processor does not have AVX512-BF16");
        assert_eq!(bench("eval", &["--precision", "bf16"]).status.code(), Some(2));
    }
}

#[test]
fn layers_on_the_processor_are_measured_in_every_instruction_set_and_in_bf16() {
    use secateur::kernels::{Isa, Precision};
    let (text, rows) = measured("kernels", &["--all-isas"]);
    let rows = rows.as_array().unwrap();
    let mut expected: Vec<(String, &str)> = Isa::available().iter().map(|isa| (format!("{isa:?}"), "f32")).collect();
    if Precision::Bf16.is_available() {
        expected.push(("Avx512".to_owned(), "bf16"));
    }
    let n_layers = rows.len() / expected.len();
    assert_eq!((rows.len(), text.lines().count()), (n_layers * expected.len(), 1 + (n_layers + 1) * expected.len()));
    assert!(n_layers >= 20);
    for ((isa, precision), of_isa) in expected.iter().zip(rows.chunks(n_layers)) {
        for (row, like) in of_isa.iter().zip(rows) {
            assert_eq!((&row["isa"], &row["precision"]), (&isa.as_str().into(), &Value::from(*precision)));
            assert_eq!(row["layer"], like["layer"]);
            assert!(number(row, "gflops") > 0.0 && number(row, "peak_share") > 0.0, "{row}");
        }
    }
    let (text, best) = measured("kernels", &[]);
    assert_eq!((best.as_array().unwrap().len(), text.lines().count()), (n_layers, n_layers + 2));
    assert_eq!(best[0]["isa"], rows[0]["isa"]);
}

#[test]
fn candidates_on_the_card_are_measured_as_a_whole_and_dispatch_by_dispatch() {
    if !has_adapter() {
        return;
    }
    let arguments = ["--device", "gpu", "--network", "resnet20", "--candidates", "2", "--images", "3"];
    let (text, eval) = measured("eval", &[&arguments[..], &["--peak-tflops", "0.5"]].concat());
    let name = secateur::gpu::adapters()[0].name.clone();
    assert!(text.contains(&name) && eval["adapter"] == name.as_str(), "{text}");
    // Candidates, images and the multiply-accumulates of one candidate give the rate.
    let gflops = 2e-9 * number(&eval, "macs") * 3.0 * number(&eval, "candidates_per_s");
    assert!((number(&eval, "gflops") / gflops - 1.0).abs() < 1e-9);
    assert!((number(&eval, "peak_share") * 500.0 / gflops - 1.0).abs() < 1e-9);
    for name in ["candidates_per_s_by_mask", "dense_images_per_s", "first_s"] {
        assert!(number(&eval, name) > 0.0, "{name}");
    }
    if eval["dispatches"].is_null() {
        assert!(!secateur::gpu::adapters()[0].features.contains(&"timestamps"));
        return;
    }
    let rows = eval["dispatches"]["rows"].as_array().unwrap();
    // 20 layers with weights; both shortcuts are a Slice and a Pad; the mean before the classifier.
    assert_eq!(rows.len(), 25);
    for row in rows.iter().filter(|row| row["kernel"] == "Dense") {
        assert!((number(row, "peak_share") * 500.0 / number(row, "gflops") - 1.0).abs() < 1e-9, "{row}");
    }
}

/// What would be ignored is refused, before anything is opened.
#[test]
fn options_of_the_other_device_are_refused() {
    for (what, arguments) in [
        ("eval", &["--device", "gpu", "--precision", "bf16"][..]),
        ("eval", &["--device", "gpu", "--threads", "1"]),
        ("eval", &["--device", "gpu", "--batch", "999"]),
        ("eval", &["--device", "gpu", "--repair-images", "64"]),
        ("eval", &["--candidates", "64"]),
        ("eval", &["--peak-tflops", "67"]),
        ("kernels", &["--candidates", "64"]),
        ("kernels", &["--images", "1000"]),
        ("kernels", &["--peak-tflops", "67"]),
    ] {
        let output = bench(what, arguments);
        assert_eq!(output.status.code(), Some(2), "{what} {arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains(arguments[arguments.len() - 2]) && text.contains("means nothing with --device"),
            "{text}"
        );
    }
}

#[test]
fn layers_on_the_card_are_measured_in_every_variant() {
    if !has_adapter() || !secateur::gpu::adapters()[0].features.contains(&"timestamps") {
        return;
    }
    let (text, report) = measured("kernels", &["--device", "gpu", "--candidates", "1", "--images", "1", "--all-isas"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(text.lines().count(), rows.len() + 1);
    let layer = |row: &Value| row["layer"].as_str().unwrap().to_owned();
    let mut n_layers = 0;
    for of_layer in rows.chunk_by(|a, b| layer(a) == layer(b)) {
        n_layers += 1;
        let name = layer(&of_layer[0]);
        let defaults = of_layer.iter().map(|row| row["is_default"] == true);
        assert!(defaults.eq(std::iter::once(true).chain(std::iter::repeat_n(false, of_layer.len() - 1))), "{name}");
        let mut variants: Vec<&str> = of_layer.iter().map(|row| row["variant"].as_str().unwrap()).collect();
        variants.sort_unstable();
        let expected: &[&str] = match name.as_str() {
            name if !name.ends_with("g1") => &[""],
            // Nothing to share between rows, a step of two rows, too many taps, too few rows.
            name if name.contains(" k1 ") || name.contains(" s2 ") || name.contains(" k7 ") => {
                &["direct", "staged", "staged"]
            }
            name if name.contains("@ 4x4") || name.contains("@ 2x2") => &["direct", "staged", "staged"],
            _ => &["direct", "staged", "strips"],
        };
        assert_eq!(variants, expected, "{name}");
        assert!(of_layer.iter().all(|row| number(row, "gflops") > 0.0 && row["peak_share"].is_null()), "{name}");
    }
    assert_eq!(n_layers, 24);
}

#[test]
fn the_card_is_measured_only_where_there_is_one_and_against_a_peak_that_can_be() {
    for what in ["eval", "kernels"] {
        let output = bench(what, &["--device", "gpu", "--peak-tflops", "0"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--peak-tflops"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        let command = command.args(["bench", what, "--device", "gpu"]).env("WGPU_ADAPTER_NAME", "no such adapter");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("secateur doctor"));
    }
}

#[test]
fn training_is_measured() {
    let how = ["--network", "resnet20", "--keep", "0.5", "--batch", "20", "--steps", "2", "--threads", "2"];
    let (text, report) = measured("train", &how);
    assert!(text.contains("train_images_per_s"));
    assert_eq!((number(&report, "batch"), number(&report, "threads")), (20.0, 2.0));
    let rate = number(&report, "train_images_per_s");
    assert!((rate * number(&report, "step_s") - 20.0).abs() < 1e-6);
    assert!(number(&report, "macs") < 0.6 * 40_551_040.0 && number(&report, "memory_bytes") > 1e6);
    let output = bench("train", &["--network", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn rewards_are_ranked_by_the_images_that_nothing_else_uses() {
    let scene = concat!(env!("CARGO_MANIFEST_DIR"), "/scenes/quickstart.ron");
    let dataset = "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 900, test: 20)), \
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 900, test: 20))]";
    let sets =
        [dataset, "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]"];
    let few = "images=(reward: 100, calibration: 200, refit: 200, walk: 50)";
    let mut arguments = vec![scene, "--candidates", "10", "--images", "25,400", "--set", few];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let (text, report) = measured("rewards", &arguments);
    assert!(text.contains("Kendall's tau") && text.contains("top-8 recall"), "{text}");
    let tasks = report["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        // 900 images less 400 of the reward and 200 of the refit.
        assert_eq!((number(task, "candidates"), number(task, "held_back_images")), (10.0, 300.0));
        assert!(number(task, "best_accuracy") >= number(task, "median_accuracy"));
        let rows = task["rows"].as_array().unwrap();
        let which: Vec<(&str, f64)> =
            rows.iter().map(|row| (row["reward"].as_str().unwrap(), number(row, "images"))).collect();
        assert_eq!(which, [("Accuracy", 25.0), ("Kl", 25.0), ("Accuracy", 400.0), ("Kl", 400.0)]);
        for row in rows {
            assert!((-1.0..=1.0).contains(&number(row, "kendall")) && number(row, "regret") >= 0.0, "{row}");
            // Of 10 candidates at least six of any eight are among any other eight.
            assert!(number(row, "top_recall") >= 6.0 / 8.0 && number(row, "candidate_s") > 0.0, "{row}");
        }
    }
    for (bad, why) in [
        (["--set", "images=(reward: 100, calibration: 200, refit: 500, walk: 50)"], "no training images are left"),
        (["--set", "reward=OutputError()"], "`reward` is OutputError"),
        (["--set", "datasets[0].labels=None"], "without labels"),
        (["--candidates", "8"], "above 8"),
    ] {
        let output = bench("rewards", &[&arguments[..1], &arguments[3..], &bad].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(why), "{error}");
    }
}
