//! The cost of an exit with port I/O: guests that do nothing but OUT, IN, or poll-then-write,
//! on one vCPU and on several, under minivmm and in a bare loop around KVM_RUN that serves the
//! access inline. Iterations are those of all vCPUs together.
//!
//! What separates the two is the device protocol, the record of every exit, and the device
//! thread, which takes its share of the CPUs.

#[path = "support/pipe.rs"]
mod pipe;
mod support;
#[path = "support/vm.rs"]
mod vm;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use minivmm::config::VmConfig;
use minivmm::console::Output;
use minivmm::trace::tracer::TraceSetup;
use support::{Case, Options, Outcome};

/// The guests, the exits of an iteration, and whether it sends a byte.
const GUESTS: [(&str, u32, bool); 3] =
    [("bench-out", 1, true), ("bench-in", 1, false), ("bench-poll", 2, true)];
const VCPUS: [u32; 4] = [1, 2, 4, 8];

fn main() -> ExitCode {
    support::bench(15, 20_000, |options| {
        if support::has_kvm()? {
            for (guest, exits, sends) in GUESTS {
                for vcpus in VCPUS {
                    compare(options, guest, vcpus, exits, sends)?;
                }
            }
        }
        Ok(())
    })
}

fn compare(options: Options, guest: &str, vcpus: u32, exits: u32, sends: bool) -> Outcome {
    let each = options.iterations.div_ceil(vcpus);
    let config = &vm::config(guest, vcpus, each)?;
    let per_exit = |ran: Duration| ran.as_secs_f64() * 1e9 / f64::from(each * vcpus * exits);
    let bytes = if sends { u64::from(each * vcpus) } else { 0 };
    let mut cases = vec![
        Case::new("inline", || Ok(per_exit(run_inline(config, bytes)?))),
        Case::new("minivmm", || {
            let (ran, report) = vm::run_minivmm(config, Discard, TraceSetup::default())?;
            assert_eq!(report.output.written, bytes);
            Ok(per_exit(ran))
        })
        .aim(1.05),
    ];
    if sends {
        cases.push(Case::new("minivmm, to a pipe", || {
            let (pipe, reader) = pipe::drained_pipe()?;
            let (ran, _) = vm::run_minivmm(config, pipe::ToPipe(pipe), TraceSetup::default())?;
            assert_eq!(reader.join().unwrap_or(Ok(0))?, bytes);
            Ok(per_exit(ran))
        }));
    }
    let title = format!("{guest}, {}", support::count(vcpus, "vCPU"));
    support::compare(&title, "ns per exit", options, cases)
}

/// Counts the bytes on each vCPU by itself, as a loop with nothing shared would.
fn run_inline(config: &VmConfig, expected: u64) -> Result<Duration, Box<dyn Error>> {
    let total = AtomicU64::new(0);
    let ran = vm::run_inline(config, || {
        let mut count = Count { here: 0, total: &total };
        move |_| count.add()
    })?;
    assert_eq!(total.into_inner(), expected);
    Ok(ran)
}

/// A count that is added to the total when its owner is done.
struct Count<'a> {
    here: u64,
    total: &'a AtomicU64,
}

impl Count<'_> {
    fn add(&mut self) {
        self.here += 1;
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.total.fetch_add(self.here, Ordering::Relaxed);
    }
}

/// An output that takes everything at no cost.
struct Discard;

impl Output for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
}
