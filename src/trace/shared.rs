//! What the recorders of a VM, the writer of its trace and the supervisor share.
//!
//! Lock order: `notes` may be taken with the devices held, since an interrupt line changes there;
//! nothing is waited for, and no other lock taken, while it or `collected` is held.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::sync::Parker;
use crate::trace::clock::Clock;
use crate::trace::filter::TraceFilter;
use crate::trace::record::{Event, Record, Source, Totals};
use crate::trace::stream::Stream;
use crate::trace::summary::Summary;

/// Notes that may wait for the writer.
const MOST_NOTES: usize = 1 << 16;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) filter: TraceFilter,
    pub(super) rip: bool,
    /// The guest's switch. Publishes nothing but itself.
    recording: AtomicBool,
    /// One for each vCPU and one for the device thread; none without a trace.
    pub(super) streams: Box<[Stream]>,
    /// Where the writer sleeps.
    pub(super) writer: Parker,
    /// What is recorded without a stream. A lock, for it is rare.
    notes: Mutex<Notes>,
    collected: Mutex<Vec<Collected>>,
}

/// Records of things that happen to the VM, on whatever thread: kicks, interrupt lines.
#[derive(Debug, Default)]
struct Notes {
    /// Those that wait for the writer.
    waiting: Vec<Record>,
    totals: Totals,
    summary: Option<Box<Summary>>,
}

/// What a recorder leaves behind.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) source: Source,
    pub(super) exits: Totals,
    pub(super) others: Totals,
    pub(super) summary: Option<Box<Summary>>,
    /// The kernel's own counters.
    pub(super) kernel: Vec<(String, u64)>,
}

impl Shared {
    /// For a trace with these streams, or none, and statistics or not.
    pub(super) fn new(
        clock: Clock,
        filter: TraceFilter,
        rip: bool,
        streams: Box<[Stream]>,
        stats: bool,
    ) -> Self {
        let notes = Notes { summary: stats.then(Box::default), ..Notes::default() };
        Self {
            clock,
            filter,
            rip,
            recording: AtomicBool::new(true),
            streams,
            writer: Parker::default(),
            notes: Mutex::new(notes),
            collected: Mutex::default(),
        }
    }

    /// The stream of a source.
    pub(super) fn stream_of(&self, source: Source) -> Option<usize> {
        let index = match source {
            Source::Vcpu(id) => id.index(),
            Source::Devices => self.streams.len().checked_sub(1)?,
            Source::Supervisor => return None,
        };
        (index < self.streams.len()).then_some(index)
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    pub(super) fn set_recording(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    pub(super) fn collect(&self, collected: Collected) {
        self.collected.lock().push(collected);
    }

    /// Shows what each recorder has left behind.
    pub(super) fn visit_collected(&self, mut visit: impl FnMut(&mut Collected)) {
        self.collected.lock().iter_mut().for_each(&mut visit);
    }

    /// Records something that no recorder does.
    pub(super) fn note(&self, event: Event) {
        let record = Record { time: self.clock.now(), source: Source::Supervisor, event };
        let Notes { waiting, totals, summary } = &mut *self.notes.lock();
        if let Some(summary) = summary {
            summary.add(&record);
        }
        totals.seen += 1;
        if self.streams.is_empty() {
            totals.filtered += 1;
        } else if waiting.len() < MOST_NOTES {
            totals.kept += 1;
            waiting.push(record);
        } else {
            totals.dropped += 1;
        }
    }

    /// The statistics of what was noted.
    pub(super) fn take_noted(&self) -> Box<Summary> {
        self.notes.lock().summary.take().unwrap_or_default()
    }

    /// The counts of all records that are not exits.
    pub(super) fn others(&self) -> Totals {
        let mut others = self.notes.lock().totals;
        self.visit_collected(|collected| others.add(&collected.others));
        others
    }

    /// Moves all records that wait into `batch`.
    pub(super) fn drain(&self, batch: &mut Vec<Record>) {
        for stream in &self.streams {
            stream.drain(|words| batch.extend(Record::from_words(words)));
        }
        // Copied without the lock, which others may want with the devices held.
        let mut notes = std::mem::take(&mut self.notes.lock().waiting);
        batch.append(&mut notes);
    }

    /// No thread waits for the writer any more.
    pub(super) fn abandon_streams(&self) {
        for stream in &self.streams {
            stream.abandon();
        }
    }
}

/// How the supervisor steers the writer.
#[derive(Debug, Default)]
pub(super) struct WriterControl {
    /// No recorder is left: write what there is, complete the trace, end.
    pub(super) finish: AtomicBool,
}

/// What the writer of a trace reports.
#[derive(Debug)]
pub enum TraceEvent {
    /// The trace cannot be written, and ends before the VM does.
    Failed(io::Error),
    /// The writer has ended. An error is how it failed to complete the trace, or its panic.
    Ended(io::Result<()>),
}
