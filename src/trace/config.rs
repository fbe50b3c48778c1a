//! What a user wants recorded of a VM's exits, and in which form. Plain values, like all of a VM's
//! configuration, of which this is a part.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::trace::filter::TraceFilter;
use crate::trace::format::TraceFormat;
use crate::trace::stream::WhenFull;

/// What is recorded besides the flight recorder, which is always on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceConfig {
    /// Where a full trace goes.
    pub destination: Option<TraceDestination>,
    /// Its form, if the file's suffix does not say it.
    pub format: Option<TraceFormat>,
    /// What happens when records come faster than they can be written; waiting if not given.
    pub when_full: Option<WhenFull>,
    /// Which exits.
    pub filter: TraceFilter,
    /// With the RIP of each exit.
    pub rip: bool,
    /// The ELF file with the names of the guest's code.
    pub symbols: Option<PathBuf>,
    /// Statistics at the end.
    pub stats: Option<StatsFormat>,
    /// Where they go; standard error if not given.
    pub stats_file: Option<PathBuf>,
}

impl TraceConfig {
    /// Whether exits need their RIP.
    pub fn needs_rip(&self) -> bool {
        self.rip || self.symbols.is_some() || self.filter.needs_rip()
    }

    /// The form of the trace.
    pub fn format(&self) -> TraceFormat {
        match (&self.destination, self.format) {
            (_, Some(format)) => format,
            (Some(TraceDestination::File(path)), None) => TraceFormat::of_path(path),
            _ => TraceFormat::Text,
        }
    }
}

/// Where a trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceDestination {
    /// Standard error.
    Stderr,
    /// A file.
    File(PathBuf),
}

impl From<PathBuf> for TraceDestination {
    /// `-` is standard error; `./-` a file of that name.
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stderr } else { Self::File(path) }
    }
}

/// The form of the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatsFormat {
    /// Tables for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// A name that is no [`StatsFormat`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a form of statistics: expected text or json")]
pub struct UnknownStatsFormat(
    /// The name.
    pub String,
);

impl fmt::Display for StatsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for StatsFormat {
    type Err = UnknownStatsFormat;

    fn from_str(text: &str) -> Result<Self, UnknownStatsFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownStatsFormat(text.to_owned())),
        }
    }
}
