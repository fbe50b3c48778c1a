//! A record as flat, named fields: what JSON Lines, CSV and the arguments of Trace Events have in
//! common. It loses nothing: a row made of a record gives the same record back.
//!
//! Values that may need all of 64 bits and are no counts (addresses, data, codes) are text such as
//! `"0x3f8"`, since many JSON readers hold numbers as doubles, which are exact to 53 bits only.

mod parse;
mod values;

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

pub use self::parse::RowError;
pub use self::values::{Cell, Hex, Marker, ReasonName, Thread};
use crate::exit::{AddressSpace, Direction, MmioExit, PioExit, VmExit};
use crate::trace::record::{Event, Handling, Reason, Record, ServiceEvent, Source, Totals};

/// The fields, in the order of [`Row`]. In CSV these are the columns.
pub const COLUMNS: [&str; 32] = [
    "time_ns",
    "source",
    "kind",
    "reason",
    "seq",
    "port",
    "gpa",
    "dir",
    "size",
    "count",
    "data",
    "code",
    "cpu",
    "rip",
    "symbol",
    "guest_ns",
    "handler",
    "enqueue_ns",
    "wait_ns",
    "service_ns",
    "vcpu",
    "irq",
    "on",
    "name",
    "offset",
    "len",
    "took_ns",
    "seen",
    "kept",
    "filtered",
    "dropped",
    "info",
];

/// What kind of record a row is. docs/tracing.md tells which fields each has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No record: what is known of the trace itself.
    #[default]
    Info,
    Exit,
    Service,
    Output,
    Kick,
    Start,
    Halt,
    Stop,
    Interrupt,
    Marker,
    Completed,
    Recording,
    Totals,
    End,
}

/// Who handled an exit: [`Handling`] without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handler {
    Pending,
    RunLoop,
    Posted,
    Vcpu,
}

impl Kind {
    /// Its name, as deserializing takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Exit => "exit",
            Self::Service => "service",
            Self::Output => "output",
            Self::Kick => "kick",
            Self::Start => "start",
            Self::Halt => "halt",
            Self::Stop => "stop",
            Self::Interrupt => "interrupt",
            Self::Marker => "marker",
            Self::Completed => "completed",
            Self::Recording => "recording",
            Self::Totals => "totals",
            Self::End => "end",
        }
    }
}

impl Handler {
    /// Its name, as deserializing takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::RunLoop => "run-loop",
            Self::Posted => "posted",
            Self::Vcpu => "vcpu",
        }
    }
}

impl From<Handling> for Handler {
    fn from(handling: Handling) -> Self {
        match handling {
            Handling::Pending => Self::Pending,
            Handling::RunLoop => Self::RunLoop,
            Handling::Posted { .. } => Self::Posted,
            Handling::Served { .. } => Self::Vcpu,
        }
    }
}

/// The fields of a record; docs/tracing.md has their meanings. A record has those that its kind
/// has.
#[derive(Debug, Default, Deserialize)]
pub struct Row<'a> {
    pub time_ns: u64,
    pub source: Thread,
    pub kind: Kind,
    pub reason: Option<ReasonName>,
    pub seq: Option<u64>,
    pub port: Option<Hex>,
    pub gpa: Option<Hex>,
    pub dir: Option<Cow<'a, str>>,
    pub size: Option<u8>,
    pub count: Option<u32>,
    pub data: Option<Hex>,
    pub code: Option<Hex>,
    pub cpu: Option<u32>,
    pub rip: Option<Hex>,
    pub symbol: Option<Cow<'a, str>>,
    pub guest_ns: Option<u64>,
    pub handler: Option<Handler>,
    pub enqueue_ns: Option<u32>,
    pub wait_ns: Option<u32>,
    pub service_ns: Option<u32>,
    pub vcpu: Option<Thread>,
    pub irq: Option<u32>,
    pub on: Option<bool>,
    pub name: Option<Marker>,
    pub offset: Option<u64>,
    pub len: Option<u32>,
    pub took_ns: Option<u32>,
    pub seen: Option<u64>,
    pub kept: Option<u64>,
    pub filtered: Option<u64>,
    pub dropped: Option<u64>,
    pub info: Option<Cow<'a, str>>,
}

