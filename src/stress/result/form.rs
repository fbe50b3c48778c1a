//! The names that a result has as JSON, and what must hold of their values.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::number::{NumberError, parse_u64};
use crate::stress::histogram::{Histogram, Label, Outcome, State, Witness};
use crate::stress::requirement::{Requirement, Standing, Tally};
use crate::stress::result::{
    CampaignResult, Cut, Disturbances, Failure, Failures, Guest, MAX_FAILURES, Settings, Shards,
};
use crate::stress::seed::Seed;
use crate::stress::shard::Shard;
use crate::stress::skew::StartSkew;

/// What `format` says.
pub const FORMAT: &str = "minivmm-stress";

/// What `version` says: one more whenever a name goes or changes its meaning.
pub const VERSION: u32 = 1;

/// Values that are not possible together: which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is no possible result: {0}")]
pub struct Impossible(&'static str);

/// Values that are written as text, in the form that their `Display` and `FromStr` have.
pub(super) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::stress::result) fn serialize<T, S>(value: &T, out: S) -> Result<S::Ok, S::Error>
    where
        T: Display,
        S: Serializer,
    {
        out.collect_str(value)
    }

    pub(in crate::stress::result) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Form {
    format: String,
    version: u32,
    /// For readers.
    #[serde(skip_deserializing)]
    exit_code: u8,
    guest: Guest,
    settings: Settings,
    shards: Option<ShardsForm>,
    iterations: IterationsForm,
    cuts: BTreeSet<Cut>,
    elapsed_ns: u64,
    conditions: Vec<ConditionForm>,
    failures: Vec<Failure>,
    start_skew: SkewForm,
    disturbances: Disturbances,
    other: u64,
    states: Vec<StateForm>,
}

#[derive(Serialize, Deserialize)]
struct ShardsForm {
    count: u32,
    present: BTreeSet<u32>,
}

#[derive(Serialize, Deserialize)]
struct IterationsForm {
    asked: u64,
    run: u64,
    passed: u64,
    failed: u64,
}

#[derive(Serialize, Deserialize)]
struct ConditionForm {
    #[serde(with = "as_text")]
    condition: Requirement,
    /// For readers.
    #[serde(skip_deserializing)]
    standing: &'static str,
    matched: u64,
    witness: Option<WitnessForm>,
}

#[derive(Serialize, Deserialize)]
struct WitnessForm {
    iteration: u64,
    #[serde(with = "as_text")]
    seed: Seed,
}

#[derive(Serialize, Deserialize)]
struct SkewForm {
    /// The first four are for readers.
    #[serde(skip_deserializing)]
    count: u64,
    #[serde(skip_deserializing)]
    median_ns: Option<u64>,
    #[serde(skip_deserializing)]
    p99_ns: Option<u64>,
    min_ns: Option<u64>,
    max_ns: Option<u64>,
    /// The lowest duration of each bucket in ns, and the count.
    buckets: Vec<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
struct StateForm {
    #[serde(with = "as_text")]
    value: Hexadecimal,
    label: String,
    count: u64,
    witness: WitnessForm,
}

/// A number as text.
struct Hexadecimal(u64);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for Hexadecimal {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        parse_u64(text).map(Self)
    }
}

impl From<Witness> for WitnessForm {
    fn from(Witness { iteration, seed }: Witness) -> Self {
        Self { iteration, seed }
    }
}

impl WitnessForm {
    fn into_witness(self, of: &CampaignResult) -> Result<Witness, Impossible> {
        let Self { iteration, seed } = self;
        check(of.has(iteration), "an outcome is of an iteration that it does not have")?;
        Ok(Witness { iteration, seed })
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), Impossible> {
    if holds { Ok(()) } else { Err(Impossible(otherwise)) }
}

impl Form {
    pub(super) fn of(result: &CampaignResult) -> Self {
        let conditions = result.tallies.iter().zip(result.verdict());
        let condition = |(tally, standing): (&Tally, Standing)| ConditionForm::of(tally, standing);
        let failures = &result.failures;
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            exit_code: result.exit_code(),
            guest: result.guest.clone(),
            settings: result.settings.clone(),
            shards: result.shards.as_ref().map(ShardsForm::of),
            iterations: IterationsForm {
                asked: result.asked,
                run: result.run(),
                passed: result.passed,
                failed: failures.total,
            },
            cuts: result.cuts.clone(),
            elapsed_ns: result.elapsed_ns,
            conditions: conditions.map(condition).collect(),
            failures: failures.first.iter().cloned().collect(),
            start_skew: SkewForm::of(&result.skew),
            disturbances: result.disturbances,
            other: result.histogram.other(),
            states: result.histogram.states().map(StateForm::of).collect(),
        }
    }

