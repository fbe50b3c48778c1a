//! The options about traces of a run.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum, ValueHint};

use crate::trace::config::{StatsFormat, TraceConfig};
use crate::trace::filter::TraceFilter;
use crate::trace::format::TraceFormat;
use crate::trace::stream::WhenFull;

#[derive(Debug, Args)]
#[command(next_help_heading = "Trace")]
pub(super) struct TraceArgs {
    /// Write every exit to a file; - for standard error
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: Option<PathBuf>,

    /// Form of the trace, if the file's suffix (.mvt, .txt, .jsonl, .csv, .json) does not say it
    #[arg(long, value_name = "FORMAT", requires = "trace")]
    trace_format: Option<TraceFormat>,

    /// When exits come faster than the trace can be written: wait, or drop and count
    #[arg(long, value_name = "WHAT", requires = "trace")]
    trace_full: Option<WhenFull>,

    /// Which exits are in the trace: vcpu=0-1,reason=io-out,port=0x3f8-0x3ff,after=1ms,every=10
    #[arg(long, value_name = "TERMS", requires = "trace", default_value_t)]
    #[arg(hide_default_value = true)]
    trace_filter: TraceFilter,

    /// Record RIP with every exit
    #[arg(long)]
    trace_rip: bool,

    /// ELF file with the names of the guest's code, for every RIP
    #[arg(long, value_name = "ELF", value_hint = ValueHint::FilePath)]
    symbols: Option<PathBuf>,

    /// Print statistics at the end, on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "text")]
    stats: Option<StatsFormat>,

    /// Write the statistics to a file instead
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "stats")]
    stats_file: Option<PathBuf>,
}

impl TraceArgs {
    /// Whether anything is recorded besides the flight recorder.
    pub(super) fn is_recording(&self) -> bool {
        self.trace.is_some() || self.stats.is_some()
    }

    pub(super) fn into_config(self) -> TraceConfig {
        TraceConfig {
            destination: self.trace.map(Into::into),
            format: self.trace_format,
            when_full: self.trace_full,
            filter: self.trace_filter,
            rip: self.trace_rip,
            symbols: self.symbols,
            stats: self.stats,
            stats_file: self.stats_file,
        }
    }
}

impl ValueEnum for TraceFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for WhenFull {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Block, Self::Drop]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Block => "block",
            Self::Drop => "drop",
        }))
    }
}

impl ValueEnum for StatsFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}
