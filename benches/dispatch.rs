//! The cost of one access on its way to the devices and back, without KVM: threads play the
//! vCPUs. The way is measured in layers: a call of the devices, the same behind a mutex, the
//! device queue with its device thread, and the run loop of a vCPU, which also records every
//! exit. Iterations are the accesses of all threads together; the direct calls are made by one
//! thread whatever the number, as the devices allow no more.

mod support;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use minivmm::console::Output;
use minivmm::devices::queue::{Busy, DeviceQueue, Serve};
use minivmm::devices::setup::DeviceSetup;
use minivmm::devices::thread::{DeviceControl, DeviceThread};
use minivmm::devices::{COM1_BASE, DeviceSet, PostPolicy};
use minivmm::exit::{Access, AddressSpace, Direction, PioAddr, PioExit, VcpuId, VmExit};
use minivmm::sync::Mutex;
use minivmm::trace::tracer::{TraceSetup, Tracer};
use minivmm::vcpu::registers::Registers;
use minivmm::vcpu::runner::Runner;
use minivmm::vcpu::state::VcpuControl;
use minivmm::vcpu::{Kick, VcpuEnd, VcpuRun};
use support::{Case, Options, Outcome};

/// As in `vmm.rs`.
const QUEUE_CAPACITY: usize = 1024;
/// The line status register, relative to the UART's first.
const LSR: u64 = 5;

fn main() -> ExitCode {
    support::bench(15, 400_000, |options| {
        for direction in [Direction::Write, Direction::Read] {
            for threads in [1, 2, 4, 8] {
                compare(options, direction, threads)?;
            }
        }
        Ok(())
    })
}

fn compare(options: Options, direction: Direction, threads: u32) -> Outcome {
    let each = options.iterations / threads;
    let total = each * threads;
    let access = access(direction);
    let per_access =
        |ran: Result<Duration, Box<dyn Error>>| Ok(ran?.as_secs_f64() * 1e9 / f64::from(total));
    let cases = vec![
        Case::new("direct call", || per_access(direct(access, total))),
        Case::new("behind a mutex", || per_access(behind_mutex(access, threads, each))),
        Case::new("device queue", || per_access(through_queue(access, threads, each))),
        Case::new("run loop and device queue", || {
            per_access(through_runner(access, threads, each))
        }),
    ];
    let (name, aim) = match direction {
        Direction::Write => ("OUT to THR", 60),
        Direction::Read => ("IN from LSR", 80),
    };
    let aim = if threads == 1 { format!("; aim of the queue: {aim}") } else { String::new() };
    let title = format!("{name}, {}{aim}", support::count(threads, "thread"));
    support::compare(&title, "ns per access", options, cases)
}

fn access(direction: Direction) -> Access {
    let (offset, data) = match direction {
        Direction::Write => (0, u64::from(b'x')),
        Direction::Read => (LSR, 0),
    };
    Access { space: AddressSpace::Pio, addr: COM1_BASE + offset, direction, size: 1, data }
}

fn devices() -> Result<DeviceSet, Box<dyn Error>> {
    Ok(DeviceSet::unconnected(DeviceSetup::default())?)
}

/// Serves the access now, throwing the output away when there is no room for more.
fn serve(devices: &mut DeviceSet, access: &Access, scratch: &mut Vec<u8>) {
    while let Err(Busy) = devices.serve(VcpuId(0), access) {
        devices.com1().take_output(scratch);
        scratch.clear();
    }
}

fn direct(access: Access, total: u32) -> Result<Duration, Box<dyn Error>> {
    let mut devices = devices()?;
    let mut scratch = Vec::new();
    let started = Instant::now();
    for _ in 0..total {
        serve(&mut devices, &access, &mut scratch);
    }
    Ok(started.elapsed())
}

