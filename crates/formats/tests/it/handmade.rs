//! Small weight files made byte by byte, as PyTorch lays them out.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use secateur_formats::{FormatError, WeightsFile, read_weights};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Opcodes of protocol 2, chained.
#[derive(Clone, Default)]
pub struct PickleWriter(pub Vec<u8>);

impl PickleWriter {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn str(self, text: &str) -> Self {
        let length = (text.len() as u32).to_le_bytes();
        self.raw(b"X").raw(&length).raw(text.as_bytes())
    }
    pub fn int(self, n: i32) -> Self {
        self.raw(b"J").raw(&n.to_le_bytes())
    }
    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }
    pub fn ints(self, numbers: &[i32]) -> Self {
        numbers.iter().fold(self.raw(b"("), |p, &n| p.int(n)).raw(b"t")
    }
    /// `_rebuild_tensor_v2` on a storage of `n_elements`.
    pub fn tensor(self, t: &TensorSpec) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .str("storage")
            .global("torch", t.storage_type)
            .str(t.key)
            .str("cpu")
            .int(t.n_elements)
            .raw(b"tQ")
            .int(t.offset)
            .ints(t.shape)
            .ints(t.stride)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }
    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

#[derive(Clone, Copy)]
pub struct TensorSpec<'a> {
    pub storage_type: &'a str,
    pub key: &'a str,
    pub n_elements: i32,
    pub offset: i32,
    pub shape: &'a [i32],
    pub stride: &'a [i32],
}

impl Default for TensorSpec<'_> {
    fn default() -> Self {
        Self { storage_type: "FloatStorage", key: "0", n_elements: 6, offset: 0, shape: &[2, 3], stride: &[3, 1] }
    }
}

/// A dict of tensors.
pub fn state_dict(tensors: &[(&str, TensorSpec)]) -> Vec<u8> {
    let start = PickleWriter::new().raw(b"}(");
    tensors.iter().fold(start, |p, (name, t)| p.str(name).tensor(t)).raw(b"u").stop()
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The archive torch 1.6 and later writes.
pub fn zip_file(pickle: &[u8], storages: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("archive/data.pkl", pickle);
    add("archive/byteorder", b"little");
    for (key, bytes) in storages {
        add(&format!("archive/data/{key}"), bytes);
    }
    add("archive/version", b"3\n");
    zip.finish().unwrap().into_inner()
}

pub fn stored(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    zip_file(pickle, storages, CompressionMethod::Stored)
}

/// The file torch before 1.6 writes; each storage with its key, number of elements and bytes.
pub fn legacy_file(pickle: &[u8], storages: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    out.extend(PickleWriter::new().raw(b"}").str("little_endian").raw(b"\x88s").stop());
    out.extend_from_slice(pickle);
    out.extend(storages.iter().fold(PickleWriter::new().raw(b"]("), |p, (key, _, _)| p.str(key)).raw(b"e").stop());
    for (_, n_elements, bytes) in storages {
        out.extend(n_elements.to_le_bytes());
        out.extend(bytes);
    }
    out
}

/// Tensors `conv.weight` and `conv.bias` in both layouts of `torch.save`.
pub fn two_tensors() -> [Vec<u8>; 2] {
    let bias = TensorSpec { key: "1", n_elements: 2, shape: &[2], stride: &[1], ..TensorSpec::default() };
    let pickle = state_dict(&[("conv.weight", TensorSpec::default()), ("conv.bias", bias)]);
    let (weight, bias) = (floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), floats(&[7.0, 8.0]));
    [
        stored(&pickle, &[("0", weight.clone()), ("1", bias.clone())]),
        legacy_file(&pickle, &[("0", 6, weight), ("1", 2, bias)]),
    ]
}

/// Writes the bytes to a file of a meaningless name and reads it.
pub fn read_bytes(bytes: &[u8]) -> Result<WeightsFile, FormatError> {
    thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap());
    let path = FOLDER.with(|folder| folder.path().join("some-file"));
    std::fs::write(&path, bytes).unwrap();
    let read = read_weights(&path);
    // Some file systems wait for the disk when a file is written over.
    std::fs::remove_file(&path).unwrap();
    read
}

/// The message of the refusal, which names the file.
pub fn refusal(bytes: &[u8]) -> String {
    let message = read_bytes(bytes).unwrap_err().to_string();
    assert!(message.contains("some-file"), "{message}");
    message
}

/// The folder `SECATEUR_MODELS`, or `None` after saying so.
pub fn models() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SECATEUR_MODELS") {
        return Some(folder.into());
    }
    assert!(std::env::var("SECATEUR_REQUIRE_DATA").as_deref() != Ok("1"), "SECATEUR_MODELS is not set");
    eprintln!("SKIPPED: set SECATEUR_MODELS to the folder of trained networks");
    None
}
