//! Operations that are not known: of which kind they are, and what to do about it.

use crate::names::has_graphs;
use crate::schema::{FunctionProto, NodeProto};

const CONTROL_FLOW: [&str; 4] = ["If", "Loop", "Scan", "SequenceMap"];
const RECURRENT: [&str; 3] = ["LSTM", "GRU", "RNN"];

/// What is said of a node whose operation is not known: a predicate, and advice.
pub fn unknown(node: &NodeProto, functions: &[FunctionProto]) -> String {
    let op = node.op_type();
    let is_own = |function: &&FunctionProto| function.name() == op && function.domain() == node.domain();
    if has_graphs(node) || (node.is_standard() && CONTROL_FLOW.contains(&op)) {
        return "runs a part of the graph under a condition or in a loop, which is not computed: export the network with fixed \
                control flow, or simplify the file first (onnxsim model.onnx simple.onnx)"
            .into();
    }
    if is_quantised(op) {
        return "is of a quantised network: prune the network in floating point first, and quantise it afterwards"
            .into();
    }
    if node.is_standard() && RECURRENT.contains(&op) {
        return "is recurrent, which is not computed: what enters it stays whole".into();
    }
    if functions.iter().any(|function| is_own(&function)) {
        return format!(
            "is the function '{}.{op}' of the file itself, which is not looked into: put its operations in its place \
             (onnx.inliner.inline_local_functions)",
            node.domain()
        );
    }
    if node.is_standard() {
        return "is not known: what enters it stays whole".into();
    }
    format!(
        "is of the operator set '{}', which is not known: what enters it stays whole; export the network with operations of \
         ONNX itself, not optimised for a runtime",
        node.domain()
    )
}

/// Operations on integers that stand for fractions, ONNX's own and those of runtimes.
fn is_quantised(op: &str) -> bool {
    let begins = ["QLinear", "QGemm", "QAttention", "Quantize", "Dequantize", "DynamicQuantize"];
    begins.iter().any(|begin| op.starts_with(begin)) || matches!(op, "ConvInteger" | "MatMulInteger" | "MatMulNBits")
}
