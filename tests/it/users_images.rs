//! The same images in other forms, as folders of image files and as NumPy arrays, are the same data set; and runs on
//! image files without labels go on after they were killed.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::RgbImage;
use secateur::formats::{Dataset, Split};
use secateur::run::scene::DatasetSource;
use serde_json::Value;

use crate::timeless;

const DRAWN: &str = "Procedural(kind: Shapes, seed: 1, train: 160, test: 60)";
const REST: &str = "budgets: [Macs(ratio: 0.6)], walks_per_task: 6, actors_per_task: 2, finalists: 1, controls: [Uniform], \
                    images: (reward: 60, calibration: 60, walk: 20, refit: 60)";

fn network() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors")
}

fn drawn(split: Split) -> Dataset {
    let text = format!(
        "(version: 1, seed: 1, networks: [(name: \"n\", file: \"n\")], datasets: [(name: \"d\", source: {DRAWN})], \
         budgets: [Macs(ratio: 0.5)])"
    );
    let scene = secateur::run::scene::Scene::parse("scene", &text).unwrap();
    let source: &DatasetSource = &scene.datasets[0].source;
    source.read(Path::new("nowhere"), split).unwrap()
}

/// Writes every image of a split as PNG below its class, named by its number, and a list in the order of the split.
fn write_files(data: &Dataset, folder: &Path) {
    let mut list = String::new();
    for (i, &label) in data.labels().unwrap().iter().enumerate() {
        let path = format!("class-{label}/{i:04}.png");
        fs::create_dir_all(folder.join(format!("class-{label}"))).unwrap();
        let planes: Vec<&[u8]> = data.image(i).chunks(32 * 32).collect();
        let pixel = |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c: usize| planes[c][(y * 32 + x) as usize]));
        RgbImage::from_fn(32, 32, pixel).save(folder.join(&path)).unwrap();
        list.push_str(&format!("{path},{label}\n"));
    }
    fs::write(folder.join("labels.csv"), list).unwrap();
}

