//! Unrolls as named arrays of a safetensors file.

use crate::error::RlError;
use crate::interface::Unroll;
use crate::state::StateWriter;

/// A batch as a safetensors file, whatever numbers it holds: arrays `<index>.<field>`, and `<index>.task`.
///
/// # Errors
/// A failure of the serialiser.
pub fn save_unrolls(batch: &[Unroll]) -> Result<Vec<u8>, RlError> {
    let mut writer = StateWriter::default();
    for (i, unroll) in batch.iter().enumerate() {
        save_unroll(unroll, &i.to_string(), &mut writer);
        writer.put_u64(format!("{i}.task"), &[u64::from(unroll.task)]);
    }
    writer.finish()
}

fn floats(walk: &Unroll) -> [(&'static str, &Vec<f32>); 10] {
    [
        ("first_recurrent", &walk.first_recurrent),
        ("observation", &walk.observation),
        ("even_ratio", &walk.even_ratio),
        ("last_action", &walk.last_action),
        ("last_reward", &walk.last_reward),
        ("raw_action", &walk.raw_action),
        ("keep_ratio", &walk.keep_ratio),
        ("log_prob", &walk.log_prob),
        ("value", &walk.value),
        ("reward", &walk.reward),
    ]
}

pub(crate) fn save_unroll(walk: &Unroll, prefix: &str, writer: &mut StateWriter) {
    for (name, values) in floats(walk) {
        writer.put_f32(format!("{prefix}.{name}"), values);
    }
    let flags = |values: &[bool]| values.iter().map(|&b| u64::from(b)).collect::<Vec<_>>();
    writer.put_u64(format!("{prefix}.layer"), &walk.layer.iter().map(|&l| u64::from(l)).collect::<Vec<_>>());
    writer.put_u64(format!("{prefix}.starts_walk"), &flags(&walk.starts_walk));
    writer.put_u64(format!("{prefix}.ends_walk"), &flags(&walk.ends_walk));
    writer.put_u64(format!("{prefix}.policy_version"), &walk.policy_version);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateReader;

    #[test]
    fn a_batch_is_saved_with_the_numbers_that_are_none() {
        let odd = Unroll { task: 3, reward: vec![f32::NAN, f32::NEG_INFINITY, 0.25], ..Unroll::default() };
        let bytes = save_unrolls(&[Unroll::default(), odd]).unwrap();
        let reader = StateReader::new(&bytes).unwrap();
        let reward = reader.f32("1.reward").unwrap();
        assert!(reward[0].is_nan() && reward[1..] == [f32::NEG_INFINITY, 0.25]);
        assert_eq!((reader.u64("1.task").unwrap(), reader.u64("0.task").unwrap()), (vec![3], vec![0]));
    }
}
