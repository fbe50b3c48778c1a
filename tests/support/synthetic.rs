//! Traces that no guest made, with everything in them known.

use std::collections::VecDeque;

use minivmm::exit::{
    Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit,
};
use minivmm::trace::format::TraceInfo;
use minivmm::trace::record::{
    Event, ExitEvent, Handling, MarkerName, Record, ServiceEvent, Source, Totals,
};

/// A record of a vCPU.
pub fn of_vcpu(id: u32, time: u64, event: Event) -> Record {
    Record { time, source: Source::Vcpu(VcpuId(id)), event }
}

/// An access to a port of one byte.
pub fn pio(port: u16, direction: Direction) -> VmExit {
    VmExit::Pio(PioExit { port: PioAddr(port), direction, size: 1, count: 1 })
}

/// An exit without RIP and data.
pub fn exit(id: u32, time: u64, sequence: u64, exit: VmExit, handling: Handling) -> Record {
    let event = ExitEvent { sequence, exit, data: 0, rip: None, guest: 500, handling };
    of_vcpu(id, time, Event::Exit(event))
}

/// The same, with its RIP and its data.
pub fn with_code(mut record: Record, rip: u64, data: u64) -> Record {
    if let Event::Exit(event) = &mut record.event {
        (event.rip, event.data) = (Some(rip), data);
    }
    record
}

/// The service of a write of one byte to the UART.
pub fn service(server: Source, time: u64, vcpu: u32, sequence: u64, data: u64) -> Record {
    let (space, direction) = (AddressSpace::Pio, Direction::Write);
    let access = Access { space, addr: 0x3f8, direction, size: 1, data };
    let vcpu = VcpuId(vcpu);
    let event = ServiceEvent { vcpu, sequence, access, wait: 800, service: 60 };
    Record { time, source: server, event: Event::Service(event) }
}

/// What is known of a trace of `vcpus` vCPUs.
pub fn info(vcpus: u32, guest: &str) -> TraceInfo {
    TraceInfo {
        vcpus,
        epoch_unix_ns: 1_767_225_600_000_000_000,
        guest: guest.to_owned(),
        filter: String::new(),
        has_rip: true,
    }
}

/// A guest whose vCPUs write lines to the UART, polling it every 16 bytes, as it runs on a machine
/// with the device thread's latency. All of it depends on the arguments only.
pub struct Machine {
    records: Vec<Record>,
    queue: VecDeque<(u64, u32, u64, Access)>,
    devices_free: u64,
    unwritten: u32,
    written: u64,
    random: u64,
}

/// A vCPU of it.
struct Writer {
    id: u32,
    now: u64,
    sequence: u64,
    column: usize,
    lines: usize,
}

/// Where the guest writes to the UART.
pub const PUTC: u64 = 0x10a4;
/// Where it polls the UART.
pub const POLL: u64 = 0x1088;
const TIMER: u64 = 0x1210;
const SPIN: u64 = 0x1300;

/// The symbols of the guest.
pub fn symbol(rip: u64) -> Option<String> {
    let name = match rip {
        PUTC => "uart_putc+0x24 (uart.c:31)",
        POLL => "uart_wait_thre+0x8 (uart.c:22)",
        TIMER => "timer_ack+0x10 (timer.c:12)",
        SPIN => "idle+0x4 (main.c:55)",
        _ => return None,
    };
    Some(name.to_owned())
}

