//! The forms in which a trace is written: what they have in common. Each has a file of its own.
//! Three of them can be read back, which `read.rs` does.

mod binary;
mod csv;
mod digits;
mod error;
mod jsonl;
mod lines;
mod perfetto;
mod read;
mod row;
mod text;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::error::{TraceError, TraceProblem};
pub use self::read::{Cut, TraceReader};
pub use self::row::RowError;
use crate::trace::record::Record;

/// What is known of a trace before its first record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// How many vCPUs the VM has.
    pub vcpus: u32,
    /// The trace's epoch: nanoseconds since 1970, by the host's wall clock.
    pub epoch_unix_ns: u64,
    /// The guest: a path, or the name of a demo.
    pub guest: String,
    /// The filter, in its normal form; empty if there is none.
    pub filter: String,
    /// Whether exits have their RIP.
    pub has_rip: bool,
}

/// The name of the code at an address, such as `main+0x12 (main.c:7)`; none if it has none.
pub type Symbolize = Box<dyn FnMut(u64) -> Option<String> + Send>;

/// Writes a trace in some form. Used by one thread at a time.
pub trait Sink: Send {
    /// Writes some records; each source's come in their order.
    ///
    /// # Errors
    ///
    /// What the file says. The trace ends there.
    fn write(&mut self, records: &[Record]) -> io::Result<()>;

    /// Completes the trace; [`Event::End`](crate::trace::record::Event::End) was the last record.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn finish(&mut self) -> io::Result<()>;
}

/// Begins a trace in `format` on `out`. `symbolize` names the code at the RIP of exits; the binary
/// form has no room for names and leaves that to whoever reads it.
///
/// # Errors
///
/// What `out` says of the first bytes.
pub fn sink(
    format: TraceFormat,
    out: Box<dyn Write + Send>,
    info: &TraceInfo,
    symbolize: Option<Symbolize>,
) -> io::Result<Box<dyn Sink>> {
    let symbols = Symbols(symbolize);
    Ok(match format {
        TraceFormat::Binary => Box::new(binary::BinarySink::new(out, info)?),
        TraceFormat::Text => Box::new(text::TextSink::new(out, info, symbols)?),
        TraceFormat::Jsonl => Box::new(jsonl::JsonlSink::new(out, info, symbols)?),
        TraceFormat::Csv => Box::new(csv::CsvSink::new(out, info, symbols)?),
        TraceFormat::Perfetto => Box::new(perfetto::PerfettoSink::new(out, info, symbols)?),
    })
}

/// The version of the fields and their meanings, in all forms that can be read back.
const VERSION: u32 = 1;

/// The names of the code at the RIPs of exits.
struct Symbols(Option<Symbolize>);

impl Symbols {
    /// The name of the code at a record's RIP, if the record has one and the code too. Control
    /// characters, which would break lines, show as `?`.
    fn of(&mut self, record: &Record) -> Option<String> {
        let symbolize = self.0.as_mut()?;
        let name = symbolize(record.exit()?.rip?)?;
        let controls = name.contains(char::is_control);
        Some(if controls { name.replace(char::is_control, "?") } else { name })
    }
}

/// A form of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceFormat {
    /// minivmm's own: records as they are. The smallest and cheapest.
    Binary,
    /// A line a record, for people.
    Text,
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
    /// Trace Event JSON, which ui.perfetto.dev opens.
    Perfetto,
}

/// A name that is no [`TraceFormat`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a trace format: expected binary, text, jsonl, csv or perfetto")]
pub struct UnknownTraceFormat(
    /// The name.
    pub String,
);

impl TraceFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Binary, Self::Text, Self::Jsonl, Self::Csv, Self::Perfetto];

    /// The name that `--trace-format` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "text",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Perfetto => "perfetto",
        }
    }

    /// The format that a file's suffix stands for: `.txt` and `.log` text, `.jsonl`, `.csv`,
    /// `.json` Perfetto; binary for every other.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("txt" | "log") => Self::Text,
            Some("jsonl") => Self::Jsonl,
            Some("csv") => Self::Csv,
            Some("json" | "perfetto") => Self::Perfetto,
            _ => Self::Binary,
        }
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TraceFormat {
    type Err = UnknownTraceFormat;

    fn from_str(text: &str) -> Result<Self, UnknownTraceFormat> {
        let named = |format: &Self| format.name() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownTraceFormat(text.to_owned()))
    }
}

#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;
