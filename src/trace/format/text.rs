//! A line a record, for people: columns for what every record has, then fields as `name=value`.
//! The names are those of the other forms without their units, which are at the values.

use std::io::{self, Write};

use super::digits::{push_decimal, push_hex, push_micros};
use super::row::Handler;
use super::{Sink, Symbols, TraceInfo};
use crate::exit::{Access, AddressSpace, Direction, MmioExit, PioExit, VcpuId, VmExit};
use crate::trace::record::{
    Event, ExitEvent, Handling, Reason, Record, ServiceEvent, Source, Totals,
};

// Widths of the columns, in characters: times up to 1000 s, four-digit vCPUs, exits up to 10^7,
// and the longest reason.
const TIME_WIDTH: usize = 13;
const SOURCE_WIDTH: usize = 10;
const NUMBER_WIDTH: usize = 8;
const WHAT_WIDTH: usize = 14;

/// Writes a text trace.
pub(super) struct TextSink {
    out: Box<dyn Write + Send>,
    symbols: Symbols,
    lines: Lines,
}

impl TextSink {
    /// Writes what is known of the trace, and the heads of the columns.
    pub fn new(
        mut out: Box<dyn Write + Send>,
        info: &TraceInfo,
        symbols: Symbols,
    ) -> io::Result<Self> {
        let TraceInfo { vcpus, epoch_unix_ns, guest, filter, has_rip: _ } = info;
        let filter = if filter.is_empty() { "none" } else { filter };
        write!(
            out,
            "# minivmm trace\n\
             # guest={guest:?} vcpus={vcpus} epoch_unix_ns={epoch_unix_ns} filter={filter:?}\n\
             # {:>time$} {:source$} {:number$} {:what$} fields\n",
            "time [us]",
            "source",
            "number",
            "what",
            time = TIME_WIDTH - 2,
            source = SOURCE_WIDTH,
            number = NUMBER_WIDTH,
            what = WHAT_WIDTH,
        )?;
        out.flush()?;
        Ok(Self { out, symbols, lines: Lines::default() })
    }
}

impl Sink for TextSink {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        self.lines.text.clear();
        for record in records {
            let symbol = self.symbols.of(record);
            self.lines.record(record, symbol.as_deref());
        }
        self.out.write_all(&self.lines.text)?;
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Lines that are to be written.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// The digits of the number that is being aligned.
    digits: Vec<u8>,
}

impl Lines {
    fn record(&mut self, record: &Record, symbol: Option<&str>) {
        self.time(record.time);
        self.source(record.source);
        match &record.event {
            Event::Exit(exit) => self.exit(exit, symbol),
            Event::Service(service) => self.service(service),
            Event::Output { offset, len, took } => {
                self.what("output");
                self.decimal("offset", *offset);
                self.decimal("len", (*len).into());
                self.duration("took", (*took).into());
            }
            Event::Kick { target } => {
                self.what("kick");
                self.name("vcpu");
                self.vcpu(*target);
            }
            Event::Start => self.what("start"),
            Event::Halt => self.what("halt"),
            Event::Stop => self.what("stop"),
            Event::Interrupt { irq, high } => {
                self.what("interrupt");
                self.decimal("irq", (*irq).into());
                self.word("on", if *high { "true" } else { "false" });
            }
            Event::Marker(name) => {
                self.what("marker");
                // A vector takes all that is written.
                let _ = write!(self.text, " name=\"{name}\"");
            }
            Event::Completed(name) => {
                self.what("completed");
                let _ = write!(self.text, " name=\"{name}\"");
            }
            Event::Recording { on } => {
                self.what("recording");
                self.word("on", if *on { "true" } else { "false" });
            }
            Event::Totals(Totals { seen, kept, filtered, dropped }) => {
                self.what("totals");
                self.decimal("seen", *seen);
                self.decimal("kept", *kept);
                self.decimal("filtered", *filtered);
                self.decimal("dropped", *dropped);
            }
            Event::End => self.what("end"),
        }
        let end = self.text.trim_ascii_end().len();
        self.text.truncate(end);
        self.text.push(b'\n');
    }

