//! `inspect`: channel groups, counts, and what budgets can be reached.

use anyhow::Context;
use secateur_net::{ChannelGroups, Cost, CostModel, Graph, Protocol};
use serde::Serialize;

use secateur_run::{LoadedNetwork, MemoryBound, Roots, full_costs, is_onnx, least_widths};
use secateur_sim::WidthRules;

use crate::Failure;
use crate::arguments::InspectArgs;
use crate::curves::show_curves;
use crate::eval::requested_network;
use crate::inspect_onnx::DocumentReport;
use crate::screen::show;
use crate::table::Table;

const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];
/// The widths that hardware commonly asks for.
const MULTIPLES: [usize; 3] = [1, 4, 8];
/// A scene's default.
const KEEP_RATIO_MIN: f64 = 0.1;

pub(crate) fn inspect(arguments: &InspectArgs) -> Result<(), Failure> {
    if let (true, Some(source)) = (arguments.curves, &arguments.dataset) {
        return show_curves(arguments, source);
    }
    let path = &arguments.network.network;
    if is_onnx(path) {
        let roots = Roots::new(None, arguments.network.model_root.clone(), Default::default());
        let path = roots.find_network(path).map_err(Failure::BadArguments)?;
        let report = DocumentReport::new(&path, arguments.network.size)
            .with_context(|| format!("reading '{}'", path.display()))
            .map_err(Failure::BadArguments)?;
        return show(&report, arguments.json, DocumentReport::to_text);
    }
    let network = requested_network(&arguments.network)?;
    let fits = MemoryBound::new(arguments.memory.memory, 1).check_groups(&network.original);
    fits.with_context(|| format!("network '{}'", network.name)).map_err(Failure::BadArguments)?;
    let report = NetworkReport::new(&network, arguments.protocol);
    show(&report, arguments.json, NetworkReport::to_text)
}

#[derive(Serialize)]
struct NetworkReport {
    name: String,
    file: String,
    assumptions: Vec<String>,
    input: [usize; 3],
    classes: usize,
    protocol: &'static str,
    groups: Vec<Group>,
    totals: NetworkCosts,
    reachable: Vec<ReachableRow>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    channels: usize,
    producers: Vec<String>,
    consumers: Vec<String>,
    /// MACs of every convolution and Linear operation that makes, carries or reads the group ÷ all MACs.
    macs_share: f64,
    frozen: Option<String>,
}

#[derive(Serialize)]
struct NetworkCosts {
    macs: u64,
    params: u64,
    activation_bytes: u64,
}

#[derive(Serialize)]
struct ReachableRow {
    protocol: &'static str,
    channel_multiple: usize,
    cost: &'static str,
    minimum: u64,
    ratio: f64,
}

impl NetworkReport {
    fn new(network: &LoadedNetwork, protocol: Protocol) -> Self {
        let input = network.original.graph().input();
        let graph = network.folded.graph();
        let [macs, params, activation_bytes] = full_costs(&network.original, COSTS);
        let totals = NetworkCosts { macs, params, activation_bytes };
        let of = |protocol| Structure::new(graph, protocol);
        let [inner, full] = [of(Protocol::Inner), of(Protocol::Full)];
        let shown = if protocol == Protocol::Inner { &inner } else { &full };
        Self {
            name: network.name.clone(),
            file: network.path.display().to_string(),
            assumptions: network.assumptions.clone(),
            input: [input.c, input.h, input.w],
            classes: network.original.graph().n_classes(),
            protocol: protocol.name(),
            groups: groups(graph, shown),
            reachable: [&inner, &full].into_iter().flat_map(|structure| structure.reachable(&totals)).collect(),
            totals,
        }
    }

