//! The walk over the graph: output shape and counts of every operation, from the JSON and the tensors in the file.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::CertifiedOperation;
use crate::written::WrittenNetwork;

type Shape = [u64; 3];

/// One operation with what the count of memory needs.
pub(super) struct Operation {
    pub(super) certified: CertifiedOperation,
    /// Operations whose outputs it reads, all earlier.
    pub(super) inputs: Vec<usize>,
    /// Whether it may overwrite its input.
    pub(super) in_place: bool,
}

/// Every operation in order; every tensor of the file belongs to exactly one.
pub(super) fn walk(written: &WrittenNetwork) -> anyhow::Result<Vec<Operation>> {
    let nodes = written.graph.get("nodes").and_then(Value::as_array).context("the graph has no list 'nodes'")?;
    let image = OperationAttributes { body: written.graph.get("input").unwrap_or(&Value::Null) };
    let image = [image.number("c")?, image.number("h")?, image.number("w")?];
    let mut operations: Vec<Operation> = Vec::with_capacity(nodes.len());
    let mut unclaimed: BTreeSet<&str> = written.tensors.keys().map(String::as_str).collect();
    for node in nodes {
        let name = node.get("name").and_then(Value::as_str).context("an operation has no name")?;
        let operation = step(written, &operations, node, name, image, &mut unclaimed);
        operations.push(operation.with_context(|| format!("operation '{name}'"))?);
    }
    ensure!(!operations.is_empty(), "the graph has no operation");
    if let Some(name) = unclaimed.first() {
        bail!("tensor '{name}' belongs to no operation");
    }
    Ok(operations)
}

fn step<'a>(
    written: &'a WrittenNetwork,
    earlier: &[Operation],
    node: &Value,
    name: &str,
    image: Shape,
    unclaimed: &mut BTreeSet<&'a str>,
) -> anyhow::Result<Operation> {
    let inputs = inputs(node, earlier.len())?;
    let shapes: Vec<Shape> = inputs.iter().map(|&input| earlier[input].certified.output).collect();
    let (op, attributes) = op_and_attributes(node)?;
    let Effect { output, tensors, uses } = effect(op, attributes, &shapes, image)?;
    ensure!((op == "Input") == earlier.is_empty(), "the input must be the first operation and no other");
    let (mut weight, mut params) = (0u64, 0u64);
    for (parameter, expected) in tensors {
        let full = format!("{name}.{parameter}");
        let (key, got) = written.tensors.get_key_value(&full).with_context(|| format!("tensor '{full}' is missing"))?;
        ensure!(*got == expected, "tensor '{full}': the graph calls for shape {expected:?}, the file has {got:?}");
        ensure!(unclaimed.remove(key.as_str()), "tensor '{full}' already belongs to another operation");
        // The file's reader has checked that four times this product fits.
        let n_elements: u64 = got.iter().product();
        if parameter == "weight" {
            weight = n_elements;
        }
        if !parameter.starts_with("running_") {
            params += n_elements;
        }
    }
    let macs = match uses {
        Uses::NotCounted => 0,
        Uses::Times(times) => {
            times.iter().try_fold(weight, |n, &factor| n.checked_mul(factor)).context("too many MACs")?
        }
    };
    let in_place = matches!(op, "BatchNorm" | "PRelu" | "Pointwise" | "Identity");
    let certified = CertifiedOperation { name: name.to_owned(), op: op.to_owned(), output, macs, params };
    Ok(Operation { certified, inputs, in_place })
}

fn inputs(node: &Value, n_earlier: usize) -> anyhow::Result<Vec<usize>> {
    let list = node.get("inputs").and_then(Value::as_array).context("it has no list 'inputs'")?;
    let index = |value: &Value| {
        let index = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n < n_earlier);
        index.with_context(|| format!("it reads {value}, which does not come before it"))
    };
    list.iter().map(index).collect()
}

/// `"Add"` or `{"Conv2d": {…}}`.
fn op_and_attributes(node: &Value) -> anyhow::Result<(&str, OperationAttributes<'_>)> {
    match node.get("op") {
        Some(Value::String(op)) => Ok((op, OperationAttributes { body: &Value::Null })),
        Some(Value::Object(map)) if map.len() == 1 => {
            let (op, body) = map.iter().next().context("an empty operation")?;
            Ok((op, OperationAttributes { body }))
        }
        _ => bail!("it has no operation"),
    }
}

/// How often every weight of an operation is multiplied.
enum Uses {
    /// That is no multiply-accumulate.
    NotCounted,
    /// As often as this product.
    Times(Shape),
}

