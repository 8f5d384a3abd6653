//! Data in other files.

use std::fs;
use std::path::Path;

use prost::Message;
use secateur_onnx::schema::{GraphProto, TensorProto};
use secateur_onnx::{OnnxDocument, floats};

use crate::hand_made::{external, model, relu, tensor};

/// Values of the one initialiser of a model in `folder`.
fn values(folder: &Path, tensor: TensorProto) -> Result<Vec<f32>, String> {
    let bytes = model(GraphProto { initializer: vec![tensor], ..relu() }).encode_to_vec();
    let document = OnnxDocument::from_bytes(bytes.into(), folder).map_err(|e| e.to_string())?;
    floats(&document.graph().initializer[0], document.external()).map_err(|e| e.to_string())
}

#[test]
fn ranges_are_read_from_the_folder_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/w.bin"), bytes).unwrap();
    let read = |dims: &[i64], entries: &[(&str, &str)]| {
        let entries = [&[("location", "data/w.bin")], entries].concat();
        values(folder.path(), external(tensor("w", dims), &entries))
    };
    assert_eq!(read(&[3], &[]).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(read(&[2], &[("offset", "4")]).unwrap(), [2.0, 3.0]);
    assert_eq!(read(&[1], &[("offset", "4"), ("length", "4")]).unwrap(), [2.0]);
    for (dims, entries, expected) in [
        (&[3][..], &[("offset", "4")][..], "takes 12 bytes, its data file has 8"),
        (&[1], &[("offset", "12"), ("length", "4")], "lie past the 12 bytes"),
        (&[1], &[("offset", "18446744073709551615"), ("length", "4")], "lie past the 12 bytes"),
        (&[1], &[("offset", "-4")], "its offset '-4' is no number"),
        (&[1 << 50], &[("length", "4503599627370496")], "lie past the 12 bytes"),
    ] {
        let text = read(dims, entries).unwrap_err();
        assert!(text.contains("tensor 'w'") && text.contains(expected), "{text}");
    }
}

#[test]
fn files_outside_the_folder_of_the_model_are_not_opened() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(outer.path().join("secret"), [0; 4]).unwrap();
    let absolute = outer.path().join("secret");
    let locations = ["../secret", "a/../../secret", absolute.to_str().unwrap(), ".", "..\\secret", "C:\\secret"];
    for location in locations {
        let text = values(&folder, external(tensor("w", &[1]), &[("location", location)])).unwrap_err();
        assert!(text.contains("outside the folder"), "{location}: {text}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
        let text = values(&folder, external(tensor("w", &[1]), &[("location", "link")])).unwrap_err();
        assert!(text.contains("outside the folder"), "{text}");
    }
    for entries in [&[("location", "")][..], &[("offset", "0")]] {
        let text = values(&folder, external(tensor("w", &[1]), entries)).unwrap_err();
        assert!(text.contains("'w'") && text.contains("which is not named"), "{text}");
    }
    let text = values(&folder, external(tensor("w", &[1]), &[("location", "lost.bin")])).unwrap_err();
    assert!(text.contains("'lost.bin' is not there") && text.contains("beside the model"), "{text}");
    fs::create_dir(folder.join("sub")).unwrap();
    let text = values(&folder, external(tensor("w", &[1]), &[("location", "sub")])).unwrap_err();
    assert!(text.contains("no regular file"), "{text}");
}