fn behind_mutex(access: Access, threads: u32, each: u32) -> Result<Duration, Box<dyn Error>> {
    let devices = Mutex::new((devices()?, Vec::new()));
    Ok(on_threads(threads, |_| {
        for _ in 0..each {
            let (devices, scratch) = &mut *devices.lock();
            serve(devices, &access, scratch);
        }
    }))
}

fn through_queue(access: Access, threads: u32, each: u32) -> Result<Duration, Box<dyn Error>> {
    with_device_thread(|queue, _| {
        on_threads(threads, |vcpu| {
            for _ in 0..each {
                let served = match access.direction {
                    Direction::Write => queue.post(vcpu, access, &mut ()),
                    Direction::Read => queue.call(vcpu, &access, &mut ()).map(drop),
                };
                assert_eq!(served, Ok(()));
            }
        })
    })
}

fn through_runner(access: Access, threads: u32, each: u32) -> Result<Duration, Box<dyn Error>> {
    let tracer = Tracer::new(TraceSetup::default(), threads);
    let tracing: Vec<_> = (0..threads).map(|id| tracer.vcpu_tracing(VcpuId(id))).collect();
    with_device_thread(|queue, posting| {
        on_threads(threads, |id| {
            let control = VcpuControl::new();
            let vcpu = Scripted { exit: exit(&access), left: each, data: [b'x'] };
            let tracing = tracing[id.index()].clone();
            let end = Runner::new(id, vcpu, &control, queue, posting.clone(), tracing).run();
            assert!(matches!(end, VcpuEnd::Halted), "{end:?}");
        })
    })
}

fn exit(access: &Access) -> VmExit {
    let port = PioAddr(u16::try_from(access.addr).unwrap_or(u16::MAX));
    VmExit::Pio(PioExit { port, direction: access.direction, size: access.size, count: 1 })
}

/// Runs `body` next to a device thread whose output is thrown away.
fn with_device_thread(
    body: impl FnOnce(&DeviceQueue<DeviceSet>, &PostPolicy) -> Duration,
) -> Result<Duration, Box<dyn Error>> {
    let devices = devices()?;
    let posting = devices.post_policy();
    let queue = DeviceQueue::new(devices, QUEUE_CAPACITY);
    let control = DeviceControl::new();
    Ok(thread::scope(|scope| {
        scope.spawn(|| DeviceThread::new(&queue, &control, Box::new(Discard), |_| {}, ()).run());
        let ran = body(&queue, &posting);
        control.drain();
        queue.rouse();
        ran
    }))
}

/// From the release of so many threads that each run `body` to the end of the last.
fn on_threads(threads: u32, body: impl Fn(VcpuId) + Sync) -> Duration {
    let gate = Barrier::new(usize::try_from(threads).unwrap_or(usize::MAX));
    let runs = thread::scope(|scope| {
        let run = |id| {
            let (gate, body) = (&gate, &body);
            move || {
                gate.wait();
                let started = Instant::now();
                body(VcpuId(id));
                (started, Instant::now())
            }
        };
        let threads: Vec<_> = (0..threads).map(|id| scope.spawn(run(id))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
    });
    let started = runs.iter().map(|run| run.0).min();
    let ended = runs.iter().map(|run| run.1).max();
    started.zip(ended).map_or(Duration::MAX, |(started, ended)| ended - started)
}

/// A vCPU with the same exit again and again until it halts.
struct Scripted {
    exit: VmExit,
    left: u32,
    data: [u8; 1],
}

impl VcpuRun for Scripted {
    fn run(&mut self) -> io::Result<VmExit> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(VmExit::Hlt);
        };
        self.left = left;
        Ok(self.exit)
    }

    fn data(&mut self) -> &mut [u8] {
        &mut self.data
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        None
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        Box::new(Unkickable)
    }
}

/// Nobody stops a [`Scripted`].
struct Unkickable;

impl Kick for Unkickable {
    fn kick(&self) {}

    fn take_back(&self) {}
}

struct Discard;

impl Output for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}
