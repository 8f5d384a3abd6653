//! `cargo run --manifest-path xtask/Cargo.toml` writes `crates/onnx/schema/onnx.rs.in` anew from `onnx-ml.proto` beside it,
//! which is ONNX's own (Apache-2.0), untouched.

use std::error::Error;
use std::fs;
use std::path::Path;

const HEAD: &str = "\
// Generated from onnx-ml.proto by `cargo run --manifest-path xtask/Cargo.toml`: do not edit.

";

fn main() -> Result<(), Box<dyn Error>> {
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/onnx");
    let files = protox::compile(["onnx-ml.proto"], [onnx.join("schema")])?;
    let out = temporary_folder()?;
    let mut config = prost_build::Config::new();
    // Comments of the schema are no rustdoc; raw data are slices of the file instead of copies.
    config.disable_comments(["."]).bytes([".onnx.TensorProto.raw_data"]).out_dir(&out);
    config.compile_fds(files)?;
    let written = onnx.join("schema/onnx.rs.in");
    fs::write(&written, format!("{HEAD}{}", fs::read_to_string(out.join("onnx.rs"))?))?;
    println!("{}", written.display());
    Ok(fs::remove_dir_all(out)?)
}

fn temporary_folder() -> std::io::Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("secateur-xtask-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
