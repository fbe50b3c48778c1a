//! What tracing costs: a guest that polls and writes, with nothing recorded, with the flight
//! recorder, with statistics, and with a full trace in each form; a record by itself, without
//! KVM; and how long `minivmm report` takes over ten million records. Iterations are those of all
//! vCPUs together.

#[path = "support/child.rs"]
mod child;
mod support;
#[path = "support/vm.rs"]
mod vm;

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use child::Running;
use minivmm::config::VmConfig;
use minivmm::devices::DeviceSet;
use minivmm::devices::queue::DeviceQueue;
use minivmm::devices::setup::DeviceSetup;
use minivmm::exit::{Direction, PioAddr, PioExit, VcpuId, VmExit};
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::trace::clock::Counter;
use minivmm::trace::flight::FlightRecorder;
use minivmm::trace::format::{self, TraceFormat, TraceInfo};
use minivmm::trace::record::{Event, ExitEvent, Handling, Record, Source};
use minivmm::trace::tracer::{TraceOutput, TraceSetup, Tracer};
use minivmm::trace::writer::TraceFile;
use minivmm::vcpu::registers::Registers;
use minivmm::vcpu::runner::Runner;
use minivmm::vcpu::state::VcpuControl;
use minivmm::vcpu::{BuildVcpu, Kick, VcpuEnd, VcpuRun};
use support::{Case, Options, Outcome};

const GUEST: &str = "bench-poll";
/// Exits of an iteration of the guest.
const EXITS: u32 = 2;
const VCPUS: [u32; 3] = [1, 2, 4];
/// Records of the trace that is reported.
const REPORTED: u64 = 10_000_000;

fn main() -> ExitCode {
    support::bench(15, 20_000, |options| {
        if support::has_kvm()? {
            for vcpus in VCPUS {
                compare_levels(options, vcpus)?;
            }
        }
        compare_records(options, counter()?)?;
        report(options)
    })
}

/// What is recorded in one case.
#[derive(Clone, Copy)]
enum Level {
    Off,
    Flight,
    Stats,
    Full { format: TraceFormat, rip: bool },
}

impl Level {
    fn setup(self, vcpus: u32) -> Result<TraceSetup, Box<dyn Error>> {
        Ok(match self {
            Self::Off => TraceSetup { no_flight_recorder: true, ..TraceSetup::default() },
            Self::Flight => TraceSetup::default(),
            Self::Stats => TraceSetup { stats: true, ..TraceSetup::default() },
            Self::Full { format, rip } => {
                let abandoned = Arc::default();
                let file = File::create(trace_path())?;
                let file = Box::new(TraceFile::new(file, Arc::clone(&abandoned)));
                let info = TraceInfo { vcpus, has_rip: rip, ..TraceInfo::default() };
                let sink = format::sink(format, file, &info, None)?;
                let output = Some(TraceOutput { sink, abandoned });
                TraceSetup { output, rip, ..TraceSetup::default() }
            }
        })
    }
}

fn trace_path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-trace")
}

fn compare_levels(options: Options, vcpus: u32) -> Outcome {
    let each = options.iterations.div_ceil(vcpus);
    let mut config = vm::config(GUEST, vcpus, each)?;
    config.trace.rip = false;
    let mut with_rip = config.clone();
    with_rip.trace.rip = true;
    let (config, with_rip) = (&config, &with_rip);
    let measure = move |level: Level, config: &VmConfig| -> Result<f64, Box<dyn Error>> {
        let (ran, _) = vm::run_minivmm(config, Discard, level.setup(vcpus)?)?;
        Ok(ran.as_secs_f64() * 1e9 / f64::from(each * vcpus * EXITS))
    };
    let mut cases = vec![
        Case::new("everything off", move || measure(Level::Off, config)),
        Case::new("a bare inline loop", move || {
            let ran = vm::run_inline(config, || |_| {})?;
            Ok(ran.as_secs_f64() * 1e9 / f64::from(each * vcpus * EXITS))
        }),
        Case::new("flight recorder", move || measure(Level::Flight, config)).aim(1.03),
        Case::new("and statistics", move || measure(Level::Stats, config)).aim(1.03),
    ];
    for format in TraceFormat::ALL {
        let level = Level::Full { format, rip: false };
        let case = Case::new(format!("full, {format}"), move || measure(level, config));
        cases.push(if format == TraceFormat::Binary { case.aim(1.10) } else { case });
    }
    let level = Level::Full { format: TraceFormat::Binary, rip: true };
    cases.push(Case::new("full, binary, with RIP", move || measure(level, with_rip)));
    let title = format!("{GUEST}, {}", support::count(vcpus, "vCPU"));
    support::compare(&title, "ns per exit", options, cases)
}

/// An output that takes everything at no cost.
struct Discard;

impl minivmm::console::Output for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}

/// What a VM on this host takes its times from.
fn counter() -> Result<Option<Counter>, Box<dyn Error>> {
    if !support::has_kvm()? {
        return Ok(None);
    }
    Ok(KvmVm::new(Path::new(KVM_DEVICE), &vm::config(GUEST, 1, 1)?)?.counter())
}

