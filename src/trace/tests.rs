//! What is recorded of scripted vCPUs, with a clock that goes on by a fixed step at each reading:
//! every field of every record is known. And whole VMs with a trace: whatever the filter and the
//! interleaving, nothing is missing from the totals.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::clock::{Clock, Counter};
use super::filter::TraceFilter;
use super::format::Sink;
use super::record::{Event, ExitEvent, Handling, MarkerName, Record, ServiceEvent, Source, Totals};
use super::stream::WhenFull;
use super::tracer::{TraceOutput, TraceSetup, Tracer};
use crate::config::VcpuCount;
use crate::console::Output;
use crate::devices::DeviceSet;
use crate::devices::queue::DeviceQueue;
use crate::devices::setup::DeviceSetup;
use crate::exit::{Access, AddressSpace, Direction, PioAddr, PioExit, VcpuId, VmExit};
use crate::host::Host;
use crate::outcome::VmOutcome;
use crate::report::VmReport;
use crate::testing::{wait_until, watched};
use crate::vcpu::runner::Runner;
use crate::vcpu::scripted::{Maker, ScriptedVcpu, Scripts, Step};
use crate::vcpu::state::VcpuControl;
use crate::vmm::Vmm;

const V0: VcpuId = VcpuId(0);
/// What the clock goes on by at each reading.
const STEP: u64 = 10;

/// A trace in memory.
#[derive(Clone, Default)]
struct Memory {
    records: Arc<Mutex<Vec<Record>>>,
    finished: Arc<AtomicBool>,
    /// How many records it takes before it fails.
    room: Option<usize>,
    /// It takes nothing before this many threads have set their mark.
    held: Option<(usize, Arc<AtomicUsize>)>,
}

impl Memory {
    fn output(&self) -> Option<TraceOutput> {
        Some(TraceOutput { sink: Box::new(self.clone()), abandoned: Arc::default() })
    }

    fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}

