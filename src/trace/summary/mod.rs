//! What a trace amounts to: how often each kind of exit came, how long it took, and where the
//! time of each thread went. `docs/tracing.md` defines every figure.
//!
//! A [`Summary`] takes records one at a time, while the guest runs or from a file, and never
//! more memory than its bounds allow, whatever the guest does. Each thread may fill one of its
//! own; [`Summary::merge`] makes one of them. [`Summary::report`] computes the figures, which
//! [`Report`] shows as text or JSON, and [`Diff`] compares two of.

mod depth;
mod diff;
mod distribution;
pub(crate) mod layout;
mod make;
mod report;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod text;

use crate::exit::VcpuId;
use crate::trace::format::{Cut, TraceInfo};
use crate::trace::record::{Event, Record, ServiceEvent, Source};

use depth::DepthMeter;
use stats::{Completions, Lines, Note, Notes, OutputStats, Rips, ThreadStats, VcpuStats};

pub use diff::{Diff, DiffRow};
pub use report::{
    Bin, CompletedReport, DevicesReport, ExitCounts, InterruptReport, KernelReport, MarkerReport,
    OutputReport, QueueReport, RecordingReport, Report, RipReport, Row, ServiceReport,
    SymbolReport, TimeReport, Times, TotalsReport, TraceReport, VcpuReport,
};
pub use text::{Text, TextOptions};

/// How many vCPUs have figures of their own; all from this number on share one row. It bounds
/// the memory, most of which the vCPUs' histograms take.
pub const MAX_VCPUS: usize = 256;

/// How many addresses have a row of their own in one summary, each vCPU's counted.
pub const MAX_ADDRESS_ROWS: usize = 4096;

/// How many addresses of code are told apart while the guest runs.
pub const MAX_RIPS: usize = 1024;

/// The same when a trace is read.
pub const MAX_RIPS_IN_REPORT: usize = 1 << 16;

/// What only the device queue knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// The most accesses that were in the channel at once.
    pub max_depth: u64,
    /// How often a vCPU served posted accesses, its own or others'.
    pub helps: u64,
    /// How often the device thread was woken.
    pub wakes: u64,
}

/// KVM's own counters, by KVM's names: those of each vCPU, and those of the VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    /// By vCPU.
    pub vcpus: Vec<Vec<(String, u64)>>,
    /// The VM's.
    pub vm: Vec<(String, u64)>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What is known of the trace, for the reader.
    pub info: Option<TraceInfo>,
    /// The queue's figures, if somebody knows them.
    pub queue: Option<QueueStats>,
    /// KVM's figures, if somebody has read them.
    pub kernel: Option<KernelStats>,
    /// Where the trace was cut off, if it was.
    pub cut: Option<Cut>,
    records: u64,
    complete: bool,
    /// By number; the last possible one is that of all others.
    vcpus: Vec<Option<Box<VcpuStats>>>,
    devices: ThreadStats,
    supervisor: ThreadStats,
    output: OutputStats,
    lines: Lines,
    notes: Notes,
    completed: Completions,
    rips: Rips,
    depth: Option<Box<DepthMeter>>,
    /// How many more addresses may have a row.
    room: usize,
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

impl Summary {
    /// An empty one for a running guest: what it costs an exit is small, and the depth of the
    /// queue is not worked out.
    pub fn new() -> Self {
        Self {
            info: None,
            queue: None,
            kernel: None,
            cut: None,
            records: 0,
            complete: false,
            vcpus: Vec::new(),
            devices: ThreadStats::default(),
            supervisor: ThreadStats::default(),
            output: OutputStats::default(),
            lines: Lines::default(),
            notes: Notes::default(),
            completed: Completions::default(),
            rips: Rips::new(MAX_RIPS),
            depth: None,
            room: MAX_ADDRESS_ROWS,
        }
    }

