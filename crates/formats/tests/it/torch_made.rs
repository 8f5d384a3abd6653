//! Files that PyTorch itself wrote (`torch_files/make.py`): every way of packing the same two tensors, and what is
//! refused.

use std::fs;
use std::path::PathBuf;

use secateur_formats::read_weights;

fn files(start: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torch_files");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).collect();
    files.sort();
    files
}

#[test]
fn the_same_tensors_are_found_however_a_checkpoint_packs_them() {
    let files = files("read_");
    assert!(files.len() > 45, "{}", files.len());
    for path in files {
        let file = read_weights(&path).unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = file.weights.keys().map(String::as_str).collect();
        assert_eq!(names, ["conv.bias", "conv.weight"], "{}", path.display());
        let weight = &file.weights["conv.weight"];
        assert_eq!((weight.shape(), weight.data()), (&[2, 3][..], &[1., 2., 3., 4., 5., 6.][..]), "{}", path.display());
        assert_eq!(file.weights["conv.bias"].data(), [7., 8.], "{}", path.display());
        let text = path.to_str().unwrap();
        let tells =
            ["prefix", "pruned", "of_bob", "deep", "beside_average", "compiled"].iter().any(|t| text.contains(t));
        assert!(!tells || !file.notes.is_empty(), "{text}: what was chosen or changed is told");
    }
}

#[test]
fn what_is_not_read_is_refused_for_what_it_is() {
    for (name, parts) in [
        ("module.", &["a whole network", "'__main__.Net'", "model.state_dict()"][..]),
        ("module_beside.pth", &["under key 'model' a whole network", "'__main__.Net'"]),
        ("module_beside.legacy", &["a whole network", "'__main__.Net'"]),
        ("optimiser.", &["'torch.optim.sgd.SGD'"]),
        ("optimiser_state", &["no tensor but those of 'optimizer'"]),
        ("function", &["getattr' under key 'f'", "nothing was executed"]),
        ("quantised.", &["'conv.weight' is quantised"]),
        ("quantised_dynamically", &["_packed_params' is quantised"]),
        ("sparse", &["'conv.weight' is sparse", "to_dense()"]),
        ("meta", &["'conv.weight' has no elements"]),
        ("complex", &["'conv.weight' holds C64"]),
        ("negated", &["'conv.weight' has its negative or conjugate bit set", "resolve_neg()"]),
        ("float8", &["'conv.weight' holds floats of 8 bits"]),
        ("weight_norm", &["'conv.parametrizations.weight.original0'", "remove_parametrizations"]),
        ("old_weight_norm", &["'conv.weight_g'", "remove_weight_norm"]),
        ("old_spectral_norm", &["'conv.weight_orig' is a weight before spectral_norm"]),
        ("one_tensor", &["got a tensor"]),
        ("list", &["tensors without names"]),
        ("arrays", &["numpy arrays"]),
        ("two_networks", &["'generator', 'discriminator'"]),
        ("script", &["TorchScript", "state_dict()"]),
    ] {
        let files = files(&format!("refused_{name}"));
        assert!(!files.is_empty(), "{name}");
        for path in files {
            let message = read_weights(&path).expect_err(name).to_string();
            for part in parts {
                assert!(message.contains(part), "{name}: expected '{part}' in: {message}");
            }
        }
    }
}
