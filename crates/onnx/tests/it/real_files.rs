//! Files that others wrote, read and written again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secateur_onnx::{
    DocumentGroup, DocumentGroups, ElementType, Facts, Fidelity, KeptFlags, OnnxDocument, Removal, dims, floats,
    integers,
};

/// Folder of the models, or a loud skip.
fn models() -> Option<PathBuf> {
    let found = std::env::var_os("SECATEUR_MODELS").map(PathBuf::from);
    if found.is_none() {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS to the folder of the networks");
    }
    found
}

fn files() -> Vec<PathBuf> {
    let Some(models) = models() else { return Vec::new() };
    let in_folder = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = in_folder(models.clone()).chain(in_folder(models.join("../onnx")));
    let found: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    assert!(found.len() >= 7, "{found:?}");
    found
}

fn open(path: &Path) -> OnnxDocument {
    let bytes = std::fs::read(path).unwrap();
    OnnxDocument::from_bytes(bytes.into(), path.parent().unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn files_of_five_exporters_are_written_again_byte_for_byte() {
    for path in files() {
        let document = open(&path);
        assert_eq!(*document.fidelity(), Fidelity::Exact, "{}", path.display());
        assert!(document.to_bytes() == std::fs::read(&path).unwrap(), "{}", path.display());
    }
}

/// Every initialiser and every Constant node holds as many values as its shape says, whatever its storage.
#[test]
fn all_tensors_of_real_files_can_be_read() {
    for path in files() {
        let document = open(&path);
        let constants = document.graph().node.iter().flat_map(|node| &node.attribute).filter_map(|a| a.t.as_ref());
        let mut n_tensors = 0;
        for tensor in document.graph().initializer.iter().chain(constants) {
            let (_, n) = dims(tensor).unwrap();
            let read = match ElementType::of(tensor).unwrap() {
                ElementType::Int64 | ElementType::Int32 | ElementType::Bool => {
                    integers(tensor, document.external()).map(|v| v.len())
                }
                _ => floats(tensor, document.external()).map(|v| v.len()),
            };
            assert_eq!(read.unwrap_or_else(|e| panic!("{}: {e}", path.display())), n);
            n_tensors += 1;
        }
        assert!(n_tensors > 0, "{}", path.display());
    }
}

/// As onnx/INDEX.md counts them.
#[test]
fn operations_and_operator_sets_are_those_of_the_index() {
    type Counts<'a> = &'a [(&'a str, usize)];
    let expected: [(&str, i64, Counts<'_>); 5] = [
        ("mnist_cntk", 8, &[("Conv", 2), ("MatMul", 1), ("Reshape", 2), ("MaxPool", 2), ("Add", 3), ("Relu", 2)]),
        ("ppocr_cls_mobilenetv3", 11, &[("Constant", 308), ("Conv", 53), ("BatchNormalization", 35)]),
        ("ultraface_rfb_320", 9, &[("Conv", 52), ("BatchNormalization", 35), ("Slice", 6), ("Exp", 1)]),
        ("nanodet_m", 11, &[("Conv", 73), ("LeakyRelu", 48), ("Resize", 4), ("Split", 3)]),
        ("pplcnet_orientation", 15, &[("Conv", 32), ("HardSwish", 28), ("BatchNormalization", 27)]),
    ];
    let Some(models) = models() else { return };
    for (name, opset, operations) in expected {
        let document = open(&models.join(format!("../onnx/{name}.onnx")));
        assert_eq!(document.opset(), opset, "{name}");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &document.graph().node {
            *counts.entry(node.op_type()).or_default() += 1;
        }
        for (operation, n) in operations {
            assert_eq!(counts.get(operation), Some(n), "{name}: {operation}");
        }
    }
}

/// As a slow oracle in another language finds them (its numbers are in the files' index), and what is left when every
/// other channel goes: the document's shapes come out as they are declared.
#[test]
fn groups_of_real_files_are_those_of_an_oracle_and_can_be_cut() {
    let Some(models) = models() else { return };
    let expected = [
        ("mnist_cntk", 2, 24),
        ("ppocr_cls_mobilenetv3", 26, 1338),
        ("ultraface_rfb_320", 25, 1716),
        ("nanodet_m", 37, 3182),
        ("pplcnet_orientation", 17, 4464),
    ];
    for (name, n_groups, n_channels) in expected {
        let document = open(&models.join(format!("../onnx/{name}.onnx")));
        let facts = Facts::of(&document, None).unwrap();
        let groups = DocumentGroups::of(&document, &facts);
        let free: Vec<usize> = groups.groups().iter().filter(|g| g.frozen.is_none()).map(|g| g.n_channels).collect();
        assert_eq!((free.len(), free.iter().sum::<usize>()), (n_groups, n_channels), "{name}");
        let half = |g: &DocumentGroup| (0..g.n_channels).map(|i| i % 2 == 0 || g.frozen.is_some()).collect();
        let kept: KeptFlags = groups.groups().iter().map(half).collect();
        let cut = Removal { document: &document, facts: &facts, groups: &groups, kept: &kept }.cut().unwrap();
        let now = Facts::of(&cut, None).unwrap();
        let share = now.macs(&cut) as f64 / facts.macs(&document) as f64;
        assert!((0.2..0.45).contains(&share), "{name}: {share}");
        for output in &document.graph().output {
            assert_eq!(now.shape(output.name()), facts.shape(output.name()), "{name}");
        }
        let names = |d: &OnnxDocument| d.graph().node.iter().map(|n| n.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&cut), names(&document));
    }
}
