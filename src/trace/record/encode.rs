//! A record as eight 64-bit words, little-endian:
//!
//! ```text
//!   0  time
//!   1  sequence (low 48 bits), source (high 16)
//!   2  address, hardware reason
//!   3  data
//!   4  RIP
//!   5  time in the guest
//!   6  two 32-bit durations
//!   7  kind, flags, 16-bit number (low 32 bits), count or other number (high 32)
//! ```
//!
//! Flags: bit 0 write, bit 1 RIP is valid, bits 2 and 3 handling, bits 4 to 7 size.

use super::{
    Event, ExitEvent, Handling, MarkerName, RECORD_LEN, Record, ServiceEvent, Source, Totals,
};
use crate::exit::{
    Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit,
};

const SOURCE_DEVICES: u16 = 0xffff;
const SOURCE_SUPERVISOR: u16 = 0xfffe;
pub(super) const SEQUENCE_BITS: u32 = 48;
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
    pub const IRQ_WINDOW_OPEN: u8 = 11;
    pub const IOAPIC_EOI: u8 = 12;
    pub const DEBUG: u8 = 13;
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
    pub const COMPLETED: u8 = 28;
}

/// The fields of an encoded record, by what the table calls them.
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
            Event::Marker(name) => encode_name(plain(kind::MARKER), name),
            Event::Completed(name) => encode_name(plain(kind::COMPLETED), name),
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
            kind::PIO..=kind::DEBUG => Event::Exit(decode_exit(raw)?),
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
            kind::MARKER => Event::Marker(decode_name(raw)),
            kind::COMPLETED => Event::Completed(decode_name(raw)),
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

fn encode_name(raw: Raw, name: MarkerName) -> Raw {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(name.bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [address, data, rip] = words;
    Raw { address, data, rip, ..raw }
}

fn decode_name(raw: Raw) -> MarkerName {
    MarkerName::new([raw.address, raw.data, raw.rip].map(u64::to_le_bytes).as_flattened())
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
        VmExit::IrqWindowOpen => (kind::IRQ_WINDOW_OPEN, none, 0, 0, 0),
        VmExit::Debug => (kind::DEBUG, none, 0, 0, 0),
        VmExit::IoapicEoi { vector } => (kind::IOAPIC_EOI, none, 0, vector.into(), 0),
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
        kind::IRQ_WINDOW_OPEN => VmExit::IrqWindowOpen,
        kind::DEBUG => VmExit::Debug,
        kind::IOAPIC_EOI => VmExit::IoapicEoi { vector: u8::try_from(raw.number).ok()? },
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

#[cfg(test)]
mod tests {
    use super::super::testing;
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
}
