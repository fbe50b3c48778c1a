//! How long a VM that will not end takes to stop: from SIGTERM to the end of the process, with
//! vCPUs that spin in the guest, from one to far more than there are CPUs. The ratio is to one
//! vCPU.

#[path = "support/child.rs"]
mod child;
mod support;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use child::Running;
use minivmm::config::CpuMode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Case, Options, Outcome};

const VCPUS: [u32; 4] = [1, 16, 64, 254];
/// 128 and the number of SIGTERM.
const EXIT_CODE: i32 = 143;

/// The modes, each with a guest that sends one byte and spins: `mov dx, 0x3f8; out dx, al;
/// jmp $`, where AL is as it happens to be.
const GUESTS: [(CpuMode, &[u8]); 2] = [
    (CpuMode::Real, &[0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfe]),
    (CpuMode::User, &[0x66, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfe]),
];

fn main() -> ExitCode {
    support::bench(11, 1, |options| {
        if support::has_kvm()? {
            for (mode, guest) in GUESTS {
                compare(options, mode, guest)?;
            }
        }
        Ok(())
    })
}

fn compare(options: Options, mode: CpuMode, guest: &[u8]) -> Outcome {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spin-{mode}.bin"));
    fs::write(&path, guest)?;
    let case = |vcpus| {
        let path = &path;
        Case::new(support::count(vcpus, "vCPU"), move || stop(path, mode, vcpus))
    };
    let title = format!("SIGTERM to exit, spinning in {mode} mode (aim: below 100)");
    support::compare(&title, "ms", options, VCPUS.map(case).into())
}

/// The milliseconds that it takes to stop so many spinning vCPUs.
fn stop(guest: &Path, mode: CpuMode, vcpus: u32) -> Result<f64, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minivmm"));
    command.args(["--vcpus", &vcpus.to_string(), "--mode", mode.name()]).arg(guest);
    let mut program = Running::start(&mut command)?;
    program.read(usize::try_from(vcpus)?)?;
    let started = Instant::now();
    kill(Pid::from_raw(i32::try_from(program.id())?), Signal::SIGTERM)?;
    let (_, status) = program.end()?;
    let stopped = started.elapsed();
    assert_eq!(status.code(), Some(EXIT_CODE), "{command:?}: {status}");
    Ok(stopped.as_secs_f64() * 1e3)
}
