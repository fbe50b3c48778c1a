//! What a guest of the PC platform waits for: from its timer to the handler, from an IPI to the
//! answer, for a byte to be sent by interrupt and by polling, for the other vCPUs to come up; and
//! from the start of the process to the first instruction of each image format. The guest measures
//! itself, in cycles of its TSC (docs/platform-guests.md); the last one is seen from outside.

#[path = "support/child.rs"]
mod child;
mod support;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use child::Running;
use support::{Case, Options, Outcome};

/// The guest that measures.
const GUEST: &str = "pc-pvh";
const VCPUS: [u32; 5] = [1, 2, 4, 8, 16];
/// Of which one brings the others up.
const BROUGHT_UP: [u32; 5] = [2, 4, 16, 64, 254];
/// The bytes of a round.
const UART_BYTES: u32 = 4096;

fn main() -> ExitCode {
    support::bench(11, 100, |options| {
        if support::has_kvm()? {
            by_vcpus("timer to handler", "bench-timer", options)?;
            by_vcpus("IPI there and back", "bench-ipi", options)?;
            uart(options)?;
            bring_up(options)?;
            start_to_entry(options)?;
        }
        Ok(())
    })
}

/// A median of the guest's own, for each number of vCPUs.
fn by_vcpus(title: &str, bench: &str, options: Options) -> Outcome {
    let words = format!("tests={bench} samples={}", options.iterations);
    let words = &words;
    let cases = VCPUS.map(|vcpus| {
        let measure = move || Line::of(bench, vcpus, words)?.micros("median");
        Case::new(support::count(vcpus, "vCPU"), measure)
    });
    support::compare(title, "us", options, cases.into())
}

/// Bytes that leave the guest one by one, at some exits each.
fn uart(options: Options) -> Outcome {
    let words = format!("tests=bench-uart bytes={UART_BYTES}");
    let words = &words;
    let cases = ["polling", "interrupt"].map(|way| {
        let measure =
            move || Ok(Line::of("bench-uart", 1, words)?.micros(way)? / f64::from(UART_BYTES));
        Case::new(format!("by {way}"), measure)
    });
    support::compare("a byte to the UART", "us", options, cases.into())
}

fn bring_up(options: Options) -> Outcome {
    let cases = BROUGHT_UP.map(|vcpus| {
        let measure = move || Line::of("bench-smp", vcpus, "tests=bench-smp")?.micros("cycles");
        Case::new(support::count(vcpus, "vCPU"), measure)
    });
    let options = Options { rounds: options.rounds.min(5), ..options };
    support::compare("INIT to the last CPU up", "us", options, cases.into())
}

/// The first instructions of all these guests send a byte.
fn start_to_entry(options: Options) -> Outcome {
    let cmdline = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cmdline");
    fs::write(&cmdline, "tests=boot")?;
    let fw_cfg = format!("opt/cmdline={}", cmdline.display());
    let cases = [
        ("flat", vec!["hello"]),
        ("flat, --irqchip kernel", vec!["hello", "--irqchip", "kernel", "--timeout", "50ms"]),
        ("elf", vec!["pc-elf64", "--irqchip", "kernel", "--fw-cfg", &fw_cfg]),
        ("multiboot", vec!["pc-multiboot", "--cmdline", "tests=boot"]),
        ("pvh", vec!["pc-pvh", "--cmdline", "tests=boot"]),
        ("linux", vec!["pc-linux", "--cmdline", "tests=boot"]),
    ]
    .map(|(name, args)| Case::new(name, move || first_byte(&args)));
    support::compare("process start to first byte", "us", options, cases.into())
}

fn minivmm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minivmm"));
    command.args(["-q", "--demo"]).args(args);
    command
}

fn first_byte(args: &[&str]) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    let mut program = Running::start(&mut minivmm(args))?;
    program.read(1)?;
    let elapsed = started.elapsed();
    program.end()?;
    Ok(elapsed.as_secs_f64() * 1e6)
}

/// What a bench of the guest has printed: words NAME=VALUE.
struct Line(String);

impl Line {
    /// Runs the guest; the line of this bench.
    fn of(bench: &str, vcpus: u32, words: &str) -> Result<Self, Box<dyn Error>> {
        let vcpus = vcpus.to_string();
        let args = [GUEST, "--vcpus", &vcpus, "--cmdline", words];
        let (output, status) = Running::start(&mut minivmm(&args))?.end()?;
        let text = String::from_utf8_lossy(&output);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{bench}: ")));
        match line {
            Some(line) if status.success() => Ok(Self(line.to_owned())),
            _ => Err(format!("{GUEST} {words}: {status}: {text}").into()),
        }
    }

    fn value(&self, name: &str) -> Result<f64, Box<dyn Error>> {
        let mut words = self.0.split(' ').filter_map(|word| word.split_once('='));
        let value = words.find(|(found, _)| *found == name).map(|(_, value)| value.parse());
        Ok(value.ok_or_else(|| format!("no {name} in '{}'", self.0))??)
    }

    /// A number of cycles, in microseconds.
    fn micros(&self, name: &str) -> Result<f64, Box<dyn Error>> {
        let khz = self.value("khz")?;
        if khz == 0.0 {
            return Err("CPUID does not tell the guest the frequency of its TSC".into());
        }
        Ok(self.value(name)? * 1e3 / khz)
    }
}
