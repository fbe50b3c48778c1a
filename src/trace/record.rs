//! What a trace is made of: one record of 64 bytes for each thing that happened, most of all for
//! each VM exit. Everything that writes, reads or counts traces works on these values; nothing
//! here knows where they come from or go to.
//!
//! All times are nanoseconds. [`Record::time`] counts from the trace's epoch, shortly before the
//! guest starts; durations that are stored in 32 bits end at 4.29 s and mean "at least" there.

use std::fmt;

use crate::exit::{
    Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit,
};

/// The size of an encoded record, in bytes.
pub const RECORD_LEN: usize = 64;

/// The thread that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The thread of a vCPU.
    Vcpu(VcpuId),
    /// The device thread.
    Devices,
    /// The main thread, or the outside.
    Supervisor,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When: for an exit the moment at which KVM_RUN returned, for everything that lasts its
    /// beginning. Nanoseconds since the trace's epoch.
    pub time: u64,
    /// Whose record it is: for an exit its vCPU, for a service the thread that served.
    pub source: Source,
    /// What.
    pub event: Event,
}

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A VM exit, and what was done about it on the vCPU's own thread.
    Exit(ExitEvent),
    /// A posted access was served, by the device thread or by a vCPU that helped.
    Service(ServiceEvent),
    /// One write of guest output to the host: the device thread was in write(2).
    Output {
        /// The number of bytes that had been written before.
        offset: u64,
        /// The bytes that the host took.
        len: u32,
        /// How long it lasted.
        took: u32,
    },
    /// A vCPU was kicked.
    Kick {
        /// Who is to leave the guest.
        target: VcpuId,
    },
    /// A vCPU enters the guest for the first time.
    Start,
    /// A vCPU has halted for good.
    Halt,
    /// A vCPU's thread has left its loop for another reason: told to stop, a fault, a panic.
    Stop,
    /// The level of an interrupt line changed.
    Interrupt {
        /// The line.
        irq: u32,
        /// Its new level.
        high: bool,
    },
    /// The guest put a name into the timeline through the marker port.
    Marker(MarkerName),
    /// The guest switched recording on or off through the trace control port.
    Recording {
        /// Whether it is on from here.
        on: bool,
    },
    /// The counts of one source's records, written once at the end of a trace.
    Totals(Totals),
    /// The end of a complete trace: nothing follows.
    End,
}

/// A VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitEvent {
    /// The number of this exit among all of its vCPU, from 0; below 2^48.
    pub sequence: u64,
    /// The exit. The instruction bytes of an internal error are not kept.
    pub exit: VmExit,
    /// The first 8 bytes of what was written or read, little-endian, zero-extended.
    pub data: u64,
    /// RIP at the exit, if it was asked for, as KVM has it then.
    pub rip: Option<u64>,
    /// From the entry into the guest to this exit.
    pub guest: u64,
    /// What was done about it.
    pub handling: Handling,
}

/// How the vCPU's thread handled an exit, and how long each part took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It is being handled, or was when the vCPU ended.
    Pending,
    /// The run loop dealt with it.
    RunLoop,
    /// Its accesses were posted: they are in the channel, and somebody serves them later
    /// ([`ServiceEvent`]).
    Posted {
        /// Putting them into the channel, with whatever had to be done to make room.
        enqueue: u32,
    },
    /// The vCPU served its accesses itself.
    Served {
        /// Taking the devices, serving what came before, and all else but its own accesses.
        wait: u32,
        /// Its own accesses in the devices.
        service: u32,
    },
}

/// A posted access that was served. Its record's source says who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    /// Whose access it was.
    pub vcpu: VcpuId,
    /// The exit that it came from.
    pub sequence: u64,
    /// The access. A `rep outs` of n elements is one exit and n services.
    pub access: Access,
    /// From its exit to the beginning of its service, the way into the channel included.
    pub wait: u32,
    /// In the devices.
    pub service: u32,
}

/// A marker's name: at most 24 bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkerName {
    bytes: [u8; 24],
}

/// What became of a source's records: of a vCPU's its exits, of the device thread's all others
/// of the VM. `seen` = `kept` + `filtered` + `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many there were.
    pub seen: u64,
    /// Those in the trace.
    pub kept: u64,
    /// Those that a filter, or the guest's switch, left out.
    pub filtered: u64,
    /// Those lost because the trace could not be written fast enough.
    pub dropped: u64,
}

