//! What a file would take once decoded, found out before anything is: two bytes of a file can make a node of several
//! hundred.

use crate::OnnxError;
use crate::schema as onnx;

/// Messages of the schema that hold others, or many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Model,
    OperatorSet,
    StringEntry,
    DeviceConfiguration,
    Training,
    Function,
    Graph,
    Node,
    NodeDevice,
    Sharding,
    ShardedDim,
    SimpleShardedDim,
    IntIntList,
    Attribute,
    Tensor,
    Segment,
    Sparse,
    Annotation,
    ValueInfo,
    Type,
    TypeTensor,
    TypeSequence,
    TypeMap,
    TypeOptional,
    TypeSparse,
    TypeOpaque,
    Shape,
    Dimension,
}

/// Field numbers of the schema's fields that are messages, with what those are.
const NESTED: &[(Message, &[(u64, Message)])] = {
    use Message::*;
    &[
        (
            Model,
            &[
                (7, Graph),
                (8, OperatorSet),
                (14, StringEntry),
                (20, Training),
                (25, Function),
                (26, DeviceConfiguration),
            ],
        ),
        (Training, &[(1, Graph), (2, Graph), (3, StringEntry), (4, StringEntry)]),
        (Function, &[(7, Node), (9, OperatorSet), (11, Attribute), (12, ValueInfo), (14, StringEntry)]),
        (
            Graph,
            &[
                (1, Node),
                (5, Tensor),
                (15, Sparse),
                (11, ValueInfo),
                (12, ValueInfo),
                (13, ValueInfo),
                (14, Annotation),
                (16, StringEntry),
            ],
        ),
        (Node, &[(5, Attribute), (9, StringEntry), (10, NodeDevice)]),
        (NodeDevice, &[(2, Sharding)]),
        (Sharding, &[(3, IntIntList), (4, ShardedDim)]),
        (ShardedDim, &[(2, SimpleShardedDim)]),
        (
            Attribute,
            &[(5, Tensor), (6, Graph), (22, Sparse), (14, Type), (10, Tensor), (11, Graph), (23, Sparse), (15, Type)],
        ),
        (Tensor, &[(3, Segment), (13, StringEntry), (16, StringEntry)]),
        (Sparse, &[(1, Tensor), (2, Tensor)]),
        (Annotation, &[(2, StringEntry)]),
        (ValueInfo, &[(2, Type), (4, StringEntry)]),
        (
            Type,
            &[(1, TypeTensor), (4, TypeSequence), (5, TypeMap), (9, TypeOptional), (8, TypeSparse), (7, TypeOpaque)],
        ),
        (TypeTensor, &[(2, Shape)]),
        (TypeSparse, &[(2, Shape)]),
        (TypeSequence, &[(1, Type)]),
        (TypeMap, &[(2, Type)]),
        (TypeOptional, &[(1, Type)]),
        (Shape, &[(1, Dimension)]),
    ]
};

impl Message {
    fn field(self, number: u64) -> Option<Self> {
        let fields = NESTED.iter().find(|(message, _)| *message == self)?.1;
        fields.iter().find(|(n, _)| *n == number).map(|(_, message)| *message)
    }

    /// Bytes of one in memory.
    const fn size(self) -> usize {
        match self {
            Self::Model => size_of::<onnx::ModelProto>(),
            Self::OperatorSet => size_of::<onnx::OperatorSetIdProto>(),
            Self::StringEntry => size_of::<onnx::StringStringEntryProto>(),
            Self::DeviceConfiguration => size_of::<onnx::DeviceConfigurationProto>(),
            Self::Training => size_of::<onnx::TrainingInfoProto>(),
            Self::Function => size_of::<onnx::FunctionProto>(),
            Self::Graph => size_of::<onnx::GraphProto>(),
            Self::Node => size_of::<onnx::NodeProto>(),
            Self::NodeDevice => size_of::<onnx::NodeDeviceConfigurationProto>(),
            Self::Sharding => size_of::<onnx::ShardingSpecProto>(),
            Self::ShardedDim => size_of::<onnx::ShardedDimProto>(),
            Self::SimpleShardedDim => size_of::<onnx::SimpleShardedDimProto>(),
            Self::IntIntList => size_of::<onnx::IntIntListEntryProto>(),
            Self::Attribute => size_of::<onnx::AttributeProto>(),
            Self::Tensor => size_of::<onnx::TensorProto>(),
            Self::Segment => size_of::<onnx::tensor_proto::Segment>(),
            Self::Sparse => size_of::<onnx::SparseTensorProto>(),
            Self::Annotation => size_of::<onnx::TensorAnnotation>(),
            Self::ValueInfo => size_of::<onnx::ValueInfoProto>(),
            Self::Type
            | Self::TypeTensor
            | Self::TypeSequence
            | Self::TypeMap
            | Self::TypeOptional
            | Self::TypeSparse
            | Self::TypeOpaque => size_of::<onnx::TypeProto>(),
            Self::Shape => size_of::<onnx::TensorShapeProto>(),
            Self::Dimension => size_of::<onnx::tensor_shape_proto::Dimension>(),
        }
    }

