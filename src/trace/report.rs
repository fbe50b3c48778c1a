//! `minivmm report`: what is made of traces that were written before. Reads one trace, or two, in
//! one pass, and holds no more of it than what it shows.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::trace::format::{self, TraceError, TraceFormat, TraceReader};
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
            write_page(trace, symbols.as_deref(), page)?;
            Ok(Vec::new())
        }
        ReportJob::Export { trace, symbols, file, format } => {
            export(trace, symbols.as_deref(), file, *format)?;
            Ok(Vec::new())
        }
    }
}

fn json_of(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Vec<u8>, ReportError> {
    let mut json = Vec::new();
    write(&mut json).map_err(ReportError::Print)?;
    json.push(b'\n');
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

fn write_page(trace: &Path, symbols: Option<&Path>, page: &Path) -> Result<(), ReportError> {
    let symbolize = symbols.map(Symbols::load).transpose()?.map(Symbols::into_symbolize);
    let reader = RefCell::new(TraceReader::open(trace)?);
    let info = reader.borrow().info().clone();
    let failed = |source| ReportError::Write { path: page.to_owned(), source };
    let mut out = BufWriter::new(File::create(page).map_err(failed)?);
    let mut error = None;
    let records = std::iter::from_fn(|| match reader.borrow_mut().next()? {
        Ok(record) => Some(record),
        Err(broken) => {
            error = Some(broken);
            None
        }
    });
    // What there is to say of its end is known once the records have been read.
    html::write(&mut out, &info, records, symbolize, || note(&reader.borrow())).map_err(failed)?;
    error.map_or(Ok(()), |error| Err(error.into()))
}

fn export(
    trace: &Path,
    symbols: Option<&Path>,
    file: &Path,
    format: TraceFormat,
) -> Result<(), ReportError> {
    let symbolize = symbols.map(Symbols::load).transpose()?.map(Symbols::into_symbolize);
    let mut reader = TraceReader::open(trace)?;
    let info = reader.info().clone();
    let failed = |source| ReportError::Write { path: file.to_owned(), source };
    let out = File::create(file).map_err(failed)?;
    let mut sink = format::sink(format, Box::new(out), &info, symbolize).map_err(failed)?;
    let mut batch: Vec<Record> = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        for record in reader.by_ref().take(BATCH) {
            batch.push(record?);
        }
        if batch.is_empty() {
            return sink.finish().map_err(failed);
        }
        sink.write(&batch).map_err(failed)?;
    }
}
