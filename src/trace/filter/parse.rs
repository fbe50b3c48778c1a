//! From the text of `--trace-filter` to a [`TraceFilter`].

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::{Span, Terms, TraceFilter};
use crate::number::{NumberError, parse_u64};
use crate::trace::record::Reason;

/// The last vCPU of the largest VM.
const LAST_VCPU: u64 = 65_534;

/// The keys of terms, in the order in which a filter prints them.
const KEYS: [&str; 9] = ["vcpu", "reason", "port", "gpa", "rip", "after", "before", "min", "every"];

/// The longest handling time that can be asked for, in nanoseconds: a record's durations end
/// there.
const MAX_MIN: u64 = u32::MAX as u64;

/// Why a text is no [`TraceFilter`].
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TraceFilterError {
    /// Something between commas that is no term.
    #[error("'{0}' is not a term: expected KEY=VALUE")]
    NotATerm(String),
    /// A term whose key is none.
    #[error("unknown key '{0}': expected {keys}", keys = KEYS.join(", "))]
    UnknownKey(String),
    /// A term whose key takes only one value and was there before.
    #[error("{0} is there twice: it takes one value")]
    Twice(&'static str),
    /// A value that its key does not take.
    #[error("{key}={value}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value, without the others of the same term.
        value: String,
        /// What is wrong with it.
        problem: ValueError,
    },
    /// `before` is not later than `after`.
    #[error("after={}, before={}: no time is between them",
        format_ns(*.after), format_ns(*.before))]
    NoTime {
        /// Nanoseconds; 0 if not given.
        after: u64,
        /// Nanoseconds.
        before: u64,
    },
}

/// What is wrong with one value in a filter.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ValueError {
    /// Not a number, or one of more than 64 bits.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// A number above the highest that its key can have.
    #[error("the highest possible is {0} ({0:#x})")]
    TooHigh(
        /// The highest.
        u64,
    ),
    /// A range whose end is before its start.
    #[error("the range is empty")]
    EmptyRange,
    /// No name of an exit reason, and neither `io` nor `mmio`.
    #[error("not an exit reason: expected io, mmio, {known}",
        known = Reason::ALL.map(Reason::name).join(", "))]
    UnknownReason,
    /// Not a duration.
    #[error("not a duration such as 1ms: {0}")]
    Duration(#[from] humantime::DurationError),
    /// A duration longer than the longest that its key can have.
    #[error("longer than the longest possible, {}", format_ns(*.0))]
    TooLong(
        /// The longest, in nanoseconds.
        u64,
    ),
    /// `every=0`.
    #[error("at least 1 is needed")]
    ZeroEvery,
}

impl FromStr for TraceFilter {
    type Err = TraceFilterError;

    /// Reads terms with commas between them; none at all keep everything. Spaces around a term
    /// do not count.
    fn from_str(text: &str) -> Result<Self, TraceFilterError> {
        let mut terms = Terms::default();
        let mut seen = Vec::new();
        if !text.trim().is_empty() {
            for term in text.split(',') {
                let (key, values) = split_term(term.trim())?;
                if seen.contains(&key) && takes_one_value(key) {
                    return Err(TraceFilterError::Twice(key));
                }
                seen.push(key);
                terms.add(key, values)?;
            }
        }
        if let Some(before) = terms.before.filter(|&before| before <= terms.after) {
            return Err(TraceFilterError::NoTime { after: terms.after, before });
        }
        Ok(Self { terms: (terms != Terms::default()).then(|| Box::new(terms)) })
    }
}

/// A duration in nanoseconds, as [`duration`] reads it.
pub(super) fn format_ns(nanoseconds: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_nanos(nanoseconds))
}

fn split_term(term: &str) -> Result<(&'static str, &str), TraceFilterError> {
    let (name, values) =
        term.split_once('=').ok_or_else(|| TraceFilterError::NotATerm(term.to_owned()))?;
    let key = KEYS.into_iter().find(|key| *key == name);
    Ok((key.ok_or_else(|| TraceFilterError::UnknownKey(name.to_owned()))?, values))
}

fn takes_one_value(key: &str) -> bool {
    matches!(key, "after" | "before" | "min" | "every")
}

impl Terms {
    /// Adds a term: one of [`KEYS`] and its values.
    fn add(&mut self, key: &'static str, values: &str) -> Result<(), TraceFilterError> {
        // A plus sign between two durations or counts is not "or", and no part of either.
        let values = if takes_one_value(key) { vec![values] } else { values.split('+').collect() };
        for value in values {
            self.add_value(key, value).map_err(|problem| TraceFilterError::Value {
                key,
                value: value.to_owned(),
                problem,
            })?;
        }
        Ok(())
    }

    fn add_value(&mut self, key: &str, value: &str) -> Result<(), ValueError> {
        match key {
            "vcpu" => self.vcpus.push(span(value, LAST_VCPU)?),
            "reason" => self.add_reason(value)?,
            "port" => self.ports.push(span(value, u16::MAX.into())?),
            "gpa" => self.gpas.push(span(value, u64::MAX)?),
            "rip" => self.rips.push(span(value, u64::MAX)?),
            "after" => self.after = duration(value, u64::MAX)?,
            "before" => self.before = Some(duration(value, u64::MAX)?),
            "min" => self.min = duration(value, MAX_MIN)?,
            // "every", the last of KEYS.
            _ => {
                let every = NonZeroU64::new(parse_u64(value)?).ok_or(ValueError::ZeroEvery)?;
                self.every = Some(every).filter(|every| every.get() > 1);
            }
        }
        Ok(())
    }

    fn add_reason(&mut self, name: &str) -> Result<(), ValueError> {
        let reasons: &[Reason] = match name {
            "io" => &[Reason::IoOut, Reason::IoIn],
            "mmio" => &[Reason::MmioWrite, Reason::MmioRead],
            _ => &[Reason::named(name).ok_or(ValueError::UnknownReason)?],
        };
        reasons.iter().for_each(|&reason| self.reasons.insert(reason));
        Ok(())
    }
}

/// A number or a range of numbers up to `highest`.
fn span(text: &str, highest: u64) -> Result<Span, ValueError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_u64(first)?, parse_u64(last)?);
    if first > last {
        return Err(ValueError::EmptyRange);
    }
    if last > highest {
        return Err(ValueError::TooHigh(highest));
    }
    Ok(Span { first, last })
}

/// A duration of at most `longest` nanoseconds, in nanoseconds.
fn duration(text: &str, longest: u64) -> Result<u64, ValueError> {
    let nanoseconds = humantime::parse_duration(text)?.as_nanos();
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| ValueError::TooLong(longest))?;
    if nanoseconds > longest { Err(ValueError::TooLong(longest)) } else { Ok(nanoseconds) }
}