/// Writes the images and labels of a split as arrays of bytes `[N, C, H, W]` and of 64-bit numbers.
fn write_arrays(data: &Dataset, folder: &Path, split: &str) {
    let labels: Vec<u8> = data.labels().unwrap().iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
    let n = data.len();
    for (name, descr, shape, elements) in
        [("x", "|u1", format!("({n}, 3, 32, 32)"), data.bytes()), ("y", "<i8", format!("({n},)"), &labels[..])]
    {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n");
        let start = [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(folder.join(format!("{name}_{split}.npy")), [&start[..], elements].concat()).unwrap();
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (split, name) in [(Split::Train, "train"), (Split::Test, "test")] {
            let data = drawn(split);
            write_files(&data, &place.path("photos").join(name));
            write_arrays(&data, &place.path("photos"), name);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, out: &str, source: &str, rest: &str, extra: &[&str]) -> Command {
        let text = format!(
            "(version: 1, seed: 3, networks: [(name: \"net\", file: {:?})], datasets: [(name: \"d\", source: {source})], {rest} {REST})",
            network()
        );
        let scene = self.path(&format!("{out}.ron"));
        fs::write(&scene, text).unwrap();
        let mut command = secateur();
        command.arg("run").arg(scene).arg("--out").arg(self.path(out)).args(["--quiet"]).args(extra);
        command
    }

    /// What must not depend on where images came from: the bytes of the network and the numbers of its task.
    fn results(&self, out: &str) -> (Value, Vec<u8>, Vec<Value>) {
        let out = self.path(out);
        let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        let mut task = summary["tasks"][0].clone();
        task.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_s"));
        let model = fs::read(out.join(task["model_file"].as_str().unwrap())).unwrap();
        (task, model, timeless::events(&out))
    }
}

fn secateur() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const LISTED: &str =
    "Images(dir: \"./photos\", labels: List(\"labels.csv\"), transform: (resize: Exact), cache: false)";
const ARRAYS: &str = "Arrays(images: \"./photos/x_train.npy\", labels: \"./photos/y_train.npy\", \
                      test_images: \"./photos/x_test.npy\", test_labels: \"./photos/y_test.npy\")";

#[test]
fn image_files_and_arrays_lead_to_the_same_networks_as_the_data_set_they_were_written_from() {
    let place = Place::new();
    for (out, source) in [("drawn", DRAWN), ("files", LISTED), ("arrays", ARRAYS)] {
        succeed(place.command(out, source, "", &[]).output().unwrap());
    }
    let expected = place.results("drawn");
    for out in ["files", "arrays"] {
        let (task, model, metrics) = place.results(out);
        assert_eq!(task, expected.0, "{out}");
        assert!(model == expected.1 && metrics.len() == expected.2.len(), "{out}");
    }
}

#[test]
fn class_folders_give_the_accuracy_of_the_data_set_and_tell_their_order() {
    let place = Place::new();
    let eval = |dataset: String| {
        let output = secateur().arg("eval").arg(network()).args(["--dataset", &dataset]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (succeed(output).lines().last().unwrap().to_owned(), told)
    };
    let photos = place.path("photos");
    let (of_arrays, _) = eval(format!(
        "arrays:{0}/x_test.npy,labels={0}/y_test.npy,test={0}/x_test.npy,test_labels={0}/y_test.npy",
        photos.display()
    ));
    let (of_folders, told) = eval(format!("images:{},resize=exact,cache=off", photos.display()));
    assert!(of_folders.ends_with("of 60)") && of_folders == of_arrays, "{of_folders} {of_arrays}");
    assert!(told.contains("alphabetical order, 'class-0', 'class-1'"), "{told}");
}

#[test]
fn what_is_not_there_or_does_not_fit_is_told_with_what_to_do() {
    let place = Place::new();
    let refusal = |dataset: &str| {
        let output = secateur().arg("eval").arg(network()).args(["--dataset", dataset]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{dataset}: {told}");
        told
    };
    // A list that is not there is no matter of the data root; a file of arrays may be one.
    let told = refusal(&format!("images:{},labels=none.csv", place.path("photos").display()));
    assert!(told.contains("none.csv") && !told.contains("--data-root"), "{told}");
    let told = refusal("arrays:absent.npy");
    assert!(told.contains("absent.npy") && told.contains("--data-root"), "{told}");
    // Grey images for a network that reads colours, and labels that it has no outputs for.
    let grey = place.path("grey.npy");
    let array = |shape: &str, elements: &[u8]| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n");
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), elements].concat()
    };
    fs::write(&grey, array("(3, 32, 32)", &[0; 3 * 32 * 32])).unwrap();
    let told = refusal(&format!("arrays:{0},test={0}", grey.display()));
    assert!(told.contains("made grey or RGB, whichever a network reads"), "{told}");
    let labels = place.path("labels.npy");
    fs::write(&grey, array("(3, 3, 32, 32)", &[0; 9 * 32 * 32])).unwrap();
    fs::write(&labels, array("(3,)", &[0, 10, 1])).unwrap();
    let told = refusal(&format!(
        "arrays:{0},labels={1},test={0},test_labels={1},layout=nchw",
        grey.display(),
        labels.display()
    ));
    assert!(told.contains("labels up to 10, the network has 10 outputs, 0 to 9"), "{told}");
}

#[cfg(unix)]
#[test]
fn a_run_on_image_files_without_labels_goes_on_after_kill_9() {
    let place = Place::new();
    fs::write(place.path("photos/train/class-0/broken.png"), b"<html>404</html>").unwrap();
    let source = "Images(dir: \"./photos\", labels: None, transform: (resize: Exact), cache: false)";
    let every = ["--checkpoint-every", "0"];
    for (kind, reward) in [("kl", "reward: Kl,"), ("error", "reward: OutputError(),")] {
        let (undisturbed, start) = (format!("{kind}-undisturbed"), Instant::now());
        succeed(place.command(&undisturbed, source, reward, &every).output().unwrap());
        let took = start.elapsed();
        let expected = place.results(&undisturbed);
        for part in [0.3, 0.6] {
            let out = format!("{kind}-{part}");
            let mut child = place.command(&out, source, reward, &every).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::min(took.mul_f64(part), Duration::from_secs(20)));
            child.kill().unwrap();
            child.wait().unwrap();
            let resumed = [&["--resume", "--threads", "1"], &every[..]].concat();
            succeed(place.command(&out, source, reward, &resumed).output().unwrap());
            assert!(place.results(&out) == expected, "{out}: another result");
        }
    }
}
