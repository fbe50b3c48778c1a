//! `minivmm report`: what is made of traces that were written before. Reads one trace, or two, in
//! one pass, and holds no more of it than what it shows.

#[cfg(all(test, not(loom)))]
mod tests;

use std::cell::RefCell;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::is_same_file;
use crate::trace::format::{self, Symbolize, TraceError, TraceFormat, TraceReader};
use crate::trace::html;
use crate::trace::record::Record;
use crate::trace::summary::{Diff, Report, Summary, TextOptions};
use crate::trace::symbols::{Symbols, SymbolsError};

/// Records that are written at once.
const BATCH: usize = 4096;

/// What to do with one trace, or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportJob {
    /// Print a summary.
    Summary {
        /// The trace.
        trace: PathBuf,
        /// The ELF file with the names of the guest's code.
        symbols: Option<PathBuf>,
        /// As JSON.
        json: bool,
    },
    /// Write a page to look at.
    Html {
        /// The trace.
        trace: PathBuf,
        /// The ELF file with the names of the guest's code.
        symbols: Option<PathBuf>,
        /// The page.
        page: PathBuf,
    },
    /// Write the trace in another form.
    Export {
        /// The trace.
        trace: PathBuf,
        /// The ELF file with the names of the guest's code.
        symbols: Option<PathBuf>,
        /// The file.
        file: PathBuf,
        /// Its form.
        format: TraceFormat,
    },
    /// Print how two runs differ.
    Diff {
        /// The earlier.
        before: PathBuf,
        /// The later.
        after: PathBuf,
        /// As JSON.
        json: bool,
    },
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// There are no symbols.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// The file that was to be made cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was to be made would replace what it is made of.
    #[error("{path} is what the report is made of", path = path.display())]
    Itself {
        /// The file, by the name that it was to be written to.
        path: PathBuf,
    },
    /// The report is no JSON.
    #[error("cannot print the report: {0}")]
    Print(io::Error),
}

/// Does what `job` asks for. Returns what is to be printed.
///
/// # Errors
///
/// See [`ReportError`].
pub fn run(job: &ReportJob) -> Result<Vec<u8>, ReportError> {
    match job {
        ReportJob::Summary { trace, symbols, json } => {
            let report = report_on(trace, symbols.as_deref())?;
            if *json {
                return json_of(|out| report.write_json(out));
            }
            Ok(report.text(TextOptions::default()).to_string().into_bytes())
        }
        ReportJob::Diff { before, after, json } => {
            let diff = Diff::of(&report_on(before, None)?, &report_on(after, None)?);
            if *json { json_of(|out| diff.write_json(out)) } else { Ok(diff.to_string().into()) }
        }
        ReportJob::Html { trace, symbols, page } => {
            make(trace, symbols.as_deref(), page, write_page)?;
            Ok(Vec::new())
        }
        ReportJob::Export { trace, symbols, file, format } => {
            let export = |reader, symbols, out| export(reader, symbols, out, *format);
            make(trace, symbols.as_deref(), file, export)?;
            Ok(Vec::new())
        }
    }
}

fn json_of(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Vec<u8>, ReportError> {
    let mut json = Vec::new();
    write(&mut json).map_err(ReportError::Print)?;
    Ok(json)
}

/// Reads a trace to its end.
fn report_on(trace: &Path, symbols: Option<&Path>) -> Result<Report, ReportError> {
    let symbols = symbols.map(Symbols::load).transpose()?;
    let mut reader = TraceReader::open(trace)?;
    let mut summary = Summary::for_trace(reader.info().clone());
    for record in &mut reader {
        summary.add(&record?);
    }
    summary.cut = reader.cut();
    Ok(match symbols {
        Some(mut symbols) => summary.report_with_symbols(|rip| symbols.name(rip)),
        None => summary.report(),
    })
}

fn note(reader: &TraceReader) -> String {
    reader.cut().map_or_else(String::new, |cut| format!("This trace was {cut}."))
}

/// Why a file was not made of a trace.
enum Failed {
    Read(TraceError),
    Write(io::Error),
}

impl From<TraceError> for Failed {
    fn from(error: TraceError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Has `write` make the file at `path` of a trace. If it fails there is no file, which is better
/// than half of one.
fn make(
    trace: &Path,
    symbols: Option<&Path>,
    path: &Path,
    write: impl FnOnce(TraceReader, Option<Symbolize>, File) -> Result<(), Failed>,
) -> Result<(), ReportError> {
    let symbolize = symbols.map(Symbols::load).transpose()?.map(Symbols::into_symbolize);
    let reader = TraceReader::open(trace)?;
    if [Some(trace), symbols].into_iter().flatten().any(|input| is_same_file(path, input)) {
        return Err(ReportError::Itself { path: path.to_owned() });
    }
    let failed = |source| ReportError::Write { path: path.to_owned(), source };
    let out = File::create(path).map_err(failed)?;
    let created = out.metadata();
    write(reader, symbolize, out).map_err(|error| {
        remove(path, created);
        match error {
            Failed::Read(error) => error.into(),
            Failed::Write(error) => failed(error),
        }
    })
}

/// Whether both are there and are the same, whatever their names are.
fn is_one_file(a: io::Result<Metadata>, b: io::Result<Metadata>) -> bool {
    matches!((a, b), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Removes the file at `path` if it is the one that was created there. A link stays, with what it
/// leads to, and so does anything but a regular file: `/dev/stdout` is not ours to remove.
fn remove(path: &Path, created: io::Result<Metadata>) {
    let found = fs::symlink_metadata(path);
    if found.as_ref().is_ok_and(Metadata::is_file) && is_one_file(found, created) {
        // What went wrong before is the error to report.
        let _ = fs::remove_file(path);
    }
}

fn write_page(reader: TraceReader, symbolize: Option<Symbolize>, out: File) -> Result<(), Failed> {
    let info = reader.info().clone();
    let reader = RefCell::new(reader);
    let mut error = None;
    let records = std::iter::from_fn(|| match reader.borrow_mut().next()? {
        Ok(record) => Some(record),
        Err(broken) => {
            error = Some(broken);
            None
        }
    });
    // What there is to say of its end is known once the records have been read.
    let note = || note(&reader.borrow());
    html::write(&mut BufWriter::new(out), &info, records, symbolize, note)?;
    error.map_or(Ok(()), |error| Err(error.into()))
}

fn export(
    mut reader: TraceReader,
    symbolize: Option<Symbolize>,
    out: File,
    format: TraceFormat,
) -> Result<(), Failed> {
    let info = reader.info().clone();
    let mut sink = format::sink(format, Box::new(out), &info, symbolize)?;
    let mut batch: Vec<Record> = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        for record in reader.by_ref().take(BATCH) {
            batch.push(record?);
        }
        if batch.is_empty() {
            return Ok(sink.finish()?);
        }
        sink.write(&batch)?;
    }
}
