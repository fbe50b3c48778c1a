//! `minivmm merge`: the results of shards, added up to that of their campaign.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::is_same_file;
use crate::stress::result::CampaignResult;
use crate::stress::result::file::ResultError;
use crate::stress::result::merge::MergeError;

/// What to add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeJob {
    /// The first result.
    pub first: PathBuf,
    /// Results to be added to it.
    pub more: Vec<PathBuf>,
    /// Where the sum is written, if anywhere.
    pub result: Option<PathBuf>,
}

/// Why there is no sum.
#[derive(Debug, Error)]
pub enum MergeJobError {
    /// A result cannot be read, or the sum cannot be written.
    #[error(transparent)]
    File(#[from] ResultError),
    /// A result is not a part of what the ones before it are of.
    #[error("cannot add {path}: {source}", path = path.display())]
    Merge {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MergeError,
    },
    /// The sum would replace a part of it.
    #[error("{path} is one of the results to be added up", path = path.display())]
    Itself {
        /// The file, by the name that it was to be written to.
        path: PathBuf,
    },
}

/// Does what `job` asks for. Returns the sum.
///
/// # Errors
///
/// See [`MergeJobError`].
pub fn run(job: &MergeJob) -> Result<CampaignResult, MergeJobError> {
    let MergeJob { first, more, result: file } = job;
    let mut inputs = std::iter::once(first).chain(more);
    if let Some(file) = file.as_ref().filter(|file| inputs.any(|input| is_same_file(file, input))) {
        return Err(MergeJobError::Itself { path: file.clone() });
    }
    let mut sum = CampaignResult::read(first)?;
    for path in more {
        add(&mut sum, path)?;
    }
    if let Some(file) = file {
        sum.write(file)?;
    }
    Ok(sum)
}

fn add(sum: &mut CampaignResult, path: &Path) -> Result<(), MergeJobError> {
    let result = CampaignResult::read(path)?;
    sum.merge(result).map_err(|source| MergeJobError::Merge { path: path.to_owned(), source })
}
