//! [`Unroll`]: consecutive steps of one actor, as a struct of arrays. Its columns are listed once, in
//! [`unroll_columns`] below.

use serde::{Deserialize, Serialize};

use crate::error::{RlError, check_finite, check_length};
use crate::state::{StateReader, StateWriter};

const OP: &str = "unroll";

/// What an entry of a column may be.
trait ColumnEntry: Copy {
    fn save(values: &[Self], name: &str, writer: &mut StateWriter);
    fn load(name: &str, reader: &StateReader) -> Result<Vec<Self>, RlError>;
    fn check(_values: &[Self], _name: &str) -> Result<(), RlError> {
        Ok(())
    }
}

impl ColumnEntry for f32 {
    fn save(values: &[Self], name: &str, writer: &mut StateWriter) {
        writer.put_f32(name, values);
    }
    fn load(name: &str, reader: &StateReader) -> Result<Vec<Self>, RlError> {
        reader.f32(name)
    }
    fn check(values: &[Self], name: &str) -> Result<(), RlError> {
        check_finite(OP, name, values)
    }
}

/// Whole numbers and flags are saved as 64 bits.
macro_rules! whole_entry {
    ($type:ty, $back:expr) => {
        impl ColumnEntry for $type {
            fn save(values: &[Self], name: &str, writer: &mut StateWriter) {
                writer.put_u64(name, &values.iter().map(|&value| u64::from(value)).collect::<Vec<_>>());
            }
            fn load(name: &str, reader: &StateReader) -> Result<Vec<Self>, RlError> {
                Ok(reader.u64(name)?.into_iter().map($back).collect())
            }
        }
    };
}
whole_entry!(u32, |value| u32::try_from(value).unwrap_or(u32::MAX));
whole_entry!(u64, |value| value);
whole_entry!(bool, |value| value != 0);

