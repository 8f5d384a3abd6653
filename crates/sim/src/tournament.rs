//! Which finalists are refitted, in which order, and who wins: two rounds of refits, the first quick and on few images,
//! the second thorough and on all of them. This is successive halving (Jamieson and Talwalkar, 2016) with one halving.
//!
//! A [`Tournament`] only decides. Whoever refits asks it for the [next](Tournament::next) finalist, notes what came of
//! the refit in [`RefitRanks`], and asks again; a run that goes on after an interruption has its ranks from a
//! checkpoint and is asked for no refit twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finish::Rank;

/// Finalists of one search on one task that reach the last round. More than these are first refitted quickly on a share
/// of the images, which takes a third of the time.
const N_LAST: usize = 3;
/// The first round takes one in so many of the refit images, if that leaves [`FIRST_IMAGES_MIN`].
const FIRST_SHARE: usize = 4;
/// Fewer images than these rank too badly.
const FIRST_IMAGES_MIN: usize = 250;

/// Which refit of a finalist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Round {
    /// The quick one, which decides who is refitted again.
    First,
    /// The thorough one, which decides who wins.
    Last,
    /// The winner's, of hidden channels too.
    InPairs,
}

impl Round {
    /// In the order in which they are held.
    pub const ALL: [Self; 3] = [Self::First, Self::Last, Self::InPairs];
}

/// One refit of one finalist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefitKey {
    /// Which of its refits.
    pub round: Round,
    /// Index of the search: 0 is the run's agent, then the controls.
    pub search: usize,
    /// Index of the task.
    pub task: usize,
    /// The finalist's walk.
    pub walk: u64,
}

/// What came of all refits so far: a rank, or nothing for a finalist that panicked whenever it was tried.
pub type RefitRanks = BTreeMap<RefitKey, Option<Rank>>;

/// The finalists of one search on one task, who compete with each other only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Index of the search.
    pub search: usize,
    /// Index of the task.
    pub task: usize,
    /// Walks of the finalists, the best before any refit first.
    pub walks: Vec<u64>,
}

/// The tournament of the finalists of one network, of which one refit at a time is in memory.
#[derive(Clone, Debug)]
pub struct Tournament {
    fields: Vec<Field>,
    n_images: usize,
    n_first_images: Option<usize>,
    /// Whether the winner is refitted in pairs.
    in_pairs: bool,
}

impl Tournament {
    /// For `fields` of one network, with `n_images` images to refit on, winners at last in pairs or not.
    pub fn new(fields: Vec<Field>, n_images: usize, in_pairs: bool) -> Self {
        let n_first = n_images / FIRST_SHARE;
        let has_many = fields.iter().any(|field| field.walks.len() > N_LAST);
        let n_first_images = (has_many && n_first >= FIRST_IMAGES_MIN).then_some(n_first);
        Self { fields, n_images, n_first_images, in_pairs }
    }

    /// Whether nobody competes.
    pub fn is_empty(&self) -> bool {
        self.fields.iter().all(|field| field.walks.is_empty())
    }

    /// Who competes with whom.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Images of a round's refits; none for a round that is not held.
    pub fn n_images(&self, round: Round) -> Option<usize> {
        match round {
            Round::First => self.n_first_images,
            Round::Last => Some(self.n_images),
            Round::InPairs => self.in_pairs.then_some(self.n_images),
        }
    }

    /// The round after which a field's winner is known.
    pub const fn final_round(&self) -> Round {
        if self.in_pairs { Round::InPairs } else { Round::Last }
    }

    /// Refits of a round: all, and those whose outcome is known. Under `hurried` some of them may be left out.
    pub fn n_refits(&self, round: Round, ranks: &RefitRanks, hurried: bool) -> RefitCount {
        let keys = self.fields.iter().flat_map(|field| self.entrants(field, round, ranks, hurried));
        keys.fold(RefitCount::default(), |count, key| RefitCount {
            all: count.all + 1,
            known: count.known + u64::from(ranks.contains_key(&key)),
        })
    }

    /// The finalist of a field that is to be refitted next; none when the round is over for the field.
    ///
    /// Under `hurried`, for a user who does not want to wait, a field is over as soon as one of its finalists has a
    /// rank in the round, and a field that was not yet begun skips the first round with its most promising finalist.
    pub fn next(&self, field: usize, round: Round, ranks: &RefitRanks, hurried: bool) -> Option<RefitKey> {
        let entrants = self.entrants(&self.fields[field], round, ranks, hurried);
        let is_ranked = |key: &RefitKey| ranks.get(key).is_some_and(Option::is_some);
        if hurried && entrants.iter().any(is_ranked) {
            return None;
        }
        entrants.into_iter().find(|key| !ranks.contains_key(key))
    }

    /// The winner of a field whose last round is over; none if every finalist panicked.
    pub fn winner(&self, field: usize, ranks: &RefitRanks, hurried: bool) -> Option<Rank> {
        self.best_thorough(&self.fields[field], ranks, hurried)
    }

