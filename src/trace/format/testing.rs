//! Traces in memory, for the tests of all forms.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::exit::{Access, AddressSpace, Direction, PioAddr, PioExit, VcpuId, VmExit};
use crate::trace::record::{Event, ExitEvent, Handling, MarkerName, ServiceEvent, Source, Totals};

/// What a sink has written, and how: each call of `write` is an element.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

impl Written {
    pub fn calls(&self) -> Vec<Vec<u8>> {
        self.0.lock().clone()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe that gives a byte at a time.
pub struct Trickle<R>(pub R);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

pub fn info() -> TraceInfo {
    TraceInfo {
        vcpus: 2,
        epoch_unix_ns: 1_750_000_000_123_456_789,
        guest: "a \"guest\", with\nall".to_owned(),
        filter: "reason=io-out".to_owned(),
        has_rip: true,
    }
}

/// A symbol that each form has to take care of.
fn symbolize(rip: u64) -> Option<String> {
    (rip != 0x1000).then(|| format!("f\n\"x\",{rip:#x} (é.c:7)"))
}

/// A trace of these records in some form.
pub fn trace(format: TraceFormat, records: &[Record]) -> Vec<u8> {
    let written = Written::default();
    let mut sink = sink(format, Box::new(written.clone()), &info(), Some(Box::new(symbolize)))
        .expect("memory takes all");
    for some in records.chunks(7) {
        sink.write(some).expect("memory takes all");
    }
    sink.finish().expect("memory takes all");
    written.calls().concat()
}

/// What is in a trace, and whether it is cut.
pub fn read(bytes: &[u8]) -> Result<(TraceInfo, Vec<Record>, Option<Cut>), TraceError> {
    read_from(Cursor::new(bytes.to_vec()))
}

pub fn read_from(
    input: impl Read + Send + 'static,
) -> Result<(TraceInfo, Vec<Record>, Option<Cut>), TraceError> {
    let mut reader = TraceReader::new("some.trace", Box::new(input))?;
    let records = reader.by_ref().collect::<Result<_, _>>()?;
    Ok((reader.info().clone(), records, reader.cut()))
}

pub const VCPU0: Source = Source::Vcpu(VcpuId(0));
pub const VCPU1: Source = Source::Vcpu(VcpuId(1));

pub const END: Record = Record { time: 9_000_000, source: Source::Supervisor, event: Event::End };

/// An OUT of one byte.
pub fn out(sequence: u64, rip: Option<u64>, handling: Handling) -> ExitEvent {
    let exit = VmExit::Pio(PioExit {
        port: PioAddr(0x3f8),
        direction: Direction::Write,
        size: 1,
        count: 1,
    });
    ExitEvent { sequence, exit, data: 0x41, rip, guest: 12_345, handling }
}

/// A short trace with most kinds of records, as a run could give it.
pub fn sample() -> Vec<Record> {
    let access = Access {
        space: AddressSpace::Pio,
        addr: 0x3f8,
        direction: Direction::Write,
        size: 1,
        data: 0x41,
    };
    let served = ServiceEvent { vcpu: VcpuId(0), sequence: 0, access, wait: 250_000, service: 95 };
    let hlt = ExitEvent { exit: VmExit::Hlt, data: 0, ..out(1, None, Handling::RunLoop) };
    let failed = VmExit::FailEntry { reason: 0x8000_0021, cpu: 3 };
    let failed = ExitEvent { exit: failed, data: 0, ..out(1, None, Handling::Pending) };
    let read = VmExit::Pio(PioExit {
        port: PioAddr(0x3fd),
        direction: Direction::Read,
        size: 1,
        count: 1,
    });
    let handling = Handling::Served { wait: 1_200, service: 80 };
    let read = ExitEvent { exit: read, data: 0x60, ..out(0, Some(0x1000), handling) };
    let posted = out(0, Some(0x1007), Handling::Posted { enqueue: 212 });
    let totals = Totals { seen: 2, kept: 2, filtered: 0, dropped: 0 };
    [
        (1_000, VCPU0, Event::Start),
        (1_100, VCPU1, Event::Start),
        (20_001, VCPU0, Event::Exit(posted)),
        (30_000, VCPU1, Event::Exit(read)),
        (40_000, VCPU0, Event::Marker(MarkerName::new(b"phase \"2\", \\\xff"))),
        (50_500, VCPU0, Event::Exit(hlt)),
        (50_600, VCPU0, Event::Halt),
        (270_100, Source::Devices, Event::Service(served)),
        (271_000, Source::Devices, Event::Interrupt { irq: 4, high: true }),
        (280_000, Source::Devices, Event::Output { offset: 0, len: 1, took: 3_210 }),
        (300_000, VCPU1, Event::Exit(failed)),
        (300_900, VCPU1, Event::Recording { on: false }),
        (301_000, Source::Supervisor, Event::Kick { target: VcpuId(1) }),
        (302_000, VCPU1, Event::Stop),
        (9_000_000, VCPU0, Event::Totals(totals)),
    ]
    .map(|(time, source, event)| Record { time, source, event })
    .into_iter()
    .chain([END])
    .collect()
}
