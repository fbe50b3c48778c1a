//! The guest's output on its way to a pipe: how fast it goes and in how many write(2) calls,
//! and how long a lone byte, such as the last of a prompt, takes to come out.
//!
//! The baseline for the first is a bare loop around KVM_RUN that makes one write(2) for every
//! byte, inline; for the second it is a parked thread that writes the byte when woken, which is
//! the least that any thread other than the vCPU's own can do. Iterations are the bytes of all
//! vCPUs together.

#[path = "support/pipe.rs"]
mod pipe;
mod support;
#[path = "support/vm.rs"]
mod vm;

use std::cell::Cell;
use std::error::Error;
use std::io::{self, PipeReader, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use minivmm::config::VmConfig;
use minivmm::devices::queue::DeviceQueue;
use minivmm::devices::setup::DeviceSetup;
use minivmm::devices::thread::{DeviceControl, DeviceThread};
use minivmm::devices::{COM1_BASE, DeviceSet};
use minivmm::exit::{Access, AddressSpace, Direction, VcpuId};
use minivmm::trace::tracer::TraceSetup;
use support::{Case, Options, Outcome};

/// Far above the time after which the device thread goes to sleep for good.
const LONG_QUIET: Duration = Duration::from_millis(20);
/// Well below it: the device thread still looks from time to time.
const SHORT_QUIET: Duration = Duration::from_millis(3);

fn main() -> ExitCode {
    support::bench(11, 60_000, |options| {
        if support::has_kvm()? {
            for guest in ["bench-out", "bench-poll"] {
                for vcpus in [1, 2] {
                    throughput(options, guest, vcpus)?;
                }
            }
        }
        latency(options, "asleep", LONG_QUIET)?;
        latency(options, "awake", SHORT_QUIET)
    })
}

fn throughput(options: Options, guest: &str, vcpus: u32) -> Outcome {
    let each = options.iterations / vcpus;
    let bytes = each * vcpus;
    let config = &vm::config(guest, vcpus, each)?;
    let per_byte = |ran: Duration| ran.as_secs_f64() * 1e9 / f64::from(bytes);
    let (runs, writes) = (Cell::new(0), Cell::new(0));
    let cases = vec![
        Case::new("inline, a write(2) a byte", || Ok(per_byte(inline(config, bytes)?))),
        Case::new("minivmm", || {
            let (pipe, reader) = pipe::drained_pipe()?;
            let (ran, report) = vm::run_minivmm(config, pipe::ToPipe(pipe), TraceSetup::default())?;
            assert_eq!(reader.join().unwrap_or(Ok(0))?, u64::from(bytes));
            runs.set(runs.get() + 1);
            writes.set(writes.get() + report.output.writes);
            Ok(per_byte(ran))
        }),
    ];
    let title = format!("{guest} to a pipe, {}", support::count(vcpus, "vCPU"));
    support::compare(&title, "ns per byte", options, cases)?;
    let kib = f64::from(bytes) / 1024.0 * f64::from(runs.get());
    let writes = f64::from(u32::try_from(writes.get())?);
    println!("write(2) calls per 4 KiB, on average (aim: 1): {:.2}", writes / kib * 4.0);
    Ok(())
}

fn inline(config: &VmConfig, bytes: u32) -> Result<Duration, Box<dyn Error>> {
    let (pipe, reader) = pipe::drained_pipe()?;
    let ran = vm::run_inline(config, || {
        let mut pipe = &pipe;
        move |byte| {
            // A byte that is missing at the other end is found there.
            let _ = pipe.write(&[byte]);
        }
    })?;
    drop(pipe);
    assert_eq!(reader.join().unwrap_or(Ok(0))?, u64::from(bytes));
    Ok(ran)
}

/// From a posted OUT to the byte at the reading end of a pipe, after the device thread has had
/// nothing to do for `quiet`.
fn latency(options: Options, state: &str, quiet: Duration) -> Outcome {
    let title = format!("one byte to a pipe, device thread {state}");
    let options = Options { rounds: options.rounds * 9, ..options };
    let devices = DeviceSet::unconnected(DeviceSetup::default())?;
    let queue = DeviceQueue::new(devices, 1024);
    let control = DeviceControl::new();
    let (minivmm_out, minivmm_in) = io::pipe()?;
    let (woken_out, woken_in) = io::pipe()?;
    let (wake, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let output = Box::new(pipe::ToPipe(minivmm_in));
        scope.spawn(|| DeviceThread::new(&queue, &control, output, |_| {}, ()).run());
        let woken = scope.spawn(|| write_when_woken(woken_in, &wake, &stop));
        let access = Access {
            space: AddressSpace::Pio,
            addr: COM1_BASE,
            direction: Direction::Write,
            size: 1,
            data: u64::from(b'x'),
        };
        let cases = vec![
            Case::new("a thread woken to write it", || {
                time_of_byte(&woken_out, quiet, || {
                    wake.store(true, Ordering::Release);
                    woken.thread().unpark();
                })
            }),
            Case::new("minivmm", || {
                // The byte that begins the quiet.
                time_of_byte(&minivmm_out, Duration::ZERO, || post(&queue, access))?;
                time_of_byte(&minivmm_out, quiet, || post(&queue, access))
            }),
        ];
        let measured = support::compare(&title, "us", options, cases);
        stop.store(true, Ordering::Release);
        woken.thread().unpark();
        control.drain();
        queue.rouse();
        measured
    })
}

fn post(queue: &DeviceQueue<DeviceSet>, access: Access) {
    assert_eq!(queue.post(VcpuId(0), access, &mut ()), Ok(()));
}

/// After `quiet`, the microseconds from `send` to a byte at the end of the pipe.
fn time_of_byte(
    mut pipe: &PipeReader,
    quiet: Duration,
    send: impl FnOnce(),
) -> Result<f64, Box<dyn Error>> {
    thread::sleep(quiet);
    let started = Instant::now();
    send();
    pipe.read_exact(&mut [0])?;
    Ok(started.elapsed().as_secs_f64() * 1e6)
}

fn write_when_woken(mut pipe: impl Write, wake: &AtomicBool, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        if wake.swap(false, Ordering::Acquire) {
            // Whoever waits for the byte would see the end of the pipe.
            let _ = pipe.write(b"x");
        }
        thread::park();
    }
}
