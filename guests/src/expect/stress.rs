//! What each stress guest reports, as data: for tests that run them.
//!
//! The facts are those in the header of each guest's source; every guest prints nothing and, but
//! for the broken one, passes. The number of iterations is the default (`rbp` = 0).

use std::ops::RangeInclusive;

/// What to expect of a stress guest.
#[derive(Clone, Copy, Debug)]
pub struct StressExpect {
    /// The guest's name.
    pub name: &'static str,
    /// The fewest vCPUs that it takes. With fewer it fails and says so.
    pub least_vcpus: u32,
    /// What it reports.
    pub outcomes: Outcomes,
    /// How many reports an iteration makes in ring 3, and in ring 0.
    pub reports: [u64; 2],
    /// Whether it is there to be caught: with two vCPUs or more it fails, sooner or later.
    pub broken: bool,
}

/// What a guest may report.
#[derive(Clone, Copy, Debug)]
pub enum Outcomes {
    /// Outcomes with these labels.
    Labels(&'static [&'static str]),
    /// Values in this range, by the number of vCPUs.
    Values(fn(vcpus: u32) -> RangeInclusive<u64>),
}

impl StressExpect {
    /// Whether this outcome is one of those to expect.
    pub fn allows(&self, vcpus: u32, value: u64, label: &str) -> bool {
        match self.outcomes {
            Outcomes::Labels(labels) => labels.contains(&label),
            Outcomes::Values(range) => label.is_empty() && range(vcpus).contains(&value),
        }
    }
}

/// How evenly a lock was shared.
const FAIRNESS: Outcomes = Outcomes::Labels(&[
    "min/max=0%",
    "min/max=10%",
    "min/max=20%",
    "min/max=30%",
    "min/max=40%",
    "min/max=50%",
    "min/max=60%",
    "min/max=70%",
    "min/max=80%",
    "min/max=90%",
    "min/max=100%",
]);

const FULL_EMPTY: Outcomes = Outcomes::Labels(&[
    "full=0; empty=0;",
    "full=1; empty=0;",
    "full=0; empty=1;",
    "full=1; empty=1;",
]);

/// What to expect of each stress guest, one entry a guest, in the order of the table.
pub const STRESS_EXPECTS: &[StressExpect] = &[
    guest("counter-racy", Outcomes::Values(|vcpus| 2..=10 * u64::from(vcpus))),
    guest("lock-tas", FAIRNESS),
    guest("lock-ticket", FAIRNESS),
    guest("lock-mcs", FAIRNESS),
    guest("lock-rw", FAIRNESS),
    guest("seqlock", FAIRNESS),
    StressExpect { broken: true, ..guest("lock-broken", FAIRNESS) },
    silent("barrier"),
    StressExpect { least_vcpus: 2, ..guest("queue-spsc", FULL_EMPTY) },
    guest("queue-mpmc", FULL_EMPTY),
    guest("stack-treiber", Outcomes::Labels(&["empty=0;", "empty=1;"])),
    litmus(
        "litmus-sb",
        2,
        &["0:rax=0; 1:rbx=0;", "0:rax=0; 1:rbx=1;", "0:rax=1; 1:rbx=0;", "0:rax=1; 1:rbx=1;"],
    ),
    litmus("litmus-sb-mfence", 2, &["0:rax=0; 1:rbx=1;", "0:rax=1; 1:rbx=0;", "0:rax=1; 1:rbx=1;"]),
    litmus("litmus-mp", 2, &["1:rax=0; 1:rbx=0;", "1:rax=0; 1:rbx=1;", "1:rax=1; 1:rbx=1;"]),
    litmus("litmus-lb", 2, &["0:rax=0; 1:rbx=0;", "0:rax=0; 1:rbx=1;", "0:rax=1; 1:rbx=0;"]),
    litmus(
        "litmus-iriw",
        4,
        &[
            "2:rax=0; 2:rbx=0; 3:rax=0; 3:rbx=0;",
            "2:rax=0; 2:rbx=0; 3:rax=0; 3:rbx=1;",
            "2:rax=0; 2:rbx=0; 3:rax=1; 3:rbx=0;",
            "2:rax=0; 2:rbx=0; 3:rax=1; 3:rbx=1;",
            "2:rax=0; 2:rbx=1; 3:rax=0; 3:rbx=0;",
            "2:rax=0; 2:rbx=1; 3:rax=0; 3:rbx=1;",
            "2:rax=0; 2:rbx=1; 3:rax=1; 3:rbx=0;",
            "2:rax=0; 2:rbx=1; 3:rax=1; 3:rbx=1;",
            "2:rax=1; 2:rbx=0; 3:rax=0; 3:rbx=0;",
            "2:rax=1; 2:rbx=0; 3:rax=0; 3:rbx=1;",
            "2:rax=1; 2:rbx=0; 3:rax=1; 3:rbx=1;",
            "2:rax=1; 2:rbx=1; 3:rax=0; 3:rbx=0;",
            "2:rax=1; 2:rbx=1; 3:rax=0; 3:rbx=1;",
            "2:rax=1; 2:rbx=1; 3:rax=1; 3:rbx=0;",
            "2:rax=1; 2:rbx=1; 3:rax=1; 3:rbx=1;",
        ],
    ),
    litmus(
        "litmus-n6",
        2,
        &[
            "0:rax=1; 0:rbx=0; [x]=1;",
            "0:rax=1; 0:rbx=0; [x]=2;",
            "0:rax=1; 0:rbx=2; [x]=1;",
            "0:rax=1; 0:rbx=2; [x]=2;",
            "0:rax=2; 0:rbx=2; [x]=2;",
        ],
    ),
    litmus(
        "litmus-r",
        2,
        &["1:rax=0; [y]=1;", "1:rax=0; [y]=2;", "1:rax=1; [y]=1;", "1:rax=1; [y]=2;"],
    ),
    litmus("litmus-2-2w", 2, &["[x]=1; [y]=2;", "[x]=2; [y]=1;", "[x]=2; [y]=2;"]),
    silent("smc"),
    silent("reset-paging"),
    silent("reset-interrupts"),
    silent("tlb"),
    silent("io-storm"),
];

const fn guest(name: &'static str, outcomes: Outcomes) -> StressExpect {
    StressExpect { name, least_vcpus: 1, outcomes, reports: [1, 1], broken: false }
}

const fn silent(name: &'static str) -> StressExpect {
    StressExpect { reports: [0, 0], ..guest(name, Outcomes::Labels(&[])) }
}

/// A litmus test reports a final state for each round.
const fn litmus(name: &'static str, vcpus: u32, states: &'static [&'static str]) -> StressExpect {
    let reports = [16384, 256];
    StressExpect { least_vcpus: vcpus, reports, ..guest(name, Outcomes::Labels(states)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_by_label_or_by_value() {
        let named = |name| STRESS_EXPECTS.iter().find(|expect| expect.name == name).unwrap();
        assert!(named("litmus-mp").allows(2, 0, "1:rax=0; 1:rbx=0;"));
        assert!(!named("litmus-mp").allows(2, 1, "1:rax=1; 1:rbx=0;"));
        assert!(named("counter-racy").allows(2, 20, ""));
        assert!(!named("counter-racy").allows(1, 20, ""));
        assert!(!named("counter-racy").allows(2, 20, "x"));
        assert!(!named("barrier").allows(2, 0, ""));
    }
}
