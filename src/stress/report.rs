//! A campaign's result as text for people, in the form that litmus7 gives its results.

use std::fmt;

use crate::stress::histogram::{Outcome, State};
use crate::stress::printable::Printable;
use crate::stress::requirement::{Standing, Tally};
use crate::stress::result::{CampaignResult, Disturbances, Failure};
use crate::stress::shard::Shard;
use crate::trace::summary::layout::duration;

/// The most failures that are shown.
const FAILURES: usize = 10;

/// The most outcomes that are shown.
const STATES: usize = 100;

/// The most shards of a list that are named.
const SHARDS: usize = 16;

impl CampaignResult {
    /// The result as text of some lines: iterations, failures, the histogram, what became of each
    /// condition, and times. What is left out of long lists is said.
    pub fn report(&self) -> String {
        Report(self).to_string()
    }
}

struct Report<'a>(&'a CampaignResult);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.failures(f)?;
        // A guest that reports nothing has none, unless something was wanted of it.
        if self.0.histogram().total() > 0 || !self.0.tallies().is_empty() {
            self.histogram(f)?;
        }
        let tallies = self.0.tallies().iter().zip(self.0.verdict());
        for (index, (tally, standing)) in tallies.enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.condition(f, tally, standing)?;
        }
        self.times(f)
    }
}

impl Report<'_> {
    fn name(&self) -> Printable<'_> {
        Printable(&self.0.guest().name)
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = self.0;
        let (name, run, due) = (self.name(), result.run(), result.due());
        write!(f, "Test {name}: {run}")?;
        if run != due {
            write!(f, " of {due}")?;
        }
        let (passed, failed) = (result.passed(), result.failed());
        let seed = result.settings().seed;
        writeln!(f, " iterations, {passed} passed, {failed} failed, seed {seed}")?;
        for cut in result.cuts() {
            writeln!(f, "Cut short: {}", Printable(&cut.why))?;
        }
        if result.shards().next().is_some() {
            writeln!(f, "Shards: {}", list(result.shards()))?;
        }
        if result.missing_shards().next().is_some() {
            let (missing, asked) = (list(result.missing_shards()), result.asked());
            writeln!(f, "Missing of the {asked} iterations of the campaign: shards {missing}")?;
        }
        Ok(())
    }

    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = self.0;
        if result.failed() == 0 {
            return Ok(());
        }
        writeln!(f, "\nFailures")?;
        for failure in result.failures().take(FAILURES) {
            let Failure { iteration, seed, what, exit_code, command } = failure;
            let (what, command) = (Printable(what), Printable(command));
            writeln!(f, "  iteration {iteration}, seed {seed}, exit code {exit_code}: {what}")?;
            writeln!(f, "    {command}")?;
        }
        let shown = result.failures().take(FAILURES).map(|_| 1).sum();
        more(f, result.failed().saturating_sub(shown))
    }

    fn histogram(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let histogram = self.0.histogram();
        let count = histogram.states().len();
        writeln!(f, "\nHistogram ({count} states)")?;
        let shown = self.shown_states();
        let other = histogram.other();
        let counts = shown.iter().map(|(_, state, _)| state.count).chain([other]);
        let width = counts.max().unwrap_or(0).to_string().len();
        for (outcome, State { count, .. }, matches) in &shown {
            let (mark, value) = (if *matches { '*' } else { ':' }, outcome.value);
            write!(f, "{count:>width$} {mark}> {value:#x}")?;
            match outcome.label.as_str() {
                "" => writeln!(f)?,
                _ => writeln!(f, "  {}", outcome.label)?,
            }
        }
        if other > 0 {
            writeln!(f, "{other:>width$} :> others, beyond the {count} lowest states")?;
        }
        more(f, u64::try_from(count - shown.len()).unwrap_or(u64::MAX))
    }

    /// The states that there is room for, in order: before all others those of a condition. Each
    /// with whether it is one.
    fn shown_states(&self) -> Vec<(&Outcome, &State, bool)> {
        let matches = |outcome| self.0.tallies().iter().any(|tally| tally.matches(outcome));
        let states = self.0.histogram().states();
        let mut states: Vec<_> = states.map(|(o, state)| (o, state, matches(o))).collect();
        states.sort_by_key(|(.., matches)| !matches);
        states.truncate(STATES);
        states.sort_by_key(|(outcome, ..)| *outcome);
        states
    }

    fn condition(
        &self,
        f: &mut fmt::Formatter<'_>,
        tally: &Tally,
        standing: Standing,
    ) -> fmt::Result {
        let requirement = tally.requirement().to_string();
        let requirement = Printable(&requirement);
        let (verdict, validated) = match standing {
            Standing::Holds => ("Ok", "is validated"),
            Standing::Violated => ("No", "is NOT validated"),
            Standing::Open => ("Open", "is open until the missing shards are added"),
        };
        let positive = tally.matched();
        let negative = self.0.histogram().total().saturating_sub(positive);
        let frequency = match (positive, negative) {
            (0, _) => "Never",
            (_, 0) => "Always",
            _ => "Sometimes",
        };
        writeln!(f, "{verdict}\n\nWitnesses\nPositive: {positive}, Negative: {negative}")?;
        writeln!(f, "Condition {requirement} {validated}")?;
        if let Some(witness) = tally.witness() {
            writeln!(f, "First in iteration {}, seed {}", witness.iteration, witness.seed)?;
        }
        writeln!(f, "Observation {} {frequency} {positive} {negative}", self.name())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skew = self.0.skew();
        let percentiles = skew.percentile(50).zip(skew.percentile(99));
        if let Some(((min, max), (median, p99))) = skew.extremes().zip(percentiles) {
            let [min, median, p99, max] = [min, median, p99, max].map(duration);
            writeln!(
                f,
                "\nStart skew of {} starts: min {min}, median {median}, p99 {p99}, max {max} \
                 (median and p99 rounded up by at most 1/16)",
                skew.count(),
            )?;
        }
        let Disturbances { perturbations, preemptions } = self.0.disturbances();
        if perturbations > 0 {
            writeln!(f, "Disturbed {perturbations} times")?;
        }
        if preemptions > 0 {
            writeln!(
                f,
                "Lockstep: {preemptions} times a vCPU came to no exit and was interrupted; where \
                 these turns ended is not the seed's, and another run may differ"
            )?;
        }
        writeln!(f, "Time {} {:.2}", self.name(), self.0.elapsed().as_secs_f64())
    }
}

