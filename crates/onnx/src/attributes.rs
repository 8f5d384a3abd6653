//! Attributes of nodes.

use crate::schema::{AttributeProto, NodeProto, TensorProto};

impl NodeProto {
    /// An attribute, if it is given.
    pub(crate) fn attribute_named(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    pub(crate) fn attribute_mut(&mut self, name: &str) -> Option<&mut AttributeProto> {
        self.attribute.iter_mut().find(|attribute| attribute.name() == name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute_named(name).map_or(default, AttributeProto::i)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute_named(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute_named(name).map_or(default, AttributeProto::f)
    }

    pub(crate) fn string(&self, name: &str) -> Option<&str> {
        self.attribute_named(name).and_then(|attribute| std::str::from_utf8(attribute.s()).ok())
    }

    /// The value of a Constant node that is kept as a tensor.
    pub(crate) fn constant(&self) -> Option<&TensorProto> {
        let is_constant = self.op_type() == "Constant" && self.is_standard();
        self.attribute_named("value").filter(|_| is_constant).and_then(|attribute| attribute.t.as_ref())
    }

    /// Whether the operation is one of ONNX's own.
    pub(crate) fn is_standard(&self) -> bool {
        matches!(self.domain(), "" | "ai.onnx")
    }
}