impl Machine {
    /// A run of `vcpus` vCPUs that write `lines` lines each.
    pub fn run(vcpus: u32, lines: usize) -> Vec<Record> {
        let mut machine = Self {
            records: Vec::new(),
            queue: VecDeque::new(),
            devices_free: 0,
            unwritten: 0,
            written: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        let new = |id: u32| Writer {
            id,
            now: 20_000 + 9_000 * u64::from(id),
            sequence: 0,
            column: 0,
            lines,
        };
        let mut writers: Vec<Writer> = (0..vcpus).map(new).collect();
        for writer in &writers {
            machine.records.push(of_vcpu(writer.id, writer.now - 600, Event::Start));
        }
        machine.mark(0, 21_000, b"boot");
        while let Some(writer) = writers.iter_mut().min_by_key(|writer| writer.now) {
            machine.step(writer);
            writers.retain(|writer| writer.now < u64::MAX);
        }
        machine.serve_until(u64::MAX);
        machine.finish(vcpus)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    fn mark(&mut self, id: u32, time: u64, name: &[u8]) {
        self.records.push(of_vcpu(id, time, Event::Marker(MarkerName::new(name))));
    }

    /// The next exit of a vCPU.
    fn step(&mut self, writer: &mut Writer) {
        let line = format!("vCPU {} says hello, line {}\n", writer.id, writer.lines);
        if writer.lines == 0 {
            let guest = 900 + self.below(300);
            self.exit(writer, guest, VmExit::Hlt, SPIN, 0, Handling::RunLoop);
            self.records.push(of_vcpu(writer.id, writer.now + 300, Event::Halt));
            writer.now = u64::MAX;
            return;
        }
        if writer.column.is_multiple_of(16) {
            self.poll(writer);
        }
        let byte = line.as_bytes()[writer.column];
        let guest = 260 + self.below(120) + if self.below(40) == 0 { self.below(6000) } else { 0 };
        let enqueue = 45 + self.below(40) + if self.below(60) == 0 { 900 } else { 0 };
        let handling = Handling::Posted { enqueue: u32::try_from(enqueue).unwrap() };
        let out = pio(0x3f8, Direction::Write);
        self.exit(writer, guest, out, PUTC, u64::from(byte), handling);
        self.post(writer, AddressSpace::Pio, 0x3f8, u64::from(byte));
        writer.column += 1;
        if writer.column == line.len() {
            writer.column = 0;
            writer.lines -= 1;
            self.end_line(writer);
        }
    }

    fn post(&mut self, writer: &Writer, space: AddressSpace, addr: u64, data: u64) {
        let access = Access { space, addr, direction: Direction::Write, size: 1, data };
        self.queue.push_back((writer.now, writer.id, writer.sequence - 1, access));
    }

    /// A pause after each line, and now and then something else.
    fn end_line(&mut self, writer: &mut Writer) {
        if writer.lines.is_multiple_of(4) && writer.lines > 0 {
            let name = format!("line {}", writer.lines);
            self.mark(writer.id, writer.now + 100, name.as_bytes());
        }
        if writer.lines % 3 == 1 {
            let guest = 700 + self.below(500);
            let gpa = Gpa(0xfed0_0020 + 8 * u64::from(writer.id % 2));
            let store = VmExit::Mmio(MmioExit { gpa, direction: Direction::Write, size: 1 });
            self.exit(writer, guest, store, TIMER, 1, Handling::Posted { enqueue: 70 });
            self.post(writer, AddressSpace::Mmio, gpa.0, 1);
        }
        writer.now += 2_000 + self.below(14_000);
    }

    /// Adds an exit after `guest` in the guest, and brings the vCPU to the end of its handling.
    fn exit(
        &mut self,
        writer: &mut Writer,
        guest: u64,
        exit: VmExit,
        rip: u64,
        data: u64,
        handling: Handling,
    ) {
        let time = writer.now + guest;
        let sequence = writer.sequence;
        let event = ExitEvent { sequence, exit, data, rip: Some(rip), guest, handling };
        self.records.push(of_vcpu(writer.id, time, Event::Exit(event)));
        writer.sequence += 1;
        writer.now = time + event.handling_time() + 90;
    }

    /// The UART's line status: the vCPU serves itself, and before that what others have posted.
    fn poll(&mut self, writer: &mut Writer) {
        let guest = 300 + self.below(200);
        let time = writer.now + guest;
        self.serve_until(time);
        let mut end = time.max(self.devices_free.min(time + 1_500)) + 60;
        while let Some((posted, id, sequence, access)) = self.queue.pop_front() {
            let server = Source::Vcpu(VcpuId(writer.id));
            end = self.serve(server, end, posted, id, sequence, access);
        }
        let wait = u32::try_from(end - time).unwrap();
        let service = 60 + u32::try_from(self.below(40)).unwrap();
        self.devices_free = end + u64::from(service);
        let input = pio(0x3fd, Direction::Read);
        self.exit(writer, guest, input, POLL, 0x60, Handling::Served { wait, service });
    }

    /// Has the device thread serve what it gets to before `time`.
    fn serve_until(&mut self, time: u64) {
        while let Some(&(posted, id, sequence, access)) = self.queue.front() {
            let begin = self.devices_free.max(posted + 1_800);
            if begin >= time {
                break;
            }
            self.queue.pop_front();
            self.devices_free = self.serve(Source::Devices, begin, posted, id, sequence, access);
            if self.queue.is_empty() || self.unwritten >= 32 {
                self.write_output();
            }
        }
    }

    fn serve(
        &mut self,
        source: Source,
        begin: u64,
        posted: u64,
        vcpu: u32,
        sequence: u64,
        access: Access,
    ) -> u64 {
        let begin = begin.max(posted);
        let service = 50 + u32::try_from(self.below(70)).unwrap();
        let wait = u32::try_from(begin - posted).unwrap();
        let vcpu = VcpuId(vcpu);
        let event = ServiceEvent { vcpu, sequence, access, wait, service };
        self.records.push(Record { time: begin, source, event: Event::Service(event) });
        self.unwritten += u32::from(access.space == AddressSpace::Pio);
        begin + u64::from(service) + 20
    }

    fn write_output(&mut self) {
        let (len, took) = (self.unwritten, 1_400 + u32::try_from(self.below(1_800)).unwrap());
        let event = Event::Output { offset: self.written, len, took };
        self.records.push(Record { time: self.devices_free, source: Source::Devices, event });
        self.devices_free += u64::from(took);
        self.written += u64::from(len);
        self.unwritten = 0;
    }

    fn finish(mut self, vcpus: u32) -> Vec<Record> {
        // Each source's records come in order.
        self.records.sort_by_key(|record| record.time);
        let end = self.records.last().map_or(0, |record| record.time) + 1_000;
        for id in 0..vcpus {
            let target = VcpuId(id);
            let time = end + 150 * u64::from(id);
            let event = Event::Kick { target };
            self.records.push(Record { time, source: Source::Supervisor, event });
            let is_own = |record: &&Record| record.source == Source::Vcpu(target);
            let exits = self.records.iter().filter(is_own).filter(|one| one.exit().is_some());
            let kept = u64::try_from(exits.count()).unwrap();
            let totals = Totals { seen: kept + 120, kept, filtered: 120, dropped: 0 };
            self.records.push(of_vcpu(id, end + 2_000, Event::Totals(totals)));
        }
        let event = Event::End;
        self.records.push(Record { time: end + 2_000, source: Source::Supervisor, event });
        self.records
    }
}
