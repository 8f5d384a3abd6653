//! A model as its author wrote it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::OnnxError;
use crate::external::ExternalData;
use crate::names::check_names;
use crate::scan::scan;
use crate::schema::{GraphProto, ModelProto, StringStringEntryProto};

/// Whether encoding a document gives the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// It does.
    Exact,
    /// It differs from this byte on: fields that this version of the schema does not know, or an unusual order. What is
    /// known is kept.
    Differs {
        /// Offset of the first byte that differs.
        at: usize,
    },
}

/// A model as its author wrote it, checked as far as names and sizes go.
#[derive(Clone, Debug)]
pub struct OnnxDocument {
    model: ModelProto,
    external: ExternalData,
    fidelity: Fidelity,
}

/// Operator sets that are understood: older ones have other operations under the same names.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

impl OnnxDocument {
    /// The largest protocol buffer that others read, bytes.
    pub const BYTES_MAX: u64 = (2 << 30) - 1;

    /// Decodes and checks a model whose external data lie in `folder`. Weights are not copied out of `bytes`.
    ///
    /// # Errors
    /// What is no ONNX model, would take far more memory than its size, has no graph or no operator set from 7 to 28;
    /// names that are there twice or not at all, nodes that read what comes later.
    pub fn from_bytes(bytes: Bytes, folder: &Path) -> Result<Self, OnnxError> {
        if bytes.is_empty() {
            return Err(OnnxError::Malformed { problem: "it is empty".into(), at: 0 });
        }
        scan(&bytes)?;
        let model = ModelProto::decode(bytes.clone()).map_err(|e| OnnxError::Undecodable { problem: e.to_string() })?;
        let Some(graph) = &model.graph else { return Err(OnnxError::graph("is missing: this is not an ONNX model")) };
        check_names(graph)?;
        let fidelity = fidelity(&model.encode_to_vec(), &bytes);
        let document = Self { model, external: ExternalData::new(folder), fidelity };
        let opset = document.opset();
        if !OPSETS.contains(&opset) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(OnnxError::graph(format!(
                "is of operator set {opset}; those from {first} to {last} are read: export it with opset_version=17"
            )));
        }
        Ok(document)
    }

    /// The document, encoded.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    /// Whether [`OnnxDocument::to_bytes`] of an unchanged document gives what was read.
    pub const fn fidelity(&self) -> &Fidelity {
        &self.fidelity
    }

    /// A model that was not read from a file.
    pub(crate) fn new(model: ModelProto, folder: &Path) -> Self {
        Self { model, external: ExternalData::new(folder), fidelity: Fidelity::Exact }
    }

    /// The same place, other contents.
    pub(crate) fn with_model(&self, model: ModelProto) -> Self {
        Self { model, external: self.external.clone(), fidelity: self.fidelity.clone() }
    }

    /// The document with these properties (`metadata_props`) in addition, or instead of those of the same names.
    #[must_use]
    pub fn with_properties(&self, properties: &[(&str, String)]) -> Self {
        let mut model = self.model.clone();
        for (key, value) in properties {
            let entry = StringStringEntryProto { key: Some((*key).to_owned()), value: Some(value.clone()) };
            match model.metadata_props.iter_mut().find(|known| known.key() == *key) {
                Some(known) => *known = entry,
                None => model.metadata_props.push(entry),
            }
        }
        self.with_model(model)
    }

    /// A property (`metadata_props`) of the model.
    pub fn property(&self, key: &str) -> Option<&str> {
        self.model.metadata_props.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
    }

    /// All of it.
    pub const fn model(&self) -> &ModelProto {
        &self.model
    }

    /// Its graph.
    pub fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("a document without a graph is refused when it is read")
    }

    /// What its tensors keep in other files.
    pub const fn external(&self) -> &ExternalData {
        &self.external
    }

    /// Version of ONNX's own operator set; 0 if it names none.
    pub fn opset(&self) -> i64 {
        let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let mut sets = self.model.opset_import.iter();
        sets.find(|set| own(set.domain())).map_or(0, crate::schema::OperatorSetIdProto::version)
    }

    /// Folder of its external data.
    pub fn folder(&self) -> &PathBuf {
        self.external.folder()
    }
}

fn fidelity(encoded: &[u8], read: &[u8]) -> Fidelity {
    if encoded == read {
        return Fidelity::Exact;
    }
    let same = encoded.iter().zip(read).take_while(|(a, b)| a == b).count();
    Fidelity::Differs { at: same }
}