    fn best_thorough(&self, field: &Field, ranks: &RefitRanks, hurried: bool) -> Option<Rank> {
        let entrants = self.entrants(field, Round::Last, ranks, hurried);
        let ranked = entrants.iter().filter_map(|key| *ranks.get(key)?);
        ranked.min_by(Rank::best_first)
    }

    fn entrants(&self, field: &Field, round: Round, ranks: &RefitRanks, hurried: bool) -> Vec<RefitKey> {
        let Field { search, task, .. } = *field;
        let key = |round, walk| RefitKey { round, search, task, walk };
        let all = |round| field.walks.iter().map(move |&walk| key(round, walk));
        let first: Vec<Option<Rank>> = all(Round::First).filter_map(|key| ranks.get(&key).copied()).collect();
        let holds_first = self.n_first_images.is_some() && !(hurried && first.is_empty());
        match (round, holds_first) {
            // Whoever is in a hurry takes the winner as it is.
            (Round::InPairs, _) if hurried || !self.in_pairs => Vec::new(),
            (Round::InPairs, _) => {
                let winner = self.best_thorough(field, ranks, hurried);
                winner.map(|rank| key(round, rank.walk)).into_iter().collect()
            }
            (Round::First, false) => Vec::new(),
            (Round::First, true) | (Round::Last, false) => all(round).collect(),
            (Round::Last, true) => {
                let mut ranked: Vec<Rank> = first.into_iter().flatten().collect();
                ranked.sort_by(Rank::best_first);
                ranked.iter().take(N_LAST).map(|rank| key(round, rank.walk)).collect()
            }
        }
    }
}

