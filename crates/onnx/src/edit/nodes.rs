//! Numbers of nodes that count channels.

use super::Edit;
use crate::OnnxError;
use crate::facts::{axis_of, pads};
use crate::names::node_name;
use crate::schema::AttributeProto;
use crate::schema::attribute_proto::AttributeType;

/// The places of an axis that stay.
pub struct KeptAxis<'a> {
    pub axis: usize,
    pub kept: &'a [usize],
}

/// Starts or ends of a Slice, for the places that stay: what reaches past the end still does.
pub fn moved_bounds(bounds: &[i64], axes: &[i64], shape: &[usize], stays: &KeptAxis<'_>) -> Result<Vec<i64>, String> {
    let n = shape[stays.axis] as i64;
    let place = |v: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(0, n) as usize;
    let mut out = bounds.to_vec();
    for (bound, &axis) in out.iter_mut().zip(axes) {
        if axis_of(axis, shape.len())? == stays.axis && *bound < n {
            *bound = stays.kept.partition_point(|&at| at < place(*bound)) as i64;
        }
    }
    Ok(out)
}

impl Edit<'_> {
    /// All nodes through which channels pass.
    pub(super) fn nodes(&mut self) -> Result<(), OnnxError> {
        let document = self.removal.document;
        for (number, node) in document.graph().node.iter().enumerate() {
            let passes =
                |name: &String| self.removal.channel_axis(name).is_some_and(|a| self.removal.axis(name, a).is_some());
            if !node.is_standard() || !node.input.iter().chain(&node.output).any(passes) {
                continue;
            }
            let edited = match node.op_type() {
                "Conv" | "ConvTranspose" => self.group(number),
                "Reshape" | "Expand" => self.output_shape(number),
                "Split" => self.split(number),
                "Slice" => self.slice(number),
                "Pad" => self.pad(number),
                "Resize" | "Upsample" => self.sizes(number),
                "Gather" => self.gather(number),
                _ => Ok(()),
            };
            edited.map_err(|problem| {
                OnnxError::graph(format!("cannot lose channels: {} {problem}", node_name(number, node)))
            })?;
        }
        Ok(())
    }

    /// A depthwise convolution has as many groups as channels.
    fn group(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let n_in = removal.facts.at(node).shape(0)?[1];
        let groups = node.int("group", 1);
        if groups > 1 && usize::try_from(groups) == Ok(n_in) {
            let n = removal.axis(&node.input[0], 1).map_or(n_in, |kept| kept.len());
            if let Some(group) = self.graph().node[number].attribute_mut("group") {
                group.i = Some(n as i64);
            }
        }
        Ok(())
    }

    fn output_shape(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let output = &removal.document.graph().node[number].output[0];
        let (Some(old), Some(new)) = (removal.facts.shape(output), removal.shape(output)) else { return Ok(()) };
        self.shape_input(number, old, &new);
        Ok(())
    }

    /// A shape that is written down in a constant: only numbers that change do.
    pub(super) fn shape_input(&mut self, number: usize, old: &[usize], new: &[usize]) {
        let node = &self.removal.document.graph().node[number];
        let Some(name) = node.input.get(1) else { return };
        if !self.places.contains_key(name) {
            return;
        }
        let Ok(written) = self.removal.facts.at(node).integers(1) else { return };
        let lead = old.len().saturating_sub(written.len());
        let change = |axis: usize| {
            let (extent, at) = (written[axis], axis + lead);
            if extent > 0 && extent == old[at] as i64 { new[at] as i64 } else { extent }
        };
        let values: Vec<i64> = (0..written.len()).map(change).collect();
        if values != written {
            self.set_numbers(number, 1, &values);
        }
    }

    fn split(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        let axis = axis_of(node.int("axis", 0), facts.shape(0)?.len())?;
        if removal.channel_axis(&node.input[0]) != Some(axis) {
            return Ok(());
        }
        let extent = |name: &String| removal.shape(name).map(|shape| shape[axis] as i64);
        let sizes: Vec<i64> =
            node.output.iter().map(extent).collect::<Option<_>>().ok_or("has parts of unknown size")?;
        if let Some(split) = self.graph().node[number].attribute_mut("split") {
            split.ints = sizes;
        } else if facts.is_given(1) {
            self.set_numbers(number, 1, &sizes);
        } else if sizes.iter().any(|&size| size != sizes[0]) {
            // Parts that were equal no longer are: their sizes must be written down.
            if removal.facts.opset() < 13 {
                let split = AttributeProto {
                    name: Some("split".into()),
                    r#type: Some(AttributeType::Ints.into()),
                    ints: sizes,
                    ..AttributeProto::default()
                };
                self.graph().node[number].attribute.push(split);
            } else {
                self.graph().node[number].attribute.retain(|attribute| attribute.name() != "num_outputs");
                self.set_numbers(number, 1, &sizes);
            }
        }
        Ok(())
    }

    fn slice(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        let shape = facts.shape(0)?;
        let Some(channels) = removal.channel_axis(&node.input[0]) else { return Ok(()) };
        let Some(kept) = removal.axis(&node.input[0], channels) else { return Ok(()) };
        let list = |i: usize, name: &str| node.ints(name).map_or_else(|| facts.integers(i), |ints| Ok(ints.to_vec()));
        let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
        let all: Vec<i64> = (0..starts.len() as i64).collect();
        let axes = if node.ints("axes").is_some() || facts.is_given(3) { list(3, "axes")? } else { all };
        let moved = |bounds: &[i64]| moved_bounds(bounds, &axes, shape, &KeptAxis { axis: channels, kept: &kept });
        for (i, name, old, new) in [(1, "starts", &starts, moved(&starts)?), (2, "ends", &ends, moved(&ends)?)] {
            if *old == new {
                continue;
            }
            if let Some(attribute) = self.graph().node[number].attribute_mut(name) {
                attribute.ints = new;
            } else if self.places.contains_key(&node.input[i]) {
                self.set_numbers(number, i, &new);
            }
        }
        Ok(())
    }

    fn pad(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        let Some(channels) = removal.channel_axis(&node.output[0]) else { return Ok(()) };
        let [front, _] = pads(&facts)?[channels];
        let (Some(kept), false) = (removal.axis(&node.output[0], channels), facts.is_given(3)) else { return Ok(()) };
        let new_front = kept.partition_point(|&at| (at as i64) < front);
        let n_in = removal.shape(&node.input[0]).ok_or("reads an unknown shape")?[channels];
        let rank = facts.shape(0)?.len();
        let mut written = node.ints("pads").map_or_else(|| facts.integers(1), |ints| Ok(ints.to_vec()))?;
        written[channels] = new_front as i64;
        written[channels + rank] = (kept.len() - new_front - n_in) as i64;
        match self.graph().node[number].attribute_mut("pads") {
            Some(attribute) => attribute.ints = written,
            None => self.set_numbers(number, 1, &written),
        }
        Ok(())
    }

    fn sizes(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        let is_written = facts.is_given(3) && self.places.contains_key(&node.input[3]) && node.ints("axes").is_none();
        if !is_written || facts.shape(3)?.first() == Some(&0) {
            return Ok(());
        }
        let shape = removal.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let old = facts.integers(3)?;
        let channels = removal.channel_axis(&node.output[0]);
        let change = |axis: usize| if channels == Some(axis) { shape[axis] as i64 } else { old[axis] };
        let new: Vec<i64> = (0..old.len()).map(change).collect();
        if new != old {
            self.set_numbers(number, 3, &new);
        }
        Ok(())
    }

    fn gather(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        let shape = facts.shape(0)?;
        let axis = axis_of(node.int("axis", 0), shape.len())?;
        let Some(kept) = removal.axis(&node.input[0], axis) else { return Ok(()) };
        let indices = facts.integers(1)?;
        if facts.shape(1)?.len() != 1 {
            return Err("chooses channels by a table: export it otherwise".into());
        }
        let n = shape[axis] as i64;
        let place = |i: i64| kept.binary_search(&((if i < 0 { i + n } else { i }) as usize)).ok();
        let new: Vec<i64> = indices.iter().filter_map(|&i| place(i)).map(|i| i as i64).collect();
        if new != indices {
            self.set_numbers(number, 1, &new);
        }
        Ok(())
    }
}