/// What one operation does to shapes, and which tensors it needs.
struct Effect {
    output: Shape,
    tensors: Vec<(&'static str, Vec<u64>)>,
    /// How often every weight is multiplied.
    uses: Uses,
}

impl Effect {
    fn shape(output: Shape) -> Self {
        Self { output, tensors: Vec::new(), uses: Uses::NotCounted }
    }
}

fn effect(op: &str, attributes: OperationAttributes, inputs: &[Shape], image: Shape) -> anyhow::Result<Effect> {
    if op == "Input" {
        ensure!(inputs.is_empty(), "the input reads nothing");
        return Ok(Effect::shape(image));
    }
    let &x = inputs.first().context("it reads nothing")?;
    if !matches!(op, "Add" | "Mul" | "Max" | "Min" | "Concat") {
        ensure!(inputs.len() == 1, "expected one input, got {}", inputs.len());
    }
    let [c, h, w] = x;
    match op {
        "Conv2d" => conv2d(attributes, x),
        "Linear" => linear(attributes, x),
        "BatchNorm" => {
            let channels = attributes.number("channels")?;
            ensure!(channels == c, "it normalises {channels} channels, its input has {c}");
            let tensors = ["weight", "bias", "running_mean", "running_var"].map(|name| (name, vec![c])).to_vec();
            Ok(Effect { output: x, tensors, uses: Uses::NotCounted })
        }
        "PRelu" => {
            let channels = attributes.number("channels")?;
            ensure!(channels == c, "it has slopes of {channels} channels, its input has {c}");
            Ok(Effect { output: x, tensors: vec![("weight", vec![c])], uses: Uses::NotCounted })
        }
        "Pointwise" | "Identity" | "Softmax" => Ok(Effect::shape(x)),
        "Add" | "Mul" | "Max" | "Min" => Ok(Effect::shape(broadcast(inputs)?)),
        "Concat" => {
            ensure!(inputs.iter().all(|other| other[1..] == x[1..]), "it concatenates unlike sizes {inputs:?}");
            Ok(Effect::shape([sum(inputs.iter().map(|shape| shape[0]))?, h, w]))
        }
        "MaxPool" | "AvgPool" => Ok(Effect::shape(attributes.pool(x)?)),
        "GlobalAvgPool" | "GlobalMaxPool" => Ok(Effect::shape([c, 1, 1])),
        "Flatten" | "FlattenPixels" => {
            let n = c.checked_mul(h).and_then(|n| n.checked_mul(w)).context("too many values")?;
            Ok(Effect::shape([n, 1, 1]))
        }
        "Pad" => {
            let grown = |size: u64, key: &str| sum([size].into_iter().chain(attributes.pair(key)?));
            Ok(Effect::shape([grown(c, "channels")?, grown(h, "rows")?, grown(w, "cols")?]))
        }
        "Slice" => {
            let ([from, to], [rows, cols]) = (attributes.pair("channels")?, attributes.pair("step")?);
            ensure!(from < to && to <= c && rows > 0 && cols > 0, "it takes channels {from} to {to} of {c}");
            Ok(Effect::shape([to - from, h.div_ceil(rows), w.div_ceil(cols)]))
        }
        "ChannelShuffle" => {
            let groups = attributes.number("groups")?;
            ensure!(groups > 0 && c.is_multiple_of(groups), "{groups} groups do not divide its {c} channels");
            Ok(Effect::shape(x))
        }
        "DepthToSpace" => {
            attributes.flag("columns_rows_depth")?;
            let block = attributes.number("block")?;
            let area = block.checked_mul(block).filter(|&area| area > 0 && c.is_multiple_of(area));
            let sizes = area.and_then(|area| Some([c / area, h.checked_mul(block)?, w.checked_mul(block)?]));
            Ok(Effect::shape(sizes.with_context(|| format!("blocks of {block}x{block} do not fit its input {x:?}"))?))
        }
        "Resize" => Ok(Effect::shape([c, attributes.taps("rows", h)?, attributes.taps("cols", w)?])),
        "LayerNorm" | "GroupNorm" => {
            let channels = attributes.number("channels")?;
            ensure!(channels == c, "it normalises {channels} channels, its input has {c}");
            if op == "GroupNorm" {
                attributes.part(c, "groups")?;
            }
            let tensors = ["weight", "bias"].map(|name| (name, vec![c])).to_vec();
            Ok(Effect { output: x, tensors, uses: Uses::NotCounted })
        }
        "ConvTranspose2d" => transposed(attributes, x),
        "ChannelConv" => {
            let taps = attributes.number("taps")?;
            ensure!(attributes.number("front")? < taps, "it has as many channels in front as it has taps, {taps}");
            let mut tensors = vec![("weight", vec![taps])];
            if attributes.flag("bias")? {
                tensors.push(("bias", vec![1]));
            }
            Ok(Effect { output: x, tensors, uses: Uses::Times([c, h, w]) })
        }
        "LocalResponseNorm" => {
            ensure!(attributes.number("size")? > 0, "it sums over no channels");
            Ok(Effect::shape(x))
        }
        "ChannelMean" | "ChannelMax" => Ok(Effect::shape([1, h, w])),
        "BranchSum" => Ok(Effect::shape([attributes.part(c, "branches")?, h, w])),
        "BranchSoftmax" => attributes.part(c, "branches").map(|_| Effect::shape(x)),
        _ => bail!("unknown operation {op}"),
    }
}

fn conv2d(attributes: OperationAttributes, x: Shape) -> anyhow::Result<Effect> {
    let (read, made, groups) =
        (attributes.number("in_channels")?, attributes.number("out_channels")?, attributes.number("groups")?);
    ensure!(read == x[0], "it reads {read} channels, its input has {}", x[0]);
    let fits = groups > 0 && read.is_multiple_of(groups) && made.is_multiple_of(groups);
    ensure!(fits, "{groups} groups do not divide {read} and {made} channels");
    let [rows, cols] = attributes.pair("kernel")?;
    let mut tensors = vec![("weight", vec![made, read / groups, rows, cols])];
    if attributes.flag("bias")? {
        tensors.push(("bias", vec![made]));
    }
    let output = attributes.slide(made, x, attributes.pair("dilation")?)?;
    Ok(Effect { output, tensors, uses: Uses::Times([1, output[1], output[2]]) })
}

/// Every weight is used once per input pixel.
fn transposed(attributes: OperationAttributes, x: Shape) -> anyhow::Result<Effect> {
    let (read, made, groups) =
        (attributes.number("in_channels")?, attributes.number("out_channels")?, attributes.number("groups")?);
    ensure!(read == x[0], "it reads {read} channels, its input has {}", x[0]);
    let fits = groups > 0 && read.is_multiple_of(groups) && made.is_multiple_of(groups);
    ensure!(fits, "{groups} groups do not divide {read} and {made} channels");
    let [kernel, stride, dilation, extra] =
        ["kernel", "stride", "dilation", "output_padding"].map(|key| attributes.pair(key));
    let (kernel, stride, dilation, extra, cut) = (kernel?, stride?, dilation?, extra?, attributes.sides("padding")?);
    let along = |axis: usize| {
        let last = x[axis + 1].checked_sub(1)?.checked_mul(stride[axis])?;
        let reach = kernel[axis].checked_sub(1)?.checked_mul(dilation[axis])?;
        let whole = last.checked_add(reach)?.checked_add(1)?.checked_add(extra[axis])?;
        whole.checked_sub(cut[axis][0])?.checked_sub(cut[axis][1]).filter(|&n| n > 0)
    };
    let size = |axis: usize| along(axis).with_context(|| format!("its padding leaves nothing of {x:?}"));
    let mut tensors = vec![("weight", vec![read, made / groups, kernel[0], kernel[1]])];
    if attributes.flag("bias")? {
        tensors.push(("bias", vec![made]));
    }
    Ok(Effect { output: [made, size(0)?, size(1)?], tensors, uses: Uses::Times([1, x[1], x[2]]) })
}

fn linear(attributes: OperationAttributes, x: Shape) -> anyhow::Result<Effect> {
    let (read, made) = (attributes.number("in_features")?, attributes.number("out_features")?);
    ensure!(x == [read, 1, 1], "it reads {read} features, its input is {x:?}");
    let mut tensors = vec![("weight", vec![made, read])];
    if attributes.flag("bias")? {
        tensors.push(("bias", vec![made]));
    }
    Ok(Effect { output: [made, 1, 1], tensors, uses: Uses::Times([1; 3]) })
}

/// The shape of the largest operand; others have one channel, row or column for all of it, or as many.
fn broadcast(operands: &[Shape]) -> anyhow::Result<Shape> {
    let by_size = |shape: &&Shape| (shape[0], shape[1], shape[2]);
    let largest = *operands.iter().max_by_key(by_size).context("it reads nothing")?;
    let fits = |shape: &Shape| shape.iter().zip(&largest).all(|(&n, &of)| n == of || n == 1);
    ensure!(operands.len() >= 2 && operands.iter().all(fits), "its operands are of unlike shapes {operands:?}");
    Ok(largest)
}

fn sum(mut terms: impl Iterator<Item = u64>) -> anyhow::Result<u64> {
    terms.try_fold(0u64, u64::checked_add).context("a size does not fit in 64 bits")
}

/// The attributes of an operation.
#[derive(Clone, Copy)]
struct OperationAttributes<'a> {
    body: &'a Value,
}

