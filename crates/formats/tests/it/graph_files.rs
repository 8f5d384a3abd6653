//! Graphs as files say them: what is known is read, everything else is refused by the name of its node and its key.

use secateur_formats::{Preprocessing, read_weights, write_network};
use secateur_net::random::{random_network, random_network_of_every_operation};
use secateur_net::{Graph, GraphBuilder, Network, Op, Pointwise, Shape, Window};
use serde_json::{Value, json};

use crate::handmade::refusal;

/// A file of ours with this graph and one tensor.
fn with_graph(graph: &str) -> Vec<u8> {
    with_metadata(&[("secateur.graph", graph)])
}

/// A file of ours with some of its metadata replaced or added; an empty text leaves the key out.
fn with_metadata(changed: &[(&str, &str)]) -> Vec<u8> {
    let graph = graph_of(json!({"Pointwise": "Relu"}));
    let mut metadata = json!({
        "secateur.format": "1", "secateur.graph": graph.to_string(), "secateur.mean": "[0.5]", "secateur.std": "[0.5]",
        "secateur.classes": "16",
    });
    for (key, text) in changed {
        metadata[*key] = json!(text);
        if text.is_empty() {
            metadata.as_object_mut().unwrap().remove(*key);
        }
    }
    let header = json!({"__metadata__": metadata, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}});
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

/// An image of 1x4x4 and the operation `op` on it, called `p`.
fn graph_of(op: Value) -> Value {
    json!({
        "input": {"c": 1, "h": 4, "w": 4},
        "nodes": [{"name": "input", "op": "Input", "inputs": []}, {"name": "p", "op": op, "inputs": [0]}],
    })
}

