//! A training as a whole: it learns, it goes on where it stopped, and it says what is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::Isa;
use secateur_net::random::with_random_weights;
use secateur_net::{Network, Shape, arch};
use secateur_tune::{
    Decay, LossSettings, OptimiserSettings, SgdSettings, StepTargets, Trainer, TrainerSettings, TrainerState, TuneError,
};

const IMAGE: Shape = Shape { c: 3, h: 8, w: 8 };
const N_STEPS: usize = 24;

fn network(seed: u64) -> Network {
    with_random_weights(arch::build("resnet20", IMAGE, 10).unwrap(), seed)
}

fn settings(rate: f32) -> TrainerSettings {
    TrainerSettings {
        batch: 20,
        n_steps: N_STEPS,
        rate,
        warm_up: 0.1,
        decay: Decay::Linear,
        optimiser: OptimiserSettings::Sgd(SgdSettings::default()),
        clip: 5.0,
        half_life: 0.1,
        loss: LossSettings { distillation: 0.5, temperature: 2.0, smoothing: 0.0 },
    }
}

fn pool(n_threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
}

fn images() -> Vec<f32> {
    (0..20 * IMAGE.len()).map(|i| ((i + 1) * 2_654_435_761 % 100_003) as f32 / 50_001.5 - 1.0).collect()
}

/// Steps up to number `until` on the same images, and their losses.
fn train(trainer: &mut Trainer, until: usize, n_threads: usize) -> Vec<f64> {
    let (images, pool) = (images(), pool(n_threads));
    let labels: Vec<u16> = (0..20).map(|i| i % 10).collect();
    let teacher: Vec<f32> = (0..200).map(|i| if i % 10 == i / 10 % 10 { 4.0 } else { 0.0 }).collect();
    let mut losses = Vec::new();
    while trainer.n_done() < until {
        losses.push(
            trainer.step(&pool, &images, StepTargets { labels: Some(&labels), teacher: Some(&teacher) }).unwrap().loss,
        );
    }
    losses
}

#[test]
fn losses_fall() {
    let mut trainer = Trainer::new(&network(3), Isa::detect(), settings(0.05)).unwrap();
    assert_eq!(trainer.network().unwrap(), network(3), "an average of no steps is the network as it was");
    let losses = train(&mut trainer, N_STEPS, 2);
    assert!(losses[N_STEPS - 1] < 0.5 * losses[0], "{losses:?}");
    assert_ne!(trainer.network().unwrap(), network(3));
}

#[test]
fn a_training_that_was_stopped_ends_as_if_it_had_not() {
    let mut whole = Trainer::new(&network(3), Isa::detect(), settings(0.05)).unwrap();
    train(&mut whole, N_STEPS, 2);
    let mut first = Trainer::new(&network(3), Isa::detect(), settings(0.05)).unwrap();
    train(&mut first, 9, 1);
    let text = serde_json::to_string(&first.state()).unwrap();
    let state: TrainerState = serde_json::from_str(&text).unwrap();
    let mut second = Trainer::new(&network(3), Isa::detect(), settings(0.05)).unwrap();
    second.resume(state.clone()).unwrap();
    train(&mut second, N_STEPS, 3);
    assert!(second.network().unwrap() == whole.network().unwrap());
    // Of another training it is refused.
    let mut other = Trainer::new(&network(3), Isa::detect(), settings(0.06)).unwrap();
    assert_eq!(other.resume(state).unwrap_err(), TuneError::OtherTraining { what: "settings" });
}

#[test]
fn a_loss_that_is_not_finite_names_the_step_and_a_lower_rate_and_changes_nothing() {
    let mut trainer = Trainer::new(&network(3), Isa::detect(), settings(0.05)).unwrap();
    train(&mut trainer, 3, 1);
    let before = trainer.state();
    let mut broken = images();
    broken[100] = f32::NAN;
    let labels = [0; 20];
    let error =
        trainer.step(&pool(1), &broken, StepTargets { labels: Some(&labels), teacher: None }).unwrap_err().to_string();
    assert_eq!(error, "step 3: the loss or its gradient is not finite; the learning rate rises to 0.05, try 0.0125");
    let after = trainer.state();
    // All but the running statistics, which the images have reached.
    let values = |state: &TrainerState| serde_json::to_value(state).unwrap()["values"].clone();
    assert_eq!(values(&before), values(&after));
}