impl Totals {
    /// Adds the counts of another source.
    pub fn add(&mut self, other: &Self) {
        self.seen = self.seen.saturating_add(other.seen);
        self.kept = self.kept.saturating_add(other.kept);
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}

impl MarkerName {
    /// The most bytes of a name.
    pub const MAX: usize = 24;

    /// The first 24 bytes of `name`; a NUL ends it.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let len = name.len().min(Self::MAX);
        bytes[..len].copy_from_slice(&name[..len]);
        Self { bytes }
    }

    /// The bytes, as the guest wrote them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl fmt::Display for MarkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu(id) => write!(f, "vcpu{}", id.0),
            Self::Devices => f.write_str("devices"),
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}

impl Record {
    /// The exit, if it is one.
    pub fn exit(&self) -> Option<&ExitEvent> {
        match &self.event {
            Event::Exit(exit) => Some(exit),
            _ => None,
        }
    }
}

impl fmt::Display for ExitEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, data) = (Reason::of(&self.exit), self.data);
        write!(f, "{reason}")?;
        match self.exit {
            VmExit::Pio(PioExit { port, size, count, .. }) => {
                write!(f, " port={port} size={size} count={count} data={data:#x}")?;
            }
            VmExit::Mmio(MmioExit { gpa, size, .. }) => {
                write!(f, " gpa={gpa} size={size} count=1 data={data:#x}")?;
            }
            VmExit::FailEntry { reason, cpu } => write!(f, " reason={reason:#x} cpu={cpu}")?,
            VmExit::InternalError { suberror, .. } => write!(f, " suberror={suberror}")?,
            VmExit::SystemEvent { kind } => write!(f, " type={kind}")?,
            VmExit::Unhandled { reason } => write!(f, " reason={reason}")?,
            VmExit::Hlt | VmExit::Shutdown | VmExit::Interrupted | VmExit::SetTpr => {}
        }
        if let Some(rip) = self.rip {
            write!(f, " rip={rip:#x}")?;
        }
        write!(f, " handler={}", self.handling.name())
    }
}

impl Handling {
    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::RunLoop => "run-loop",
            Self::Posted { .. } => "posted",
            Self::Served { .. } => "vcpu",
        }
    }
}

impl ExitEvent {
    /// How long the vCPU's thread was busy with it, as far as it was measured.
    pub fn handling_time(&self) -> u64 {
        match self.handling {
            Handling::Pending | Handling::RunLoop => 0,
            Handling::Posted { enqueue } => u64::from(enqueue),
            Handling::Served { wait, service } => u64::from(wait) + u64::from(service),
        }
    }
}

/// A duration as a record stores it.
pub fn saturate(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds).unwrap_or(u32::MAX)
}

// Encoding: eight 64-bit words, little-endian.
//
//   0  time
//   1  sequence (low 48 bits), source (high 16)
//   2  address, hardware reason
//   3  data
//   4  RIP
//   5  time in the guest
//   6  two 32-bit durations
//   7  kind, flags, 16-bit number (low 32 bits), count or other number (high 32)
//
// Flags: bit 0 write, bit 1 RIP is valid, bits 2 and 3 handling, bits 4 to 7 size.

const SOURCE_DEVICES: u16 = 0xffff;
const SOURCE_SUPERVISOR: u16 = 0xfffe;
const SEQUENCE_BITS: u32 = 48;
const WRITE: u8 = 1;
const HAS_RIP: u8 = 2;

/// The numbers of the kinds of records in an encoded one.
mod kind {
    pub const PIO: u8 = 1;
    pub const MMIO: u8 = 2;
    pub const HLT: u8 = 3;
    pub const SHUTDOWN: u8 = 4;
    pub const FAIL_ENTRY: u8 = 5;
    pub const INTERNAL_ERROR: u8 = 6;
    pub const SYSTEM_EVENT: u8 = 7;
    pub const INTERRUPTED: u8 = 8;
    pub const UNHANDLED: u8 = 9;
    pub const SET_TPR: u8 = 10;
    pub const SERVICE_PIO: u8 = 16;
    pub const SERVICE_MMIO: u8 = 17;
    pub const OUTPUT: u8 = 18;
    pub const KICK: u8 = 19;
    pub const START: u8 = 20;
    pub const HALT: u8 = 21;
    pub const STOP: u8 = 22;
    pub const INTERRUPT: u8 = 23;
    pub const MARKER: u8 = 24;
    pub const RECORDING: u8 = 25;
    pub const TOTALS: u8 = 26;
    pub const END: u8 = 27;
}