impl Sink for Memory {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        if let Some((wanted, marks)) = &self.held {
            wait_until(|| marks.load(Ordering::SeqCst) == *wanted);
        }
        let mut all = self.records.lock().unwrap();
        if self.room.is_some_and(|room| all.len() + records.len() > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        all.extend(records);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.finished.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Runs one vCPU without a device thread: it helps itself to what it has posted. Returns its
/// records.
fn recorded(rip: bool, steps: Vec<Step>) -> Vec<Record> {
    let devices =
        DeviceSet::unconnected(DeviceSetup { input_limit: 64, ..DeviceSetup::default() }).unwrap();
    let posting = devices.post_policy();
    let queue = DeviceQueue::new(devices, 64);
    let setup = TraceSetup { output: Memory::default().output(), rip, ..TraceSetup::default() };
    let tracer = Tracer::with_clock(setup, 1, Clock::manual(Arc::default(), STEP));
    let control = VcpuControl::new();
    let vcpu = ScriptedVcpu::new(steps);
    let tracing = tracer.vcpu_tracing(V0);
    let mut runner = Runner::new(V0, vcpu, &control, &queue, posting, tracing);
    runner.run();
    drop(runner);
    tracer.drain()
}

fn pio(direction: Direction, port: u16, count: u32) -> VmExit {
    VmExit::Pio(PioExit { port: PioAddr(port), direction, size: 1, count })
}

fn record(time: u64, event: Event) -> Record {
    Record { time, source: Source::Vcpu(V0), event }
}

#[test]
fn every_field_of_an_exit_is_recorded() {
    let steps = vec![Step::send(b'a'), Step::in8(0x3fd)];
    let exit = |sequence, exit, data, handling| {
        let (rip, guest) = (Some(sequence + 1), STEP);
        Event::Exit(ExitEvent { sequence, exit, data, rip, guest, handling })
    };
    let posted = Access {
        space: AddressSpace::Pio,
        addr: 0x3f8,
        direction: Direction::Write,
        size: 1,
        data: b'a'.into(),
    };
    // The clock is read: at the start; before and after each KVM_RUN; when a byte is in the
    // channel; before and after it is served; before and after an own access; at the end.
    let expected = vec![
        record(0, Event::Start),
        // Entry 10, exit 20, in the channel 30.
        record(
            20,
            exit(0, pio(Direction::Write, 0x3f8, 1), 0x61, Handling::Posted { enqueue: 10 }),
        ),
        // Entry 40, exit 50; the byte 60 to 70, its own access 80 to 90.
        record(
            50,
            exit(
                1,
                pio(Direction::Read, 0x3fd, 1),
                0x60,
                Handling::Served { wait: 30, service: 10 },
            ),
        ),
        record(
            60,
            Event::Service(ServiceEvent {
                vcpu: V0,
                sequence: 0,
                access: posted,
                wait: 40,
                service: 10,
            }),
        ),
        // Entry 100, exit 110.
        record(110, exit(2, VmExit::Hlt, 0, Handling::RunLoop)),
        record(120, Event::Halt),
    ];
    assert_eq!(recorded(true, steps), expected);
}

#[test]
fn post_codes_are_markers_in_their_place() {
    let codes = Step::Out { port: 0x80, size: 1, data: vec![0x42, 7] };
    let records = recorded(false, vec![Step::in8(0x80), codes, Step::in8(0x3ff)]);
    let names: Vec<_> = records
        .iter()
        .filter_map(|record| match &record.event {
            Event::Marker(name) => Some(*name),
            Event::Exit(_) => Some(MarkerName::new(b"exit")),
            _ => None,
        })
        .collect();
    let expected = ["exit", "POST code 0x42", "POST code 0x07", "exit", "exit", "exit"];
    assert_eq!(names, expected.map(|name| MarkerName::new(name.as_bytes())));
}

#[test]
fn the_guest_steers_its_trace_through_ports() {
    let name = |text: &[u8]| Step::Out { port: 0x5e1, size: 1, data: text.to_vec() };
    let records = recorded(
        false,
        vec![
            name(b"first\n"),
            Step::out8(0x5e0, 0),
            Step::in8(0x5e0),
            Step::in8(0x3ff),
            name(b"second\0"),
            Step::out8(0x5e0, 1),
            Step::in8(0x5e0),
        ],
    );
    let events: Vec<_> = records
        .iter()
        .filter(|record| !matches!(record.event, Event::Exit(_)))
        .map(|record| record.event)
        .collect();
    let marker = |name: &[u8]| Event::Marker(MarkerName::new(name));
    let recording = |on| Event::Recording { on };
    let start = Event::Start;
    let (off, on) = (recording(false), recording(true));
    assert_eq!(events, [start, marker(b"first"), off, marker(b"second"), on, Event::Halt]);
    // Left out: all from the exit that switches it off to the one that switches it on.
    let kept: Vec<_> = records.iter().filter_map(Record::exit).map(|exit| exit.sequence).collect();
    assert_eq!(kept, [0, 5, 6, 7]);
    // Switched on again, the port reads 1.
    assert_eq!(records.iter().filter_map(Record::exit).nth(2).map(|exit| exit.data), Some(1));
}

/// An output that takes everything.
struct Null;

impl Output for Null {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}

/// Runs a VM of these scripts with a trace; returns it and the report.
fn traced<I>(scripts: Vec<I>, memory: &Memory, setup: TraceSetup) -> (Vec<Record>, VmReport)
where
    I: IntoIterator<Item = Step>,
    I::IntoIter: Send + 'static,
{
    let count = scripts.len().try_into().unwrap();
    let setup = TraceSetup { output: memory.output(), ..setup };
    let tracer = Tracer::new(setup, count);
    let make = |script| -> Maker {
        let vcpu = ScriptedVcpu::new(script);
        Box::new(|| Ok(vcpu))
    };
    let makers = scripts.into_iter().map(make).collect();
    let count = VcpuCount::new(count).unwrap();
    let vmm = Vmm::new(
        Scripts::new(makers, &Arc::default()),
        count,
        |_| None,
        tracer,
        DeviceSetup::default(),
    )
    .unwrap();
    let report = watched(move || vmm.run(Box::new(Null), &mut Host::default(), None));
    (memory.records(), report)
}

/// Some bytes and reads.
fn chatter(exits: u64) -> Vec<Step> {
    let step = |n| if n % 3 == 0 { Step::in8(0x3fd) } else { Step::send(b'x') };
    (0..exits).map(step).collect()
}

fn totals_of(records: &[Record]) -> Vec<(Source, Totals)> {
    let totals = |record: &Record| match record.event {
        Event::Totals(totals) => Some((record.source, totals)),
        _ => None,
    };
    records.iter().filter_map(totals).collect()
}

#[test]
fn a_trace_has_every_exit_and_every_service_in_order() {
    let memory = Memory::default();
    let scripts = vec![chatter(3000), chatter(2000), chatter(1), chatter(0)];
    let (records, report) = traced(scripts, &memory, TraceSetup::default());
    assert!(matches!(report.outcome, VmOutcome::AllHalted), "{}", report.outcome);
    assert!(memory.finished.load(Ordering::SeqCst));
    assert_eq!(records.last().map(|record| record.event), Some(Event::End));
    for (id, exits) in [(0, 3001), (1, 2001), (2, 2), (3, 1)] {
        let source = Source::Vcpu(VcpuId(id));
        let own = records.iter().filter(|record| record.source == source);
        let sequences: Vec<_> = own.filter_map(Record::exit).map(|exit| exit.sequence).collect();
        assert!(sequences.into_iter().eq(0..exits), "vCPU {id}");
        // Every posted byte was served, once, in order.
        let posts = records.iter().filter_map(|record| match record.event {
            Event::Exit(ExitEvent { handling: Handling::Posted { .. }, sequence, .. })
                if record.source == source =>
            {
                Some(sequence)
            }
            _ => None,
        });
        let mut services: Vec<_> = records
            .iter()
            .filter_map(|record| match record.event {
                Event::Service(service) if service.vcpu.0 == id => {
                    Some((record.time, service.sequence))
                }
                _ => None,
            })
            .collect();
        // Those of different threads may be in different batches.
        services.sort_unstable();
        let services: Vec<_> = services.into_iter().map(|(_, sequence)| sequence).collect();
        assert_eq!(services, posts.collect::<Vec<_>>(), "vCPU {id}");
        let expected = Totals { seen: exits, kept: exits, filtered: 0, dropped: 0 };
        assert!(totals_of(&records).contains(&(source, expected)));
    }
    let written: u64 = records
        .iter()
        .filter_map(|record| match record.event {
            Event::Output { len, .. } => Some(u64::from(len)),
            _ => None,
        })
        .sum();
    assert_eq!(written, report.output.written);
}

#[test]
fn what_a_slow_trace_drops_is_counted() {
    let marks = Arc::<AtomicUsize>::default();
    let memory = Memory { held: Some((2, Arc::clone(&marks))), ..Memory::default() };
    let setup = TraceSetup { when_full: Some(WhenFull::Drop), ..TraceSetup::default() };
    let script = || {
        let marks = Arc::clone(&marks);
        let mark = Step::call(move || {
            marks.fetch_add(1, Ordering::SeqCst);
        });
        chatter(50_000).into_iter().chain([mark])
    };
    let (records, report) = traced(vec![script(), script()], &memory, setup);
    for (source, totals) in totals_of(&records) {
        let Source::Vcpu(_) = source else { continue };
        assert_eq!(totals.seen, 50_001);
        assert_eq!(totals.kept + totals.dropped, totals.seen);
        assert!(totals.dropped > 0 && report.lost_records.contains(&(source, totals.dropped)));
        let own = records.iter().filter(|record| record.source == source);
        let exits = own.filter_map(Record::exit).count();
        assert_eq!(u64::try_from(exits).unwrap(), totals.kept);
    }
}

#[test]
fn a_trace_that_cannot_be_written_ends_the_vm() {
    let memory = Memory { room: Some(100), ..Memory::default() };
    let endless = || (0u64..).map(|_| Step::in8(0x3fd));
    let (records, report) = traced(vec![endless(), endless()], &memory, TraceSetup::default());
    assert!(matches!(report.outcome, VmOutcome::TraceFailed(_)), "{}", report.outcome);
    assert_eq!(report.outcome.exit_code(), 6);
    assert!(records.len() <= 100);
}

#[test]
fn a_vm_takes_its_times_from_a_counter_if_it_has_one() {
    let clock = Clock::host();
    let tracer = Tracer::with_clock(TraceSetup::default(), 1, clock.clone());
    // In a script that goes on until the time does not.
    let stands = clock.clone();
    let stands = move || stands.now() == stands.now();
    let waits = Step::call(move || wait_until(stands));
    let maker: Maker = Box::new(|| Ok(ScriptedVcpu::new([waits])));
    let mut scripts = Scripts::new(vec![maker], &Arc::default());
    scripts.counter = Some(Counter { read: || 7, khz: NonZeroU32::MIN });
    let count = VcpuCount::new(1).unwrap();
    let vmm = Vmm::new(scripts, count, |_| None, tracer, DeviceSetup::default()).unwrap();
    watched(move || vmm.run(Box::new(Null), &mut Host::default(), None));
    assert_eq!(clock.now(), clock.now());
}

#[test]
fn statistics_see_what_a_filter_leaves_out() {
    let memory = Memory::default();
    let filter: TraceFilter = "every=10".parse().unwrap();
    let setup = TraceSetup { filter, stats: true, ..TraceSetup::default() };
    let (records, report) = traced(vec![chatter(999)], &memory, setup);
    assert_eq!(records.iter().filter_map(Record::exit).count(), 100);
    let expected = Totals { seen: 1000, kept: 100, filtered: 900, dropped: 0 };
    assert!(totals_of(&records).contains(&(Source::Vcpu(V0), expected)));
    assert!(report.stats.is_some());
}

fn any_filter() -> impl Strategy<Value = String> {
    let terms = [
        "vcpu=0",
        "vcpu=1-7",
        "reason=io-out",
        "reason=io-in+hlt",
        "port=0x3f8",
        "port=0x3fd-0x3ff",
        "every=3",
        "every=10",
        "after=0s",
        "before=1h",
    ];
    prop::sample::subsequence(terms.to_vec(), 0..=3).prop_map(|terms| terms.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever a filter leaves out, what it keeps belongs there, and the counts are exact: in the
    /// trace, in its totals, and in the statistics, which see everything.
    #[test]
    fn counts_are_exact_with_any_filter(text in any_filter(), exits in [0..60u64, 0..60]) {
        let Ok(filter) = text.parse::<TraceFilter>() else { return Ok(()) };
        let memory = Memory::default();
        let setup = TraceSetup { filter: filter.clone(), stats: true, ..TraceSetup::default() };
        let (records, report) = traced(exits.map(chatter).into(), &memory, setup);
        let stats = report.stats.unwrap().report();
        for (id, exits) in (0..).map(VcpuId).zip(exits) {
            let source = Source::Vcpu(id);
            let own = records.iter().filter(|record| record.source == source);
            let mut kept = 0;
            for (record, exit) in own.filter_map(|record| Some((record, record.exit()?))) {
                // The next in line for `every`, which lets through the first of its number.
                prop_assert!(filter.keeps(record.time, id, exit, &mut 0));
                kept += 1;
            }
            // The script's exits, and its halt.
            let seen = exits + 1;
            let expected = Totals { seen, kept, filtered: seen - kept, dropped: 0 };
            prop_assert!(totals_of(&records).contains(&(source, expected)));
            prop_assert_eq!(stats.vcpus[id.index()].exits.seen, seen);
        }
    }
}
