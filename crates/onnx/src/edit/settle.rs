//! Sizes that are computed when the network runs, compared with what they must be.

use super::Edit;
use super::nodes::{KeptAxis, moved_bounds};
use crate::OnnxError;
use crate::facts::Facts;
use crate::names::node_name;

impl Edit<'_> {
    /// Follows shapes through the edited document. Where a size that is computed comes out otherwise than the kept
    /// channels need, it is written down instead; where that does not help, the edit is refused.
    pub(super) fn settle(&mut self) -> Result<Facts, OnnxError> {
        let removal = self.removal;
        let input = removal.facts.inputs().iter().find(|input| input.shape.len() == 4);
        let size = input.map(|input| removal.facts.rows_and_columns(input));
        let nodes = &removal.document.graph().node;
        let mut last = None;
        loop {
            let edited = removal.document.with_model(self.model.clone());
            let facts = Facts::of(&edited, size)?;
            let is_wrong = |number: &usize| {
                let known = |name: &&String| removal.facts.shape(name).is_some() && !removal.facts.is_constant(name);
                let outputs = nodes[*number].output.iter().filter(|name| !name.is_empty()).filter(known);
                outputs
                    .into_iter()
                    .any(|name| facts.shape(name) != removal.shape(name).as_deref() && self.is_tensor(name))
            };
            let Some(wrong) = (0..nodes.len()).find(is_wrong) else {
                return self.check_parameters(&facts).map(|()| facts);
            };
            let wanted = removal.shape(&nodes[wrong].output[0]);
            let refused = |why: &str| {
                let shown = |shape: Option<&[usize]>| shape.map_or("nothing".into(), |shape| format!("{shape:?}"));
                let (made, wanted) = (shown(facts.shape(&nodes[wrong].output[0])), shown(wanted.as_deref()));
                let node = node_name(wrong, &nodes[wrong]);
                OnnxError::graph(format!("cannot lose these channels: {node} makes {made} instead of {wanted}: {why}"))
            };
            if last == Some(wrong) {
                return Err(refused("its sizes cannot be written down"));
            }
            last = Some(wrong);
            self.write_sizes(wrong).map_err(|why| refused(&why))?;
        }
    }

    /// Every parameter has as many rows as the channels that it belongs to.
    fn check_parameters(&self, now: &Facts) -> Result<(), OnnxError> {
        let removal = self.removal;
        let Some(graph) = &self.model.graph else { return Ok(()) };
        for usage in removal.groups.uses() {
            let node = &removal.document.graph().node[usage.node];
            let Some(shape) = removal.facts.shape(&node.input[usage.input]) else { continue };
            let places = removal.places_of(&usage.axes);
            let wanted: Vec<usize> =
                shape.iter().zip(&places).map(|(&n, kept)| kept.as_ref().map_or(n, Vec::len)).collect();
            let name = &graph.node[usage.node].input[usage.input];
            if now.shape(name) != Some(wanted.as_slice()) {
                let node = node_name(usage.node, node);
                let problem = format!(
                    "cannot lose these channels: {node} needs {wanted:?} of '{name}', which other nodes compute"
                );
                return Err(OnnxError::graph(problem));
            }
        }
        Ok(())
    }

    /// Whether a value carries channels, and is not a number computed from shapes.
    fn is_tensor(&self, name: &str) -> bool {
        self.removal.groups.array(name).is_some()
    }

    /// Whether the shape of a value is another for images of another size.
    fn depends_on_size(&self, value: &str, rank: usize) -> Result<bool, String> {
        let removal = self.removal;
        let is_open = |input: &&crate::InputShape| input.shape.len() == 4 && input.open.iter().any(|&axis| axis > 0);
        let Some(input) = removal.facts.inputs().iter().find(is_open) else { return Ok(false) };
        let doubled = removal.facts.rows_and_columns(input).map(|n| 2 * n);
        let other = Facts::of(removal.document, Some(doubled)).map_err(|e| e.to_string())?;
        let (here, there) = (removal.facts.shape(value), other.shape(value));
        // Along the batch, the axis stays open anyway.
        Ok((1..rank).any(|axis| here.map(|shape| shape[axis]) != there.and_then(|shape| shape.get(axis).copied())))
    }

    /// Replaces computed sizes of a node by constants.
    fn write_sizes(&mut self, number: usize) -> Result<(), String> {
        let removal = self.removal;
        let node = &removal.document.graph().node[number];
        let facts = removal.facts.at(node);
        match node.op_type() {
            "Reshape" | "Expand" => {
                let shape = removal.shape(&node.output[0]).ok_or("its shape is not known")?;
                let mut values: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                if self.depends_on_size(&node.output[0], shape.len())? {
                    return Err("rows and columns are left open: export it with fixed sizes".into());
                }
                let is_open = removal.facts.inputs().iter().any(|input| input.open.contains(&0));
                if is_open && node.op_type() == "Reshape" {
                    values[0] = -1;
                }
                self.set_numbers(number, 1, &values);
            }
            "Slice" => {
                let channels = removal.channel_axis(&node.input[0]).ok_or("it does not cut channels")?;
                let kept = removal.axis(&node.input[0], channels).ok_or("it does not cut channels")?;
                let axes =
                    if facts.is_given(3) { facts.integers(3)? } else { (0..facts.shape(1)?[0] as i64).collect() };
                for input in [1, 2] {
                    let stays = KeptAxis { axis: channels, kept: &kept };
                    let values = moved_bounds(&facts.integers(input)?, &axes, facts.shape(0)?, &stays)?;
                    self.set_numbers(number, input, &values);
                }
            }
            "Split" if facts.is_given(1) => {
                let channels = removal.channel_axis(&node.input[0]).ok_or("it does not cut channels")?;
                let extent = |name: &String| removal.shape(name).map(|shape| shape[channels] as i64);
                let sizes: Option<Vec<i64>> = node.output.iter().map(extent).collect();
                self.set_numbers(number, 1, &sizes.ok_or("its parts are not known")?);
            }
            "Resize" if facts.is_given(3) => {
                let shape = removal.shape(&node.output[0]).ok_or("its shape is not known")?;
                self.set_numbers(number, 3, &shape.iter().map(|&n| n as i64).collect::<Vec<_>>());
            }
            _ => return Err("its sizes follow from other nodes".into()),
        }
        Ok(())
    }
}
