use std::sync::Arc;

use super::*;
use crate::components::TrajectorySender;
use crate::hand_made::{Ground, Notes, unroll};

fn noted(batches: &Notes<Vec<u32>>) -> Vec<Vec<u32>> {
    batches.lock().unwrap().clone()
}

fn pending(ground: &Ground, learner: Entity) -> Vec<u64> {
    ground.get::<LearnerStats>(learner).pending.iter().map(|queued| queued.ticket).collect()
}

#[test]
fn every_whole_batch_that_is_there_is_learned_from_in_order_of_arrival() {
    let mut ground = Ground::new(8);
    let (learner, batches) = ground.learner(2);
    ground.queue(&[9, 4, 7, 1, 3]);
    ground.run(learn);
    assert_eq!(noted(&batches), [[9, 4], [7, 1]]);
    let stats = ground.get::<LearnerStats>(learner);
    assert_eq!((stats.n_updates, stats.n_trajectories, pending(&ground, learner)), (5, 4, vec![3]));
    let updates = ground.events().iter().map(|event| match event {
        SearchEvent::Learned { n_updates, .. } => *n_updates,
        other => panic!("{other:?}"),
    });
    assert_eq!(updates.collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_learner_of_its_own_thread_takes_one_batch_at_a_time_and_leaves_the_rest_in_the_queue() {
    let mut ground = Ground::new(8);
    let (_, batches) = ground.learner(2);
    ground.queue(&[9, 4, 7, 1, 3]);
    ground.run(learn_once);
    assert_eq!((noted(&batches), ground.n_queued()), (vec![vec![9, 4]], 3));
    ground.run(learn_once);
    ground.run(learn_once);
    assert_eq!((noted(&batches), ground.n_queued()), (vec![vec![9, 4], vec![7, 1]], 0));
}

#[test]
fn a_batch_made_of_tickets_waits_for_the_last_of_them() {
    let mut ground = Ground::new(8);
    let (learner, batches) = ground.learner(2);
    ground.world.insert_resource(BatchRule::Ticket);
    ground.queue(&[3, 1, 2]);
    ground.run(learn);
    assert_eq!((noted(&batches), pending(&ground, learner)), (vec![], vec![1, 2, 3]));
    ground.queue(&[0, 5]);
    ground.run(learn);
    assert_eq!((noted(&batches), pending(&ground, learner)), (vec![vec![0, 1], vec![2, 3]], vec![5]));
}

#[test]
fn at_the_end_of_a_search_the_rest_is_learned_from_in_order_of_tickets() {
    let mut ground = Ground::new(8);
    let (learner, batches) = ground.learner(2);
    ground.world.insert_resource(BatchRule::Rest);
    ground.queue(&[8, 2, 5]);
    ground.run(learn);
    assert_eq!((noted(&batches), pending(&ground, learner)), (vec![vec![2, 5], vec![8]], vec![]));
    assert_eq!(ground.get::<LearnerStats>(learner).n_trajectories, 3);
}

#[test]
fn an_update_tells_its_losses_its_lags_and_how_many_trajectories_waited() {
    let mut ground = Ground::new(8);
    ground.learner(2);
    let sender = ground.world.resource::<TrajectorySender>().0.clone();
    // The learner made 3 updates before. An actor cannot be ahead of it, but if one were, it would have no lag.
    for versions in [&[3, 2][..], &[2, 0, 4], &[0]] {
        sender.try_send(Queued { ticket: 0, unroll: unroll(0, versions) }).unwrap();
    }
    ground.run(learn_once);
    let Some(SearchEvent::Learned { n_updates: 4, numbers, lags }) = ground.events().first() else { panic!() };
    assert_eq!(*lags, [(0, 2), (1, 2), (3, 1)].into());
    let number = |name: &str| numbers.iter().find(|(known, _)| *known == name).map(|(_, x)| *x);
    let told = ["policy_loss", "n_steps", "lag_mean", "lag_max", "queue_depth"].map(number);
    assert_eq!(told, [Some(0.125), Some(5.0), Some(1.0), Some(3.0), Some(1.0)]);
}

#[test]
fn a_batch_that_the_learner_refuses_is_handed_back_and_waits_for_it_still() {
    let mut ground = Ground::new(8);
    let (learner, batches) = ground.learner(2);
    ground.queue(&[98, 1, 2]);
    ground.run(learn);
    assert_eq!((noted(&batches), ground.n_queued()), (Vec::<Vec<u32>>::new(), 1));
    let stats = ground.get::<LearnerStats>(learner);
    let tasks: Vec<u32> = stats.pending.iter().map(|queued| queued.unroll.task).collect();
    assert_eq!((stats.n_updates, stats.n_trajectories, tasks), (3, 0, vec![98, 1]));
    // Tickets of a batch follow on those learned from before.
    assert_eq!(pending(&ground, learner), [0, 1]);
    let failure = &ground.world.resource::<TrainFailure>().0;
    let (n_updates, batch) = failure.as_ref().and_then(TrainError::failed_batch).unwrap();
    assert_eq!((n_updates, batch.iter().map(|unroll| unroll.task).collect::<Vec<_>>()), (3, vec![98, 1]));
    assert!(ground.events().is_empty());
}

#[test]
fn a_learner_that_panics_fails_with_the_message_and_its_batch() {
    let mut ground = Ground::new(8);
    let (learner, _) = ground.learner(1);
    ground.queue(&[99]);
    ground.run(learn);
    let failure = &ground.world.resource::<TrainFailure>().0;
    let Some(TrainError::LearnerPanicked { n_updates: 3, message, batch }) = failure else { panic!("{failure:?}") };
    assert!(message.contains("injected") && *batch == [unroll(99, &[])], "{message}");
    assert!(pending(&ground, learner).is_empty());
}

#[test]
fn a_policy_is_published_when_the_learner_has_a_newer_one_and_not_otherwise() {
    let mut ground = Ground::new(8);
    ground.learner(1);
    let before = ground.world.resource::<CurrentPolicy>().0.clone();
    ground.run(publish_policy);
    assert!(Arc::ptr_eq(&before, &ground.world.resource::<CurrentPolicy>().0), "version 3 is known");
    ground.queue(&[1, 2]);
    ground.run(learn);
    ground.run(publish_policy);
    assert_eq!(ground.policy_version(), 5);
}