fn more(f: &mut fmt::Formatter<'_>, left_out: u64) -> fmt::Result {
    if left_out > 0 { writeln!(f, "  and {left_out} more") } else { Ok(()) }
}

/// `1/4, 3/4`, and the first ones of many.
fn list(mut shards: impl Iterator<Item = Shard>) -> String {
    let named: Vec<_> = shards.by_ref().take(SHARDS).map(|shard| shard.to_string()).collect();
    let dots = if shards.next().is_some() { ", ..." } else { "" };
    named.join(", ") + dots
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::stress::result::Cut;
    use crate::stress::result::tests::{empty, failure, witness};

    #[test]
    fn a_litmus_test_is_shown_as_litmus7_does() {
        let mut result = empty("", 4, "forbid 0x0|expect 0x3,label=0:rax=0; 1:rbx=1;");
        for (value, label, count, iteration) in [
            (0, "0:rax=0; 1:rbx=0;", 92, 3),
            (1, "0:rax=0; 1:rbx=1;", 499_804, 0),
            (2, "", 499_809, 0),
            (3, "", 295, 2),
        ] {
            result.add_outcome(value, label, count, witness(iteration));
        }
        (0..4).for_each(|_| result.add_pass());
        [900, 1500, 80_000].into_iter().for_each(|skew| result.add_skew(skew));
        result.add_elapsed(Duration::from_millis(1234));
        let text = format!(
            "\
Test litmus-sb: 4 iterations, 4 passed, 0 failed, seed 0x2a

Histogram (4 states)
    92 *> 0x0  0:rax=0; 1:rbx=0;
499804 *> 0x1  0:rax=0; 1:rbx=1;
499809 :> 0x2
   295 *> 0x3
No

Witnesses
Positive: 92, Negative: 999908
Condition forbid 0x0 is NOT validated
First in iteration 3, seed {}
Observation litmus-sb Sometimes 92 999908

Ok

Witnesses
Positive: 500099, Negative: 499901
Condition expect 0x3,label=0:rax=0; 1:rbx=1; is validated
First in iteration 0, seed 0x2a
Observation litmus-sb Sometimes 500099 499901

Start skew of 3 starts: min 900 ns, median 1.54 us, p99 80.0 us, max 80.0 us \
(median and p99 rounded up by at most 1/16)
Time litmus-sb 1.23
",
            witness(3).seed
        );
        assert_eq!(result.report(), text);
    }

    #[test]
    fn what_is_missing_and_what_failed_is_said() {
        use crate::stress::result::Failure;

        let mut result = empty("2/40", 1000, "expect label=a|forbid 0x9");
        (0..12).for_each(|number| result.add_failure(failure(number * 40 + 1, 8)));
        let what = "it said \"\u{1b}[2J\n\"".to_owned();
        result.add_failure(Failure { what, ..failure(0, 43) });
        result.add_pass();
        result.add_cut(Cut { why: "time-out after 10s".into(), exit_code: 124 });
        result.add_outcome(9, "\u{1b}c", 5, witness(1));
        let text = result.report();
        for part in [
            "Test litmus-sb: 14 of 25 iterations, 1 passed, 13 failed, seed 0x2a\n\
             Cut short: time-out after 10s\n\
             Shards: 2/40\n\
             Missing of the 1000 iterations of the campaign: shards 1/40, 3/40, 4/40, ",
            ", 16/40, 17/40, ...\n\nFailures\n  \
             iteration 0, seed 0x2a, exit code 43: it said \"\\u{1b}[2J\\n\"\n    \
             minivmm --seed 0x2a litmus-sb.bin\n  \
             iteration 1, seed 0x",
            "  and 3 more\n\nHistogram (1 states)\n5 *> 0x9  \\u{1b}c\nOpen\n\nWitnesses\n\
             Positive: 0, Negative: 5\n\
             Condition expect label=a is open until the missing shards are added\n\
             Observation litmus-sb Never 0 5\n\nNo\n",
            "Observation litmus-sb Always 5 0\nTime litmus-sb 0.00\n",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert_eq!(text.matches("\n    minivmm").count(), 10);
    }

    #[test]
    fn of_many_states_those_of_a_condition_are_shown() {
        let mut result = empty("", 1, "forbid 0xfff0");
        (0..=65_600).for_each(|value| result.add_outcome(value, "", 1, witness(0)));
        let text = result.report();
        assert!(text.contains("Histogram (65536 states)\n 1 :> 0x0\n 1 :> 0x1\n"), "{text}");
        let end = " 1 :> 0x62\n 1 *> 0xfff0\n65 :> others, beyond the 65536 lowest states\n  \
                   and 65436 more\nNo\n";
        assert!(text.contains(end), "{text}");
    }

    #[test]
    fn nothing_is_shown_too() {
        let text = "Test litmus-sb: 0 iterations, 0 passed, 0 failed, seed 0x2a\n\
                    Time litmus-sb 0.00\n";
        assert_eq!(empty("", 0, "").report(), text);
    }
}
