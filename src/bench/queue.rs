//! The trajectory queue by itself.

use std::time::Instant;

use anyhow::Context;
use secateur_rl::Unroll;
use secateur_train::Queued;

/// Trajectories per second that go from one thread to another through a queue of `capacity`. Unrolls are moved: what
/// crosses is the arrays' addresses.
pub(super) fn trajectories_per_s(capacity: usize, n: u64) -> anyhow::Result<f64> {
    let (sender, receiver) = crossbeam::channel::bounded(capacity);
    // A walk of 20 decisions with 13 features; the same few unrolls go round and round.
    let unroll = Unroll { observation: vec![0.5; 21 * 13], reward: vec![0.0; 20], ..Unroll::default() };
    let (back, spare) = crossbeam::channel::bounded(capacity + 2);
    for ticket in 0..capacity as u64 + 2 {
        back.send(Queued { ticket, unroll: unroll.clone() }).context("fill the queue")?;
    }
    let start = Instant::now();
    let consumer = std::thread::spawn(move || {
        for _ in 0..n {
            let Ok(queued) = receiver.recv() else { return };
            if back.send(queued).is_err() {
                return;
            }
        }
    });
    for _ in 0..n {
        let queued = spare.recv().context("take an unroll")?;
        sender.send(queued).context("send an unroll")?;
    }
    consumer.join().ok().context("the consumer panicked")?;
    Ok(n as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unrolls_are_moved_through_the_queue_and_not_copied() {
        let (sender, receiver) = crossbeam::channel::bounded(1);
        let unroll = Unroll { observation: vec![0.5; 1000], ..Unroll::default() };
        let address = unroll.observation.as_ptr();
        sender.try_send(Queued { ticket: 3, unroll }).unwrap();
        assert_eq!(receiver.try_recv().unwrap().unroll.observation.as_ptr(), address);
        assert!(trajectories_per_s(8, 100).unwrap() > 0.0);
    }
}
