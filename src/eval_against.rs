//! `eval --against`: what a network's outputs have in common with those of another, without labels.

use anyhow::{Context, ensure};
use rayon::ThreadPool;
use secateur_formats::Preprocessing;
use secateur_run::{
    ComparedNetworks, CountEvent, FirstImages, LoadedNetwork, NetworkChoices, OutputAgreement, Roots, compare_outputs,
    load_network_as,
};

use crate::arguments::EvalArgs;
use crate::screen::Progress;
use crate::table::Table;
use crate::{Failure, screen};

/// The network that another is held against, as `--against` names it.
///
/// # Errors
/// A file that cannot be read, outputs that are not those of `network`: exit code 2.
pub(crate) fn dense_network(arguments: &EvalArgs, network: &LoadedNetwork) -> Result<Option<LoadedNetwork>, Failure> {
    let Some(file) = &arguments.against else { return Ok(None) };
    let roots = Roots::new(None, arguments.network.model_root.clone(), Default::default());
    let load = || {
        let path = roots.find_network(file)?;
        let dense = load_network_as(&path, &NetworkChoices { size: arguments.network.size, ..Default::default() })?;
        check_alike(network, &dense)?;
        anyhow::Ok(dense)
    };
    load().context("--against").map(Some).map_err(Failure::BadArguments)
}

/// Outputs are told apart by name where there are several.
pub(crate) fn check_alike(network: &LoadedNetwork, dense: &LoadedNetwork) -> anyhow::Result<()> {
    let told = |of: &LoadedNetwork| {
        let outputs: Vec<String> =
            of.outputs.iter().map(|output| format!("{} of {}", output.name, output.len)).collect();
        format!(
            "'{}' reads images of {} and has the outputs {}",
            of.name,
            of.folded.graph().input(),
            outputs.join(", ")
        )
    };
    let lens = |of: &LoadedNetwork| of.outputs.iter().map(|output| output.len).collect::<Vec<_>>();
    let same_names = network.outputs.iter().zip(&dense.outputs).all(|(a, b)| a.name == b.name);
    let is_alike = network.folded.graph().input() == dense.folded.graph().input()
        && lens(network) == lens(dense)
        && (same_names || dense.outputs.len() == 1);
    ensure!(is_alike, "two networks of the same images and outputs are compared; {}, {}", told(network), told(dense));
    Ok(())
}

/// Compares, and prints what was found; the last line is `output error E`.
///
/// # Errors
/// Outputs that are not finite.
pub(crate) fn eval_against(
    network: &LoadedNetwork,
    dense: &LoadedNetwork,
    images: FirstImages<'_>,
    pool: &ThreadPool,
    as_json: bool,
) -> Result<(), Failure> {
    let FirstImages { data, preprocessing: Preprocessing { mean, std }, n, .. } = images;
    let compared = ComparedNetworks {
        dense: &dense.folded,
        other: &network.folded,
        outputs: &dense.outputs,
        are_logits: dense.no_logits().is_none(),
    };
    let mut progress = Progress::new(n as u64);
    let agreement = compare_outputs(&compared, images, pool, |event| match event {
        CountEvent::Done(done) => progress.set(done),
        CountEvent::Note(note) => screen::note(note),
    })?;
    drop(progress);
    if as_json {
        let of = dense.outputs.iter().zip(&agreement.errors).zip(&agreement.units);
        let outputs = of.map(|((output, error), unit)| {
            serde_json::json!({
                "name": output.name, "values": output.len, "error": error, "as_a_share_of_its": unit.name(),
            })
        });
        return screen::json(&serde_json::json!({
            "network": network.name, "file": network.path, "against": dense.name, "against_file": dense.path,
            "dataset": data.name, "images": n, "of": data.len(), "outputs": outputs.collect::<Vec<_>>(),
            "divergence": agreement.divergence, "same_class": agreement.same_class, "output_error": agreement.error,
        }));
    }
    screen::result(format_args!("network        {} ('{}')", network.name, network.path.display()))?;
    screen::result(format_args!("against        {} ('{}')", dense.name, dense.path.display()))?;
    for assumption in
        network.assumptions.iter().chain(&dense.ends_early.as_ref().map(|why| format!("ends early: {why}")))
    {
        screen::result(format_args!("               {assumption}"))?;
    }
    screen::result(format_args!("preprocessing  mean {mean:?}, std {std:?}"))?;
    screen::result(format_args!("data           {n} of {} images of {}, labels not read", data.len(), data.name))?;
    Ok(screen::result(told(dense, &agreement))?)
}

/// The outputs, and what is told of all of them.
fn told(dense: &LoadedNetwork, agreement: &OutputAgreement) -> String {
    let mut table = Table::new(&["output", ">values", ">error", "as a share of its"]);
    for ((output, error), unit) in dense.outputs.iter().zip(&agreement.errors).zip(&agreement.units) {
        table.row([output.name.clone(), output.len.to_string(), format!("{error:.6}"), unit.name().to_owned()]);
    }
    let mut out = table.to_string();
    if let (Some(divergence), Some(same_class)) = (agreement.divergence, agreement.same_class) {
        out.push_str(&format!("\ndivergence {divergence:.6} nats, same class {same_class:.4}"));
    }
    out.push_str(&format!("\noutput error {:.6}", agreement.error));
    out
}
