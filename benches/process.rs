//! What a user waits for: from the start of the process to the guest's first byte on a pipe,
//! and to the end of the process, with the guest of the first KVM tutorials; and how much
//! memory the process takes at its peak. The baseline is `kvmtest.c`, the least C program that
//! does it, with one vCPU always.

#[path = "support/child.rs"]
mod child;
mod support;

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use child::{Running, peak_kib};
use support::{Case, Options, Outcome};

const GUEST: &str = "hello";
/// What one vCPU prints.
const GUEST_OUTPUT: &str = "4\nHello\n";
/// The numbers of vCPUs, each with the aim for the time to the first byte.
const VCPUS: [(u32, f64); 3] = [(1, 1.2), (8, 2.0), (64, 7.0)];
/// The aim for the time of the whole run, with one vCPU.
const WHOLE_RUN_AIM: f64 = 1.4;

fn main() -> ExitCode {
    support::bench(51, 1, |options| {
        if support::has_kvm()? {
            let kvmtest = compile_kvmtest()?;
            first_byte(options, &kvmtest)?;
            whole_run(options, &kvmtest)?;
            peak_memory(Options { rounds: options.rounds.min(5), ..options }, &kvmtest)?;
        }
        Ok(())
    })
}

fn first_byte(options: Options, kvmtest: &Path) -> Outcome {
    let mut cases = vec![Case::new("kvmtest.c", || Ok(micros(time(command(kvmtest), 1)?.0)))];
    for (vcpus, aim) in VCPUS {
        let measure = move || Ok(micros(time(minivmm(vcpus), vcpus)?.0));
        cases.push(Case::new(name(vcpus), measure).aim(aim));
    }
    support::compare("process start to first byte", "us", options, cases)
}

fn whole_run(options: Options, kvmtest: &Path) -> Outcome {
    let mut cases = vec![Case::new("kvmtest.c", || Ok(micros(time(command(kvmtest), 1)?.1)))];
    for (vcpus, _) in VCPUS {
        let case = Case::new(name(vcpus), move || Ok(micros(time(minivmm(vcpus), vcpus)?.1)));
        cases.push(if vcpus == 1 { case.aim(WHOLE_RUN_AIM) } else { case });
    }
    support::compare("process start to its end", "us", options, cases)
}

fn peak_memory(options: Options, kvmtest: &Path) -> Outcome {
    let mut cases = vec![Case::new("kvmtest.c", || peak_kib(command(kvmtest)))];
    for (vcpus, _) in VCPUS {
        let measure = move || peak_kib(minivmm(vcpus));
        cases.push(Case::new(name(vcpus), measure));
    }
    let title = "peak resident memory (aim of 1 vCPU: 3072, better 2560)";
    support::compare(title, "KiB", options, cases)
}

fn name(vcpus: u32) -> String {
    format!("minivmm, {}", support::count(vcpus, "vCPU"))
}

fn command(program: &Path) -> Command {
    Command::new(program)
}

fn minivmm(vcpus: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minivmm"));
    command.args(["--memory", "128M", "--demo", GUEST, "--vcpus", &vcpus.to_string()]);
    command
}

/// Runs it; the times to its first byte and to its end.
fn time(mut command: Command, vcpus: u32) -> Result<(Duration, Duration), Box<dyn Error>> {
    let started = Instant::now();
    let mut program = Running::start(&mut command)?;
    program.read(1)?;
    let first_byte = started.elapsed();
    let (rest, status) = program.end()?;
    let whole_run = started.elapsed();
    let expected = GUEST_OUTPUT.len() * usize::try_from(vcpus)?;
    assert!(status.success() && rest.len() + 1 == expected, "{command:?}: {status}, {rest:?}");
    Ok((first_byte, whole_run))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Compiles `kvmtest.c` around the guest's image.
fn compile_kvmtest() -> Result<PathBuf, Box<dyn Error>> {
    let guest = minivmm_guests::find(GUEST).ok_or("no such demo")?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut header = String::from("#define IMAGE");
    for (index, byte) in guest.image.iter().enumerate() {
        write!(header, "{} {byte:#x}", if index == 0 { "" } else { "," })?;
    }
    fs::write(dir.join("image.h"), header + "\n")?;
    let program = dir.join("kvmtest");
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(dir)
        .arg("-o")
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kvmtest.c"))
        .status()?;
    if status.success() { Ok(program) } else { Err(format!("cc: {status}").into()) }
}
