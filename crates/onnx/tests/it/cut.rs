//! Channels taken out of documents: what goes, what stays, what is refused.

use secateur_onnx::schema::{GraphProto, NodeProto};
use secateur_onnx::{DocumentGroups, Facts, KeptFlags, OnnxDocument, OnnxError, Removal, dims, floats, integers};

use crate::hand_made::{filled, model, network, node, numbers, shaped, with_int, with_ints};

fn open(graph: GraphProto) -> OnnxDocument {
    OnnxDocument::from_bytes(prost::Message::encode_to_vec(&model(graph)).into(), ".".as_ref()).unwrap()
}

struct Followed {
    document: OnnxDocument,
    facts: Facts,
    groups: DocumentGroups,
}

impl Followed {
    fn new(graph: GraphProto) -> Self {
        let document = open(graph);
        let facts = Facts::of(&document, None).unwrap();
        let groups = DocumentGroups::of(&document, &facts);
        Self { document, facts, groups }
    }

    /// Name and channels of every group that may be pruned.
    fn prunable(&self) -> Vec<(&str, usize)> {
        let free = self.groups.groups().iter().filter(|group| group.frozen.is_none());
        free.map(|group| (group.name.as_str(), group.n_channels)).collect()
    }

    /// Of every prunable group, these channels stay.
    fn cut(&self, stay: &[usize]) -> Result<OnnxDocument, OnnxError> {
        let flags = |group: &secateur_onnx::DocumentGroup| {
            (0..group.n_channels).map(|i| group.frozen.is_some() || stay.contains(&i)).collect()
        };
        let kept: KeptFlags = self.groups.groups().iter().map(flags).collect();
        let Self { document, facts, groups } = self;
        Removal { document, facts, groups, kept: &kept }.cut()
    }
}

fn floats_of(document: &OnnxDocument, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = document.graph().initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    (dims(tensor).unwrap().0, floats(tensor, document.external()).unwrap())
}

fn integers_of(document: &OnnxDocument, name: &str) -> Vec<i64> {
    let tensor = document.graph().initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    integers(tensor, document.external()).unwrap()
}

/// Worked out by hand: a shuffle in two groups of two ties channels 0 with 2 and 1 with 3; each of the second layer's
/// channels is 16 rows of the matrix.
#[test]
fn rows_columns_and_counts_of_a_shuffled_network_are_those_worked_out_by_hand() {
    let followed = Followed::new(network());
    assert_eq!(followed.prunable(), [("a", 2), ("f", 6)]);
    let cut = followed.cut(&[1]).unwrap();
    // Filters 1 and 3, of 27 weights each, counted from 1.
    let first = floats_of(&cut, "first");
    assert_eq!(first.0, [2, 3, 3, 3]);
    assert_eq!(first.1, (28..55).chain(82..109).map(|v| v as f32).collect::<Vec<_>>());
    assert_eq!(floats_of(&cut, "bias").1, [2.0, 4.0]);
    // Of filter 1 of the second layer (5, 6, 7, 8), inputs 1 and 3 in shuffled order: channels 0, 2, 1, 3 went in.
    assert_eq!(floats_of(&cut, "second"), (vec![1, 2, 1, 1], vec![7.0, 8.0]));
    // Rows 16 to 31 of two columns.
    assert_eq!(floats_of(&cut, "matrix"), (vec![16, 2], (33..65).map(|v| v as f32).collect()));
    assert_eq!(integers_of(&cut, "apart"), [1, 2, 1, 4, 4]);
    assert_eq!(integers_of(&cut, "together"), [1, 2, 4, 4]);
    assert_eq!(integers_of(&cut, "flat"), [1, 16]);
    let declared = Followed::new(cut.graph().clone());
    assert_eq!(declared.facts.shape("f"), Some(&[1, 1, 4, 4][..]));
    assert_eq!(cut.graph().value_info, [shaped("c", &[1, 2, 1, 4, 4]), shaped("f", &[1, 1, 4, 4])]);
    assert_eq!(cut.graph().node, followed.document.graph().node, "no node has a number of channels of its own");
    assert_eq!((followed.facts.macs(&followed.document), declared.facts.macs(&cut)), (2304, 928));
    // 4 * 27 + 4 + 6 * 4 + 96 * 2, and 2 * 27 + 2 + 1 * 2 + 16 * 2.
    assert_eq!((followed.facts.params(&followed.document), declared.facts.params(&cut)), (328, 90));
}

#[test]
fn what_keeps_everything_is_the_same_to_the_byte() {
    let followed = Followed::new(network());
    let all = followed.cut(&[0, 1, 2, 3, 4, 5]).unwrap();
    assert_eq!(all.to_bytes(), followed.document.to_bytes());
}