/// The fields of an encoded record, by what the table above calls them.
#[derive(Clone, Copy, Default)]
struct Raw {
    time: u64,
    sequence: u64,
    source: u16,
    address: u64,
    data: u64,
    rip: u64,
    guest: u64,
    durations: [u32; 2],
    kind: u8,
    flags: u8,
    short: u16,
    number: u32,
}

impl Raw {
    fn to_words(self) -> [u64; 8] {
        let mask = (1 << SEQUENCE_BITS) - 1;
        [
            self.time,
            self.sequence & mask | u64::from(self.source) << SEQUENCE_BITS,
            self.address,
            self.data,
            self.rip,
            self.guest,
            u64::from(self.durations[0]) | u64::from(self.durations[1]) << 32,
            u64::from(self.kind)
                | u64::from(self.flags) << 8
                | u64::from(self.short) << 16
                | u64::from(self.number) << 32,
        ]
    }

    fn from_words(words: [u64; 8]) -> Self {
        let [time, tagged, address, data, rip, guest, durations, last] = words;
        let [a0, a1, a2, a3, b @ ..] = durations.to_le_bytes();
        let [kind, flags, s0, s1, number @ ..] = last.to_le_bytes();
        let [.., t0, t1] = tagged.to_le_bytes();
        Self {
            time,
            sequence: tagged & ((1 << SEQUENCE_BITS) - 1),
            source: u16::from_le_bytes([t0, t1]),
            address,
            data,
            rip,
            guest,
            durations: [u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes(b)],
            kind,
            flags,
            short: u16::from_le_bytes([s0, s1]),
            number: u32::from_le_bytes(number),
        }
    }

    fn size(self) -> u8 {
        self.flags >> 4
    }

    fn direction(self) -> Direction {
        if self.flags & WRITE != 0 { Direction::Write } else { Direction::Read }
    }
}

fn source_tag(source: Source) -> u16 {
    match source {
        // KVM's limit is far below; a number that does not fit shows as the last that does.
        Source::Vcpu(id) => u16::try_from(id.0).unwrap_or(SOURCE_SUPERVISOR - 1),
        Source::Devices => SOURCE_DEVICES,
        Source::Supervisor => SOURCE_SUPERVISOR,
    }
}

fn source_of(tag: u16) -> Source {
    match tag {
        SOURCE_DEVICES => Source::Devices,
        SOURCE_SUPERVISOR => Source::Supervisor,
        id => Source::Vcpu(VcpuId(u32::from(id))),
    }
}

fn access_flags(direction: Direction, size: u8) -> u8 {
    let write = if direction == Direction::Write { WRITE } else { 0 };
    write | size.min(15) << 4
}

impl Record {
    /// The record as eight words.
    pub fn to_words(&self) -> [u64; 8] {
        let raw = Raw { time: self.time, source: source_tag(self.source), ..Raw::default() };
        let plain = |kind| Raw { kind, ..raw };
        let raw = match self.event {
            Event::Exit(exit) => encode_exit(raw, &exit),
            Event::Service(service) => Raw {
                kind: match service.access.space {
                    AddressSpace::Pio => kind::SERVICE_PIO,
                    AddressSpace::Mmio => kind::SERVICE_MMIO,
                },
                sequence: service.sequence,
                address: service.access.addr,
                data: service.access.data,
                flags: access_flags(service.access.direction, service.access.size),
                durations: [service.wait, service.service],
                number: service.vcpu.0,
                ..raw
            },
            Event::Output { offset, len, took } => Raw {
                kind: kind::OUTPUT,
                address: offset,
                number: len,
                durations: [took, 0],
                ..raw
            },
            Event::Kick { target } => Raw { kind: kind::KICK, number: target.0, ..raw },
            Event::Start => plain(kind::START),
            Event::Halt => plain(kind::HALT),
            Event::Stop => plain(kind::STOP),
            Event::Interrupt { irq, high } => {
                Raw { kind: kind::INTERRUPT, number: irq, flags: u8::from(high), ..raw }
            }
            Event::Marker(name) => {
                let word = |index: usize| {
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(&name.bytes[8 * index..8 * index + 8]);
                    u64::from_le_bytes(bytes)
                };
                Raw { kind: kind::MARKER, address: word(0), data: word(1), rip: word(2), ..raw }
            }
            Event::Recording { on } => Raw { kind: kind::RECORDING, flags: u8::from(on), ..raw },
            Event::Totals(totals) => Raw {
                kind: kind::TOTALS,
                address: totals.seen,
                data: totals.kept,
                rip: totals.filtered,
                guest: totals.dropped,
                ..raw
            },
            Event::End => plain(kind::END),
        };
        raw.to_words()
    }

