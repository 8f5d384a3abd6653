//! A file of 10 MB, whatever it holds, takes less than 200 MB: read, its shapes followed, its groups derived, its
//! network built. Alone in its program, because the peak is that of the whole process.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use prost::Message;
use secateur_onnx::schema::attribute_proto::AttributeType;
use secateur_onnx::schema::{AttributeProto, GraphProto, NodeProto, TensorProto};
use secateur_onnx::{DocumentGroups, Facts, OnnxDocument, OnnxError};

#[expect(dead_code, reason = "it serves other tests, too")]
#[path = "it/hand_made.rs"]
mod hand_made;

use hand_made::{filled, model, node, numbers, shaped, tensor, value, with_ints};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const FILE_BYTES: usize = 10 << 20;
const LIMIT_MIB: f32 = 200.0;

/// A file of so many items, filled up with a weight; none where the items alone are more.
fn file(start: &GraphProto, add: &impl Fn(&mut GraphProto, usize), n: usize) -> Option<Bytes> {
    let mut graph = start.clone();
    (0..n).for_each(|i| add(&mut graph, i));
    let rest = FILE_BYTES.checked_sub(model(graph.clone()).encoded_len() + 64)? / 4;
    let weight = TensorProto { raw_data: Some(vec![0; 4 * rest].into()), ..tensor("padding", &[rest as i64]) };
    graph.initializer.push(weight);
    Some(model(graph).encode_to_vec().into())
}

fn is_read(bytes: &Bytes) -> bool {
    !matches!(OnnxDocument::from_bytes(bytes.clone(), ".".as_ref()), Err(OnnxError::TooMuch { .. }))
}

/// Nearly the most items that are read, in a file of 10 MB.
fn fullest(start: &GraphProto, add: &impl Fn(&mut GraphProto, usize)) -> Bytes {
    let read = |n: usize| file(start, add, n).filter(is_read);
    let (mut few, mut many) = (0, 256);
    while read(many).is_some() {
        (few, many) = (many, 2 * many);
    }
    while many - few > few / 16 {
        let middle = usize::midpoint(few, many);
        if read(middle).is_some() { few = middle } else { many = middle }
    }
    read(few).unwrap()
}

fn check(what: &str, start: GraphProto, add: impl Fn(&mut GraphProto, usize)) {
    let bytes = fullest(&start, &add);
    MEMORY.reset_peak_usage();
    let read = OnnxDocument::from_bytes(bytes, ".".as_ref());
    let answer = read.and_then(|document| {
        let facts = Facts::of(&document, None)?;
        let network = document.network(&facts).map(drop);
        let n_groups = DocumentGroups::of(&document, &facts).groups().len();
        network.map(|()| format!("{n_groups} groups"))
    });
    let peak = MEMORY.peak_usage_as_mb();
    assert!(peak < LIMIT_MIB, "{what}: {peak} MiB; {answer:?}");
}

/// Another node that reads what the last one makes.
fn chain(graph: &mut GraphProto, n: usize, make: impl Fn(&str, &str) -> NodeProto) {
    let last = graph.node.last().and_then(|node| node.output.first().cloned()).unwrap_or_else(|| "x".to_owned());
    graph.node.push(make(&last, &format!("{n:x}")));
    graph.output = vec![value(&format!("{n:x}"))];
}

fn image() -> GraphProto {
    GraphProto { input: vec![shaped("x", &[1, 3, 64, 64])], ..Default::default() }
}

fn with_weight(dims: [i64; 4]) -> GraphProto {
    let input = vec![shaped("x", &[1, dims[1], 8, 8])];
    GraphProto { input, initializer: vec![filled("w", &dims)], ..Default::default() }
}

fn one_node(op: &str) -> GraphProto {
    GraphProto { node: vec![node(op, &["x"], &["y"])], output: vec![value("y")], ..image() }
}

/// One test: the peaks of two that run side by side would add up.
#[test]
fn files_of_ten_megabytes_take_less_than_two_hundred() {
    chains_of_nodes();
    one_node_and_what_is_stored();
}

fn chains_of_nodes() {
    check("rectifiers", image(), |graph, n| chain(graph, n, |x, y| node("Relu", &[x], &[y])));
    check("sums", image(), |graph, n| chain(graph, n, |x, y| node("Add", &[x, "x"], &[y])));
    check("unknown operations", image(), |graph, n| chain(graph, n, |x, y| node("LSTM", &[x], &[y])));
    let convolution = |graph: &mut GraphProto, n| chain(graph, n, |x, y| node("Conv", &[x, "w"], &[y]));
    check("convolutions with one weight", with_weight([3, 3, 1, 1]), convolution);
    check("wide convolutions with one weight", with_weight([256, 256, 1, 1]), convolution);
    check("doubling", image(), |graph, n| chain(graph, n, |x, y| node("Concat", &[x, x], &[y])));
    check("lists", image(), |graph, n| chain(graph, n, |x, y| with_ints(node("Relu", &[x], &[y]), "a", &[1; 512])));
    check("branches", image(), |graph, n| chain(graph, n, branching));
    check("readers of one value", one_node("Relu"), |graph, n| {
        graph.node.push(node("Relu", &["x"], &[&format!("{n:x}")]));
    });
}

fn one_node_and_what_is_stored() {
    check("outputs", one_node("Split"), |graph, n| graph.node[0].output.push(format!("{n:x}")));
    check("inputs of a sum", one_node("Sum"), |graph, _| graph.node[0].input.push("x".to_owned()));
    check("inputs of a concatenation", one_node("Concat"), |graph, _| graph.node[0].input.push("x".to_owned()));
    check("constants", one_node("Relu"), |graph, n| graph.initializer.push(numbers(&format!("{n:x}"), &[1, 2])));
    check("empty tensors", one_node("Relu"), |graph, n| graph.initializer.push(tensor(&format!("{n:x}"), &[0])));
    check("inputs", one_node("Relu"), |graph, n| graph.input.push(shaped(&format!("{n:x}"), &[1, 2])));
    check("shapes", one_node("Relu"), |graph, n| graph.value_info.push(shaped(&format!("{n:x}"), &[1, 2])));
}

/// If on `x` whose branch reads `x` as well.
fn branching(x: &str, y: &str) -> NodeProto {
    let inner = GraphProto { node: vec![node("Relu", &[x], &["z"])], output: vec![value("z")], ..Default::default() };
    let (name, r#type) = (Some("then_branch".into()), Some(AttributeType::Graph.into()));
    let attribute = vec![AttributeProto { name, r#type, g: Some(inner), ..Default::default() }];
    NodeProto { attribute, ..node("If", &[x], &[y]) }
}