/// Weights whose readers' channels go are zero in the masked network, and nothing else changes.
#[test]
fn masks_are_zeros_where_weights_read_what_goes() {
    let Followed { document, facts, groups } = &Followed::new(network());
    let mut kept = groups.keep_all();
    let last = groups.groups().iter().position(|group| group.name == "f").unwrap();
    kept[last] = vec![true, false, true, true, true, true];
    let masked = Removal { document, facts, groups, kept: &kept }.masked().unwrap();
    let (shape, values) = floats_of(&masked, "matrix");
    assert_eq!(shape, [96, 2]);
    let zeros: Vec<usize> = (0..192).filter(|&at| values[at] == 0.0).collect();
    assert_eq!(zeros, (32..64).collect::<Vec<_>>());
    assert_eq!(floats_of(&masked, "second"), floats_of(document, "second"));
}

#[test]
fn frozen_channels_and_empty_groups_are_refused() {
    let followed = Followed::new(network());
    assert!(followed.cut(&[]).unwrap_err().to_string().contains("cannot lose these channels"));
    let Followed { document, facts, groups } = &followed;
    let frozen = groups.groups().iter().position(|group| group.frozen.is_some()).unwrap();
    let mut kept = groups.keep_all();
    kept[frozen][0] = false;
    assert!(Removal { document, facts, groups, kept: &kept }.cut().is_err());
}

/// `x` of 4 channels through a convolution, then these nodes, then a convolution to the output `y`.
fn around(nodes: Vec<NodeProto>, n_last: i64) -> GraphProto {
    let first = node("Conv", &["x", "first"], &["a"]);
    let last = node("Conv", &["z", "last"], &["y"]);
    GraphProto {
        node: [vec![first], nodes, vec![last]].concat(),
        initializer: vec![filled("first", &[4, 3, 1, 1]), filled("last", &[2, n_last, 1, 1])],
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![shaped("y", &[1, 2, 4, 4])],
        ..Default::default()
    }
}

#[test]
fn unlike_halves_of_a_split_get_sizes_of_their_own() {
    let split = with_int(with_int(node("Split", &["a"], &["b", "c"]), "axis", 1), "num_outputs", 2);
    let graph = around(vec![split, node("Concat", &["c", "b"], &["z"])], 4);
    let concat = with_int(graph.node[2].clone(), "axis", 1);
    let graph =
        GraphProto { node: vec![graph.node[0].clone(), graph.node[1].clone(), concat, graph.node[3].clone()], ..graph };
    let followed = Followed::new(graph);
    // Two groups: the halves have other tensors.
    assert_eq!(followed.prunable(), [("a", 2), ("a#2", 2)]);
    let (document, facts, groups) = (&followed.document, &followed.facts, &followed.groups);
    let mut kept = groups.keep_all();
    let free = groups.groups().iter().position(|group| group.frozen.is_none()).unwrap();
    kept[free] = vec![false, true];
    let cut = Removal { document, facts, groups, kept: &kept }.cut().unwrap();
    let split = &cut.graph().node[1];
    assert_eq!(split.input.len(), 2);
    assert!(split.attribute.iter().all(|attribute| attribute.name() != "num_outputs"));
    assert_eq!(integers_of(&cut, &split.input[1]), [1, 2]);
    assert_eq!(floats_of(&cut, "last").0, [2, 3, 1, 1]);
}

#[test]
fn sizes_that_the_network_computes_follow_or_are_written_down() {
    // The second half of the channels, from half of the number of channels on.
    let nodes = vec![
        node("Shape", &["a"], &["shape"]),
        node("Gather", &["shape", "one"], &["n"]),
        node("Div", &["n", "two"], &["half"]),
        node("Slice", &["a", "half", "n", "one"], &["b"]),
        node("Slice", &["a", "zero", "half", "one"], &["c"]),
        with_int(node("Concat", &["b", "c"], &["z"]), "axis", 1),
    ];
    let mut graph = around(nodes, 4);
    graph.initializer.extend([numbers("zero", &[0]), numbers("one", &[1]), numbers("two", &[2])]);
    let followed = Followed::new(graph);
    assert_eq!(followed.prunable().iter().map(|(_, n)| n).sum::<usize>(), 4);
    // Halves of one each: what is computed is right.
    let even = followed.cut(&[0]).unwrap();
    assert_eq!(even.graph().node[4].input, followed.document.graph().node[4].input);
    let mut kept = followed.groups.keep_all();
    let free = followed.groups.groups().iter().position(|group| group.frozen.is_none()).unwrap();
    kept[free] = vec![true, false];
    let Followed { document, facts, groups } = &followed;
    let uneven = Removal { document, facts, groups, kept: &kept }.cut().unwrap();
    let now = Facts::of(&uneven, None).unwrap();
    let n = |value: &str| now.shape(value).unwrap()[1];
    assert_eq!((n("a"), n("b") + n("c"), n("z")), (3, 3, 3));
    assert_ne!(n("b"), n("c"));
}