    /// The record that these words encode; `None` if they encode none.
    pub fn from_words(words: [u64; 8]) -> Option<Self> {
        let raw = Raw::from_words(words);
        let event = match raw.kind {
            kind::PIO..=kind::SET_TPR => Event::Exit(decode_exit(raw)?),
            kind::SERVICE_PIO | kind::SERVICE_MMIO => Event::Service(ServiceEvent {
                vcpu: VcpuId(raw.number),
                sequence: raw.sequence,
                access: Access {
                    space: if raw.kind == kind::SERVICE_PIO {
                        AddressSpace::Pio
                    } else {
                        AddressSpace::Mmio
                    },
                    addr: raw.address,
                    direction: raw.direction(),
                    size: raw.size(),
                    data: raw.data,
                },
                wait: raw.durations[0],
                service: raw.durations[1],
            }),
            kind::OUTPUT => {
                Event::Output { offset: raw.address, len: raw.number, took: raw.durations[0] }
            }
            kind::KICK => Event::Kick { target: VcpuId(raw.number) },
            kind::START => Event::Start,
            kind::HALT => Event::Halt,
            kind::STOP => Event::Stop,
            kind::INTERRUPT => Event::Interrupt { irq: raw.number, high: raw.flags & 1 != 0 },
            kind::MARKER => {
                let words = [raw.address, raw.data, raw.rip].map(u64::to_le_bytes);
                Event::Marker(MarkerName::new(words.as_flattened()))
            }
            kind::RECORDING => Event::Recording { on: raw.flags & 1 != 0 },
            kind::TOTALS => Event::Totals(Totals {
                seen: raw.address,
                kept: raw.data,
                filtered: raw.rip,
                dropped: raw.guest,
            }),
            kind::END => Event::End,
            _ => return None,
        };
        Some(Self { time: raw.time, source: source_of(raw.source), event })
    }

    /// The record as bytes.
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.to_words()) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// The record that these bytes encode; `None` if they encode none.
    pub fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self::from_words(words)
    }
}

fn encode_exit(raw: Raw, event: &ExitEvent) -> Raw {
    let none = Direction::Read;
    let (kind, direction, size, number, address) = match event.exit {
        VmExit::Pio(pio) => (kind::PIO, pio.direction, pio.size, pio.count, u64::from(pio.port.0)),
        VmExit::Mmio(mmio) => (kind::MMIO, mmio.direction, mmio.size, 1, mmio.gpa.0),
        VmExit::Hlt => (kind::HLT, none, 0, 0, 0),
        VmExit::Shutdown => (kind::SHUTDOWN, none, 0, 0, 0),
        VmExit::FailEntry { reason, cpu } => (kind::FAIL_ENTRY, none, 0, cpu, reason),
        VmExit::InternalError { suberror, .. } => (kind::INTERNAL_ERROR, none, 0, suberror, 0),
        VmExit::SystemEvent { kind } => (kind::SYSTEM_EVENT, none, 0, kind, 0),
        VmExit::Interrupted => (kind::INTERRUPTED, none, 0, 0, 0),
        VmExit::Unhandled { reason } => (kind::UNHANDLED, none, 0, reason, 0),
        VmExit::SetTpr => (kind::SET_TPR, none, 0, 0, 0),
    };
    let (handling, durations) = match event.handling {
        Handling::Pending => (0, [0, 0]),
        Handling::RunLoop => (1, [0, 0]),
        Handling::Posted { enqueue } => (2, [enqueue, 0]),
        Handling::Served { wait, service } => (3, [wait, service]),
    };
    let rip = if event.rip.is_some() { HAS_RIP } else { 0 };
    Raw {
        kind,
        sequence: event.sequence,
        address,
        data: event.data,
        rip: event.rip.unwrap_or(0),
        guest: event.guest,
        durations,
        flags: access_flags(direction, size) | rip | handling << 2,
        number,
        ..raw
    }
}

