//! The figures of a summary as plain data, under the names that JSON has them. A name ends with
//! its unit, `_ns`; one without is a count, and a `_share` is between 0 and 1.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::trace::format::Cut;

/// What [`Report::format`] says.
pub const FORMAT: &str = "minivmm-summary";

/// What [`Report::version`] says: one more whenever a name goes or changes its meaning.
pub const VERSION: u32 = 1;

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `minivmm-summary`.
    pub format: &'static str,
    /// The version of these names.
    pub version: u32,
    /// Where it comes from; none for a guest that has just run.
    pub trace: Option<TraceReport>,
    /// Records of all kinds.
    pub records: u64,
    /// When the first thing began and the last ended, since the trace's epoch.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// Between the two.
    pub span_ns: u64,
    /// The exits of all vCPUs.
    pub exits: ExitCounts,
    /// The time of all vCPUs together.
    pub time: TimeReport,
    /// All vCPUs' exits by reason.
    pub reasons: Vec<Row>,
    /// All vCPUs' exits by reason and address; those with the most time first.
    pub addresses: Vec<Row>,
    /// Each vCPU.
    pub vcpus: Vec<VcpuReport>,
    /// The device thread.
    pub devices: DevicesReport,
    /// Who served posted accesses.
    pub services: Vec<ServiceReport>,
    /// Output to the host.
    pub output: OutputReport,
    /// The channel to the devices.
    pub queue: QueueReport,
    /// Kicks of vCPUs.
    pub kicks: u64,
    /// Interrupt lines.
    pub interrupts: Vec<InterruptReport>,
    /// Instructions that were completed because the host cannot emulate them; the most first.
    pub completed: Vec<CompletedReport>,
    /// The guest's markers, in the order of time.
    pub markers: Vec<MarkerReport>,
    /// Where the guest switched recording.
    pub recording: Vec<RecordingReport>,
    /// Markers and switches beyond the first 1024.
    pub notes_left_out: u64,
    /// What was left out of the trace, by thread.
    pub totals: Vec<TotalsReport>,
    /// Exits by the address of the guest's code; the most first.
    pub rips: Vec<RipReport>,
    /// The same by function; none without symbols.
    pub symbols: Vec<SymbolReport>,
    /// KVM's own counters.
    pub kernel: Option<KernelReport>,
}

/// What the trace says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceReport {
    /// The guest: a path, or a demo's name.
    pub guest: String,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// The filter; empty if there was none.
    pub filter: String,
    /// The epoch, since 1970.
    pub epoch_unix_ns: u64,
    /// Whether it has its last record.
    pub complete: bool,
    /// Where it was cut off, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// How many exits there were, and how many of them the figures are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitCounts {
    /// All that happened.
    pub seen: u64,
    /// Those that the other figures are about.
    pub recorded: u64,
    /// Left out by a filter, or by the guest's switch.
    pub filtered: u64,
    /// Lost because the trace could not be written fast enough.
    pub dropped: u64,
}

impl ExitCounts {
    /// Whether some are known to be in no other figure.
    pub fn misses_some(&self) -> bool {
        self.filtered > 0 || self.dropped > 0
    }
}

/// Where a vCPU's time went, or the sum of several vCPUs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeReport {
    /// From its first entry to its last record's end.
    pub wall_ns: u64,
    /// In the guest.
    pub guest_ns: u64,
    /// Handling exits.
    pub handling_ns: u64,
    /// The rest. Not known if exits are missing, whose time would be in it.
    pub idle_ns: Option<u64>,
}

/// A reason for exits, or an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The reason.
    pub reason: &'static str,
    /// The port, or the beginning of the page, in hexadecimal; `others` for what has no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How many exits.
    pub count: u64,
    /// Of all recorded exits.
    pub count_share: f64,
    /// Handling, of the wall time.
    pub handling_share: f64,
    /// The guest's time before them, of the wall time.
    pub guest_share: f64,
    /// The handling of those whose handling was measured.
    pub handling: Option<Times>,
    /// In the guest, from the entry to the exit.
    pub guest: Option<Times>,
}

