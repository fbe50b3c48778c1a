//! [`Requirement`]: what a user wants of the outcomes, and [`Tally`]: what there was of it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::stress::condition::{Condition, ConditionError};
use crate::stress::histogram::{Outcome, Witness};

/// What the outcomes of a whole campaign must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// At least one is like this.
    Expect(Condition),
    /// None is.
    Forbid(Condition),
}

/// Why a text is no [`Requirement`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequirementError {
    /// Neither of the two.
    #[error("'{0}' is no requirement: expected 'expect' or 'forbid' and a condition")]
    Form(String),
    /// The condition is none.
    #[error(transparent)]
    Condition(#[from] ConditionError),
}

impl Requirement {
    /// The outcomes that it is about.
    pub fn condition(&self) -> &Condition {
        match self {
            Self::Expect(condition) | Self::Forbid(condition) => condition,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expect(condition) => write!(f, "expect {condition}"),
            Self::Forbid(condition) => write!(f, "forbid {condition}"),
        }
    }
}

impl FromStr for Requirement {
    type Err = RequirementError;

    fn from_str(text: &str) -> Result<Self, RequirementError> {
        match text.split_once(' ') {
            Some(("expect", condition)) => Ok(Self::Expect(condition.parse()?)),
            Some(("forbid", condition)) => Ok(Self::Forbid(condition.parse()?)),
            _ => Err(RequirementError::Form(text.to_owned())),
        }
    }
}

/// Whether a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Holds,
    /// It is not.
    Violated,
    /// It is not yet, but shards are missing that may still meet it.
    Open,
}

impl Standing {
    /// `holds`, `violated` or `open`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Violated => "violated",
            Self::Open => "open",
        }
    }
}

/// A requirement, and how many outcomes were as it says. These are counted one by one as they
/// come, and not taken from a [`Histogram`](super::histogram::Histogram), which does not tell
/// apart more outcomes than it has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    requirement: Requirement,
    matched: u64,
    witness: Option<Witness>,
}

impl Tally {
    /// A requirement without any outcome.
    pub fn new(requirement: Requirement) -> Self {
        Self { requirement, matched: 0, witness: None }
    }

    /// A requirement of which it is known how many outcomes were as it says and which iteration
    /// was the first with one. `None` if there are some without an iteration, or the other way
    /// round.
    pub fn known(requirement: Requirement, matched: u64, witness: Option<Witness>) -> Option<Self> {
        ((matched > 0) == witness.is_some()).then_some(Self { requirement, matched, witness })
    }

    /// Counts an outcome that was seen `count` times in one iteration, if it is as the requirement
    /// says. Counts end at [`u64::MAX`].
    pub fn add(&mut self, outcome: &Outcome, count: u64, witness: Witness) {
        if count > 0 && self.matches(outcome) {
            self.add_matched(count, Some(witness));
        }
    }

    /// Adds what was counted elsewhere for the same requirement.
    pub fn merge(&mut self, from: &Self) {
        self.add_matched(from.matched, from.witness);
    }

    fn add_matched(&mut self, count: u64, witness: Option<Witness>) {
        self.matched = self.matched.saturating_add(count);
        self.witness = self.witness.into_iter().chain(witness).min();
    }

    /// Whether an outcome is as the requirement says.
    pub fn matches(&self, outcome: &Outcome) -> bool {
        self.requirement.condition().matches(outcome.value, outcome.label.as_str())
    }

    /// The requirement.
    pub fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    /// How many outcomes were as it says.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// The first iteration, by number, that had such an outcome.
    pub fn witness(&self) -> Option<Witness> {
        self.witness
    }

    /// Whether the requirement is met, if `more` says whether outcomes are still to be added.
    pub fn standing(&self, more: bool) -> Standing {
        match (&self.requirement, self.matched > 0) {
            (Requirement::Expect(_), true) => Standing::Holds,
            (Requirement::Expect(_), false) if more => Standing::Open,
            (Requirement::Expect(_), false) | (Requirement::Forbid(_), true) => Standing::Violated,
            // What is seen in a shard that is missing would be told there.
            (Requirement::Forbid(_), false) => Standing::Holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stress::histogram::Label;
    use crate::stress::seed::Seed;

    #[test]
    fn text_and_back() {
        for text in ["expect 0x1", "forbid 0x1-0x3,label=a b"] {
            assert_eq!(text.parse::<Requirement>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("expect", "'expect' is no requirement: expected 'expect' or 'forbid' and"),
            ("want 0x1", "'want 0x1' is no requirement"),
            ("forbid x", "'x' is no outcome"),
        ] {
            let error = text.parse::<Requirement>().unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }

    #[test]
    fn one_outcome_meets_an_expectation_and_breaks_a_prohibition() {
        let witness = |iteration| Witness { iteration, seed: Seed(iteration) };
        for (text, without, with) in [
            ("expect 0x1", [Standing::Violated, Standing::Open], Standing::Holds),
            ("forbid 0x1", [Standing::Holds; 2], Standing::Violated),
        ] {
            let mut tally = Tally::new(text.parse().unwrap());
            tally.add(&Outcome { value: 0, label: Label::default() }, 5, witness(0));
            tally.add(&Outcome { value: 1, label: Label::default() }, 0, witness(0));
            assert_eq!([false, true].map(|more| tally.standing(more)), without, "{text}");
            tally.add(&Outcome { value: 1, label: Label::default() }, 3, witness(9));
            tally.add(&Outcome { value: 1, label: Label::default() }, 3, witness(2));
            assert_eq!([false, true].map(|more| tally.standing(more)), [with; 2], "{text}");
            assert_eq!((tally.matched(), tally.witness()), (6, Some(witness(2))));
        }
    }
}