fn decode_exit(raw: Raw) -> Option<ExitEvent> {
    let (direction, size) = (raw.direction(), raw.size());
    let exit = match raw.kind {
        kind::PIO => {
            let port = PioAddr(u16::try_from(raw.address).ok()?);
            VmExit::Pio(PioExit { port, direction, size, count: raw.number })
        }
        kind::MMIO => VmExit::Mmio(MmioExit { gpa: Gpa(raw.address), direction, size }),
        kind::HLT => VmExit::Hlt,
        kind::SHUTDOWN => VmExit::Shutdown,
        kind::FAIL_ENTRY => VmExit::FailEntry { reason: raw.address, cpu: raw.number },
        kind::INTERNAL_ERROR => VmExit::InternalError { suberror: raw.number, insn: None },
        kind::SYSTEM_EVENT => VmExit::SystemEvent { kind: raw.number },
        kind::INTERRUPTED => VmExit::Interrupted,
        kind::UNHANDLED => VmExit::Unhandled { reason: raw.number },
        kind::SET_TPR => VmExit::SetTpr,
        _ => return None,
    };
    let [first, second] = raw.durations;
    let handling = match raw.flags >> 2 & 3 {
        0 => Handling::Pending,
        1 => Handling::RunLoop,
        2 => Handling::Posted { enqueue: first },
        _ => Handling::Served { wait: first, service: second },
    };
    Some(ExitEvent {
        sequence: raw.sequence,
        exit,
        data: raw.data,
        rip: (raw.flags & HAS_RIP != 0).then_some(raw.rip),
        guest: raw.guest,
        handling,
    })
}

/// The names of exit reasons, as traces, filters and summaries write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named like the exit that it stands for")]
pub enum Reason {
    IoOut,
    IoIn,
    MmioWrite,
    MmioRead,
    Hlt,
    Shutdown,
    FailEntry,
    InternalError,
    SystemEvent,
    Interrupted,
    SetTpr,
    Unhandled,
}

impl Reason {
    /// All of them, in the order in which summaries list them.
    pub const ALL: [Self; 12] = [
        Self::IoOut,
        Self::IoIn,
        Self::MmioWrite,
        Self::MmioRead,
        Self::Hlt,
        Self::Shutdown,
        Self::FailEntry,
        Self::InternalError,
        Self::SystemEvent,
        Self::Interrupted,
        Self::SetTpr,
        Self::Unhandled,
    ];

    /// The reason of an exit.
    pub fn of(exit: &VmExit) -> Self {
        match exit {
            VmExit::Pio(pio) if pio.direction == Direction::Write => Self::IoOut,
            VmExit::Pio(_) => Self::IoIn,
            VmExit::Mmio(mmio) if mmio.direction == Direction::Write => Self::MmioWrite,
            VmExit::Mmio(_) => Self::MmioRead,
            VmExit::Hlt => Self::Hlt,
            VmExit::Shutdown => Self::Shutdown,
            VmExit::FailEntry { .. } => Self::FailEntry,
            VmExit::InternalError { .. } => Self::InternalError,
            VmExit::SystemEvent { .. } => Self::SystemEvent,
            VmExit::Interrupted => Self::Interrupted,
            VmExit::SetTpr => Self::SetTpr,
            VmExit::Unhandled { .. } => Self::Unhandled,
        }
    }