/// Every operation that has keys, complete.
fn operations() -> Vec<(&'static str, Value)> {
    let window = json!({"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0]});
    vec![
        (
            "Conv2d",
            json!({"in_channels": 1, "out_channels": 1, "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0],
                   "dilation": [1, 1], "groups": 1, "bias": false}),
        ),
        ("BatchNorm", json!({"channels": 1, "eps": 1e-5})),
        ("PRelu", json!({"channels": 1})),
        ("Linear", json!({"in_features": 16, "out_features": 2, "bias": true})),
        ("MaxPool", window.clone()),
        ("AvgPool", window),
        ("Pad", json!({"channels": [0, 0], "rows": [1, 2], "cols": [3, 4]})),
        ("ChannelShuffle", json!({"groups": 1})),
        ("DepthToSpace", json!({"block": 1, "columns_rows_depth": true})),
        ("Resize", json!({"rows": [0, [1, 2, 0.25]], "cols": [[0, 3, 1], 2, 2]})),
        ("LayerNorm", json!({"channels": 1, "eps": 1e-5})),
        (
            "ConvTranspose2d",
            json!({"in_channels": 1, "out_channels": 1, "kernel": [1, 1], "stride": [1, 1], "padding": [0, 0],
                   "output_padding": [0, 0], "dilation": [1, 1], "groups": 1, "bias": false}),
        ),
        ("ChannelConv", json!({"taps": 3, "front": 1, "bias": false})),
        ("GroupNorm", json!({"channels": 1, "groups": 1, "eps": 1e-5})),
        ("LocalResponseNorm", json!({"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1})),
        ("BranchSum", json!({"branches": 1})),
        ("BranchSoftmax", json!({"branches": 1})),
        ("Slice", json!({"channels": [0, 1], "step": [2, 2]})),
    ]
}

fn message(graph: &Value) -> String {
    refusal(&with_graph(&graph.to_string()))
}

#[test]
fn random_networks_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    for network in (0..50).flat_map(|seed| [random_network(seed), random_network_of_every_operation(seed)]) {
        let n = network.graph().input().c;
        write_network(&path, &network, &Preprocessing::new(vec![0.0; n], vec![1.0; n]).unwrap()).unwrap();
        let file = read_weights(&path).unwrap();
        assert_eq!(Network::new(file.description.unwrap().graph, file.weights).unwrap(), network);
    }
}

#[test]
fn an_unknown_key_of_any_operation_is_refused_with_node_and_key() {
    let unit =
        ["Add", "Concat", "GlobalAvgPool", "Flatten", "Softmax", "Identity", "Mul", "FlattenPixels", "GlobalMaxPool"];
    let unit = unit.map(|name| (name, json!({})));
    for (name, body) in operations().into_iter().chain(unit) {
        for key in ["count_include_pad", "padding_mode", "ceil_mode", "Kernel", ""] {
            let mut body = body.clone();
            body[key] = json!(false);
            let refusal = message(&graph_of(json!({name: body.clone()})));
            let expected = format!("graph node `p` ({name}): unknown key `{key}`; known: ");
            assert!(refusal.contains(&expected), "{refusal}");
            assert!(!refusal.contains("line 1"), "the place in a text within a text helps nobody: {refusal}");
            for known in body.as_object().unwrap().keys().filter(|known| *known != key) {
                assert!(refusal.split("known: ").nth(1).unwrap().contains(known), "{refusal}");
            }
        }
    }
    let pool = json!({"AvgPool": {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1]}});
    assert!(message(&graph_of(pool)).contains("unknown key `dilation`; known: kernel, stride, padding"));
}

#[test]
fn a_key_that_is_missing_repeated_or_of_the_wrong_kind_is_named() {
    for (name, body) in operations() {
        for key in body.as_object().unwrap().keys() {
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(key);
            let refusal = message(&graph_of(json!({name: without})));
            assert!(refusal.contains(&format!("graph node `p` ({name}): key `{key}` is missing")), "{refusal}");
            for wrong in [json!("1"), json!(null), json!(-1), json!([1, 2, 3]), json!([1, -1]), json!({"a": 1})] {
                if name == "Resize" && wrong == json!([1, 2, 3]) {
                    continue; // Three rows of the input.
                }
                let mut changed = body.clone();
                changed[key] = wrong.clone();
                let refusal = message(&graph_of(json!({name: changed})));
                // Any number is an eps to the reader; what it may be is a rule of the graph.
                let takes_any = key == "eps" || name == "LocalResponseNorm" && key != "size";
                let is_number = takes_any && wrong.is_number();
                let expected = format!("graph node `p` ({name}): key `{key}`: expected ");
                assert!(
                    refusal.contains(&expected)
                        || is_number && refusal.contains("expected a finite")
                        || is_number && refusal.contains("expected finite"),
                    "{refusal}"
                );
            }
            let twice = graph_of(json!({name: body.clone()})).to_string();
            let once = format!("\"{key}\":");
            let twice = twice.replacen(&once, &format!("{once}0,{once}"), 1);
            let refusal = crate::handmade::refusal(&with_graph(&twice));
            assert!(refusal.contains(&format!("`{key}` stands there twice")), "{refusal}");
        }
    }
}

#[test]
fn padding_of_four_sides_is_explained() {
    for (name, mut body) in operations().into_iter().filter(|(_, body)| body.get("padding").is_some()) {
        body["padding"] = json!([0, 1, 0, 1]);
        let refusal = message(&graph_of(json!({name: body})));
        let help = if name == "Conv2d" { "Pad node" } else { "[[above, below], [left, right]]" };
        for part in ["`p`", name, "key `padding`", "[0, 1, 0, 1] (4 values)", help] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
    }
}

#[test]
fn every_function_comes_back_as_it_was_written_and_is_spelled_as_documented() {
    let open = [(f32::NEG_INFINITY, 1.5), (-1.5, f32::INFINITY), (f32::NEG_INFINITY, f32::INFINITY)];
    let open = open.map(|(min, max)| Pointwise::Clip { min, max });
    for function in Pointwise::EACH.into_iter().chain(open) {
        let mut b = GraphBuilder::new(Shape { c: 1, h: 4, w: 4 });
        b.push("p", Op::Pointwise(function), &[0]);
        let graph = b.finish().unwrap();
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph, "{text}");
    }
    for (spelled, function) in [
        (json!("Relu"), Pointwise::Relu),
        (json!({"LeakyRelu": {"slope": 0.1}}), Pointwise::LeakyRelu { slope: 0.1 }),
        (json!({"Clip": {"min": 0, "max": 4}}), Pointwise::Clip { min: 0.0, max: 4.0 }),
        (json!({"Clip": {"min": 0}}), Pointwise::Clip { min: 0.0, max: f32::INFINITY }),
        (json!({"Gelu": {"tanh": true}}), Pointwise::Gelu { tanh: true }),
    ] {
        let graph: Graph = serde_json::from_value(graph_of(json!({"Pointwise": spelled}))).unwrap();
        assert_eq!(graph.node(1).op, Op::Pointwise(function));
    }
}

#[test]
fn the_usual_windows_are_written_as_ever_and_others_with_what_is_other() {
    let usual = Window::new([3, 2], [2, 1], [1, 0]);
    let other = Window { padding: [[1, 1], [0, 1]], ceil: true, counts_padding: false, ..usual.clone() };
    let more =
        json!({"kernel": [3, 2], "stride": [2, 1], "padding": [[1, 1], [0, 1]], "ceil": true, "counts_padding": false});
    for (window, expected) in [(usual, json!({"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]})), (other, more)] {
        assert_eq!(serde_json::to_value(&window).unwrap(), expected);
        let graph: Graph = serde_json::from_value(graph_of(json!({"AvgPool": expected}))).unwrap();
        assert_eq!(graph.node(1).op, Op::AvgPool(window.clone()));
        let graph: Graph = serde_json::from_value(graph_of(json!({"MaxPool": expected}))).unwrap();
        assert_eq!(graph.node(1).op, Op::MaxPool(window));
    }
}

#[test]
fn windows_that_make_no_sense_are_refused_by_name() {
    for (key, value, part) in [
        ("ceil", json!(1), "key `ceil`: expected true or false, got 1"),
        ("counts_padding", json!("no"), "key `counts_padding`: expected true or false"),
        ("padding", json!([[0, 1], 0]), "key `padding`: expected"),
        ("padding", json!([[0, 1, 0], [0, 0]]), "key `padding`: expected"),
        ("padding", json!([[0, -1], [0, 0]]), "key `padding`: expected"),
        ("padding", json!([[0, 2], [0, 0]]), "padding [[0, 2], [0, 0]]: expected less than the kernel [2, 2]"),
        ("kernel", json!([7, 2]), "kernel [7, 2] spans 7 rows, its input 1x4x4"),
    ] {
        let mut window = json!({"kernel": [2, 2], "stride": [2, 2], "padding": [[0, 0], [0, 0]]});
        window[key] = value;
        let refusal = message(&graph_of(json!({"AvgPool": window})));
        assert!(refusal.contains("`p`") || refusal.contains("'p'"), "{refusal}");
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

#[test]
fn a_function_whose_parameters_make_no_sense_is_refused_by_name() {
    for (function, part) in [
        (json!({"LeakyRelu": {}}), "graph node `p` (Pointwise): LeakyRelu: key `slope` is missing"),
        (json!("LeakyRelu"), "LeakyRelu: {slope}"),
        (json!({"LeakyRelu": {"slope": "a"}}), "LeakyRelu: key `slope`: expected a number"),
        (json!({"LeakyRelu": {"slope": 1e300}}), "LeakyRelu: slope is inf, expected a finite number"),
        (json!({"LeakyRelu": {"slope": 0.1, "alpha": 1}}), "unknown key `alpha`; known: slope"),
        (json!({"HardSigmoid": {"alpha": 0.2}}), "HardSigmoid: key `beta` is missing"),
        (json!({"Clip": {"min": 2, "max": 1}}), "Clip: min is 2 and max 1, expected min to be at most max"),
        (json!({"Clip": {"min": -1e300}}), "Clip: key `min`: expected a number that f32 holds"),
        (json!({"Clip": {"min": null}}), "Clip: key `min`: expected a number, got nothing"),
        (json!({"Gelu": {"tanh": 1}}), "Gelu: key `tanh`: expected true or false"),
        (json!({"Elu": {"alpha": 1}, "Gelu": {"tanh": true}}), "key `Pointwise`: expected one of"),
    ] {
        let refusal = message(&graph_of(json!({"Pointwise": function})));
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

#[test]
fn the_objects_around_operations_are_as_strict() {
    let graph = || graph_of(json!({"Pointwise": "Relu"}));
    let edit = |path: &str, value: Value| {
        let mut graph = graph();
        let (parent, key) = path.rsplit_once('/').unwrap();
        match graph.pointer_mut(path) {
            Some(there) => *there = value,
            None => graph.pointer_mut(parent).unwrap()[key] = value,
        }
        message(&graph)
    };
    for (refusal, part) in [
        (edit("/outputs", json!([1])), "graph: unknown key `outputs`; known: input, nodes, tail"),
        (edit("/tail", json!({"macs": 1})), "graph tail: key `params` is missing"),
        (edit("/tail", json!({"macs": 1, "params": -1})), "graph tail: key `params`: expected a whole number from 0"),
        (edit("/tail", json!({"macs": 1u64 << 60, "params": 0})), "graph tail: counts more than any network has"),
        (edit("/input/d", json!(1)), "graph input: unknown key `d`; known: c, h, w"),
        (
            edit("/nodes/1/comment", json!("x")),
            "graph node `p` (Pointwise): unknown key `comment`; known: name, op, inputs",
        ),
        (edit("/nodes/1/name", json!(7)), "graph node 1 (Pointwise): key `name`: expected a text, got 7"),
        (edit("/nodes/1/inputs", json!([0.5])), "graph node `p` (Pointwise): key `inputs`"),
        (edit("/nodes/1/op", json!(["Add"])), "graph node `p`: key `op`: expected one operation"),
        (edit("/nodes/1/op", json!({"Add": {}, "Relu": {}})), "graph node `p`: key `op`: expected one operation"),
        (
            edit("/nodes/1/op", json!("Upsample")),
            "graph node `p` (Upsample): unknown operation `Upsample`; known: Input",
        ),
        (edit("/nodes/1/op", json!({"Pointwise": "Gelu"})), "key `Pointwise`: expected one of Relu, Relu6"),
        (edit("/nodes/1/op", json!({"Pointwise": {"Relu6": {"max": 5}}})), "key `Pointwise`: expected one of"),
        (edit("/nodes/1", json!([1])), "graph node 1: expected an object with the keys name, op, inputs, got [1]"),
        (edit("/nodes", json!({})), "the list of nodes"),
        (message(&json!([])), "an object with the keys input and nodes"),
    ] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

#[test]
fn unknown_and_missing_metadata_of_ours_is_named_and_that_of_others_ignored() {
    for (changed, parts) in [
        (("secateur.sdt", "[1]"), &["unknown key `secateur.sdt`", "secateur.std"][..]),
        (("secateur.format", ""), &["secateur.format is missing"]),
        (("secateur.std", ""), &["secateur.std is missing"]),
    ] {
        let refusal = refusal(&with_metadata(&[changed]));
        assert!(parts.iter().all(|part| refusal.contains(part)), "{refusal}");
    }
    // Its classes do not fit: it was read so far.
    let refusal = refusal(&with_metadata(&[("format", "pt"), ("secateur.classes", "3")]));
    assert!(refusal.contains("the graph has 16 outputs"), "{refusal}");
}

#[test]
fn nodes_and_values_are_counted_before_they_are_kept() {
    let nodes = r#"{"name":"a","op":"Add","inputs":[0]},"#.repeat(300_000);
    let graph = format!(r#"{{"input":{{"c":1,"h":1,"w":1}},"nodes":[{}]}}"#, nodes.trim_end_matches(','));
    assert!(refusal(&with_graph(&graph)).contains("at most 262144 nodes"));
    let inputs = "0,".repeat(300_000);
    let node = format!(r#"{{"name":"a","op":"Add","inputs":[{}]}}"#, inputs.trim_end_matches(','));
    let graph = format!(r#"{{"input":{{"c":1,"h":1,"w":1}},"nodes":[{node}]}}"#);
    assert!(refusal(&with_graph(&graph)).contains("too many values"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(&with_graph(&format!(r#"{{"input":{deep}}}"#))).contains("recursion limit"));
}

#[test]
fn the_rows_of_a_resize_are_checked_one_by_one() {
    let resize = |rows: Value| message(&graph_of(json!({"Resize": {"rows": rows, "cols": [0]}})));
    for (rows, part) in [
        (json!([4]), "rows: output 0 reads 4 and 4, its input has 4"),
        (json!([0, [1, 9, 0.5]]), "rows: output 1 reads 1 and 9"),
        (json!([[0, 1, 1.5]]), "rows: output 0 has the share 1.5, expected a number from 0 to 1"),
        (json!([[0, 1, -0.5]]), "the share -0.5"),
        (json!([[0, 1, "x"]]), "key `rows`: expected a list of sources"),
        (json!([[0, 1]]), "key `rows`: expected a list of sources"),
        (json!([]), "empty or too large"),
    ] {
        assert!(resize(rows.clone()).contains(part), "{part}: {}", resize(rows));
    }
    let written = json!({"Resize": {"rows": [0, [0, 1, 0.25], 3], "cols": [2]}});
    let graph: Graph = serde_json::from_value(graph_of(written.clone())).unwrap();
    assert_eq!(serde_json::to_value(&graph).unwrap()["nodes"][1]["op"], written);
}
