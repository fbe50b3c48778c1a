//! From what the user asked for to a trace that can begin: the file, its form, the symbols.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use thiserror::Error;

use crate::out_file;
use crate::trace::config::{TraceConfig, TraceDestination};
use crate::trace::format::{self, TraceInfo};
use crate::trace::symbols::{Symbols, SymbolsError};
use crate::trace::tracer::{TraceOutput, TraceSetup};
use crate::trace::writer::TraceFile;

/// Why there can be no trace.
#[derive(Debug, Error)]
pub enum TraceOpenError {
    /// The file cannot be made.
    #[error("cannot create the trace {path}: {source}", path = path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its beginning cannot be written.
    #[error("cannot write the trace: {0}")]
    Write(io::Error),
    /// There are no symbols.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
}

/// Opens the trace that `trace` asks for, if any, of a VM of `vcpus` vCPUs that runs `guest`. Waits
/// for a reader if it is a FIFO.
///
/// # Errors
///
/// See [`TraceOpenError`].
pub fn open(trace: &TraceConfig, vcpus: u32, guest: String) -> Result<TraceSetup, TraceOpenError> {
    let setup = TraceSetup {
        output: None,
        filter: trace.filter.clone(),
        when_full: trace.when_full,
        rip: trace.needs_rip(),
        stats: trace.stats.is_some(),
        no_flight_recorder: false,
    };
    let symbols = trace.symbols.as_deref().map(Symbols::load).transpose()?;
    let Some(destination) = &trace.destination else { return Ok(setup) };
    let file = match destination {
        TraceDestination::File(path) => out_file::create(path)
            .map_err(|source| TraceOpenError::Create { path: path.clone(), source })?,
        TraceDestination::Stderr => {
            let stderr = io::stderr().as_fd().try_clone_to_owned();
            File::from(stderr.map_err(TraceOpenError::Write)?)
        }
    };
    let abandoned = Arc::<AtomicBool>::default();
    let file = Box::new(TraceFile::new(file, Arc::clone(&abandoned)));
    let symbolize = symbols.map(Symbols::into_symbolize);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let info = TraceInfo {
        vcpus,
        epoch_unix_ns: since_1970.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0)),
        guest,
        filter: trace.filter.to_string(),
        has_rip: trace.needs_rip(),
    };
    let sink =
        format::sink(trace.format(), file, &info, symbolize).map_err(TraceOpenError::Write)?;
    Ok(TraceSetup { output: Some(TraceOutput { sink, abandoned }), ..setup })
}
