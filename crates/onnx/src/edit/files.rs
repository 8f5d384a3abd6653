//! A document as files: the model, and what it keeps beside.

use prost::Message;

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::edit::tensors::take;
use crate::schema::tensor_proto::DataLocation;
use crate::schema::{ModelProto, StringStringEntryProto, TensorProto};

/// The bytes of a model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenModel {
    /// The model.
    pub model: Vec<u8>,
    /// What it keeps beside, whose names it holds.
    pub data: Vec<DataFile>,
}

/// A file beside a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its name, as the model has it: a path below the model's folder.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Offsets are multiples of this, so that other programs can map the file.
const ALIGNMENT: usize = 64;

impl OnnxDocument {
    /// The files of an edited document. What `original` keeps in other files goes to one file named `data_name`; where
    /// nothing was changed, all files are the original's, byte for byte.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn to_files(&self, original: &Self, data_name: &str) -> Result<WrittenModel, OnnxError> {
        if self.model() == original.model() {
            return original.own_files();
        }
        let mut model = self.model().clone();
        let names: std::collections::HashSet<&str> = tensors(original.model())
            .filter(|tensor| tensor.data_location() == DataLocation::External)
            .map(|tensor| tensor.name())
            .collect();
        if names.is_empty() {
            return Ok(WrittenModel { model: model.encode_to_vec(), data: Vec::new() });
        }
        let mut data = Vec::new();
        for tensor in tensors_mut(&mut model).filter(|tensor| names.contains(tensor.name())) {
            let whole = take(tensor, &vec![None; tensor.dims.len()], original.external())?;
            let bytes = whole.raw_data.clone().unwrap_or_default();
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
            let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
            tensor.external_data = vec![
                entry("location", data_name.to_owned()),
                entry("offset", data.len().to_string()),
                entry("length", bytes.len().to_string()),
            ];
            tensor.raw_data = None;
            tensor.data_location = Some(DataLocation::External.into());
            data.extend_from_slice(&bytes);
        }
        Ok(WrittenModel {
            model: model.encode_to_vec(),
            data: vec![DataFile { name: data_name.to_owned(), bytes: data }],
        })
    }

    fn own_files(&self) -> Result<WrittenModel, OnnxError> {
        let mut names: Vec<String> = Vec::new();
        for tensor in tensors(self.model()).filter(|tensor| tensor.data_location() == DataLocation::External) {
            let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
            let name = location.map(|entry| entry.value().to_owned()).unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let read = |name: String| Ok(DataFile { bytes: self.external().whole(&name)?, name });
        let data: Result<Vec<DataFile>, OnnxError> = names.into_iter().map(read).collect();
        Ok(WrittenModel { model: self.to_bytes(), data: data? })
    }
}

fn tensors(model: &ModelProto) -> impl Iterator<Item = &TensorProto> {
    let graph = model.graph.iter();
    graph.flat_map(|graph| {
        let constants = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref());
        graph.initializer.iter().chain(constants)
    })
}

fn tensors_mut(model: &mut ModelProto) -> impl Iterator<Item = &mut TensorProto> {
    let graph = model.graph.iter_mut();
    graph.flat_map(|graph| {
        let nodes = graph.node.iter_mut();
        let constants = nodes.flat_map(|node| &mut node.attribute).filter_map(|attribute| attribute.t.as_mut());
        graph.initializer.iter_mut().chain(constants)
    })
}
