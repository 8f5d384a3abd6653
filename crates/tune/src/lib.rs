//! How networks are trained: optimisers, learning rates, averages of weights. Gradients come from
//! [`secateur_kernels::TrainPlan`]; here is what is done with them. Knows no files and no data sets. Words are
//! explained in [`secateur_net::glossary`].
//!
//! # Example
//! ```
//! use secateur_kernels::{Isa, TrainLoss, TrainPlan, WeightedLoss};
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{Shape, arch};
//! use secateur_tune::{Decay, Optimiser, RateSchedule, Sgd, SgdSettings};
//!
//! let shape = Shape { c: 3, h: 8, w: 8 };
//! let network = with_random_weights(arch::build("resnet20", shape, 10)?, 1);
//! let mut plan = TrainPlan::compile(&network, Isa::detect(), 4)?;
//! let mut optimiser = Optimiser::Sgd(Sgd::new(plan.parameters(), SgdSettings::default())?);
//! let schedule = RateSchedule::new(0.02, 0.1, Decay::Cosine)?;
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let images: Vec<f32> = (0..4 * shape.len()).map(|i| (i % 17) as f32 / 17.0).collect();
//! let loss = TrainLoss::CrossEntropy { labels: &[0, 1, 2, 3], smoothing: 0.0 };
//! let mut losses = Vec::new();
//! for step in 0..10 {
//!     losses.push(plan.step(&pool, &images, &[WeightedLoss { loss, weight: 1.0 }])?.loss);
//!     let (values, gradient) = plan.values_and_gradient();
//!     optimiser.step(values, gradient, schedule.rate(step, 10));
//! }
//! assert!(losses[9] < losses[0]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![warn(unreachable_pub)]

mod adam;
mod augmentation;
mod average;
mod clip;
mod error;
mod initial;
mod optimiser;
mod schedule;
mod sgd;
mod trainer;

pub use adam::{Adam, AdamSettings};
pub use augmentation::{Augmentation, ImageDraw, Picture, epoch_order};
pub use average::WeightAverage;
pub use clip::clip_norm;
pub use error::TuneError;
pub use initial::initial_network;
pub use optimiser::{Optimiser, OptimiserSettings};
pub use schedule::{Decay, RateSchedule};
pub use sgd::{Sgd, SgdSettings};
pub use trainer::{LossSettings, StepTargets, Trainer, TrainerSettings, TrainerState};