    /// Whether the field is a list of integers, one byte of which can become eight.
    const fn is_integers(self, number: u64) -> bool {
        match self {
            Self::Tensor => matches!(number, 1 | 5 | 7 | 11),
            Self::Attribute => number == 8,
            Self::Sparse => number == 3,
            Self::Sharding => number == 2,
            Self::IntIntList => number == 2,
            Self::ShardedDim => number == 1,
            _ => false,
        }
    }

    /// Whether the field stays where it is in the file.
    fn is_in_place(self, number: u64) -> bool {
        self == Self::Tensor && number == 9
    }
}

/// Deepest nesting, a little less than the decoder's own limit.
const DEPTH_MAX: usize = 90;
/// Memory that any file may unfold to, bytes, and how many times its size more.
const FREE_BYTES: usize = 48 << 20;
const TIMES_SIZE: usize = 4;
/// Bytes in memory of an integer, and of what holds a text besides it.
const INTEGER: usize = 8;
const TEXT: usize = 32;
/// What is known of a value that a node makes, where it is found by its name; and what is kept of each time it is read.
const VALUE: usize = 512;
const READING: usize = 256;

struct Scan<'a> {
    bytes: &'a [u8],
    /// Bytes of memory so far, and at most.
    taken: usize,
    limit: usize,
}

/// Walks over a model without decoding it.
///
/// # Errors
/// Bytes that are no protocol buffer, too deep nesting, more memory than a file of this size may take.
pub fn scan(bytes: &[u8]) -> Result<(), OnnxError> {
    let limit = bytes.len().saturating_mul(TIMES_SIZE).saturating_add(FREE_BYTES);
    let mut scan = Scan { bytes, taken: 0, limit };
    scan.message(Message::Model, 0, bytes.len(), 0)
}

impl Scan<'_> {
    fn message(&mut self, message: Message, from: usize, to: usize, depth: usize) -> Result<(), OnnxError> {
        if depth > DEPTH_MAX {
            return Err(malformed("graphs within graphs, deeper than any exporter writes", from));
        }
        let mut at = from;
        while at < to {
            let begin = at;
            let key = self.varint(&mut at, to)?;
            let number = key >> 3;
            match key & 7 {
                0 => {
                    self.varint(&mut at, to)?;
                    self.take(2 * INTEGER)?;
                }
                1 => at += 8,
                5 => at += 4,
                2 => {
                    let n = usize::try_from(self.varint(&mut at, to)?).unwrap_or(usize::MAX);
                    let end = at.checked_add(n).filter(|&end| end <= to);
                    let end = end.ok_or_else(|| malformed("a field that is longer than what holds it", begin))?;
                    self.field(message, number, at, end, depth)?;
                    at = end;
                }
                _ => return Err(malformed("a field of no kind that ONNX has", begin)),
            }
            if number == 0 || at > to {
                return Err(malformed("a field that is cut off or has no number", begin));
            }
        }
        Ok(())
    }

    fn field(&mut self, message: Message, number: u64, from: usize, to: usize, depth: usize) -> Result<(), OnnxError> {
        if let Some(inner) = message.field(number) {
            // Lists double as they grow.
            self.take(2 * inner.size())?;
            return self.message(inner, from, to, depth + 1);
        }
        let n = to - from;
        self.take(match () {
            () if message.is_in_place(number) => TEXT,
            () if message == Message::Node && number == 1 => READING + TEXT + 2 * n,
            () if message == Message::Node && number == 2 => VALUE + TEXT + 2 * n,
            () if message.is_integers(number) => 2 * INTEGER * n,
            () => TEXT + 2 * n,
        })
    }

    fn take(&mut self, n: usize) -> Result<(), OnnxError> {
        self.taken = self.taken.saturating_add(n);
        if self.taken > self.limit {
            return Err(OnnxError::TooMuch { limit: self.limit, n_bytes: self.bytes.len() });
        }
        Ok(())
    }

    fn varint(&self, at: &mut usize, to: usize) -> Result<u64, OnnxError> {
        let begin = *at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes[..to].get(*at).ok_or_else(|| malformed("a number that is cut off", begin))?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number that does not end", begin))
    }
}

