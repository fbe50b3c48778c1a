//! [`CampaignResult`]: everything that is known of a campaign once it has run, or of the shards of
//! one.
//!
//! It is made empty, then told each iteration's end and outcomes, in any order, by one thread. As a
//! file it is JSON ([`mod@file`]), and results of shards add up to that of the whole ([`merge`]).
//! Its size is bounded whatever the guest reports.

pub mod file;
mod form;
pub mod merge;
#[cfg(test)]
pub(in crate::stress) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{CpuMode, GuestSource};
use crate::outcome::ExitCode;
use crate::stress::histogram::{Histogram, Label, Outcome, Witness};
use crate::stress::requirement::{Requirement, Standing, Tally};
use crate::stress::seed::Seed;
use crate::stress::shard::Shard;
use crate::stress::skew::StartSkew;
use form::as_text;

/// The most failures that are kept in full: those of the lowest iterations.
pub const MAX_FAILURES: usize = 1000;

/// The longest text about a failure, in bytes of UTF-8.
const MAX_TEXT: usize = 4096;

/// The guest of a campaign. Guests are the same if their images are, whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guest {
    /// A short name: that of the demo, or of the image without directory and suffix.
    pub name: String,
    /// The demo, or the path of the image, as [`GuestSource`] shows it.
    pub source: String,
    /// The size of the image in bytes.
    pub bytes: u64,
    /// The CRC-32 of the image, as in Ethernet and gzip.
    pub crc32: u32,
}

impl Guest {
    /// The guest that has this image.
    pub fn new(source: &GuestSource, image: &[u8]) -> Self {
        let name = match source {
            GuestSource::File(path) => stem(path),
            GuestSource::Demo(guest) => guest.name.to_owned(),
        };
        let bytes = u64::try_from(image.len()).unwrap_or(u64::MAX);
        Self { name, source: source.to_string(), bytes, crc32: crc32fast::hash(image) }
    }

    fn has_same_image(&self, other: &Self) -> bool {
        (self.bytes, self.crc32) == (other.bytes, other.crc32)
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bytes, crc32, .. } = self;
        write!(f, "{name} ({bytes} bytes, CRC-32 {crc32:#010x})")
    }
}

fn stem(path: &Path) -> String {
    let name = path.file_stem().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// How every iteration of a campaign is run. Results add up only if these are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The version of minivmm.
    pub minivmm: String,
    /// The seed of the campaign, from which each iteration's is made.
    #[serde(with = "as_text")]
    pub seed: Seed,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// The CPU mode at entry.
    #[serde(with = "as_text")]
    pub mode: CpuMode,
    /// All other options that make a difference, by name and as the user writes them; for example
    /// the start mode, the chaos rate, registers.
    pub options: BTreeMap<String, String>,
}

/// An iteration that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// Its number, from 0.
    pub iteration: u64,
    /// Its own seed, see [`Seed::iteration`].
    #[serde(with = "as_text")]
    pub seed: Seed,
    /// What happened, in one line.
    pub what: String,
    /// The exit code that it would have had alone.
    pub exit_code: NonZeroU8,
    /// The command line that runs it again, alone.
    pub command: String,
}

/// How often guests did not run as they would have by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbances {
    /// Perturbations that chaos has drawn.
    pub perturbations: u64,
    /// Turns in lockstep that were cut short because the vCPU came to no exit: the order of the
    /// turns was then not the seed's alone.
    pub preemptions: u64,
}

impl Disturbances {
    fn add(&mut self, from: Self) {
        self.perturbations = self.perturbations.saturating_add(from.perturbations);
        self.preemptions = self.preemptions.saturating_add(from.preemptions);
    }
}

/// Why a campaign ended before its last iteration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// In a few words, such as `time-out after 10s` or `SIGINT`.
    pub why: String,
    /// The exit code for this: 0 if it was meant to end so.
    pub exit_code: u8,
}

/// Which shards of a campaign a result has: at least one, and each from 1 to the number of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shards {
    count: u32,
    present: BTreeSet<u32>,
}

impl Shards {
    fn of(shard: Shard) -> Self {
        Self { count: shard.count(), present: BTreeSet::from([shard.index()]) }
    }

    fn present(&self) -> impl Iterator<Item = Shard> {
        self.present.iter().filter_map(|index| self.shard(*index))
    }

    fn missing(&self) -> impl Iterator<Item = Shard> {
        let missing = (1..=self.count).filter(|index| !self.present.contains(index));
        missing.filter_map(|index| self.shard(index))
    }

    fn shard(&self, index: u32) -> Option<Shard> {
        Shard::new(index.into(), self.count.into()).ok()
    }

    fn has(&self, iteration: u64) -> bool {
        let index = iteration % u64::from(self.count) + 1;
        u32::try_from(index).is_ok_and(|index| self.present.contains(&index))
    }
}

/// Failures: how many there were, and the first of them, by iteration, in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Failures {
    first: BTreeSet<Failure>,
    total: u64,
}

impl Failures {
    fn keep(&mut self, failure: Failure) {
        self.first.insert(failure);
        if self.first.len() > MAX_FAILURES {
            self.first.pop_last();
        }
    }
}

/// What came out of a campaign, or of some of its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignResult {
    guest: Guest,
    settings: Settings,
    /// Of the whole campaign.
    asked: u64,
    /// None for a campaign that is not split.
    shards: Option<Shards>,
    passed: u64,
    failures: Failures,
    histogram: Histogram,
    tallies: Vec<Tally>,
    skew: StartSkew,
    disturbances: Disturbances,
    elapsed_ns: u64,
    cuts: BTreeSet<Cut>,
}

