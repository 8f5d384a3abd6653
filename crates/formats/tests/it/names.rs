//! Names in safetensors, which nobody unwraps before they come here.

use crate::handmade::*;

/// A file of tensors of the given names and two elements each: the first by its place in the list.
fn file(names: &[&str]) -> Vec<u8> {
    let entries: Vec<String> = (names.iter().enumerate())
        .map(|(i, name)| format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}"#, 8 * i, 8 * i + 8))
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let data: Vec<f32> = (0..names.len()).flat_map(|i| [i as f32, 1.0]).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &floats(&data)].concat()
}

/// The names that are read, and what was said about them.
fn read(names: &[&str]) -> (Vec<String>, String) {
    let file = read_bytes(&file(names)).unwrap();
    (file.weights.into_keys().collect(), file.notes.join("; "))
}

#[test]
fn prefixes_that_all_names_share_are_taken_off_in_any_order_however_often() {
    for prefix in [
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "state_dict.model.net.backbone.module._orig_mod.",
        "model.model.model.",
    ] {
        let names = ["conv.weight", "fc.bias"].map(|name| format!("{prefix}{name}"));
        let (got, notes) = read(&names.each_ref().map(String::as_str));
        assert_eq!(got, ["conv.weight", "fc.bias"], "{prefix}");
        assert!(notes.contains("taken off"), "{prefix}: {notes}");
    }
}

#[test]
fn parts_that_not_all_names_share_stay() {
    assert_eq!(read(&["model.a", "head.b"]), (vec!["head.b".into(), "model.a".into()], String::new()));
    assert_eq!(read(&["model", "model.a"]).0, ["model", "model.a"]);
    // Without its `module` the name would be taken already.
    assert_eq!(read(&["a.module.b", "a.b"]).0, ["a.b", "a.module.b"]);
    assert_eq!(read(&["a._orig_mod.b", "c.module.d"]).0, ["a.b", "c.d"]);
}

#[test]
fn optimisers_and_averages_in_the_same_list_are_left_out() {
    assert_eq!(read(&["model.a.w", "optimizer.state.w"]).0, ["a.w"]);
    let (names, notes) = read(&["ema.a.w", "model.a.w"]);
    assert_eq!(names, ["a.w"]);
    assert!(notes.contains("'model'"), "{notes}");
    assert_eq!(read_bytes(&file(&["ema.a.w", "model.a.w"])).unwrap().weights["a.w"].data()[0], 1.0);
}

#[test]
fn masks_of_pruning_are_applied_and_halves_of_them_refused() {
    let (names, notes) = read(&["c.weight_mask", "c.weight_orig", "d.bias"]);
    assert_eq!(names, ["c.weight", "d.bias"]);
    assert!(notes.contains("prune") && notes.contains("'c.weight_orig' times 'c.weight_mask'"), "{notes}");
    // Elements [0, 1] of the mask and [1, 1] of the weight.
    let product = read_bytes(&file(&["c.weight_mask", "c.weight_orig"])).unwrap();
    assert_eq!(product.weights["c.weight"].data(), [0.0, 1.0]);
    for (names, parts) in [
        (&["c.weight_orig"][..], ["'c.weight_orig'", "without its mask"]),
        (&["c.weight", "c.weight_mask", "c.weight_orig"], ["'c.weight_mask'", "there as well"]),
        (&["c.weight_g", "c.weight_v"], ["'c.weight_g'", "weight_norm"]),
        (&["c.weight_orig", "c.weight_u"], ["'c.weight_orig'", "spectral_norm"]),
        (&["c.parametrizations.weight.original0"], ["parametrization", "remove_parametrizations"]),
    ] {
        let message = refusal(&file(names));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_name_of_a_hundred_thousand_prefixes_takes_no_time() {
    let name = format!("{}w", "net.".repeat(100_000));
    assert_eq!(read(&[&name]).0.len(), 1);
}
