//! Ten thousand files that something happened to: each is a document or an error, never a panic.

use std::path::Path;

use prost::Message;
use secateur_onnx::schema::{AttributeProto, GraphProto, TensorProto};
use secateur_onnx::{DocumentGroups, Facts, KeptFlags, OnnxDocument, Removal, dims, floats, integers};

use crate::hand_made::{external, model, network, node, relu, tensor, value};

/// Numbers that are the same in every run.
struct Draws(u64);

impl Draws {
    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// A model with every form of storage, a graph within a graph and nodes that depend on each other.
fn seed_model() -> Vec<u8> {
    let raw = TensorProto { raw_data: Some(vec![7; 24].into()), ..tensor("raw", &[2, 3]) };
    let typed = TensorProto { float_data: vec![0.5; 6], ..tensor("typed", &[6]) };
    let apart = external(tensor("apart", &[4]), &[("location", "lost.bin"), ("offset", "8"), ("length", "16")]);
    let inner = AttributeProto { name: Some("then_branch".into()), g: Some(relu()), ..Default::default() };
    let value_of = AttributeProto { name: Some("value".into()), t: Some(typed.clone()), ..Default::default() };
    let ints = AttributeProto { name: Some("pads".into()), ints: vec![1, 1, 1, 1], ..Default::default() };
    let with = |attribute, node| secateur_onnx::schema::NodeProto { attribute: vec![attribute], ..node };
    model(GraphProto {
        node: vec![
            with(value_of, node("Constant", &[], &["c"])),
            with(ints, node("Conv", &["x", "raw"], &["a"])),
            with(inner, node("If", &["a"], &["b"])),
            node("Add", &["b", "c"], &["y"]),
        ],
        initializer: vec![raw, typed, apart],
        value_info: vec![value("a"), value("b")],
        ..relu()
    })
    .encode_to_vec()
}

fn mutate(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..=draws.below(4) {
        let (at, n) = (draws.below(bytes.len()), 1 + draws.below(16));
        let end = (at + n).min(bytes.len());
        match draws.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << draws.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0x00, 0x7f, 0x80, 0xff][draws.below(4)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = draws.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn ten_thousand_changed_files_are_documents_or_errors() {
    let (whole, mut draws) = (seed_model(), Draws(1));
    assert!(OnnxDocument::from_bytes(whole.clone().into(), Path::new(".")).is_ok());
    let mut n_documents = 0;
    for _ in 0..10_000 {
        let mut bytes = whole.clone();
        mutate(&mut bytes, &mut draws);
        let Ok(document) = OnnxDocument::from_bytes(bytes.into(), Path::new(".")) else { continue };
        n_documents += 1;
        for tensor in &document.graph().initializer {
            let n = floats(tensor, document.external()).map_or_else(
                |_| integers(tensor, document.external()).map_or(0, |values| values.len()),
                |values| values.len(),
            );
            assert!(n == 0 || dims(tensor).unwrap().1 == n);
        }
        let again = OnnxDocument::from_bytes(document.to_bytes().into(), Path::new(".")).unwrap();
        assert_eq!(again.to_bytes(), document.to_bytes());
    }
    assert!((500..9_500).contains(&n_documents), "{n_documents} of 10,000 were documents: the changes are too coarse");
}

/// Groups are derived of whatever is a document, and half of every group is taken out of it.
#[test]
fn channels_of_ten_thousand_changed_networks_are_followed_and_cut_or_refused() {
    let (whole, mut draws) = (model(network()).encode_to_vec(), Draws(2));
    let (mut n_cut, mut n_documents, mut n_networks) = (0, 0, 0);
    for _ in 0..10_000 {
        let mut bytes = whole.clone();
        mutate(&mut bytes, &mut draws);
        let Ok(document) = OnnxDocument::from_bytes(bytes.into(), Path::new(".")) else { continue };
        n_documents += 1;
        let Ok(facts) = Facts::of(&document, None) else { continue };
        let groups = DocumentGroups::of(&document, &facts);
        let kept: KeptFlags = groups
            .groups()
            .iter()
            .map(|group| (0..group.n_channels).map(|i| i % 2 == 0 || group.frozen.is_some()).collect())
            .collect();
        n_networks += usize::from(document.network(&facts).is_ok());
        let removal = Removal { document: &document, facts: &facts, groups: &groups, kept: &kept };
        if let (Ok(cut), true) = (removal.cut(), groups.groups().iter().any(|group| group.frozen.is_none())) {
            n_cut += 1;
            assert!(OnnxDocument::from_bytes(cut.to_bytes().into(), Path::new(".")).is_ok());
        }
    }
    let are_many = n_documents > 1_000 && n_cut > 500 && n_networks > 500;
    assert!(are_many, "of 10,000 files {n_documents} were documents, {n_networks} networks, {n_cut} were cut");
}