    fn to_text(&self) -> String {
        let [c, h, w] = self.input;
        let mut lines = vec![format!("{} ('{}'): {c}x{h}x{w} -> {} classes", self.name, self.file, self.classes)];
        lines.extend(self.assumptions.iter().map(|assumption| format!("  {assumption}")));
        let (prunable, frozen): (Vec<&Group>, Vec<&Group>) = self.groups.iter().partition(|g| g.frozen.is_none());
        lines.push(format!("\n{} groups may be pruned (protocol {}):", prunable.len(), self.protocol));
        let mut table = Table::new(&["group", ">channels", ">MACs", "made by", "read by"]);
        for group in prunable {
            table.row(group.cells());
        }
        lines.push(table.to_string());
        lines.push(format!("\n{} groups stay whole:", frozen.len()));
        let mut table = Table::new(&["group", ">channels", "reason"]);
        for group in frozen {
            let reason = group.frozen.clone().unwrap_or_default();
            table.row([group.name.clone(), group.channels.to_string(), reason]);
        }
        lines.push(table.to_string());
        let NetworkCosts { macs, params, activation_bytes } = self.totals;
        lines.push(format!(
            "\ntotal: {macs} MACs, {params} parameters, {activation_bytes} bytes of activations at most"
        ));
        lines.push(format!(
            "\nleast that can be reached (keep_ratio_min {KEEP_RATIO_MIN}), absolute and as share of the total:"
        ));
        let mut table = Table::new(&["protocol", ">channel_multiple", "budget", ">minimum", ">ratio"]);
        for row in &self.reachable {
            let ratio = format!("{:.4}", row.ratio);
            let (multiple, minimum) = (row.channel_multiple.to_string(), row.minimum.to_string());
            table.row([row.protocol.to_owned(), multiple, row.cost.to_owned(), minimum, ratio]);
        }
        lines.push(table.to_string());
        lines.join("\n")
    }
}

impl Group {
    fn cells(&self) -> [String; 5] {
        let share = format!("{:.1} %", 100.0 * self.macs_share);
        let (made, read) = (shortened(&self.producers), shortened(&self.consumers));
        [self.name.clone(), self.channels.to_string(), share, made, read]
    }
}

/// At most four names.
pub(crate) fn shortened(names: &[String]) -> String {
    match names {
        [first, second, third, _, _, ..] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}

/// The groups of a graph under one protocol and what they cost.
struct Structure {
    protocol: Protocol,
    groups: ChannelGroups,
    model: CostModel,
}

impl Structure {
    fn new(graph: &Graph, protocol: Protocol) -> Self {
        let groups = ChannelGroups::derive(graph, protocol);
        let model = CostModel::new(graph, &groups);
        Self { protocol, groups, model }
    }

    /// MACs of every convolution and Linear operation that makes, carries or reads a group, by group.
    fn touched_macs(&self, graph: &Graph) -> Vec<u64> {
        let full = self.groups.full_widths();
        let mut macs = vec![0; full.len()];
        // The last node that was counted for each group: an axis may name a group at any number of positions.
        let mut counted = vec![usize::MAX; full.len()];
        for (id, node) in graph.nodes().iter().enumerate() {
            let of_node = self.model.node_macs(id, &full);
            if of_node == 0 {
                continue;
            }
            for slot in node.inputs.iter().chain([&id]).flat_map(|&node| self.groups.axis(node)) {
                if std::mem::replace(&mut counted[slot.group], id) != id {
                    macs[slot.group] += of_node;
                }
            }
        }
        macs
    }

    fn reachable(&self, totals: &NetworkCosts) -> Vec<ReachableRow> {
        let mut rows = Vec::new();
        for channel_multiple in MULTIPLES {
            let rules = WidthRules::new(channel_multiple, KEEP_RATIO_MIN);
            let least = least_widths(&self.groups, &rules).expect("without a range every group has a width");
            for (cost, total) in COSTS.into_iter().zip([totals.macs, totals.params, totals.activation_bytes]) {
                // A refit may write a bias where the network has none; unpruned, it needs none.
                let minimum = self.model.count(cost, &least).min(total);
                rows.push(ReachableRow {
                    protocol: self.protocol.name(),
                    channel_multiple,
                    cost: cost.name(),
                    minimum,
                    ratio: minimum as f64 / total.max(1) as f64,
                });
            }
        }
        rows
    }
}

fn groups(graph: &Graph, structure: &Structure) -> Vec<Group> {
    let Structure { groups, model, .. } = structure;
    let total = model.count(Cost::Macs, &groups.full_widths()).max(1) as f64;
    let named = |nodes: &[usize]| nodes.iter().map(|&node| graph.node(node).name.clone()).collect();
    let group = |(group, macs): (&secateur_net::ChannelGroup, u64)| Group {
        name: group.name.clone(),
        channels: group.n_channels,
        producers: named(&group.producers),
        consumers: named(&group.consumers),
        macs_share: macs as f64 / total,
        frozen: group.frozen.clone(),
    };
    groups.groups().iter().zip(structure.touched_macs(graph)).map(group).collect()
}