    fn exit(&mut self, exit: &ExitEvent, symbol: Option<&str>) {
        self.number(exit.sequence);
        self.column(WHAT_WIDTH, Reason::of(&exit.exit).name());
        match exit.exit {
            VmExit::Pio(PioExit { port, size, count, .. }) => {
                self.hex("port", port.0.into());
                self.decimal("size", size.into());
                self.decimal("count", count.into());
                self.hex("data", exit.data);
            }
            VmExit::Mmio(MmioExit { gpa, size, .. }) => {
                self.hex("gpa", gpa.0);
                self.decimal("size", size.into());
                self.hex("data", exit.data);
            }
            VmExit::FailEntry { reason, cpu } => {
                self.hex("code", reason);
                self.decimal("cpu", cpu.into());
            }
            VmExit::InternalError { suberror: code, .. }
            | VmExit::SystemEvent { kind: code }
            | VmExit::Unhandled { reason: code } => self.hex("code", code.into()),
            VmExit::IoapicEoi { vector } => self.hex("code", vector.into()),
            VmExit::Hlt
            | VmExit::Shutdown
            | VmExit::SetTpr
            | VmExit::IrqWindowOpen
            | VmExit::Debug
            | VmExit::Interrupted => {}
        }
        if let Some(rip) = exit.rip {
            self.hex("rip", rip);
        }
        if let Some(symbol) = symbol {
            self.text.extend_from_slice(b" <");
            self.text.extend_from_slice(symbol.as_bytes());
            self.text.push(b'>');
        }
        self.duration("guest", exit.guest);
        self.word("handler", Handler::from(exit.handling).name());
        match exit.handling {
            Handling::Pending | Handling::RunLoop => {}
            Handling::Posted { enqueue } => self.duration("enqueue", enqueue.into()),
            Handling::Served { wait, service } => {
                self.duration("wait", wait.into());
                self.duration("service", service.into());
            }
        }
    }

    fn service(&mut self, service: &ServiceEvent) {
        let ServiceEvent { vcpu, sequence, access, wait, service } = *service;
        let Access { space, addr, direction, size, data } = access;
        self.what("served");
        self.text.push(b' ');
        self.vcpu(vcpu);
        self.text.extend_from_slice(b" #");
        push_decimal(&mut self.text, sequence);
        let (name, reason) = match (space, direction) {
            (AddressSpace::Pio, Direction::Write) => ("port", Reason::IoOut),
            (AddressSpace::Pio, Direction::Read) => ("port", Reason::IoIn),
            (AddressSpace::Mmio, Direction::Write) => ("gpa", Reason::MmioWrite),
            (AddressSpace::Mmio, Direction::Read) => ("gpa", Reason::MmioRead),
        };
        self.text.push(b' ');
        self.text.extend_from_slice(reason.name().as_bytes());
        self.hex(name, addr);
        self.decimal("size", size.into());
        self.hex("data", data);
        self.duration("wait", wait.into());
        self.duration("service", service.into());
    }

    fn time(&mut self, nanoseconds: u64) {
        self.digits.clear();
        push_micros(&mut self.digits, nanoseconds);
        self.spaces(TIME_WIDTH.saturating_sub(self.digits.len()));
        self.text.extend_from_slice(&self.digits);
        self.text.push(b' ');
    }

    fn source(&mut self, source: Source) {
        match source {
            Source::Vcpu(id) => {
                self.digits.clear();
                push_decimal(&mut self.digits, id.0.into());
                self.text.extend_from_slice(b"vcpu");
                self.text.extend_from_slice(&self.digits);
                self.spaces(SOURCE_WIDTH.saturating_sub(4 + self.digits.len()));
            }
            Source::Devices => self.column(SOURCE_WIDTH, "devices"),
            Source::Supervisor => self.column(SOURCE_WIDTH, "supervisor"),
        }
        self.text.push(b' ');
    }

    fn number(&mut self, number: u64) {
        self.digits.clear();
        push_decimal(&mut self.digits, number);
        self.text.push(b'#');
        self.text.extend_from_slice(&self.digits);
        self.spaces(NUMBER_WIDTH.saturating_sub(1 + self.digits.len()));
        self.text.push(b' ');
    }

    /// The columns of a record that is no exit.
    fn what(&mut self, name: &str) {
        self.spaces(NUMBER_WIDTH + 1);
        self.column(WHAT_WIDTH, name);
    }

    fn column(&mut self, width: usize, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.spaces(width.saturating_sub(text.len()));
    }

    fn spaces(&mut self, count: usize) {
        self.text.resize(self.text.len() + count, b' ');
    }

    fn name(&mut self, name: &str) {
        self.text.push(b' ');
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(b'=');
    }

    fn word(&mut self, name: &str, word: &str) {
        self.name(name);
        self.text.extend_from_slice(word.as_bytes());
    }

    fn decimal(&mut self, name: &str, value: u64) {
        self.name(name);
        push_decimal(&mut self.text, value);
    }

    fn hex(&mut self, name: &str, value: u64) {
        self.name(name);
        push_hex(&mut self.text, value);
    }

    fn duration(&mut self, name: &str, nanoseconds: u64) {
        self.name(name);
        push_micros(&mut self.text, nanoseconds);
        self.text.extend_from_slice(b"us");
    }

    /// The vCPU that a record of another thread is about.
    fn vcpu(&mut self, id: VcpuId) {
        self.text.extend_from_slice(b"vcpu");
        push_decimal(&mut self.text, id.0.into());
    }
}

#[cfg(test)]
mod tests;