/// A record on the vCPU's side: a run loop of INs that costs next to nothing else.
fn compare_records(options: Options, counter: Option<Counter>) -> Outcome {
    let exits = options.iterations * 10;
    let run = move |setup: TraceSetup| -> Result<f64, Box<dyn Error>> {
        Ok(run_loop(setup, counter, exits)?.as_secs_f64() * 1e9 / f64::from(exits))
    };
    let cases = vec![
        Case::new("everything off", move || run(Level::Off.setup(1)?)),
        Case::new("flight recorder", move || run(Level::Flight.setup(1)?)),
        Case::new("and statistics", move || run(Level::Stats.setup(1)?)),
        Case::new("full, binary", move || {
            run(Level::Full { format: TraceFormat::Binary, rip: false }.setup(1)?)
        }),
        Case::new("the flight recorder's ring", move || Ok(ring(exits))),
    ];
    let title = "scripted vCPU, no KVM (aims above 'off': flight 40, full 100)";
    support::compare(title, "ns per exit", options, cases)
}

fn run_loop(
    setup: TraceSetup,
    counter: Option<Counter>,
    exits: u32,
) -> Result<Duration, Box<dyn Error>> {
    let devices = DeviceSet::unconnected(DeviceSetup::default())?;
    let posting = devices.post_policy();
    let queue = DeviceQueue::new(devices, 1024);
    let mut tracer = Tracer::new(setup, 1);
    if let Some(counter) = counter {
        tracer.use_counter(counter);
    }
    tracer.start_writer(|body| std::thread::Builder::new().spawn(body), |_| {})?;
    let control = VcpuControl::new();
    let vcpu = Reads { left: exits, data: [0] };
    let tracing = tracer.vcpu_tracing(VcpuId(0));
    let mut runner = Runner::new(VcpuId(0), vcpu, &control, &queue, posting, tracing);
    let started = Instant::now();
    let end = runner.run();
    let ran = started.elapsed();
    drop(runner);
    tracer.finish();
    tracer.join_writer();
    if matches!(end, VcpuEnd::Halted) { Ok(ran) } else { Err(format!("{end:?}").into()) }
}

fn read_exit() -> VmExit {
    let port = PioAddr(0x3fd);
    VmExit::Pio(PioExit { port, direction: Direction::Read, size: 1, count: 1 })
}

fn record(number: u64) -> Record {
    let handling = Handling::Served { wait: 20, service: 10 };
    let (data, rip, guest) = (0x60, None, 5000);
    let exit = ExitEvent { sequence: number, exit: read_exit(), data, rip, guest, handling };
    Record { time: number * 7000, source: Source::Vcpu(VcpuId(0)), event: Event::Exit(exit) }
}

/// The two writes into the ring that an exit takes, without the clock.
fn ring(exits: u32) -> f64 {
    let recorder = FlightRecorder::default();
    let started = Instant::now();
    for number in 0..u64::from(exits) {
        let record = std::hint::black_box(record(number));
        recorder.begin(&record);
        recorder.finish(&record);
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(exits)
}

/// A vCPU that reads the line status register and halts.
struct Reads {
    left: u32,
    data: [u8; 1],
}

impl VcpuRun for Reads {
    fn run(&mut self) -> io::Result<VmExit> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(VmExit::Hlt) };
        self.left = left;
        Ok(read_exit())
    }

    fn data(&mut self) -> &mut [u8] {
        &mut self.data
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        None
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        struct NoKick;
        impl Kick for NoKick {
            fn kick(&self) {}

            fn take_back(&self) {}
        }
        Box::new(NoKick)
    }
}

/// `minivmm report` over a large trace: its time and its peak memory.
fn report(options: Options) -> Outcome {
    let path = trace_path();
    let records = if options.quick { REPORTED / 100 } else { REPORTED };
    let file = Box::new(File::create(&path)?);
    let info = TraceInfo { vcpus: 1, ..TraceInfo::default() };
    let mut sink = format::sink(TraceFormat::Binary, file, &info, None)?;
    for first in (0..records).step_by(8192) {
        let batch: Vec<_> = (first..records.min(first + 8192)).map(record).collect();
        sink.write(&batch)?;
    }
    let end = Record { time: records * 7000, source: Source::Supervisor, event: Event::End };
    sink.write(&[end])?;
    sink.finish()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_minivmm"));
    command.arg("report").arg(&path);
    let started = Instant::now();
    let (_, status) = Running::start(&mut command)?.end()?;
    let took = started.elapsed().as_secs_f64();
    assert!(status.success(), "{status}");
    println!("\nreport of {records} records: {took:.2} s (aim: 10 s)");
    let peak = child::peak_kib(command)?;
    println!("peak resident memory: {:.0} MiB (aim: 1024)", peak / 1024.0);
    std::fs::remove_file(path)?;
    Ok(())
}