impl CampaignResult {
    /// The result of a campaign of `iterations`, or of one shard of it, that has not begun.
    pub fn new(
        guest: Guest,
        settings: Settings,
        iterations: u64,
        shard: Option<Shard>,
        requirements: impl IntoIterator<Item = Requirement>,
    ) -> Self {
        Self {
            guest,
            settings,
            asked: iterations,
            shards: shard.map(Shards::of),
            passed: 0,
            failures: Failures::default(),
            histogram: Histogram::default(),
            tallies: requirements.into_iter().map(Tally::new).collect(),
            skew: StartSkew::default(),
            disturbances: Disturbances::default(),
            elapsed_ns: 0,
            cuts: BTreeSet::new(),
        }
    }

    /// Counts an outcome that the guest reported `count` times in the iteration of `witness`; none
    /// if `count` is 0. A label that is too long is cut off.
    pub fn add_outcome(&mut self, value: u64, label: &str, count: u64, witness: Witness) {
        let outcome = Outcome { value, label: Label::new(label) };
        self.tallies.iter_mut().for_each(|tally| tally.add(&outcome, count, witness));
        self.histogram.add(outcome, count, witness);
    }

    /// Counts outcomes that are not told apart.
    pub fn add_other(&mut self, count: u64) {
        self.histogram.add_other(count);
    }

    /// The campaign was to run until something happens, which has happened: those iterations that
    /// were run are all that it has.
    pub fn end_here(&mut self) {
        self.asked = self.run();
    }

    /// Counts an iteration that passed.
    pub fn add_pass(&mut self) {
        self.passed = self.passed.saturating_add(1);
    }

    /// Counts an iteration that failed. Texts of more than 4 KiB are cut off.
    pub fn add_failure(&mut self, mut failure: Failure) {
        for text in [&mut failure.what, &mut failure.command] {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        }
        self.failures.total = self.failures.total.saturating_add(1);
        self.failures.keep(failure);
    }

    /// Counts the start of an iteration: the time in nanoseconds from the first vCPU's first
    /// instruction to the last one's, as well as it is known.
    pub fn add_skew(&mut self, nanoseconds: u64) {
        self.skew.add(nanoseconds);
    }

    /// Counts how guests were disturbed.
    pub fn add_disturbances(&mut self, from: Disturbances) {
        self.disturbances.add(from);
    }

    /// Adds to the time that was spent.
    pub fn add_elapsed(&mut self, elapsed: Duration) {
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed_ns = self.elapsed_ns.saturating_add(nanoseconds);
    }

    /// Notes that not all iterations were run.
    pub fn add_cut(&mut self, cut: Cut) {
        self.cuts.insert(cut);
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// How the iterations were run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many iterations the whole campaign has.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// How many of them are in this result's shards.
    pub fn due(&self) -> u64 {
        let Some(shards) = &self.shards else { return self.asked };
        shards.present().fold(0, |sum, shard| sum.saturating_add(shard.len(self.asked)))
    }

    /// How many were run to their end.
    pub fn run(&self) -> u64 {
        self.passed.saturating_add(self.failures.total)
    }

    /// How many passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failures.total
    }

    /// The failures of the lowest iterations, at most [`MAX_FAILURES`], lowest first.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.first.iter()
    }

    /// The outcomes.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// What was required of the outcomes, and how many were so.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// How far apart the vCPUs started.
    pub fn skew(&self) -> &StartSkew {
        &self.skew
    }

    /// How often guests were disturbed.
    pub fn disturbances(&self) -> Disturbances {
        self.disturbances
    }

    /// The time that was spent, of all shards together.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns)
    }

    /// Why iterations are missing, other than those of missing shards.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter()
    }

    /// The shards that this is the result of; none if the campaign was not split.
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.shards.iter().flat_map(Shards::present)
    }

    /// The shards of the same campaign that are not in this result.
    pub fn missing_shards(&self) -> impl Iterator<Item = Shard> {
        self.shards.iter().flat_map(Shards::missing)
    }

    /// Each requirement's standing, in the order of [`CampaignResult::tallies`].
    pub fn verdict(&self) -> impl Iterator<Item = Standing> {
        let more = self.missing_shards().next().is_some();
        self.tallies.iter().map(move |tally| tally.standing(more))
    }

    /// The exit code of all this: that of the failed iteration with the lowest number; without one,
    /// [`ExitCode::Condition`] if a forbidden outcome was seen; else that of what cut the campaign
    /// short; and else [`ExitCode::Condition`] if an expected outcome was not seen.
    pub fn exit_code(&self) -> u8 {
        let failed = self.failures.first.first().map(|failure| failure.exit_code.get());
        let violated = |tally: &Tally, forbids: bool, standing: Standing| {
            let is_of_kind = matches!(tally.requirement(), Requirement::Forbid(_)) == forbids;
            is_of_kind && standing == Standing::Violated
        };
        let any_violated = |forbids| {
            let mut standings = self.tallies.iter().zip(self.verdict());
            let any = standings.any(|(tally, standing)| violated(tally, forbids, standing));
            any.then_some(ExitCode::Condition as u8)
        };
        let cut = || self.cuts.iter().map(|cut| cut.exit_code).find(|code| *code != 0);
        failed
            .or_else(|| any_violated(true))
            .or_else(cut)
            .or_else(|| any_violated(false))
            .unwrap_or(ExitCode::Success as u8)
    }

    /// Whether an iteration is one of the campaign's, and of this result's shards.
    fn has(&self, iteration: u64) -> bool {
        iteration < self.asked && self.shards.as_ref().is_none_or(|shards| shards.has(iteration))
    }
}