/// How many refits a round has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefitCount {
    /// All of them.
    pub all: u64,
    /// Those that are done.
    pub known: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six finalists of one search on one task: the quick refit turns their order around but for walk 9, the thorough
    /// one prefers 30.
    const WALKS: [u64; 6] = [9, 5, 20, 30, 7, 40];

    fn quick(walk: u64) -> Option<Rank> {
        let reward = WALKS.iter().position(|&w| w == walk).unwrap() as f64;
        let reward = if walk == 9 { 10.0 } else { reward };
        (walk != 40).then_some(Rank { reward, macs: 1, walk })
    }

    fn thorough(walk: u64) -> Option<Rank> {
        Some(Rank { reward: if walk == 30 { 2.0 } else { 1.0 }, macs: 1, walk })
    }

    fn outcome(key: RefitKey) -> Option<Rank> {
        match key.round {
            Round::First => quick(key.walk),
            Round::Last => thorough(key.walk),
            Round::InPairs => Some(Rank { reward: 3.0, macs: 1, walk: key.walk }),
        }
    }

    fn field(search: usize, walks: &[u64]) -> Field {
        Field { search, task: 2, walks: walks.to_vec() }
    }

    /// Refits whatever is next until all fields are over, or `n` refits are known; the walks refitted in each round.
    fn play(tournament: &Tournament, ranks: &mut RefitRanks, hurried: bool, n: usize) -> [Vec<u64>; 3] {
        for round in Round::ALL {
            for field in 0..tournament.fields().len() {
                while let Some(key) = tournament.next(field, round, ranks, hurried).filter(|_| ranks.len() < n) {
                    assert!(key.round == round && ranks.insert(key, outcome(key)).is_none(), "{key:?} comes twice");
                }
            }
        }
        played_of(ranks)
    }

    fn played_of(ranks: &RefitRanks) -> [Vec<u64>; 3] {
        let of = |round| ranks.keys().filter(|key| key.round == round).map(|key| key.walk).collect();
        Round::ALL.map(of)
    }

    #[test]
    fn the_best_three_of_the_quick_refit_are_refitted_again_and_the_best_of_those_wins() {
        let (tournament, mut ranks) = (Tournament::new(vec![field(0, &WALKS)], 1000, false), RefitRanks::new());
        assert_eq!((tournament.n_images(Round::First), tournament.n_images(Round::Last)), (Some(250), Some(1000)));
        assert_eq!(tournament.n_refits(Round::First, &ranks, false), RefitCount { all: 6, known: 0 });
        let [mut first, mut last, _] = play(&tournament, &mut ranks, false, usize::MAX);
        first.sort_unstable();
        last.sort_unstable();
        // By the quick refit: 9 with 10, 7 with 4, 30 with 3, 20 with 2, 5 with 1; 40 panicked.
        assert_eq!((first, last), (vec![5, 7, 9, 20, 30, 40], vec![7, 9, 30]));
        assert_eq!(tournament.winner(0, &ranks, false), thorough(30));
        assert_eq!(tournament.n_refits(Round::Last, &ranks, false), RefitCount { all: 3, known: 3 });
    }

    #[test]
    fn few_finalists_or_few_images_make_no_first_round() {
        for (walks, n_images) in [(&WALKS[..3], 4000), (&WALKS[..], 999)] {
            let (tournament, mut ranks) = (Tournament::new(vec![field(0, walks)], n_images, false), RefitRanks::new());
            assert_eq!(tournament.n_images(Round::First), None);
            let [first, last, _] = play(&tournament, &mut ranks, false, usize::MAX);
            assert!(first.is_empty() && last.len() == walks.len());
        }
    }

    #[test]
    fn equal_rewards_go_to_fewer_operations_and_then_to_the_earlier_walk() {
        let tournament = Tournament::new(vec![field(0, &[8, 3, 4])], 100, false);
        let rank = |walk, macs| Some(Rank { reward: 0.5, macs, walk });
        let key = |walk| RefitKey { round: Round::Last, search: 0, task: 2, walk };
        let ranks: RefitRanks = [(key(8), rank(8, 9)), (key(3), rank(3, 7)), (key(4), rank(4, 7))].into();
        assert_eq!(tournament.winner(0, &ranks, false), rank(3, 7));
    }

    #[test]
    fn a_field_whose_finalists_all_panic_has_no_winner_and_another_is_not_touched() {
        let tournament = Tournament::new(vec![field(0, &[1, 2]), field(1, &[7])], 100, false);
        let key = |search, walk| RefitKey { round: Round::Last, search, task: 2, walk };
        let mut ranks: RefitRanks = [(key(0, 1), None), (key(0, 2), None)].into();
        assert_eq!((tournament.next(0, Round::Last, &ranks, false), tournament.winner(0, &ranks, false)), (None, None));
        assert_eq!(tournament.next(1, Round::Last, &ranks, false), Some(key(1, 7)));
        ranks.insert(key(1, 7), thorough(7));
        assert_eq!(tournament.winner(1, &ranks, false), thorough(7));
    }

    /// Stopped after any number of refits and gone on with, it ends as if it had not been stopped.
    #[test]
    fn a_tournament_that_goes_on_from_its_ranks_refits_the_same_finalists() {
        let tournament = Tournament::new(vec![field(0, &WALKS), field(1, &WALKS[1..])], 1000, false);
        let mut whole = RefitRanks::new();
        play(&tournament, &mut whole, false, usize::MAX);
        for n in 0..whole.len() {
            let mut ranks = RefitRanks::new();
            play(&tournament, &mut ranks, false, n);
            assert_eq!(ranks.len(), n);
            play(&tournament, &mut ranks, false, usize::MAX);
            assert_eq!(ranks, whole, "stopped after {n}");
        }
    }

    /// In a hurry, every field has a winner after at most one more refit in each round, panics aside.
    #[test]
    fn in_a_hurry_every_field_ends_with_one_thorough_refit() {
        let tournament = Tournament::new(vec![field(0, &WALKS), field(1, &WALKS[1..])], 1000, false);
        for n in 0..14 {
            let mut ranks = RefitRanks::new();
            play(&tournament, &mut ranks, false, n);
            let n_before = ranks.len();
            play(&tournament, &mut ranks, true, usize::MAX);
            assert!(ranks.len() <= n_before + 2, "after {n}: {} more", ranks.len() - n_before);
            for at in 0..2 {
                assert!(tournament.winner(at, &ranks, true).is_some(), "after {n}");
            }
        }
        // Not yet begun: the finalist that was best before any refit, thoroughly.
        let mut ranks = RefitRanks::new();
        assert_eq!(
            play(&tournament, &mut ranks, true, usize::MAX),
            [vec![], vec![9, 5], vec![]],
            "search 0 has 9 in front, search 1 has 5"
        );
    }

    #[test]
    fn only_the_winner_is_refitted_in_pairs_and_in_a_hurry_nobody() {
        let tournament = Tournament::new(vec![field(0, &WALKS), field(1, &[7])], 1000, true);
        assert_eq!(tournament.final_round(), Round::InPairs);
        let mut ranks = RefitRanks::new();
        let [_, _, in_pairs] = play(&tournament, &mut ranks, false, usize::MAX);
        assert_eq!(in_pairs, vec![30, 7]);
        assert_eq!(tournament.winner(0, &ranks, false), thorough(30), "a refit in pairs makes no other winner");
        let mut ranks = RefitRanks::new();
        assert_eq!(play(&tournament, &mut ranks, true, usize::MAX), [vec![], vec![9, 7], vec![]]);
        // Who has time after all goes on.
        assert_eq!(play(&tournament, &mut ranks, false, usize::MAX)[2].len(), 2);
    }

    #[test]
    fn in_a_hurry_the_next_finalist_steps_in_for_one_that_panics() {
        let tournament = Tournament::new(vec![field(0, &[1, 2])], 100, false);
        let key = |walk| RefitKey { round: Round::Last, search: 0, task: 2, walk };
        let ranks: RefitRanks = [(key(1), None)].into();
        assert_eq!(tournament.next(0, Round::Last, &ranks, true), Some(key(2)));
    }
}
