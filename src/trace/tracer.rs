//! The tracing of one VM: how it is set up, what its threads record with, and how it is brought to
//! an end. Made and owned by the supervisor.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::devices::watch::QueueCounts;
use crate::exit::VcpuId;
use crate::irq::IrqLine;
use crate::trace::clock::{Clock, Counter};
use crate::trace::filter::TraceFilter;
use crate::trace::format::Sink;
use crate::trace::record::{Event, Record, Source};
use crate::trace::recorder::Recorder;
pub use crate::trace::shared::TraceEvent;
use crate::trace::shared::{Shared, WriterControl};
use crate::trace::stream::{Stream, WhenFull};
use crate::trace::summary::{KernelStats, QueueStats, Summary};
use crate::trace::writer::TraceWriter;

/// Records that may wait for the writer in all streams together: 64 MiB of them.
const ALL_RECORDS: usize = 1 << 20;
/// The most and the fewest records of one stream.
const MOST_RECORDS: usize = 1 << 13;
const FEWEST_RECORDS: usize = 1 << 8;

/// What is to be traced, and where to.
#[derive(Debug, Default)]
pub struct TraceSetup {
    /// Where records go.
    pub output: Option<TraceOutput>,
    /// Which.
    pub filter: TraceFilter,
    /// What happens when they come faster than they can be written.
    pub when_full: Option<WhenFull>,
    /// Exits have their RIP.
    pub rip: bool,
    /// Statistics are kept.
    pub stats: bool,
    /// Not even the flight recorder is on; for measuring what it costs.
    pub no_flight_recorder: bool,
}

/// Where a trace goes.
pub struct TraceOutput {
    /// What writes it.
    pub sink: Box<dyn Sink>,
    /// Set when it is given up: the sink's file then fails instead of waiting.
    pub abandoned: Arc<AtomicBool>,
}

impl fmt::Debug for TraceOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceOutput").finish_non_exhaustive()
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
    output: Option<TraceOutput>,
    stats: bool,
    flight: bool,
    control: Arc<WriterControl>,
    writer: Option<JoinHandle<()>>,
}

impl Tracer {
    /// Tracing as `setup` has it, of a VM of `vcpus` vCPUs. The epoch is now.
    pub fn new(setup: TraceSetup, vcpus: u32) -> Self {
        Self::with_clock(setup, vcpus, Clock::host())
    }

    /// The same with another clock.
    pub fn with_clock(setup: TraceSetup, vcpus: u32, clock: Clock) -> Self {
        let sources = usize::try_from(vcpus).unwrap_or(usize::MAX).saturating_add(1);
        let when_full = setup.when_full.unwrap_or(WhenFull::Block);
        let capacity = (ALL_RECORDS / sources).clamp(FEWEST_RECORDS, MOST_RECORDS);
        let streams = if setup.output.is_some() { sources } else { 0 };
        let streams = (0..streams).map(|_| Stream::new(capacity, when_full)).collect();
        let shared = Shared::new(clock, setup.filter, setup.rip, streams, setup.stats);
        Self {
            shared: Arc::new(shared),
            output: setup.output,
            stats: setup.stats,
            flight: !setup.no_flight_recorder,
            control: Arc::default(),
            writer: None,
        }
    }

    /// Has the times taken from `counter` from now on. For any time: what is recorded already and
    /// what is recorded after it can be compared.
    pub fn use_counter(&self, counter: Counter) {
        self.shared.clock.use_counter(counter);
    }

    /// What a vCPU's run loop records with.
    pub fn vcpu_tracing(&self, id: VcpuId) -> VcpuTracing {
        let recorders = self.recorders(Source::Vcpu(id));
        let clock = self.shared.clock.clone();
        VcpuTracing { clock, flight: self.flight, rip: self.shared.rip, recorders }
    }

    /// What makes the recorder of a thread, on that thread; none if nothing is recorded.
    pub fn recorders(&self, source: Source) -> Option<RecorderMaker> {
        let wanted = self.stats || !self.shared.streams.is_empty();
        let shared = Arc::clone(&self.shared);
        wanted.then_some(RecorderMaker { source, shared, stats: self.stats })
    }

    /// An interrupt line in front of `line` that records its changes.
    pub fn irq_line(&self, irq: u32, line: Box<dyn IrqLine>) -> Box<dyn IrqLine> {
        if self.shared.streams.is_empty() && !self.stats {
            return line;
        }
        Box::new(TracedIrq { irq, line, shared: Arc::clone(&self.shared) })
    }

    /// Records that `target` is kicked.
    pub fn note_kick(&self, target: VcpuId) {
        self.shared.note(Event::Kick { target });
    }

    /// Starts the writer, if there is a trace to write. `on_end` is told how it ended.
    ///
    /// # Errors
    ///
    /// The host has no thread to give.
    pub fn start_writer(
        &mut self,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
        on_event: impl Fn(TraceEvent) + Send + 'static,
    ) -> io::Result<()> {
        let Some(TraceOutput { sink, .. }) = &mut self.output else { return Ok(()) };
        let sink = std::mem::replace(sink, Box::new(NoSink));
        let writer = TraceWriter::new(Arc::clone(&self.shared), Arc::clone(&self.control), sink);
        self.writer = Some(spawn(Box::new(move || writer.run(on_event)))?);
        Ok(())
    }

