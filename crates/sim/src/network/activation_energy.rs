//! Channels whose activations are smallest go first (Hu, Peng, Tai and Tang 2016 count zeros; here squares).

use secateur_kernels::NormalEquations;

use super::criterion::{Criterion, RankedGroup};

/// The mean square of each channel's activations over the calibration images, as its readers see them. Where only maps
/// read it that are too wide for normal equations, the mean square of what it adds to their outputs.
pub(crate) struct ActivationEnergy;

/// The mean square of a column of the equations.
fn energy(equations: &NormalEquations, column: usize) -> f64 {
    let n_columns = equations.map.inputs.len * equations.map.taps() + 1;
    equations.gram[column * n_columns + column] / equations.n_rows.max(1) as f64
}

impl Criterion for ActivationEnergy {
    fn name(&self) -> &str {
        "activation_energy"
    }

    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let mut energies = vec![0.0; of.n_channels()];
        let mut is_known = false;
        for equations in &of.calibration.equations {
            let (map, taps) = (&equations.map, equations.map.taps());
            let axis = of.groups.axis(of.network.graph().node(map.node).inputs[0]);
            for (input, slot) in axis[map.inputs.first..][..map.inputs.len].iter().enumerate() {
                if slot.group == of.group {
                    let sum: f64 = (0..taps).map(|tap| energy(equations, input * taps + tap)).sum();
                    energies[slot.channel] += sum / taps as f64;
                    is_known = true;
                }
            }
        }
        if is_known {
            return Ok(energies);
        }
        for wide in &of.calibration.contributions {
            for (column, slot) in wide.channels.iter().enumerate().filter(|(_, slot)| slot.group == of.group) {
                let n_columns = wide.channels.len() + 1;
                energies[slot.channel] += wide.equations.gram[column * n_columns + column];
                is_known = true;
            }
        }
        let nobody = "no convolution or Linear layer reads its activations; choose L2, Fpgm or Reconstruction";
        is_known.then_some(energies).ok_or_else(|| nobody.to_owned())
    }
}
