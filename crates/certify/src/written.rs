//! A written network, taken apart: 8 bytes of length, a JSON header, tensors.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

/// What the header says, after checking that the tensors fill the rest of the file exactly.
pub(super) struct WrittenNetwork {
    /// The graph: `{"input": {…}, "nodes": […]}`, and perhaps `"tail": {"macs": …, "params": …}`.
    pub(super) graph: Value,
    /// Number of outputs.
    pub(super) n_classes: u64,
    /// Shape of every tensor by name.
    pub(super) tensors: BTreeMap<String, Vec<u64>>,
}

impl WrittenNetwork {
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (header, n_data) = split(bytes)?;
        let Value::Object(mut header) = serde_json::from_slice(header).context("header")? else {
            bail!("the header is no JSON object");
        };
        let metadata = header.remove("__metadata__").context("the header has no __metadata__")?;
        let text = |key: &str| {
            let value = metadata.get(key).and_then(Value::as_str);
            value.with_context(|| format!("the metadata have no text '{key}'"))
        };
        let version = text("secateur.format")?;
        ensure!(version == "1", "secateur.format: expected 1, got '{version}'");
        Ok(Self {
            graph: serde_json::from_str(text("secateur.graph")?).context("secateur.graph")?,
            n_classes: text("secateur.classes")?.parse().context("secateur.classes")?,
            tensors: tensors(&header, n_data)?,
        })
    }

    /// What the graph says that a part of the network costs that follows it.
    pub(super) fn tail(&self, cost: &str) -> anyhow::Result<u64> {
        match self.graph.get("tail") {
            Some(tail) => tail.get(cost).and_then(Value::as_u64).with_context(|| format!("its tail has no '{cost}'")),
            None => Ok(0),
        }
    }
}

/// The header and the number of bytes behind it.
fn split(bytes: &[u8]) -> anyhow::Result<(&[u8], u64)> {
    let (length, rest) = bytes.split_first_chunk().context("truncated: no header length")?;
    let length = u64::from_le_bytes(*length);
    let n_left = rest.len() as u64;
    ensure!(length <= n_left, "truncated: the header has {length} bytes, {n_left} are left");
    let (header, data) = rest.split_at(length as usize);
    Ok((header, data.len() as u64))
}

fn tensors(header: &Map<String, Value>, n_data: u64) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
    let mut shapes = BTreeMap::new();
    let mut ranges = Vec::new();
    for (name, entry) in header {
        let (shape, range) = tensor(entry).with_context(|| format!("tensor '{name}'"))?;
        shapes.insert(name.clone(), shape);
        ranges.push(range);
    }
    ranges.sort_unstable();
    let mut end = 0;
    for [from, to] in ranges {
        ensure!(
            from == end,
            "the tensors do not follow one another: one ends at byte {end}, the next starts at {from}"
        );
        end = to;
    }
    ensure!(end == n_data, "expected {end} bytes of tensors, got {n_data}");
    Ok(shapes)
}

/// Shape and byte range of one entry.
fn tensor(entry: &Value) -> anyhow::Result<(Vec<u64>, [u64; 2])> {
    let dtype = entry.get("dtype").and_then(Value::as_str).unwrap_or("nothing");
    ensure!(dtype == "F32", "expected F32, got {dtype}");
    let shape = numbers(entry, "shape")?;
    let offsets = numbers(entry, "data_offsets")?;
    let &[from, to] = offsets.as_slice() else { bail!("expected two data_offsets, got {}", offsets.len()) };
    let n_bytes = shape.iter().try_fold(4u64, |n, &d| n.checked_mul(d)).context("its size does not fit in 64 bits")?;
    ensure!(
        to.checked_sub(from) == Some(n_bytes),
        "shape {shape:?} takes {n_bytes} bytes, the file has bytes {from} to {to}"
    );
    Ok((shape, [from, to]))
}

fn numbers(entry: &Value, key: &str) -> anyhow::Result<Vec<u64>> {
    let list = entry.get(key).and_then(Value::as_array).with_context(|| format!("it has no list '{key}'"))?;
    list.iter().map(|n| n.as_u64().with_context(|| format!("{key}: {n} is no count"))).collect()
}
