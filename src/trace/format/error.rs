//! Why a trace could not be read: what is wrong, in which file, and where in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::row::RowError;
use super::{TraceFormat, VERSION};

/// A trace could not be read, or not to its end.
#[derive(Debug)]
pub struct TraceError {
    path: PathBuf,
    fault: Fault,
}

/// What is wrong with a trace.
#[derive(Debug, Error)]
pub enum TraceProblem {
    /// The file could not be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There are no bytes in it.
    #[error("it is empty")]
    Empty,
    /// It begins like no trace.
    #[error("not a minivmm trace")]
    NotATrace,
    /// It is a trace in a form that is only written.
    #[error("a trace in the form '{0}' cannot be read back; binary, jsonl and csv can")]
    NotReadable(TraceFormat),
    /// It ends before its first record could begin.
    #[error("it ends within the header")]
    CutHeader,
    /// Another minivmm wrote it.
    #[error("version {0} of the trace format is unknown; this minivmm reads version {VERSION}")]
    UnknownVersion(u32),
    /// The header, the block's header or its records are not as they were written.
    #[error("the checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// The length in the header, in bytes, is more than any header has.
    #[error("a header of {0} bytes cannot be")]
    HeaderLength(u32),
    /// What is known of the trace cannot be read.
    #[error("what is known of the trace: {0}")]
    Info(String),
    /// Where a block should begin there is none.
    #[error("no block of records begins here")]
    NoBlock,
    /// The number of records in a block's header is none, or more than any block has.
    #[error("a block of {0} records cannot be")]
    BlockLength(u32),
    /// 64 bytes encode no record.
    #[error("these bytes are no record")]
    NoRecord,
    /// A line is longer than any that minivmm writes.
    #[error("the line is too long")]
    LongLine,
    /// A line of a `jsonl` trace cannot be read.
    #[error("{0}")]
    Json(String),
    /// A line of a `csv` trace cannot be read.
    #[error("{0}")]
    Csv(String),
    /// The fields of a line make no record.
    #[error(transparent)]
    Row(#[from] RowError),
    /// Something follows the record of the trace's end.
    #[error("something follows the end of the trace")]
    AfterEnd,
}

/// A message of the JSON reader with the column in front. The line, which it adds, is always 1, as
/// it reads a line at a time.
pub(super) fn json_message(error: &serde_json::Error) -> String {
    let (message, column) = (error.to_string(), error.column());
    let place = format!(" at line {} column {column}", error.line());
    format!("column {column}: {}", message.strip_suffix(&place).unwrap_or(&message))
}

/// A problem and where it is, for readers that do not know the file's name.
#[derive(Debug)]
pub(super) struct Fault {
    pub problem: TraceProblem,
    /// In bytes from the beginning of the file.
    pub offset: u64,
    /// From 1, in forms that have lines.
    pub line: Option<u64>,
}

impl Fault {
    /// A problem at an offset, in bytes.
    pub fn new(problem: impl Into<TraceProblem>, offset: u64) -> Self {
        Self { problem: problem.into(), offset, line: None }
    }

    /// A problem in a line, which is counted from 1 and begins at an offset in bytes.
    pub fn in_line(problem: impl Into<TraceProblem>, offset: u64, line: u64) -> Self {
        Self { problem: problem.into(), offset, line: Some(line) }
    }

    /// The error about the file at `path`.
    pub fn at(self, path: &Path) -> TraceError {
        TraceError { path: path.to_owned(), fault: self }
    }
}

impl TraceError {
    /// Where the problem is: bytes from the beginning of the file. For a line that is where it
    /// begins.
    #[cfg(test)]
    pub fn offset(&self) -> u64 {
        self.fault.offset
    }

    /// What is wrong.
    #[cfg(test)]
    pub fn problem(&self) -> &TraceProblem {
        &self.fault.problem
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { problem, offset, line } = &self.fault;
        write!(f, "{}: ", self.path.display())?;
        match (problem, line) {
            // This is about the file as a whole: there is nothing wrong with its bytes.
            (TraceProblem::NotReadable(_), _) => {}
            (_, Some(line)) => write!(f, "line {line}, at byte {offset}: ")?,
            (TraceProblem::Io(_), None) if *offset == 0 => {}
            (_, None) => write!(f, "at byte {offset}: ")?,
        }
        problem.fmt(f)
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message of the problem is in the error's own.
        self.fault.problem.source()
    }
}