/// Makes [`Unroll`], [`UnrollState`] and [`UnrollStep`] of the columns `[T+1]` and the columns `[T]`.
macro_rules! unroll_columns {
    (
        states { $($(#[$state_doc:meta])* $state:ident: $state_type:ty,)* }
        steps { $($(#[$step_doc:meta])* $step:ident: $step_type:ty,)* }
    ) => {
        /// `T` consecutive steps of one actor on one task, as a struct of arrays. Arrays of `T+1` also hold the step
        /// after the last, whose value ends the return; its contents do not matter where the last step ends a walk.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct Unroll {
            /// The task.
            pub task: u32,
            /// Recurrent state before the first step; empty means zero.
            pub first_recurrent: Vec<f32>,
            /// `[T+1, F]`.
            pub observation: Vec<f32>,
            $(/// `[T+1]`, as in [`UnrollState`].
            pub $state: Vec<$state_type>,)*
            $(/// `[T]`, as in [`UnrollStep`].
            pub $step: Vec<$step_type>,)*
        }

        /// What an actor sees before a step, besides the observation.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct UnrollState {
            $($(#[$state_doc])* pub $state: $state_type,)*
        }

        /// What an actor did, and what came of it.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct UnrollStep {
            $($(#[$step_doc])* pub $step: $step_type,)*
        }

        impl Unroll {
            /// An empty unroll with room for `n_steps` steps of `n_features` features.
            pub fn with_capacity(n_steps: usize, n_features: usize) -> Self {
                Self {
                    task: 0,
                    first_recurrent: Vec::new(),
                    observation: Vec::with_capacity((n_steps + 1) * n_features),
                    $($state: Vec::with_capacity(n_steps + 1),)*
                    $($step: Vec::with_capacity(n_steps),)*
                }
            }

            /// Appends what is seen before the next step.
            pub fn push_state(&mut self, observation: &[f32], state: UnrollState) {
                self.observation.extend_from_slice(observation);
                $(self.$state.push(state.$state);)*
            }

            /// Appends a step.
            pub fn push_step(&mut self, step: UnrollStep) {
                $(self.$step.push(step.$step);)*
            }

            /// Whether it is one walk from its first to its last step.
            pub(crate) fn is_whole_walk(&self) -> bool {
                let ends = self.ends_walk.iter().position(|&ends| ends);
                self.starts_walk.first() == Some(&true) && ends.is_some_and(|at| at + 1 == self.n_steps())
            }

            /// The state at `place`.
            fn state(&self, place: usize) -> UnrollState {
                UnrollState { $($state: self.$state[place],)* }
            }

            /// Keeps the first `n_steps` steps and the states before them; the state after the last of them goes, too.
            pub fn truncate(&mut self, n_steps: usize) {
                let n_features = self.observation.len() / self.n_states().max(1);
                self.observation.truncate(n_steps * n_features);
                $(self.$state.truncate(n_steps);)*
                $(self.$step.truncate(n_steps);)*
            }

            fn check_columns(&self, n_steps: usize) -> Result<(), RlError> {
                $(
                    check_length(OP, stringify!($state), n_steps + 1, self.$state.len())?;
                    <$state_type as ColumnEntry>::check(&self.$state, stringify!($state))?;
                )*
                $(
                    check_length(OP, stringify!($step), n_steps, self.$step.len())?;
                    <$step_type as ColumnEntry>::check(&self.$step, stringify!($step))?;
                )*
                Ok(())
            }

            /// Writes every array but the task as `<prefix>.<name>`.
            pub(crate) fn save(&self, prefix: &str, writer: &mut StateWriter) {
                writer.put_f32(format!("{prefix}.first_recurrent"), &self.first_recurrent);
                writer.put_f32(format!("{prefix}.observation"), &self.observation);
                $(ColumnEntry::save(&self.$state, &format!("{prefix}.{}", stringify!($state)), writer);)*
                $(ColumnEntry::save(&self.$step, &format!("{prefix}.{}", stringify!($step)), writer);)*
            }

            /// Reads what [`save`](Self::save) wrote.
            ///
            /// # Errors
            /// Arrays that are missing, damaged or of other features.
            pub(crate) fn load(
                task: u32,
                n_features: usize,
                prefix: &str,
                reader: &StateReader,
            ) -> Result<Self, RlError> {
                let unroll = Self {
                    task,
                    first_recurrent: reader.f32(&format!("{prefix}.first_recurrent"))?,
                    observation: reader.f32(&format!("{prefix}.observation"))?,
                    $($state: ColumnEntry::load(&format!("{prefix}.{}", stringify!($state)), reader)?,)*
                    $($step: ColumnEntry::load(&format!("{prefix}.{}", stringify!($step)), reader)?,)*
                };
                unroll.check(n_features)?;
                Ok(unroll)
            }
        }
    };
}

unroll_columns! {
    states {
        /// The group, counted from 0.
        layer: u32,
        /// The keep ratio that would just spend the remaining budget.
        even_ratio: f32,
        /// Realised keep ratio of the group before; 0 at the start of a walk.
        last_action: f32,
        /// Reward of the decision before; 0 at the start of a walk.
        last_reward: f32,
        /// Whether a walk starts here: the recurrent state is zeroed before.
        starts_walk: bool,
    }
    steps {
        /// The sample before it was squashed.
        raw_action: f32,
        /// Realised (clamped and rounded).
        keep_ratio: f32,
        /// Log-density of `raw_action` under the policy that acted.
        log_prob: f32,
        /// That policy's estimate of the return.
        value: f32,
        /// Accuracy, or what the scene pays, at the last step of a walk, else 0.
        reward: f32,
        /// Whether the walk ends with this step; the learner's discount becomes 0 there.
        ends_walk: bool,
        /// The policy that acted.
        policy_version: u64,
    }
}

impl Unroll {
    /// `T`.
    pub fn n_steps(&self) -> usize {
        self.raw_action.len()
    }

    /// `T+1` of a whole unroll.
    fn n_states(&self) -> usize {
        self.layer.len()
    }

    /// Appends the last state once more, as the start of a walk: what comes after a step that ends a walk does not
    /// matter, but it must be there. An empty unroll stays empty.
    pub fn repeat_last_state(&mut self) {
        let Some(last) = self.n_states().checked_sub(1) else { return };
        let n_features = self.observation.len() / self.n_states();
        let observation = self.observation[last * n_features..].to_vec();
        self.push_state(&observation, UnrollState { starts_walk: true, ..self.state(last) });
    }

    /// Checks every length and that every number is finite.
    ///
    /// # Errors
    /// The first array that is wrong, by name.
    pub fn check(&self, n_features: usize) -> Result<(), RlError> {
        let n_steps = self.n_steps();
        if n_steps == 0 {
            let (what, expected) = ("number of steps".to_owned(), "at least 1".to_owned());
            return Err(RlError::OutOfRange { op: OP, what, expected, got: "0".to_owned() });
        }
        check_length(OP, "observation", (n_steps + 1) * n_features, self.observation.len())?;
        check_finite(OP, "observation", &self.observation)?;
        check_finite(OP, "first_recurrent", &self.first_recurrent)?;
        self.check_columns(n_steps)
    }
}

/// A batch as a safetensors file, whatever numbers it holds: arrays `<index>.<field>`, and `<index>.task`.
///
/// # Errors
/// A failure of the serialiser.
pub fn save_unrolls(batch: &[Unroll]) -> Result<Vec<u8>, RlError> {
    let mut writer = StateWriter::default();
    for (i, unroll) in batch.iter().enumerate() {
        unroll.save(&i.to_string(), &mut writer);
        writer.put_u64(format!("{i}.task"), &[u64::from(unroll.task)]);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_saved_with_the_numbers_that_are_none() {
        let odd = Unroll { task: 3, reward: vec![f32::NAN, f32::NEG_INFINITY, 0.25], ..Unroll::default() };
        let bytes = save_unrolls(&[Unroll::default(), odd]).unwrap();
        let reader = StateReader::new(&bytes).unwrap();
        let reward = reader.f32("1.reward").unwrap();
        assert!(reward[0].is_nan() && reward[1..] == [f32::NEG_INFINITY, 0.25]);
        assert_eq!((reader.u64("1.task").unwrap(), reader.u64("0.task").unwrap()), (vec![3], vec![0]));
    }

    /// Two walks of two steps, two features.
    fn two_walks() -> Unroll {
        let mut unroll = Unroll::with_capacity(4, 2);
        unroll.first_recurrent = vec![0.25];
        for t in 0..4u32 {
            let number = t as f32 / 8.0;
            let state = UnrollState { layer: t % 2, even_ratio: number, starts_walk: t % 2 == 0, ..Default::default() };
            unroll.push_state(&[number, 1.0 - number], state);
            let step =
                UnrollStep { raw_action: number, ends_walk: t % 2 == 1, policy_version: 7, ..Default::default() };
            unroll.push_step(step);
        }
        unroll
    }

    #[test]
    fn the_state_after_the_last_step_is_the_last_one_again_as_a_start() {
        let mut unroll = two_walks();
        assert!(unroll.check(2).is_err(), "the state after the last step is missing");
        unroll.repeat_last_state();
        unroll.check(2).unwrap();
        assert_eq!(unroll.layer, [0, 1, 0, 1, 1]);
        assert_eq!(unroll.starts_walk, [true, false, true, false, true]);
        assert_eq!(unroll.observation[8..], [0.375, 0.625]);
        assert_eq!(unroll.even_ratio[4], 0.375);
        let mut empty = Unroll::default();
        empty.repeat_last_state();
        assert_eq!(empty, Unroll::default());
    }

    #[test]
    fn a_truncated_unroll_is_the_beginning_of_the_whole() {
        let (whole, mut cut) = (two_walks(), two_walks());
        cut.truncate(2);
        assert_eq!((cut.n_steps(), cut.layer.len()), (2, 2));
        assert_eq!(cut.observation, whole.observation[..4]);
        assert_eq!((cut.raw_action, cut.ends_walk), (vec![0.0, 0.125], vec![false, true]));
        assert_eq!((cut.even_ratio, cut.policy_version), (vec![0.0, 0.125], vec![7, 7]));
    }

    #[test]
    fn what_is_saved_loads_back_and_damage_is_refused() {
        let mut unroll = two_walks();
        unroll.repeat_last_state();
        let saved = |unroll: &Unroll| {
            let mut writer = StateWriter::default();
            unroll.save("walk", &mut writer);
            writer.finish().unwrap()
        };
        let bytes = saved(&unroll);
        let reader = StateReader::new(&bytes).unwrap();
        assert_eq!(Unroll::load(0, 2, "walk", &reader).unwrap(), unroll);
        assert!(Unroll::load(0, 3, "walk", &reader).is_err());
        assert!(Unroll::load(0, 2, "other", &reader).is_err());
        unroll.value[1] = f32::INFINITY;
        let bytes = saved(&unroll);
        assert!(Unroll::load(0, 2, "walk", &StateReader::new(&bytes).unwrap()).is_err());
        unroll.value = vec![0.0; 3];
        let bytes = saved(&unroll);
        let error = Unroll::load(0, 2, "walk", &StateReader::new(&bytes).unwrap()).unwrap_err();
        assert!(error.to_string().contains("value has 3 elements, expected 4"), "{error}");
    }
}
