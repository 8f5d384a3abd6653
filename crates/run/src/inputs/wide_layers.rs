//! What is said, before anything is computed, about layers that are too wide for normal equations.

use secateur_kernels::{LinearMap, wide_nodes, wide_refit_bytes, wide_rows_max};
use secateur_net::{ChannelGroups, NodeId};
use secateur_sim::Repair;

use super::load::LoadedNetwork;
use super::resolve::Resolved;
use crate::scene::Scene;

/// One sentence for each wide layer of the networks of a scene.
pub fn wide_layers(scene: &Scene, resolved: &Resolved) -> Vec<String> {
    let of_network = |network: &LoadedNetwork| {
        let groups = ChannelGroups::derive(network.folded.graph(), scene.protocol);
        let wide = wide_nodes(network.folded.graph(), &groups);
        wide.into_iter().map(|node| sentence(scene, network, node)).collect::<Vec<_>>()
    };
    resolved.networks.iter().flat_map(of_network).collect()
}

fn sentence(scene: &Scene, network: &LoadedNetwork, node: NodeId) -> String {
    let graph = network.folded.graph();
    let n_inputs = LinearMap::of(graph, node).iter().map(|map| map.columns() - 1).max().unwrap_or(0);
    let n_rows = wide_rows_max(n_inputs).min(match scene.repair {
        Repair::Sequential => scene.images.refit.max(scene.images.walk) * graph.shape(node).h * graph.shape(node).w,
        Repair::Original | Repair::Off => usize::MAX,
    });
    let refit = match scene.repair {
        Repair::Sequential => {
            let n_outputs = graph.shape(node).c;
            let mb = wide_refit_bytes(n_rows, n_inputs, n_outputs) as f64 / 1e6;
            format!("it is refitted from at most {n_rows} rows ({mb:.0} MB)")
        }
        Repair::Original => "walks are scored without refitting it (`repair: Sequential` would)".to_owned(),
        Repair::Off => "nothing is refitted".to_owned(),
    };
    format!(
        "{}: an output of '{}' reads {n_inputs} values, too many for normal equations: the channels in front of it are ranked by what \
         they add to its outputs, and {refit}",
        network.name,
        graph.node(node).name
    )
}