    /// Its name: lower case, words joined by hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoOut => "io-out",
            Self::IoIn => "io-in",
            Self::MmioWrite => "mmio-write",
            Self::MmioRead => "mmio-read",
            Self::Hlt => "hlt",
            Self::Shutdown => "shutdown",
            Self::FailEntry => "fail-entry",
            Self::InternalError => "internal-error",
            Self::SystemEvent => "system-event",
            Self::Interrupted => "interrupted",
            Self::SetTpr => "set-tpr",
            Self::Unhandled => "unhandled",
        }
    }

    /// The reason of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Any record, for property tests of whatever takes records.

    use super::*;
    use proptest::prelude::*;

    fn any_direction() -> impl Strategy<Value = Direction> + Clone {
        prop_oneof![Just(Direction::Read), Just(Direction::Write)]
    }

    /// Any exit.
    pub fn any_exit() -> impl Strategy<Value = VmExit> {
        let size = prop_oneof![Just(1u8), Just(2), Just(4)];
        prop_oneof![
            (any::<u16>(), any_direction(), size, 1..=4096u32).prop_map(
                |(port, direction, size, count)| {
                    let port = PioAddr(port);
                    VmExit::Pio(PioExit { port, direction, size, count })
                }
            ),
            (any::<u64>(), any_direction(), 1u8..=8).prop_map(|(gpa, direction, size)| {
                VmExit::Mmio(MmioExit { gpa: Gpa(gpa), direction, size })
            }),
            Just(VmExit::Hlt),
            Just(VmExit::Shutdown),
            Just(VmExit::Interrupted),
            Just(VmExit::SetTpr),
            (any::<u64>(), any::<u32>())
                .prop_map(|(reason, cpu)| VmExit::FailEntry { reason, cpu }),
            any::<u32>().prop_map(|suberror| VmExit::InternalError { suberror, insn: None }),
            any::<u32>().prop_map(|kind| VmExit::SystemEvent { kind }),
            any::<u32>().prop_map(|reason| VmExit::Unhandled { reason }),
        ]
    }

    /// Any way of handling an exit.
    pub fn any_handling() -> impl Strategy<Value = Handling> {
        prop_oneof![
            Just(Handling::Pending),
            Just(Handling::RunLoop),
            any::<u32>().prop_map(|enqueue| Handling::Posted { enqueue }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(wait, service)| Handling::Served { wait, service }),
        ]
    }

    fn any_sequence() -> impl Strategy<Value = u64> {
        0..1u64 << SEQUENCE_BITS
    }

    fn any_vcpu() -> impl Strategy<Value = VcpuId> {
        (0..4096u32).prop_map(VcpuId)
    }

    fn any_exit_event() -> impl Strategy<Value = ExitEvent> {
        let rest = (any_sequence(), any::<u64>(), any::<Option<u64>>(), any::<u64>());
        (any_exit(), any_handling(), rest).prop_map(|(exit, handling, rest)| {
            let (sequence, data, rip, guest) = rest;
            ExitEvent { sequence, exit, data, rip, guest, handling }
        })
    }

    fn any_service() -> impl Strategy<Value = ServiceEvent> {
        let space = prop_oneof![Just(AddressSpace::Pio), Just(AddressSpace::Mmio)];
        let access = (space, any::<u64>(), any_direction(), 1u8..=8, any::<u64>()).prop_map(
            |(space, addr, direction, size, data)| Access { space, addr, direction, size, data },
        );
        (any_vcpu(), any_sequence(), access, any::<u32>(), any::<u32>()).prop_map(
            |(vcpu, sequence, access, wait, service)| ServiceEvent {
                vcpu,
                sequence,
                access,
                wait,
                service,
            },
        )
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => any_exit_event().prop_map(Event::Exit),
            4 => any_service().prop_map(Event::Service),
            1 => (any::<u64>(), any::<u32>(), any::<u32>())
                .prop_map(|(offset, len, took)| Event::Output { offset, len, took }),
            1 => any_vcpu().prop_map(|target| Event::Kick { target }),
            1 => prop_oneof![Just(Event::Start), Just(Event::Halt), Just(Event::Stop)],
            1 => (any::<u32>(), any::<bool>())
                .prop_map(|(irq, high)| Event::Interrupt { irq, high }),
            1 => prop::collection::vec(any::<u8>(), 0..30)
                .prop_map(|name| Event::Marker(MarkerName::new(&name))),
            1 => any::<bool>().prop_map(|on| Event::Recording { on }),
            1 => any::<[u64; 4]>().prop_map(|[seen, kept, filtered, dropped]| {
                Event::Totals(Totals { seen, kept, filtered, dropped })
            }),
        ]
    }

    /// Any record but [`Event::End`].
    pub fn any_record() -> impl Strategy<Value = Record> {
        let source = prop_oneof![
            4 => any_vcpu().prop_map(Source::Vcpu),
            1 => Just(Source::Devices),
            1 => Just(Source::Supervisor),
        ];
        (any::<u64>(), source, any_event()).prop_map(|(time, source, event)| Record {
            time,
            source,
            event,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(record in testing::any_record()) {
            prop_assert_eq!(Record::from_words(record.to_words()), Some(record));
            prop_assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
        }

        #[test]
        fn no_words_make_it_panic(words in any::<[u64; 8]>()) {
            let _ = Record::from_words(words);
        }
    }

    #[test]
    fn an_empty_slot_is_no_record() {
        assert_eq!(Record::from_words([0; 8]), None);
        let end = Record { time: 7, source: Source::Supervisor, event: Event::End };
        assert_eq!(Record::from_words(end.to_words()), Some(end));
    }

    #[test]
    fn a_marker_shows_what_is_no_text() {
        let name = MarkerName::new(b"a\"b\n\xff\0rest");
        assert_eq!(name.to_string(), r#"a\"b\n\xff"#);
        assert_eq!(name.as_bytes(), b"a\"b\n\xff");
    }

    #[test]
    fn each_reason_has_a_name_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(reason));
        }
        assert_eq!(Reason::named("io"), None);
    }
}