impl OperationAttributes<'_> {
    fn number(self, key: &str) -> anyhow::Result<u64> {
        self.body.get(key).and_then(Value::as_u64).with_context(|| format!("it has no count '{key}'"))
    }
    /// How many of the `c` channels each of the parts has that `key` counts.
    fn part(self, c: u64, key: &str) -> anyhow::Result<u64> {
        let n = self.number(key)?;
        ensure!(n > 0 && c.is_multiple_of(n), "{n} {key} do not divide its {c} channels");
        Ok(c / n)
    }
    /// How many rows (columns) are made of those that there are, `n`.
    fn taps(self, key: &str, n: u64) -> anyhow::Result<u64> {
        let list = self.body.get(key).and_then(Value::as_array).with_context(|| format!("it has no list '{key}'"))?;
        let reads = |tap: &Value| match tap.as_array().map(Vec::as_slice) {
            Some([a, b, share]) => Some([a.as_u64()?, b.as_u64()?]).filter(|_| share.is_number()),
            Some(_) => None,
            None => tap.as_u64().map(|a| [a; 2]),
        };
        let inside = |tap: &Value| reads(tap).is_some_and(|rows| rows.iter().all(|&row| row < n));
        ensure!(!list.is_empty() && list.iter().all(inside), "'{key}' reads what its input, of {n}, does not have");
        Ok(list.len() as u64)
    }
    fn flag(self, key: &str) -> anyhow::Result<bool> {
        self.body.get(key).and_then(Value::as_bool).with_context(|| format!("it does not say '{key}'"))
    }
    fn pair(self, key: &str) -> anyhow::Result<[u64; 2]> {
        let list = self.body.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match list {
            [a, b] => Some([a, b]).and_then(|[a, b]| Some([a.as_u64()?, b.as_u64()?])),
            _ => None,
        }
        .with_context(|| format!("it has no two counts '{key}'"))
    }
    /// Output shape of a pool over `x`. A window counts where a stride further back one ends within the padded rows
    /// (`ceil`) or it does itself, and where it begins before the padding behind the image.
    fn pool(self, x: Shape) -> anyhow::Result<Shape> {
        let (kernel, stride, padding) = (self.pair("kernel")?, self.pair("stride")?, self.sides("padding")?);
        let ceil = self.body.get("ceil").is_some() && self.flag("ceil")?;
        let places = |i: usize| {
            ensure!(padding[i].iter().all(|&p| p < kernel[i]), "its padding is not less than its kernel");
            let image_end = sum([padding[i][0], x[i + 1]].into_iter())?;
            let spare = if ceil { stride[i].checked_sub(1).context("its stride is 0")? } else { 0 };
            let padded = sum([image_end, padding[i][1], spare].into_iter())?;
            let room = padded.checked_sub(kernel[i]).with_context(|| format!("its window does not fit {x:?}"))?;
            let last = room.checked_div(stride[i]).context("its stride is 0")?;
            // What `last` is of the stride is at most `room`.
            Ok(if last * stride[i] < image_end { last + 1 } else { last })
        };
        Ok([x[0], places(0)?, places(1)?])
    }
    /// Two pairs; two numbers stand for pairs of the same.
    fn sides(self, key: &str) -> anyhow::Result<[[u64; 2]; 2]> {
        if let Ok([a, b]) = self.pair(key) {
            return Ok([[a; 2], [b; 2]]);
        }
        let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([a, b]) => Some([a.as_u64()?, b.as_u64()?]),
            _ => None,
        };
        match self.body.get(key).and_then(Value::as_array).map(Vec::as_slice) {
            Some([rows, cols]) => pair(rows).zip(pair(cols)).map(|(rows, cols)| [rows, cols]),
            _ => None,
        }
        .with_context(|| format!("it has no counts of two or four sides '{key}'"))
    }
    /// Output shape of `channels` made by windows over `x`: as many as start where the whole window, spread out by
    /// `dilation`, still lies on the padded rows (columns).
    fn slide(self, channels: u64, x: Shape, dilation: [u64; 2]) -> anyhow::Result<Shape> {
        let (kernel, stride, padding) = (self.pair("kernel")?, self.pair("stride")?, self.pair("padding")?);
        let places = |i: usize| {
            let padded = padding[i].checked_mul(2)?.checked_add(x[i + 1])?;
            let window = kernel[i].checked_sub(1)?.checked_mul(dilation[i])?.checked_add(1)?;
            let last_start = padded.checked_sub(window)?;
            Some(last_start.checked_div(stride[i])? + 1)
        };
        let out = |i| places(i).with_context(|| format!("its window does not fit an input of {x:?}"));
        Ok([channels, out(0)?, out(1)?])
    }
}