impl<'a> Row<'a> {
    /// The fields of `record`, with the name of the code at its RIP.
    pub fn of(record: &Record, symbol: Option<&'a str>) -> Self {
        let (time_ns, source) = (record.time, Thread(record.source));
        let row = |kind| Self { time_ns, source, kind, ..Self::default() };
        match record.event {
            Event::Exit(exit) => {
                let symbol = symbol.map(Cow::Borrowed);
                row(Kind::Exit).with_exit(&exit.exit).with_handling(exit.handling).with(|row| {
                    row.seq = Some(exit.sequence);
                    row.rip = exit.rip.map(Hex);
                    row.symbol = symbol;
                    row.guest_ns = Some(exit.guest);
                    // Only accesses have data; others keep a number that is there nevertheless.
                    row.data = (row.dir.is_some() || exit.data != 0).then_some(Hex(exit.data));
                })
            }
            Event::Service(service) => {
                let ServiceEvent { vcpu, sequence, access, wait, service } = service;
                row(Kind::Service).with_address(access.space, access.addr, access.direction).with(
                    |row| {
                        row.seq = Some(sequence);
                        row.size = Some(access.size);
                        row.data = Some(Hex(access.data));
                        row.vcpu = Some(Thread(Source::Vcpu(vcpu)));
                        row.wait_ns = Some(wait);
                        row.service_ns = Some(service);
                    },
                )
            }
            Event::Output { offset, len, took } => Self {
                offset: Some(offset),
                len: Some(len),
                took_ns: Some(took),
                ..row(Kind::Output)
            },
            Event::Kick { target } => {
                Self { vcpu: Some(Thread(Source::Vcpu(target))), ..row(Kind::Kick) }
            }
            Event::Start => row(Kind::Start),
            Event::Halt => row(Kind::Halt),
            Event::Stop => row(Kind::Stop),
            Event::Interrupt { irq, high } => {
                Self { irq: Some(irq), on: Some(high), ..row(Kind::Interrupt) }
            }
            Event::Marker(name) => Self { name: Some(Marker(name)), ..row(Kind::Marker) },
            Event::Completed(name) => Self { name: Some(Marker(name)), ..row(Kind::Completed) },
            Event::Recording { on } => Self { on: Some(on), ..row(Kind::Recording) },
            Event::Totals(Totals { seen, kept, filtered, dropped }) => Self {
                seen: Some(seen),
                kept: Some(kept),
                filtered: Some(filtered),
                dropped: Some(dropped),
                ..row(Kind::Totals)
            },
            Event::End => row(Kind::End),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_address(self, space: AddressSpace, addr: u64, direction: Direction) -> Self {
        let write = direction == Direction::Write;
        let (port, gpa, reason) = match (space, write) {
            (AddressSpace::Pio, true) => (Some(Hex(addr)), None, Reason::IoOut),
            (AddressSpace::Pio, false) => (Some(Hex(addr)), None, Reason::IoIn),
            (AddressSpace::Mmio, true) => (None, Some(Hex(addr)), Reason::MmioWrite),
            (AddressSpace::Mmio, false) => (None, Some(Hex(addr)), Reason::MmioRead),
        };
        let dir = Some(Cow::Borrowed(if write { "write" } else { "read" }));
        Self { port, gpa, dir, reason: Some(ReasonName(reason)), ..self }
    }

    fn with_exit(self, exit: &VmExit) -> Self {
        let reason = Some(ReasonName(Reason::of(exit)));
        match *exit {
            VmExit::Pio(PioExit { port, direction, size, count }) => self
                .with_address(AddressSpace::Pio, port.0.into(), direction)
                .with(|row| (row.size, row.count) = (Some(size), Some(count))),
            VmExit::Mmio(MmioExit { gpa, direction, size }) => self
                .with_address(AddressSpace::Mmio, gpa.0, direction)
                .with(|row| row.size = Some(size)),
            VmExit::FailEntry { reason: code, cpu } => {
                Self { reason, code: Some(Hex(code)), cpu: Some(cpu), ..self }
            }
            VmExit::InternalError { suberror: code, .. }
            | VmExit::SystemEvent { kind: code }
            | VmExit::Unhandled { reason: code } => {
                Self { reason, code: Some(Hex(code.into())), ..self }
            }
            VmExit::IoapicEoi { vector } => Self { reason, code: Some(Hex(vector.into())), ..self },
            VmExit::Hlt
            | VmExit::Shutdown
            | VmExit::SetTpr
            | VmExit::IrqWindowOpen
            | VmExit::Debug
            | VmExit::Interrupted => Self { reason, ..self },
        }
    }

    fn with_handling(self, handling: Handling) -> Self {
        let (enqueue_ns, wait_ns, service_ns) = match handling {
            Handling::Pending | Handling::RunLoop => (None, None, None),
            Handling::Posted { enqueue } => (Some(enqueue), None, None),
            Handling::Served { wait, service } => (None, Some(wait), Some(service)),
        };
        Self { handler: Some(handling.into()), enqueue_ns, wait_ns, service_ns, ..self }
    }

    /// The values of all [`COLUMNS`].
    pub fn cells(&self) -> [Cell<'_>; COLUMNS.len()] {
        [
            Cell::Number(self.time_ns),
            Cell::Shown(&self.source),
            Cell::Text(self.kind.name()),
            Cell::text(self.reason.map(|reason| reason.0.name())),
            Cell::number(self.seq),
            Cell::hex(self.port),
            Cell::hex(self.gpa),
            Cell::text(self.dir.as_deref()),
            Cell::number(self.size),
            Cell::number(self.count),
            Cell::hex(self.data),
            Cell::hex(self.code),
            Cell::number(self.cpu),
            Cell::hex(self.rip),
            Cell::text(self.symbol.as_deref()),
            Cell::number(self.guest_ns),
            Cell::text(self.handler.map(Handler::name)),
            Cell::number(self.enqueue_ns),
            Cell::number(self.wait_ns),
            Cell::number(self.service_ns),
            Cell::shown(self.vcpu.as_ref()),
            Cell::number(self.irq),
            self.on.map_or(Cell::Empty, Cell::Flag),
            Cell::shown(self.name.as_ref()),
            Cell::number(self.offset),
            Cell::number(self.len),
            Cell::number(self.took_ns),
            Cell::number(self.seen),
            Cell::number(self.kept),
            Cell::number(self.filtered),
            Cell::number(self.dropped),
            Cell::text(self.info.as_deref()),
        ]
    }
}

/// A map of the fields that there are.
impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cells = self.cells();
        let fields = COLUMNS.iter().zip(&cells);
        serializer.collect_map(fields.filter(|(_, cell)| !matches!(cell, Cell::Empty)))
    }
}
