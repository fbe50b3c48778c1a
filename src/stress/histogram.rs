//! How often each outcome was seen, in bounded memory and an order of its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use crate::stress::printable::Printable;
use crate::stress::seed::Seed;

/// What a guest said about an outcome, at most [`Label::MAX_BYTES`] long. Any text, even one that
/// is not for a terminal; [`Label`]'s `Display` escapes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(String);

impl Label {
    /// The longest label, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 64;

    /// The label, cut off after the last whole character that there is room for.
    pub fn new(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(Self::MAX_BYTES)].to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.0).fmt(f)
    }
}

/// An outcome as the guest reported it. They are ordered by value, and by label where that is the
/// same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The value.
    pub value: u64,
    /// The label; empty if there was none.
    pub label: Label,
}

/// An iteration in which something was seen, with what it takes to run it again. The lowest is the
/// one with the lowest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witness {
    /// The number of the iteration, from 0.
    pub iteration: u64,
    /// Its own seed, see [`Seed::iteration`].
    pub seed: Seed,
}

/// What is known of one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// How often it was seen: never 0.
    pub count: u64,
    /// The first iteration, by number, in which it was.
    pub witness: Witness,
}

/// How often each outcome was seen.
///
/// Has at most [`Histogram::MAX_STATES`] different outcomes, the lowest, each with its exact count;
/// whatever is above them is counted in one number. So a guest cannot make it grow, and what is in
/// it depends on what was added, and not on the order or on how it was split and merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    states: BTreeMap<Outcome, State>,
    other: u64,
    limit: usize,
}

impl Default for Histogram {
    /// An empty one.
    fn default() -> Self {
        Self::with_limit(Self::MAX_STATES)
    }
}

impl Histogram {
    /// The most outcomes that are told apart.
    pub const MAX_STATES: usize = 65_536;

    fn with_limit(limit: usize) -> Self {
        Self { states: BTreeMap::new(), other: 0, limit }
    }

    /// Counts an outcome that was seen `count` times in the iteration of `witness`. A count of 0
    /// is not an outcome. Counts end at [`u64::MAX`].
    pub fn add(&mut self, outcome: Outcome, count: u64, witness: Witness) {
        if count == 0 {
            return;
        }
        match self.states.entry(outcome) {
            Entry::Occupied(mut known) => {
                let state = known.get_mut();
                state.count = state.count.saturating_add(count);
                state.witness = state.witness.min(witness);
            }
            Entry::Vacant(new) => {
                new.insert(State { count, witness });
            }
        }
        if self.states.len() > self.limit
            && let Some((_, highest)) = self.states.pop_last()
        {
            self.add_other(highest.count);
        }
    }

    /// Counts outcomes that are not told apart.
    pub(crate) fn add_other(&mut self, count: u64) {
        self.other = self.other.saturating_add(count);
    }

    /// Adds all that was seen elsewhere.
    pub fn merge(&mut self, from: Self) {
        self.add_other(from.other);
        for (outcome, State { count, witness }) in from.states {
            self.add(outcome, count, witness);
        }
    }

    /// The outcomes that are told apart, lowest first.
    pub fn states(&self) -> impl ExactSizeIterator<Item = (&Outcome, &State)> {
        self.states.iter()
    }

    /// How many outcomes were seen that are not told apart.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// How many outcomes were seen, all together.
    pub fn total(&self) -> u64 {
        self.states.values().fold(self.other, |sum, state| sum.saturating_add(state.count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Seen = (u64, &'static str, u64, u64);

    fn outcome(value: u64, label: &str) -> Outcome {
        Outcome { value, label: Label::new(label) }
    }

    fn witness(iteration: u64) -> Witness {
        Witness { iteration, seed: Seed(7).iteration(iteration) }
    }

    fn histogram_of(limit: usize, seen: &[Seen]) -> Histogram {
        let mut histogram = Histogram::with_limit(limit);
        for (value, label, count, iteration) in seen {
            histogram.add(outcome(*value, label), *count, witness(*iteration));
        }
        histogram
    }

    fn rows(histogram: &Histogram) -> Vec<(u64, &str, u64, u64)> {
        let states = histogram.states();
        states.map(|(o, s)| (o.value, o.label.as_str(), s.count, s.witness.iteration)).collect()
    }

    #[test]
    fn counts_are_by_value_and_label_with_the_first_iteration() {
        let seen =
            [(3, "b", 1, 9), (0, "", 5, 4), (3, "a", 2, 8), (3, "b", 10, 2), (1, "none", 0, 0)];
        let histogram = histogram_of(8, &seen);
        assert_eq!(rows(&histogram), [(0, "", 5, 4), (3, "a", 2, 8), (3, "b", 11, 2)]);
        assert_eq!((histogram.total(), histogram.other()), (18, 0));
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_together() {
        let mut histogram = Histogram::default();
        let most = u64::try_from(Histogram::MAX_STATES).unwrap();
        for value in (0..most + 10).rev().chain(most..most + 5) {
            histogram.add(outcome(value, ""), 2, witness(value));
        }
        assert_eq!(histogram.states().len(), Histogram::MAX_STATES);
        assert_eq!((histogram.other(), histogram.total()), (30, 2 * most + 30));
        assert!(histogram.states().all(|(outcome, state)| {
            state.count == 2 && state.witness.iteration == outcome.value && outcome.value < most
        }));
    }

    #[test]
    fn counts_end_where_the_numbers_do() {
        let histogram = histogram_of(8, &[(1, "", u64::MAX, 0), (1, "", 1, 1), (2, "", 5, 1)]);
        assert_eq!(rows(&histogram), [(1, "", u64::MAX, 0), (2, "", 5, 1)]);
        assert_eq!(histogram.total(), u64::MAX);
    }

    #[test]
    fn labels_are_cut_at_a_character_and_escaped() {
        assert_eq!(Label::new(&"x".repeat(100)).as_str(), "x".repeat(64));
        assert_eq!(Label::new(&"ä".repeat(40)).as_str(), "ä".repeat(32));
        assert_eq!(Label::new(&format!("x{}", "ä".repeat(40))).as_str().len(), 63);
        assert_eq!(Label::new("\u{1b}[2J\n").to_string(), "\\u{1b}[2J\\n");
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let label = prop_oneof![Just(""), Just("a"), Just("b")];
        (0_u64..6, label, prop_oneof![0_u64..5, Just(u64::MAX)], 0_u64..100)
    }

    proptest! {
        #[test]
        fn split_and_order_make_no_difference(
            parts in vec(vec(seen(), 0..12), 3),
            limit in 0_usize..12,
        ) {
            let whole = histogram_of(limit, &parts.concat());
            let [a, b, c] = [0, 1, 2].map(|part| histogram_of(limit, &parts[part]));
            let sum = |parts: [&Histogram; 2]| {
                let mut sum = parts[0].clone();
                sum.merge(parts[1].clone());
                sum
            };
            prop_assert_eq!(sum([&sum([&a, &b]), &c]), whole.clone());
            prop_assert_eq!(sum([&a, &sum([&b, &c])]), whole.clone());
            prop_assert_eq!(sum([&c, &sum([&b, &a])]), whole);
        }
    }
}