    /// Whether there is a writer that has to be waited for.
    pub fn is_writing(&self) -> bool {
        self.writer.is_some()
    }

    /// All recorders are gone: the writer is to complete the trace and to end.
    pub fn finish(&self) {
        self.control.finish.store(true, Ordering::SeqCst);
        self.shared.writer.unpark();
    }

    /// Whether some thread waits for the writer.
    pub fn is_waited_for(&self) -> bool {
        self.shared.streams.iter().any(Stream::is_waited_for)
    }

    /// No thread waits for the writer any more: it drops what there is no room for.
    pub fn abandon_streams(&self) {
        self.shared.abandon_streams();
    }

    /// Nobody waits for the trace any more: what cannot be written at once is lost. The caller
    /// interrupts the writer's thread, which may be in write(2).
    pub fn abandon(&self) {
        if let Some(output) = &self.output {
            output.abandoned.store(true, Ordering::SeqCst);
        }
        self.shared.abandon_streams();
        self.shared.writer.unpark();
    }

    /// The writer's thread.
    pub fn writer(&self) -> Option<&JoinHandle<()>> {
        self.writer.as_ref()
    }

    /// Joins the writer, which has reported its end.
    pub fn join_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            // A panic of it was reported.
            let _ = writer.join();
        }
    }

    /// The records that wait for the writer.
    #[cfg(test)]
    pub(crate) fn drain(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.shared.drain(&mut records);
        records
    }

    /// How many records have been lost, by the thread that they are about: exits by their vCPU,
    /// all others by the device thread.
    pub fn lost(&self) -> Vec<(Source, u64)> {
        let mut lost = Vec::new();
        self.shared
            .visit_collected(|collected| lost.push((collected.source, collected.exits.dropped)));
        lost.push((Source::Devices, self.shared.others().dropped));
        lost.retain(|(_, count)| *count > 0);
        lost.sort_unstable();
        lost
    }

    /// The statistics of all threads, once they have ended, with those of the queue and what the
    /// kernel has counted about the VM; none if none were kept.
    pub fn take_summary(
        &self,
        queue: QueueCounts,
        vm: impl FnOnce() -> Vec<(String, u64)>,
    ) -> Option<Box<Summary>> {
        if !self.stats {
            return None;
        }
        let mut all = self.shared.take_noted();
        let mut kernel = KernelStats { vcpus: Vec::new(), vm: vm() };
        self.shared.visit_collected(|collected| {
            if let Some(summary) = collected.summary.take() {
                all.merge(&summary);
            }
            if let Source::Vcpu(id) = collected.source {
                let vcpus = kernel.vcpus.len().max(id.index() + 1);
                kernel.vcpus.resize(vcpus, Vec::new());
                kernel.vcpus[id.index()] = std::mem::take(&mut collected.kernel);
            }
        });
        let QueueCounts { deepest, helps, wakes } = queue;
        all.queue = Some(QueueStats { max_depth: deepest, helps, wakes });
        all.kernel = Some(kernel);
        Some(all)
    }
}

/// What a vCPU's run loop records with.
#[derive(Clone, Debug)]
pub struct VcpuTracing {
    clock: Clock,
    flight: bool,
    rip: bool,
    recorders: Option<RecorderMaker>,
}

impl VcpuTracing {
    /// Whether exits go into the flight recorder.
    pub fn flight(&self) -> bool {
        self.flight
    }

    /// Whether exits are to have their RIP.
    pub fn wants_rip(&self) -> bool {
        self.rip
    }

    /// The time of an exit; 0 if nobody wants to know.
    pub fn stamp(&self) -> u64 {
        if self.flight || self.recorders.is_some() { self.clock.now() } else { 0 }
    }

    /// The vCPU's recorder, if there is to be one; to be called on its thread.
    pub fn recorder(&self) -> Option<Box<Recorder>> {
        self.recorders.as_ref().map(RecorderMaker::make)
    }
}

/// Makes the recorder of one thread.
#[derive(Clone, Debug)]
pub struct RecorderMaker {
    source: Source,
    shared: Arc<Shared>,
    stats: bool,
}

impl RecorderMaker {
    /// The recorder; to be called on the thread that records.
    pub fn make(&self) -> Box<Recorder> {
        Box::new(Recorder::new(self.source, Arc::clone(&self.shared), self.stats))
    }
}

/// In the place of a sink that the writer has.
struct NoSink;

impl Sink for NoSink {
    fn write(&mut self, _: &[Record]) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An interrupt line that is recorded.
#[derive(Debug)]
struct TracedIrq {
    irq: u32,
    line: Box<dyn IrqLine>,
    shared: Arc<Shared>,
}

impl IrqLine for TracedIrq {
    fn set_level(&mut self, high: bool) {
        self.shared.note(Event::Interrupt { irq: self.irq, high });
        self.line.set_level(high);
    }
}
