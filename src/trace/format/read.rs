//! [`TraceReader`]: the records of a trace file, one after the other, whatever form it has. Holds
//! a block or a line in memory, never the file, and reads pipes as well.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};

use super::binary::{self, BinaryReader};
use super::csv::CsvReader;
use super::error::{Fault, TraceError, TraceProblem};
use super::jsonl::JsonlReader;
use super::{TraceFormat, TraceInfo};
use serde::Serialize;

use crate::trace::record::{Event, Record};

/// How much is read from the host at once, in bytes.
const BUFFER: usize = 256 * 1024;

type Input = BufReader<io::Chain<io::Cursor<Vec<u8>>, Box<dyn Read + Send>>>;

/// Reads a trace that minivmm wrote as `binary`, `jsonl` or `csv`. As an iterator it gives the
/// records in the order of the file; an error is the last thing that it gives.
pub struct TraceReader {
    path: PathBuf,
    info: TraceInfo,
    body: Body,
    records: u64,
    state: State,
}

/// Where a trace ends that is not complete, because its writer was killed or the disk was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// How many records there are.
    pub records: u64,
    /// Where the last one ends, in bytes from the beginning of the file.
    pub offset: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut after {} records, at byte {}", self.records, self.offset)
    }
}

#[derive(Clone, Copy)]
enum State {
    Reading,
    /// [`Event::End`] was the last record; nothing may follow.
    Ended,
    /// All has been read, or there was an error.
    Done(Option<Cut>),
}

enum Body {
    Binary(BinaryReader<Input>),
    Jsonl(JsonlReader<Input>),
    Csv(Box<CsvReader<Input>>),
}

impl TraceReader {
    /// Opens a trace and reads what is known of it. The form shows in the content, whatever the
    /// file's name is.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or does not begin as a trace that can be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Fault::new(error, 0).at(path))?;
        Self::new(path, Box::new(file))
    }

    /// Reads a trace from `input`; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn new(path: impl AsRef<Path>, input: Box<dyn Read + Send>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let (body, info) = Body::new(input).map_err(|fault| fault.at(path))?;
        Ok(Self { path: path.to_owned(), info, body, records: 0, state: State::Reading })
    }

    /// What is known of the trace.
    pub fn info(&self) -> &TraceInfo {
        &self.info
    }

    /// Where the trace ends, if it has been read to its end without an error and is not complete.
    pub fn cut(&self) -> Option<Cut> {
        match self.state {
            State::Done(cut) => cut,
            State::Reading | State::Ended => None,
        }
    }

    fn step(&mut self) -> Result<Option<Record>, Fault> {
        match self.state {
            State::Reading => {
                let Some(record) = self.body.next()? else {
                    let cut = Cut { records: self.records, offset: self.body.offset() };
                    self.state = State::Done(Some(cut));
                    return Ok(None);
                };
                self.records += 1;
                if record.event == Event::End {
                    self.state = State::Ended;
                }
                Ok(Some(record))
            }
            State::Ended if !self.body.at_end()? => {
                Err(Fault::new(TraceProblem::AfterEnd, self.body.offset()))
            }
            State::Ended => {
                self.state = State::Done(None);
                Ok(None)
            }
            State::Done(_) => Ok(None),
        }
    }
}

impl Iterator for TraceReader {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step()
            .map_err(|fault| {
                self.state = State::Done(None);
                fault.at(&self.path)
            })
            .transpose()
    }
}

impl FusedIterator for TraceReader {}

impl fmt::Debug for TraceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceReader")
            .field("path", &self.path)
            .field("info", &self.info)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Body {
    fn new(mut input: Box<dyn Read + Send>) -> Result<(Self, TraceInfo), Fault> {
        // A pipe cannot be read twice, so what shows the form is put in front again.
        let mut head = Vec::new();
        let read = (&mut input).take(binary::MAGIC.len() as u64).read_to_end(&mut head);
        read.map_err(|error| Fault::new(error, 0))?;
        let format = recognize(&head).map_err(|problem| Fault::new(problem, 0))?;
        let input = BufReader::with_capacity(BUFFER, io::Cursor::new(head).chain(input));
        Ok(match format {
            TraceFormat::Binary => {
                let (reader, info) = BinaryReader::new(input)?;
                (Self::Binary(reader), info)
            }
            TraceFormat::Jsonl => {
                let (reader, info) = JsonlReader::new(input)?;
                (Self::Jsonl(reader), info)
            }
            TraceFormat::Csv => {
                let (reader, info) = CsvReader::new(input)?;
                (Self::Csv(Box::new(reader)), info)
            }
            TraceFormat::Text | TraceFormat::Perfetto => {
                return Err(Fault::new(TraceProblem::NotReadable(format), 0));
            }
        })
    }

    fn next(&mut self) -> Result<Option<Record>, Fault> {
        match self {
            Self::Binary(reader) => reader.next(),
            Self::Jsonl(reader) => reader.next(),
            Self::Csv(reader) => reader.next(),
        }
    }

    /// Where the last record that was read ends, in bytes from the beginning of the file.
    fn offset(&self) -> u64 {
        match self {
            Self::Binary(reader) => reader.offset(),
            Self::Jsonl(reader) => reader.lines.offset(),
            Self::Csv(reader) => reader.lines.offset(),
        }
    }

    /// Whether nothing follows the last record that was read.
    fn at_end(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Binary(reader) => reader.at_end(),
            Self::Jsonl(reader) => reader.lines.at_end(),
            Self::Csv(reader) => reader.lines.at_end(),
        }
    }
}

/// The form of a trace that begins with these bytes, of which there are 8 or all.
fn recognize(head: &[u8]) -> Result<TraceFormat, TraceProblem> {
    if head.is_empty() {
        return Err(TraceProblem::Empty);
    }
    let starts: [(&[u8], TraceFormat); 5] = [
        (&binary::MAGIC, TraceFormat::Binary),
        (b"{\"kind\":", TraceFormat::Jsonl),
        (b"time_ns,", TraceFormat::Csv),
        (b"# minivm", TraceFormat::Text),
        (b"[{\"name\"", TraceFormat::Perfetto),
    ];
    let found = starts.into_iter().find(|(start, _)| start.starts_with(head));
    found.map(|(_, format)| format).ok_or(TraceProblem::NotATrace)
}