    pub(super) fn into_result(self) -> Result<CampaignResult, Impossible> {
        check(self.version == VERSION, "there is no version 0 of the format")?;
        let shards = self.shards.map(ShardsForm::into_shards).transpose()?;
        let IterationsForm { asked, run, passed, failed } = self.iterations;
        let mut result = CampaignResult::new(self.guest, self.settings, asked, None, []);
        result.shards = shards;
        check(
            passed.checked_add(failed) == Some(run),
            "the iterations that passed and failed are not those that were run",
        )?;
        check(run <= result.due(), "more iterations were run than there are")?;
        result.passed = passed;
        result.failures = failures(self.failures, failed, &result)?;
        result.histogram = histogram(self.states, self.other, &result)?;
        let conditions = self.conditions.into_iter();
        let tallies: Result<_, _> = conditions.map(|form| form.into_tally(&result)).collect();
        result.tallies = tallies?;
        result.skew = self.start_skew.into_skew()?;
        result.disturbances = self.disturbances;
        result.elapsed_ns = self.elapsed_ns;
        result.cuts = self.cuts;
        Ok(result)
    }
}

fn failures(
    list: Vec<Failure>,
    total: u64,
    result: &CampaignResult,
) -> Result<Failures, Impossible> {
    let kept = usize::try_from(total).unwrap_or(usize::MAX).min(MAX_FAILURES);
    check(list.len() == kept, "its failures are not as many as it says")?;
    let ascending = list.is_sorted_by(|one, next| one.iteration < next.iteration);
    check(ascending, "its failures are not in order")?;
    let known = list.iter().all(|failure| result.has(failure.iteration));
    check(known, "a failure is of an iteration that it does not have")?;
    Ok(Failures { first: list.into_iter().collect(), total })
}

fn histogram(
    states: Vec<StateForm>,
    other: u64,
    result: &CampaignResult,
) -> Result<Histogram, Impossible> {
    let count = states.len();
    let fits = count <= Histogram::MAX_STATES && (other == 0 || count == Histogram::MAX_STATES);
    check(fits, "it does not have as many states as it should")?;
    let mut histogram = Histogram::default();
    for form in states {
        let label = Label::new(&form.label);
        check(label.as_str() == form.label, "a label is too long")?;
        check(form.count > 0, "a state was never seen")?;
        let outcome = Outcome { value: form.value.0, label };
        histogram.add(outcome, form.count, form.witness.into_witness(result)?);
    }
    check(histogram.states().len() == count, "a state is there twice")?;
    histogram.add_other(other);
    Ok(histogram)
}

impl ShardsForm {
    fn of(shards: &Shards) -> Self {
        Self { count: shards.count, present: shards.present.clone() }
    }

    fn into_shards(self) -> Result<Shards, Impossible> {
        let Self { count, present } = self;
        let exist = present.iter().all(|index| Shard::new((*index).into(), count.into()).is_ok());
        check(exist && !present.is_empty(), "it has no shards, or some that do not exist")?;
        Ok(Shards { count, present })
    }
}

impl ConditionForm {
    fn of(tally: &Tally, standing: Standing) -> Self {
        Self {
            condition: tally.requirement().clone(),
            standing: standing.name(),
            matched: tally.matched(),
            witness: tally.witness().map(WitnessForm::from),
        }
    }

    fn into_tally(self, result: &CampaignResult) -> Result<Tally, Impossible> {
        let witness = self.witness.map(|witness| witness.into_witness(result)).transpose()?;
        let tally = Tally::known(self.condition, self.matched, witness).ok_or(Impossible(
            "a condition has outcomes and no iteration, or the other way round",
        ))?;
        let states = result.histogram.states();
        let counts = states.filter(|(outcome, _)| tally.matches(outcome)).map(|(_, s)| s.count);
        let least = counts.fold(0, u64::saturating_add);
        let most = least.saturating_add(result.histogram.other());
        let possible = (least..=most).contains(&tally.matched());
        check(possible, "a condition has not as many outcomes as the states say")?;
        Ok(tally)
    }
}

impl SkewForm {
    fn of(skew: &StartSkew) -> Self {
        let (min_ns, max_ns) = skew.extremes().unzip();
        Self {
            count: skew.count(),
            median_ns: skew.percentile(50),
            p99_ns: skew.percentile(99),
            min_ns,
            max_ns,
            buckets: skew.buckets().collect(),
        }
    }

    fn into_skew(self) -> Result<StartSkew, Impossible> {
        let skew = StartSkew::from_buckets(self.buckets, self.min_ns.zip(self.max_ns));
        skew.map_err(|_| Impossible("the buckets of its start skew do not fit"))
    }
}

impl StateForm {
    fn of((outcome, state): (&Outcome, &State)) -> Self {
        Self {
            value: Hexadecimal(outcome.value),
            label: outcome.label.as_str().to_owned(),
            count: state.count,
            witness: state.witness.into(),
        }
    }
}