    /// An empty one for a trace that is read: with the depth of the queue, and more addresses of
    /// code.
    pub fn for_trace(info: TraceInfo) -> Self {
        Self {
            info: Some(info),
            rips: Rips::new(MAX_RIPS_IN_REPORT),
            depth: Some(Box::default()),
            ..Self::new()
        }
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        self.records = self.records.saturating_add(1);
        let Record { time, source, ref event } = *record;
        match event {
            Event::Exit(exit) => {
                // Nobody else exits.
                if let Source::Vcpu(id) = source {
                    vcpu(&mut self.vcpus, id).add_exit(time, exit, &mut self.room);
                    if let Some(rip) = exit.rip {
                        self.rips.add(rip, exit);
                    }
                }
            }
            Event::Service(service) => self.add_service(time, source, service),
            Event::Output { len, took, .. } => {
                self.output.bytes = self.output.bytes.saturating_add(u64::from(*len));
                self.output.time.add(u64::from(*took));
                self.saw(source, time, u64::from(*took));
            }
            Event::Kick { target } => {
                let kicks = &mut vcpu(&mut self.vcpus, *target).kicks;
                *kicks = kicks.saturating_add(1);
                self.saw(source, time, 0);
            }
            Event::Start | Event::Halt | Event::Stop => self.saw(source, time, 0),
            Event::Interrupt { irq, high } => {
                self.lines.add(*irq, *high);
                self.saw(source, time, 0);
            }
            Event::Marker(name) => {
                self.notes.add(time, source, Note::Marker(*name));
                self.saw(source, time, 0);
            }
            Event::Completed(name) => {
                self.completed.add(*name);
                self.saw(source, time, 0);
            }
            Event::Recording { on } => {
                self.notes.add(time, source, Note::Recording(*on));
                self.saw(source, time, 0);
            }
            // These two say nothing about when the thread was at work.
            Event::Totals(totals) => self.thread(source).add_totals(totals),
            Event::End => self.complete = true,
        }
    }

    /// Adds everything that `other` has: the result is that of the records of both, as far as
    /// no bound is reached.
    pub fn merge(&mut self, other: &Self) {
        self.records = self.records.saturating_add(other.records);
        self.complete |= other.complete;
        for (id, stats) in (0..).zip(&other.vcpus) {
            if let Some(stats) = stats {
                vcpu(&mut self.vcpus, VcpuId(id)).merge(stats, &mut self.room);
            }
        }
        self.devices.merge(&other.devices);
        self.supervisor.merge(&other.supervisor);
        self.output.bytes = self.output.bytes.saturating_add(other.output.bytes);
        self.output.time.merge(&other.output.time);
        self.lines.merge(&other.lines);
        self.notes.merge(&other.notes);
        self.completed.merge(&other.completed);
        self.rips.merge(&other.rips);
        if let Some(depth) = &other.depth {
            self.depth.get_or_insert_default().merge(depth);
        }
        self.info = self.info.take().or_else(|| other.info.clone());
        self.cut = self.cut.or(other.cut);
        self.kernel = self.kernel.take().or_else(|| other.kernel.clone());
        if let Some(theirs) = other.queue {
            let ours = self.queue.get_or_insert_default();
            ours.max_depth = ours.max_depth.max(theirs.max_depth);
            ours.helps = ours.helps.saturating_add(theirs.helps);
            ours.wakes = ours.wakes.saturating_add(theirs.wakes);
        }
    }

    fn add_service(&mut self, time: u64, source: Source, service: &ServiceEvent) {
        self.thread(source).add_service(service);
        self.saw(source, time, u64::from(service.service));
        if let Some(depth) = &mut self.depth {
            depth.add(time, service.wait);
        }
    }

    fn thread(&mut self, source: Source) -> &mut ThreadStats {
        match source {
            Source::Vcpu(id) => &mut vcpu(&mut self.vcpus, id).thread,
            Source::Devices => &mut self.devices,
            Source::Supervisor => &mut self.supervisor,
        }
    }

    /// The thread did something that began at `time` and took `took`.
    fn saw(&mut self, source: Source, time: u64, took: u64) {
        self.thread(source).span.extend(time, time.saturating_add(took));
    }
}

/// The row of a vCPU.
fn vcpu(vcpus: &mut Vec<Option<Box<VcpuStats>>>, id: VcpuId) -> &mut VcpuStats {
    let row = id.index().min(MAX_VCPUS);
    if row >= vcpus.len() {
        vcpus.resize_with(row + 1, || None);
    }
    vcpus[row].get_or_insert_default()
}
