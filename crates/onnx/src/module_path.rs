//! Which module of PyTorch a node was exported from, told by names.
//!
//! The TorchScript exporter calls nodes by the path through the modules (`/layer1/layer1.0/conv1/Conv`), and parameters
//! by their keys in the state dict unless a BatchNorm was folded into them. The dynamo exporter keeps the keys of
//! convolutions even then, and notes the modules of a node as metadata; of a convolution with a folded BatchNorm those
//! are the BatchNorm's.

use crate::schema::NodeProto;

/// Metadata of the dynamo exporter: a Python list of the modules around a node, and its own name.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";
const WEIGHT: &str = ".weight";

/// The path of the module that `node` was exported from, as in `Module.get_submodule`; `parameters` are the names of
/// the stored tensors that the node reads. None where names do not tell.
pub fn module_path(node: &NodeProto, parameters: &[String]) -> Option<String> {
    let of_parameter = parameters.iter().find_map(|name| name.strip_suffix(WEIGHT));
    let is_key = |path: &&str| !path.is_empty() && !path.contains(['/', ':']);
    let scopes = || node.metadata_props.iter().find(|entry| entry.key() == SCOPES).map(|entry| entry.value());
    let is_convolution = matches!(node.op_type(), "Conv" | "ConvTranspose");
    of_parameter
        .filter(is_key)
        .map(str::to_owned)
        .or_else(|| of_node_name(node.name()))
        .or_else(|| scopes().filter(|_| !is_convolution).and_then(innermost))
}

/// `layer1.0.conv1` of `/layer1/layer1.0/conv1/Conv`: a part that begins with all of the part before it, and a point,
/// takes its place.
fn of_node_name(name: &str) -> Option<String> {
    let (path, _) = name.strip_prefix('/')?.rsplit_once('/')?;
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        let repeats = |last: &&str| part.strip_prefix(*last).is_some_and(|rest| rest.starts_with('.'));
        if parts.last().is_some_and(repeats) {
            parts.pop();
        }
        parts.push(part);
    }
    Some(parts.join("."))
}

/// The last but one of `['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'batch_norm']`.
fn innermost(scopes: &str) -> Option<String> {
    let quoted: Vec<&str> = scopes.split('\'').skip(1).step_by(2).collect();
    let module = quoted.len().checked_sub(2).map(|at| quoted[at]);
    module.filter(|module| !module.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::StringStringEntryProto;

    fn node(op: &str, name: &str, scopes: Option<&str>) -> NodeProto {
        let scopes =
            scopes.map(|scopes| StringStringEntryProto { key: Some(SCOPES.into()), value: Some(scopes.into()) });
        NodeProto {
            op_type: Some(op.into()),
            name: Some(name.into()),
            metadata_props: scopes.into_iter().collect(),
            ..Default::default()
        }
    }

    fn path(node: &NodeProto, parameters: &[&str]) -> Option<String> {
        module_path(node, &parameters.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn keys_of_parameters_come_first() {
        let conv = node("Conv", "node_Conv_292", Some("['', 'bn1', '_native_batch_norm_legit_no_training']"));
        assert_eq!(path(&conv, &["layer1.0.conv1.weight", "layer1.0.conv1.weight_bias"]).unwrap(), "layer1.0.conv1");
        assert_eq!(path(&node("Gemm", "/fc/Gemm", None), &["fc.weight", "fc.bias"]).unwrap(), "fc");
    }

    #[test]
    fn paths_of_the_older_exporter_repeat_what_stands_before_them() {
        let of = |name: &str| path(&node("Conv", name, None), &["onnx::Conv_405", "onnx::Conv_406"]);
        assert_eq!(of("/conv1/Conv").unwrap(), "conv1");
        assert_eq!(of("/layer1/layer1.0/conv1/Conv").unwrap(), "layer1.0.conv1");
        assert_eq!(of("/features/features.1/block/block.0/block.0.0/Conv").unwrap(), "features.1.block.0.0");
        assert_eq!(of("/conv/conv2/Conv_1").unwrap(), "conv.conv2");
        // A function in the outermost module, and what was never a path.
        assert_eq!([of("/Conv"), of("Conv_12"), of("")], [None, None, None]);
    }

    #[test]
    fn scopes_tell_the_module_of_all_but_convolutions() {
        let scopes = "['', 'features', 'features.1', 'features.1.0', 'linear_1']";
        assert_eq!(path(&node("MatMul", "node_MatMul_7", Some(scopes)), &["val_5"]).unwrap(), "features.1.0");
        assert_eq!(path(&node("Conv", "node_Conv_7", Some(scopes)), &["val_5"]), None);
        for broken in ["", "[]", "['']", "['', 'linear']", "no list"] {
            assert_eq!(path(&node("MatMul", "", Some(broken)), &[]), None, "{broken}");
        }
    }
}
