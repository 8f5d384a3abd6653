//! V-trace against golden values, against its definition summed in O(T^2), and on bad input.

use secateur_rl::RlError;
use secateur_rl::returns::vtrace::{VtraceClip, VtraceInput, vtrace};
use secateur_rl::rng::RngStream;

/// Owned arrays of one case, `[T, B]`.
struct Case {
    n_batch: usize,
    behaviour: Vec<f64>,
    target: Vec<f64>,
    discount: Vec<f64>,
    reward: Vec<f64>,
    value: Vec<f64>,
    bootstrap: Vec<f64>,
}

impl Case {
    fn input(&self) -> VtraceInput<'_> {
        VtraceInput {
            n_batch: self.n_batch,
            behaviour_log_prob: &self.behaviour,
            target_log_prob: &self.target,
            discount: &self.discount,
            reward: &self.reward,
            value: &self.value,
            bootstrap_value: &self.bootstrap,
        }
    }

    fn random(seed: u64, n_steps: usize, n_batch: usize) -> Self {
        let mut rng = RngStream::new(seed, 0, 0, 0);
        let mut draw = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
        let n = n_steps * n_batch;
        let (behaviour, target, reward, value, bootstrap) = (draw(n), draw(n), draw(n), draw(n), draw(n_batch));
        let discount = draw(n).into_iter().map(|x| if x > 1.0 { 0.0 } else { 0.97 }).collect();
        Self { n_batch, behaviour, target, discount, reward, value, bootstrap }
    }

    /// Equation 1, term by term: v_s = V(x_s) + sum over t >= s of (product of discount and c) * delta_t.
    fn vs_by_definition(&self, clip: VtraceClip) -> Vec<f64> {
        let (n_batch, n_steps) = (self.n_batch, self.reward.len() / self.n_batch);
        let ratio = |i: usize| (self.target[i] - self.behaviour[i]).exp();
        let value = |t: usize, b: usize| if t == n_steps { self.bootstrap[b] } else { self.value[t * n_batch + b] };
        let mut vs = Vec::new();
        for s in 0..n_steps {
            for b in 0..n_batch {
                let mut total = value(s, b);
                for t in s..n_steps {
                    let i = t * n_batch + b;
                    let trace: f64 = (s..t)
                        .map(|u| u * n_batch + b)
                        .map(|i| self.discount[i] * clip.lambda * ratio(i).min(clip.c))
                        .product();
                    let delta = self.reward[i] + self.discount[i] * value(t + 1, b) - value(t, b);
                    total += trace * ratio(i).min(clip.rho) * delta;
                }
                vs.push(total);
            }
        }
        vs
    }
}

fn assert_close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= 1e-9 * e.abs().max(1.0), "{what}[{i}]: got {g}, expected {e}");
    }
}

fn flat(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().expect("golden values are numbers")],
    }
}

#[test]
fn returns_equal_the_golden_values() {
    let Some(models) = std::env::var_os("SECATEUR_MODELS") else {
        assert!(std::env::var_os("SECATEUR_REQUIRE_DATA").is_none_or(|v| v != "1"), "SECATEUR_MODELS is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS to compare V-trace with the golden values");
        return;
    };
    let text = std::fs::read_to_string(std::path::Path::new(&models).join("../golden/vtrace.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 5);
    for golden in &cases {
        let case = Case {
            n_batch: golden["B"].as_u64().unwrap() as usize,
            behaviour: flat(&golden["behaviour_log_prob"]),
            target: flat(&golden["target_log_prob"]),
            discount: flat(&golden["discount"]),
            reward: flat(&golden["reward"]),
            value: flat(&golden["value"]),
            bootstrap: flat(&golden["bootstrap_value"]),
        };
        let bound = |name: &str| golden[name].as_f64().unwrap();
        let clip =
            VtraceClip { rho: bound("rho_bar"), c: bound("c_bar"), policy_rho: bound("pg_rho_bar"), lambda: 1.0 };
        let returns = vtrace(&case.input(), clip).unwrap();
        assert_close(&returns.vs, &flat(&golden["vs"]), "vs");
        assert_close(&returns.advantage, &flat(&golden["pg_advantage"]), "pg_advantage");
    }
}

#[test]
fn returns_equal_the_definition_summed_term_by_term() {
    for seed in 0..50 {
        let case = Case::random(seed, 1 + seed as usize % 12, 1 + seed as usize % 4);
        let clip = VtraceClip { rho: 0.9, c: 0.7, policy_rho: 0.8, lambda: 0.95 };
        let returns = vtrace(&case.input(), clip).unwrap();
        assert_close(&returns.vs, &case.vs_by_definition(clip), "vs");
    }
}

#[test]
fn nothing_crosses_the_end_of_a_walk() {
    let mut case = Case::random(3, 6, 1);
    case.discount = vec![0.9, 0.9, 0.0, 0.9, 0.9, 0.9];
    let before = vtrace(&case.input(), VtraceClip::default()).unwrap();
    case.reward[4] += 10.0;
    let after = vtrace(&case.input(), VtraceClip::default()).unwrap();
    assert_eq!(before.vs[..3], after.vs[..3]);
    assert_ne!(before.vs[3], after.vs[3]);
}

#[test]
fn nan_and_wrong_lengths_are_refused_by_name() {
    let mut case = Case::random(1, 4, 2);
    case.reward[3] = f64::NAN;
    let error = vtrace(&case.input(), VtraceClip::default()).unwrap_err();
    assert!(matches!(&error, RlError::NotFinite { what, .. } if what == "reward[3]"), "{error}");
    let mut case = Case::random(1, 4, 2);
    case.value.pop();
    let error = vtrace(&case.input(), VtraceClip::default()).unwrap_err();
    assert_eq!(error.to_string(), "vtrace: value has 7 elements, expected 8");
    let mut case = Case::random(1, 4, 2);
    case.n_batch = 0;
    assert!(vtrace(&case.input(), VtraceClip::default()).is_err());
}
