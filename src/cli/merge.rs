//! `minivmm merge`: which results of a campaign's shards are to be added up.

use std::path::PathBuf;

use clap::{Parser, ValueHint};

use crate::stress::merge::MergeJob;

/// The word that the command line begins with.
pub(super) const NAME: &str = "merge";

const EXIT_CODE: &str = "\
The exit code is that of the failed iteration with the lowest number. Without one it is 22 if a
forbidden outcome was seen, else that of what cut a shard short, else 22 if an expected outcome was
not seen in all shards together. Until they are all there that is open, and the exit code 0.";

/// Add up the results of a campaign's shards, and show the sum.
#[derive(Debug, Parser)]
#[command(name = NAME, bin_name = "minivmm merge", after_help = EXIT_CODE)]
pub(super) struct MergeArgs {
    /// Result, as --result has written it
    #[arg(value_name = "RESULT", value_hint = ValueHint::FilePath)]
    first: PathBuf,

    /// Results to be added to it
    #[arg(value_name = "RESULT", value_hint = ValueHint::FilePath)]
    more: Vec<PathBuf>,

    /// Write the sum to a file, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    result: Option<PathBuf>,
}

impl MergeArgs {
    pub(super) fn into_job(self) -> MergeJob {
        let Self { first, more, result } = self;
        MergeJob { first, more, result }
    }
}