fn malformed(problem: &str, at: usize) -> OnnxError {
    OnnxError::Malformed { problem: problem.into(), at }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Name of a message of the schema.
    fn schema_name(message: Message) -> &'static str {
        match message {
            Message::Model => "ModelProto",
            Message::OperatorSet => "OperatorSetIdProto",
            Message::StringEntry => "StringStringEntryProto",
            Message::DeviceConfiguration => "DeviceConfigurationProto",
            Message::Training => "TrainingInfoProto",
            Message::Function => "FunctionProto",
            Message::Graph => "GraphProto",
            Message::Node => "NodeProto",
            Message::NodeDevice => "NodeDeviceConfigurationProto",
            Message::Sharding => "ShardingSpecProto",
            Message::ShardedDim => "ShardedDimProto",
            Message::SimpleShardedDim => "SimpleShardedDimProto",
            Message::IntIntList => "IntIntListEntryProto",
            Message::Attribute => "AttributeProto",
            Message::Tensor => "TensorProto",
            Message::Segment => "TensorProto.Segment",
            Message::Sparse => "SparseTensorProto",
            Message::Annotation => "TensorAnnotation",
            Message::ValueInfo => "ValueInfoProto",
            Message::Type => "TypeProto",
            Message::TypeTensor => "TypeProto.Tensor",
            Message::TypeSequence => "TypeProto.Sequence",
            Message::TypeMap => "TypeProto.Map",
            Message::TypeOptional => "TypeProto.Optional",
            Message::TypeSparse => "TypeProto.SparseTensor",
            Message::TypeOpaque => "TypeProto.Opaque",
            Message::Shape => "TensorShapeProto",
            Message::Dimension => "TensorShapeProto.Dimension",
        }
    }

    /// Messages of ONNX's own schema, each with its fields: type and number.
    fn schema() -> BTreeMap<String, Vec<(String, u64)>> {
        let text = include_str!("../schema/onnx-ml.proto");
        let mut messages: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        let mut open: Vec<Option<String>> = Vec::new();
        for line in text.lines().map(|line| line.split("//").next().unwrap_or("").trim()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if line.ends_with('{') {
                let outer = open.iter().flatten().next_back().cloned();
                let name = (words[0] == "message").then(|| match outer {
                    Some(outer) => format!("{outer}.{}", words[1]),
                    None => words[1].to_owned(),
                });
                messages.entry(name.clone().unwrap_or_default()).or_default();
                open.push(name);
                continue;
            }
            if line.starts_with('}') {
                open.pop();
                continue;
            }
            let Some(message) = open.iter().flatten().next_back() else { continue };
            let field = words.strip_prefix(&["optional"]).or_else(|| words.strip_prefix(&["repeated"]));
            let [kind, _, "=", number, ..] = field.unwrap_or(&words) else { continue };
            let Ok(number) = number.trim_end_matches(';').parse() else { continue };
            messages.get_mut(message).expect("it is open").push(((*kind).to_owned(), number));
        }
        messages
    }

    /// A message that the table lacks would be decoded uncounted.
    #[test]
    fn the_table_has_every_field_of_the_schema_that_is_a_message() {
        let schema = schema();
        let resolve = |message: &str, kind: &str| {
            let own = format!("{message}.{kind}");
            [own, kind.to_owned()].into_iter().find(|name| schema.contains_key(name))
        };
        let mut n = 0;
        for (message, fields) in &schema {
            let ours = NESTED.iter().map(|(message, _)| *message).find(|m| schema_name(*m) == message);
            for (kind, number) in fields {
                let Some(expected) = resolve(message, kind) else { continue };
                let found = ours.and_then(|ours| ours.field(*number)).map(schema_name);
                assert_eq!(found, Some(expected.as_str()), "{message}, field {number}");
                n += 1;
            }
        }
        assert_eq!(
            n,
            NESTED.iter().map(|(_, fields)| fields.len()).sum::<usize>(),
            "the table has more than the schema"
        );
        let lists = ["int32", "int64", "uint64"];
        let is_list = |number| matches!(number, 1 | 5 | 7 | 11);
        for (kind, number) in &schema["TensorProto"] {
            if lists.contains(&kind.as_str()) && *number != 2 {
                assert!(is_list(*number), "list {number} of TensorProto");
            }
        }
    }

    /// 5 MB of empty nodes would be a gigabyte.
    #[test]
    fn files_that_unfold_are_refused_before_they_are_decoded() {
        let nodes = [10u8, 0].repeat(2_500_000);
        let mut bytes = vec![7 << 3 | 2];
        prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
        bytes.extend(nodes);
        assert!(matches!(scan(&bytes), Err(OnnxError::TooMuch { .. })));
        // Integers of one byte each, in the dimensions of a tensor.
        let mut tensor = vec![1 << 3 | 2];
        prost::encoding::encode_varint(9_000_000, &mut tensor);
        tensor.extend(vec![0; 9_000_000]);
        let wrap = |number: u8, inner: &[u8]| {
            let mut outer = vec![number << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            [outer, inner.to_vec()].concat()
        };
        assert!(matches!(scan(&wrap(7, &wrap(5, &tensor))), Err(OnnxError::TooMuch { .. })));
        // As many bytes of weights are nothing special.
        let mut tensor = vec![9 << 3 | 2];
        prost::encoding::encode_varint(90_000_000, &mut tensor);
        tensor.extend(vec![0; 90_000_000]);
        assert!(scan(&wrap(7, &wrap(5, &tensor))).is_ok());
    }

    #[test]
    fn graphs_within_graphs_have_an_end() {
        let mut bytes = Vec::new();
        for number in [6u8, 5, 1].into_iter().cycle().take(300) {
            let mut outer = vec![number << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(&bytes);
            bytes = outer;
        }
        let mut outer = vec![7u8 << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        let error = scan(&outer).unwrap_err().to_string();
        assert!(error.contains("graphs within graphs"), "{error}");
    }
}
