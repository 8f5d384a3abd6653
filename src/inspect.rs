//! `inspect`: channel groups, counts, and what budgets can be reached.

use secateur_net::{ChannelGroups, Cost, CostModel, GroupId, Network};
use secateur_scene::Protocol;
use serde::Serialize;

use crate::arguments::InspectArgs;
use crate::eval::requested_network;
use crate::load::LoadedNetwork;
use crate::reachable::{Reachable, full_cost, net_protocol};
use crate::table::Table;
use crate::{Failure, screen};

const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];
/// The widths that hardware commonly asks for.
const MULTIPLES: [usize; 3] = [1, 4, 8];
/// A scene's default.
const KEEP_RATIO_MIN: f64 = 0.1;

pub(crate) fn inspect(arguments: &InspectArgs) -> Result<(), Failure> {
    let network = requested_network(&arguments.network)?;
    let report = Report::new(&network, arguments.protocol.into());
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?,
        false => report.to_text(),
    };
    Ok(screen::result(text)?)
}

#[derive(Serialize)]
struct Report {
    name: String,
    file: String,
    assumptions: Vec<String>,
    input: [usize; 3],
    classes: usize,
    protocol: &'static str,
    groups: Vec<Group>,
    totals: Totals,
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
struct Totals {
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

impl Report {
    fn new(network: &LoadedNetwork, protocol: Protocol) -> Self {
        let input = network.original.graph().input();
        let total = |cost| full_cost(&network.original, cost);
        Self {
            name: network.name.clone(),
            file: network.path.display().to_string(),
            assumptions: network.assumptions.clone(),
            input: [input.c, input.h, input.w],
            classes: network.original.graph().n_classes(),
            protocol: word(protocol),
            groups: groups(&network.folded, protocol),
            totals: Totals {
                macs: total(Cost::Macs),
                params: total(Cost::Params),
                activation_bytes: total(Cost::ActivationBytes),
            },
            reachable: reachable(network),
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
        let Totals { macs, params, activation_bytes } = self.totals;
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
fn shortened(names: &[String]) -> String {
    match names {
        [first, second, third, _, _, ..] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Inner => "inner",
        Protocol::Full => "full",
    }
}

fn groups(network: &Network, protocol: Protocol) -> Vec<Group> {
    let graph = network.graph();
    let groups = ChannelGroups::derive(graph, net_protocol(protocol));
    let (model, full) = (CostModel::new(graph, &groups), groups.full_widths());
    let total = model.count(Cost::Macs, &full).max(1) as f64;
    let named = |nodes: &[usize]| nodes.iter().map(|&node| graph.node(node).name.clone()).collect();
    let touched = |id: GroupId| {
        let holds = |node: usize| groups.axis(node).iter().any(|slot| slot.group == id);
        let touches = |&node: &usize| holds(node) || graph.node(node).inputs.iter().any(|&input| holds(input));
        (0..graph.nodes().len()).filter(touches).map(|node| model.node_macs(node, &full)).sum::<u64>()
    };
    let group = |(id, group): (GroupId, &secateur_net::ChannelGroup)| Group {
        name: group.name.clone(),
        channels: group.n_channels,
        producers: named(&group.producers),
        consumers: named(&group.consumers),
        macs_share: touched(id) as f64 / total,
        frozen: group.frozen.clone(),
    };
    groups.groups().iter().enumerate().map(group).collect()
}

fn reachable(network: &LoadedNetwork) -> Vec<ReachableRow> {
    let mut rows = Vec::new();
    for protocol in [Protocol::Inner, Protocol::Full] {
        for channel_multiple in MULTIPLES {
            let least = Reachable::new(network.folded.graph(), protocol, channel_multiple, KEEP_RATIO_MIN);
            for cost in COSTS {
                let minimum = least.minimum(cost);
                let ratio = minimum as f64 / full_cost(&network.original, cost).max(1) as f64;
                rows.push(ReachableRow {
                    protocol: word(protocol),
                    channel_multiple,
                    cost: cost.name(),
                    minimum,
                    ratio,
                });
            }
        }
    }
    rows
}
