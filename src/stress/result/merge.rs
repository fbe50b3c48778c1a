//! The results of shards, added up.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::stress::printable::Printable;
use crate::stress::result::{CampaignResult, Settings, Shards};
use crate::stress::shard::Shard;

/// Why a result is not a part of what another one is of.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// Not the same image.
    #[error(
        "its guest is {theirs}, not {ours}",
        theirs = Printable(theirs), ours = Printable(ours)
    )]
    Guest {
        /// The guest of what is added.
        theirs: String,
        /// The guest of what it is added to.
        ours: String,
    },
    /// The iterations are not run in the same way.
    #[error(
        "its {name} is {theirs}, not {ours}",
        name = Printable(name), theirs = Printable(theirs), ours = Printable(ours)
    )]
    Setting {
        /// What differs.
        name: String,
        /// Its value in what is added.
        theirs: String,
        /// Its value in what that is added to.
        ours: String,
    },
    /// Not the same is required of the outcomes.
    #[error(
        "its conditions are {theirs}, not {ours}",
        theirs = Printable(theirs), ours = Printable(ours)
    )]
    Conditions {
        /// The requirements of what is added.
        theirs: String,
        /// The requirements of what it is added to.
        ours: String,
    },
    /// A whole campaign is complete.
    #[error("only shards can be added up, and {0} of a whole campaign")]
    Whole(&'static str),
    /// Not split in the same way.
    #[error("it is of {theirs} shards, not of {ours}")]
    Count {
        /// The number of shards of what is added.
        theirs: u32,
        /// The number of shards of what it is added to.
        ours: u32,
    },
    /// The same iterations would count twice.
    #[error("shard {0} is there already")]
    Twice(Shard),
}

impl CampaignResult {
    /// Adds the result of other shards of the same campaign. Nothing is changed if that cannot be.
    ///
    /// # Errors
    ///
    /// If it is of another campaign, or has a shard that is there already.
    pub fn merge(&mut self, from: Self) -> Result<(), MergeError> {
        self.check_same_campaign(&from)?;
        let present = self.check_shards(from.shards.as_ref())?;
        if let Some(shards) = &mut self.shards {
            shards.present = present;
        }
        // Of two names for the same image it does not matter which, but the order must not.
        self.guest = self.guest.clone().min(from.guest);
        self.passed = self.passed.saturating_add(from.passed);
        self.failures.total = self.failures.total.saturating_add(from.failures.total);
        from.failures.first.into_iter().for_each(|failure| self.failures.keep(failure));
        self.histogram.merge(from.histogram);
        for (tally, from) in self.tallies.iter_mut().zip(&from.tallies) {
            tally.merge(from);
        }
        self.skew.merge(&from.skew);
        self.disturbances.add(from.disturbances);
        self.elapsed_ns = self.elapsed_ns.saturating_add(from.elapsed_ns);
        self.cuts.extend(from.cuts);
        Ok(())
    }

    fn check_same_campaign(&self, from: &Self) -> Result<(), MergeError> {
        if !self.guest.has_same_image(&from.guest) {
            let [ours, theirs] = [&self.guest, &from.guest].map(ToString::to_string);
            return Err(MergeError::Guest { theirs, ours });
        }
        let [ours, theirs] = [self, from].map(settings_of);
        let names: BTreeSet<_> = ours.iter().chain(&theirs).map(|(name, _)| name).collect();
        for name in names {
            let [ours, theirs] = [&ours, &theirs].map(|settings| {
                let value = settings.iter().find(|(other, _)| other == name);
                value.map_or_else(|| "absent".to_owned(), |(_, value)| value.clone())
            });
            if ours != theirs {
                return Err(MergeError::Setting { name: name.clone(), theirs, ours });
            }
        }
        let [ours, theirs] = [self, from].map(requirements_of);
        if ours == theirs { Ok(()) } else { Err(MergeError::Conditions { theirs, ours }) }
    }

    /// The shards of both.
    fn check_shards(&self, from: Option<&Shards>) -> Result<BTreeSet<u32>, MergeError> {
        let (ours, theirs) = match (&self.shards, from) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            (None, None) => return Err(MergeError::Whole("both are")),
            (None, Some(_)) => return Err(MergeError::Whole("what it is added to is")),
            (Some(_), None) => return Err(MergeError::Whole("it is")),
        };
        if ours.count != theirs.count {
            return Err(MergeError::Count { theirs: theirs.count, ours: ours.count });
        }
        match theirs.present().find(|shard| ours.present.contains(&shard.index())) {
            Some(shard) => Err(MergeError::Twice(shard)),
            None => Ok(&ours.present | &theirs.present),
        }
    }
}

/// Everything that must agree, by the name that a user knows it by.
fn settings_of(result: &CampaignResult) -> Vec<(String, String)> {
    let Settings { minivmm, seed, vcpus, memory_bytes, mode, options } = &result.settings;
    let known = [
        ("version of minivmm", minivmm.clone()),
        ("seed", seed.to_string()),
        ("number of vCPUs", vcpus.to_string()),
        ("memory", format!("{memory_bytes} bytes")),
        ("mode", mode.to_string()),
        ("number of iterations", result.asked.to_string()),
    ];
    let known = known.map(|(name, value)| (name.to_owned(), value));
    let options = options.iter().map(|(name, value)| (format!("option {name}"), value.clone()));
    known.into_iter().chain(options).collect()
}

fn requirements_of(result: &CampaignResult) -> String {
    let all = result.tallies.iter().map(|tally| format!("'{}'", tally.requirement()));
    let all: Vec<_> = all.collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