#[test]
fn gates_join_what_they_multiply_and_constants_lose_their_rows() {
    let nodes = vec![
        node("GlobalAveragePool", &["a"], &["mean"]),
        node("Conv", &["mean", "squeeze"], &["s"]),
        node("Conv", &["s", "expand"], &["e"]),
        node("Sigmoid", &["e"], &["gate"]),
        node("Mul", &["a", "gate"], &["m"]),
        node("Mul", &["m", "scale"], &["z"]),
    ];
    let mut graph = around(nodes, 4);
    graph.initializer.extend([
        filled("squeeze", &[2, 4, 1, 1]),
        filled("expand", &[4, 2, 1, 1]),
        filled("scale", &[4, 1, 1]),
    ]);
    let followed = Followed::new(graph);
    assert_eq!(followed.prunable(), [("a", 4), ("s", 2)]);
    let cut = followed.cut(&[0, 3]).unwrap();
    assert_eq!(floats_of(&cut, "scale"), (vec![2, 1, 1], vec![1.0, 4.0]));
    assert_eq!(floats_of(&cut, "expand").1, [1.0, 7.0]);
    assert_eq!(floats_of(&cut, "squeeze"), (vec![1, 2, 1, 1], vec![1.0, 4.0]));
}

#[test]
fn depthwise_convolutions_lose_groups_and_grouped_ones_keep_them() {
    let depthwise = with_int(node("Conv", &["a", "depthwise"], &["b"]), "group", 4);
    let grouped = with_int(node("Conv", &["b", "grouped"], &["z"]), "group", 2);
    let mut graph = around(vec![depthwise, grouped], 6);
    graph.initializer.extend([filled("depthwise", &[4, 1, 1, 1]), filled("grouped", &[6, 2, 1, 1])]);
    let followed = Followed::new(graph);
    assert_eq!(followed.prunable(), [("a", 2), ("z", 3)]);
    let cut = followed.cut(&[1]).unwrap();
    let group = |number: usize| cut.graph().node[number].attribute[0].i();
    assert_eq!((group(1), group(2)), (2, 2));
    assert_eq!(floats_of(&cut, "grouped"), (vec![2, 1, 1, 1], vec![4.0, 10.0]));
}

#[test]
fn a_shared_constant_is_copied_where_its_readers_lose_other_rows() {
    let nodes = vec![
        node("Add", &["a", "shared"], &["b"]),
        node("Conv", &["b", "between"], &["c"]),
        node("Add", &["c", "shared"], &["z"]),
    ];
    let mut graph = around(nodes, 4);
    graph.initializer.extend([filled("shared", &[4, 1, 1]), filled("between", &[4, 4, 1, 1])]);
    let followed = Followed::new(graph);
    assert_eq!(followed.prunable(), [("a", 4), ("c", 4)]);
    let Followed { document, facts, groups } = &followed;
    let mut kept = groups.keep_all();
    let by_name = |name: &str| groups.groups().iter().position(|group| group.name == name).unwrap();
    kept[by_name("a")] = vec![true, false, false, true];
    let cut = Removal { document, facts, groups, kept: &kept }.cut().unwrap();
    assert_eq!(floats_of(&cut, &cut.graph().node[1].input[1]), (vec![2, 1, 1], vec![1.0, 4.0]));
    assert_eq!(cut.graph().node[3].input[1], "shared");
    assert_eq!(floats_of(&cut, "shared").0, [4, 1, 1]);
}

#[test]
fn what_is_not_known_freezes_what_enters_it_and_says_so() {
    let strange =
        NodeProto { name: Some("odd one".into()), domain: Some("my.own".into()), ..node("Blur", &["a"], &["z"]) };
    let followed = Followed::new(around(vec![strange], 4));
    assert_eq!(followed.prunable(), []);
    let reason = &followed.groups.frozen_nodes()[0].reason;
    assert!(reason.starts_with("node 'odd one' (Blur)") && reason.contains("my.own"), "{reason}");
    let softmax = followed_reason(vec![with_int(node("Softmax", &["a"], &["z"]), "axis", 1)]);
    assert!(softmax.contains("(Softmax) mixes channels"), "{softmax}");
    let strided = with_ints(with_ints(node("Slice", &["a"], &["z"]), "starts", &[0]), "ends", &[4]);
    let sliced = with_ints(with_ints(strided, "axes", &[1]), "steps", &[2]);
    assert!(Followed::new(around(vec![sliced], 2)).groups.frozen_nodes()[0].reason.contains("in steps of 2"));
}

/// Why the first layer's channels stay.
fn followed_reason(nodes: Vec<NodeProto>) -> String {
    let followed = Followed::new(around(nodes, 4));
    let group = followed.groups.groups().iter().find(|group| group.name == "a").unwrap();
    group.frozen.clone().unwrap()
}
