//! The thread that writes a full trace. It takes the records of all threads from their streams,
//! in batches, brings each batch into the order of time, and gives it to the trace's form. It
//! looks every `PERIOD`, and is woken when a stream is half full.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::panics;
use crate::trace::format::Sink;
use crate::trace::record::{Event, Record, Source};
use crate::trace::shared::{Shared, TraceEvent, WriterControl};

/// How long a record waits for the writer at most, on a host that is not overloaded.
const PERIOD: Duration = Duration::from_millis(50);

/// See the module's text.
pub(super) struct TraceWriter {
    shared: Arc<Shared>,
    control: Arc<WriterControl>,
    sink: Box<dyn Sink>,
    /// Empty between rounds, kept for its allocation.
    batch: Vec<Record>,
    failed: bool,
}

impl TraceWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        control: Arc<WriterControl>,
        sink: Box<dyn Sink>,
    ) -> Self {
        Self { shared, control, sink, batch: Vec::new(), failed: false }
    }

    /// Writes until it is told to finish; the body of the thread.
    pub(super) fn run(mut self, on_event: impl Fn(TraceEvent)) {
        let shared = Arc::clone(&self.shared);
        let write = AssertUnwindSafe(|| self.write_all(&on_event));
        let end = catch_unwind(write).unwrap_or_else(|payload| {
            // Nobody takes records any more.
            shared.abandon_streams();
            Err(io::Error::other(panics::message(&*payload)))
        });
        on_event(TraceEvent::Ended(end));
    }

    fn write_all(&mut self, on_event: &impl Fn(TraceEvent)) -> io::Result<()> {
        self.shared.writer.adopt();
        loop {
            // Read before looking, so that the last look comes after the last record.
            let finish = self.control.finish.load(Ordering::SeqCst);
            if let Err(error) = self.round() {
                self.failed = true;
                self.shared.abandon_streams();
                on_event(TraceEvent::Failed(error));
            }
            if finish {
                break;
            }
            self.shared.writer.park(Some(PERIOD));
        }
        if self.failed { Ok(()) } else { self.complete() }
    }

    fn round(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.shared.drain(&mut self.batch);
        if self.batch.is_empty() || self.failed {
            return Ok(());
        }
        // Stable: what has the same time stays in its thread's order.
        self.batch.sort_by_key(|record| record.time);
        self.sink.write(&self.batch)
    }

    /// The counts of every source, and the end.
    fn complete(&mut self) -> io::Result<()> {
        let time = self.shared.clock.now();
        let record = |source, event| Record { time, source, event };
        let mut last = Vec::new();
        self.shared.visit_collected(|collected| {
            if let Source::Vcpu(_) = collected.source {
                last.push(record(collected.source, Event::Totals(collected.exits)));
            }
        });
        last.sort_by_key(|record| record.source);
        last.push(record(Source::Devices, Event::Totals(self.shared.others())));
        last.push(record(Source::Supervisor, Event::End));
        self.sink.write(&last)?;
        self.sink.finish()
    }
}

impl fmt::Debug for TraceWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceWriter").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// The file of a trace: a write that the host does not take can be interrupted, and then fails
/// if the trace has been given up.
#[derive(Debug)]
pub struct TraceFile {
    file: File,
    abandoned: Arc<AtomicBool>,
}

impl TraceFile {
    /// Writes to `file` until `abandoned`.
    pub fn new(file: File, abandoned: Arc<AtomicBool>) -> Self {
        Self { file, abandoned }
    }
}

impl Write for TraceFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.abandoned.load(Ordering::SeqCst) {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Err(io::Error::other("given up, for it was not taken in time"))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
