//! ONNX files as documents: read, checked, and written again byte for byte.
//!
//! A document is what its author wrote: names, order, metadata and the form in which weights are stored stay as they
//! are, since encoding what was decoded gives the same bytes ([`OnnxDocument::fidelity`] tells where it does not). What
//! is read is bounded before anything is decoded, and data in other files must lie in the document's own folder. This
//! crate knows the format, not how operations are computed. A network that never was a document becomes a new one
//! ([`OnnxDocument::of_network`]). Words are explained in the glossary of `secateur-net`.
//!
//! # Example
//! ```
//! use secateur_onnx::{OnnxDocument, Fidelity, schema};
//!
//! // A graph that hands its input on.
//! let value = schema::ValueInfoProto { name: Some("x".into()), ..Default::default() };
//! let graph = schema::GraphProto { input: vec![value.clone()], output: vec![value], ..Default::default() };
//! let opset = schema::OperatorSetIdProto { domain: None, version: Some(17) };
//! let model = schema::ModelProto { graph: Some(graph), opset_import: vec![opset], ..Default::default() };
//!
//! let bytes = prost::Message::encode_to_vec(&model);
//! let document = OnnxDocument::from_bytes(bytes.clone().into(), ".".as_ref())?;
//! assert_eq!(document.opset(), 17);
//! assert_eq!(*document.fidelity(), Fidelity::Exact);
//! assert_eq!(document.to_bytes(), bytes);
//! # Ok::<_, secateur_onnx::OnnxError>(())
//! ```

mod attributes;
mod constants;
mod document;
mod edit;
mod error;
mod export;
mod external;
mod facts;
mod import;
mod labels;
mod module_path;
mod names;
mod pruned;
mod scan;
mod tensor;
mod unknown;

pub use document::{Fidelity, OnnxDocument};
pub use edit::{DataFile, Removal, WrittenModel};
pub use error::OnnxError;
pub use external::ExternalData;
pub use facts::{Facts, InputShape};
pub use import::ImportedNetwork;
pub use labels::{DocumentChannel, DocumentGroup, DocumentGroups, FrozenNode, KeptFlags};
pub use pruned::{AbsorbedConstant, Compacted, DocumentNetwork, LayerOrigin, NormNodes};
pub use tensor::{ElementType, dims, floats, integers};

/// The format's own structs, as `schema/onnx-ml.proto` declares them.
#[expect(missing_docs, reason = "generated: `cargo run --manifest-path xtask/Cargo.toml`")]
pub mod schema {
    include!("../schema/onnx.rs.in");
}