/// How durations are distributed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub samples: u64,
    /// Their sum.
    pub total_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The mean.
    pub mean_ns: u64,
    /// Half are at most this.
    pub p50_ns: u64,
    /// 99 % are at most this.
    pub p99_ns: u64,
    /// 99.9 % are at most this.
    pub p99_9_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// By powers of two, without empty ones.
    pub histogram: Vec<Bin>,
}

/// The durations between two powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The shortest that counts here.
    pub from_ns: u64,
    /// The shortest that does not any more.
    pub below_ns: u64,
    /// How many.
    pub count: u64,
}

/// A vCPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VcpuReport {
    /// `vcpu0` and so on, or `others`.
    pub vcpu: String,
    /// Its exits.
    pub exits: ExitCounts,
    /// Its time.
    pub time: TimeReport,
    /// How often it was kicked.
    pub kicks: u64,
    /// Its exits by reason.
    pub reasons: Vec<Row>,
    /// Its exits by reason and address; those with the most time first.
    pub addresses: Vec<Row>,
}

/// Where the device thread's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DevicesReport {
    /// The span of the whole trace.
    pub wall_ns: u64,
    /// Serving posted accesses.
    pub serving_ns: u64,
    /// Writing output to the host.
    pub output_ns: u64,
    /// The rest.
    pub idle_ns: u64,
}

/// The posted accesses that one thread served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceReport {
    /// `devices`, or the vCPU that helped.
    pub by: String,
    /// How many accesses.
    pub count: u64,
    /// How long they were in the channel.
    pub wait: Option<Times>,
    /// How long they took in the devices.
    pub service: Option<Times>,
}

/// Output to the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputReport {
    /// How many writes.
    pub writes: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long the writes took.
    pub time: Option<Times>,
}

/// The channel to the devices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QueueReport {
    /// Accesses in it, on average over the span.
    pub mean_depth: f64,
    /// The most accesses in it at once, if it is known.
    pub max_depth: Option<u64>,
    /// How often a vCPU helped; known only live.
    pub helps: Option<u64>,
    /// How often the device thread was woken; known only live.
    pub wakes: Option<u64>,
}

/// An interrupt line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterruptReport {
    /// Its number; none stands for those without a row.
    pub irq: Option<u64>,
    /// How often it became high.
    pub raised: u64,
    /// How often it became low.
    pub lowered: u64,
}

/// How often one kind of instruction was completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CompletedReport {
    /// The mnemonic, or "others".
    pub mnemonic: String,
    /// How often.
    pub count: u64,
}

/// A marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkerReport {
    /// When, since the trace's epoch.
    pub time_ns: u64,
    /// Whose.
    pub source: String,
    /// Its name, with what is no text escaped.
    pub name: String,
}

/// Recording was switched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordingReport {
    /// When, since the trace's epoch.
    pub time_ns: u64,
    /// By whom.
    pub source: String,
    /// Whether it is on from here.
    pub on: bool,
}

/// What became of the exits of one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TotalsReport {
    /// Whose.
    pub source: String,
    /// Exits that there were.
    pub seen: u64,
    /// Those in the trace.
    pub kept: u64,
    /// Those left out by a filter, or by the guest's switch.
    pub filtered: u64,
    /// Those lost, with other records that were lost.
    pub dropped: u64,
}

/// The exits at one address of the guest's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RipReport {
    /// The address, in hexadecimal; `others` for those without a row.
    pub rip: String,
    /// Its name, if it has one.
    pub symbol: Option<String>,
    /// How many exits.
    pub count: u64,
    /// Their handling.
    pub handling_ns: u64,
    /// In the guest before them.
    pub guest_ns: u64,
}

/// The exits in one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SymbolReport {
    /// The function; `?` for addresses without a name.
    pub symbol: String,
    /// How many exits.
    pub count: u64,
    /// Their handling.
    pub handling_ns: u64,
    /// In the guest before them.
    pub guest_ns: u64,
}

/// KVM's own counters, by KVM's names, in the units that those say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelReport {
    /// The VM's.
    pub vm: BTreeMap<String, u64>,
    /// Each vCPU's.
    pub vcpus: Vec<BTreeMap<String, u64>>,
}

impl Report {
    /// Writes it as one JSON object, on lines for people to read.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }
}
