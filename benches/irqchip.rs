//! What interrupt controllers cost: the whole run of a guest that ends at once, with none, with all
//! of them in the kernel and with the local APICs only; and a pulse of COM1's line, which
//! interrupts nobody, by the two ways that there are to those in the kernel: two levels by
//! KVM_IRQ_LINE, or one write to an irqfd, which carries no level. Iterations are such pulses.

#[path = "support/child.rs"]
mod child;
mod support;

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::Instant;

use child::Running;
use kvm_ioctls::{Kvm, VmFd};
use support::{Case, Options, Outcome};
use vmm_sys_util::eventfd::EventFd;

/// A guest that powers off, with its output.
const GUEST: &str = "power-off";
const GUEST_OUTPUT: &[u8] = b"bye\n";
const IRQCHIPS: [&str; 3] = ["none", "kernel", "split"];
const VCPUS: [u32; 2] = [1, 8];
const COM1_IRQ: u32 = 4;

fn main() -> ExitCode {
    support::bench(21, 20_000, |options| {
        if support::has_kvm()? {
            for vcpus in VCPUS {
                whole_run(options, vcpus)?;
            }
            line(options)?;
        }
        Ok(())
    })
}

fn whole_run(options: Options, vcpus: u32) -> Outcome {
    let case = |irqchip| Case::new(irqchip, move || run(irqchip, vcpus));
    let title = format!("process start to its end, {}", support::count(vcpus, "vCPU"));
    support::compare(&title, "us", options, IRQCHIPS.map(case).into())
}

/// The microseconds that a run takes.
fn run(irqchip: &str, vcpus: u32) -> Result<f64, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minivmm"));
    command.args(["--demo", GUEST, "--vcpus", &vcpus.to_string(), "--irqchip", irqchip]);
    let started = Instant::now();
    let (output, status) = Running::start(&mut command)?.end()?;
    let took = started.elapsed();
    assert!(status.success() && output == GUEST_OUTPUT, "{command:?}: {status}, {output:?}");
    Ok(took.as_secs_f64() * 1e6)
}

fn line(options: Options) -> Outcome {
    let vm = Kvm::new()?.create_vm()?;
    vm.create_irq_chip()?;
    let event = EventFd::new(0)?;
    let pulses = options.iterations;
    let levels = || per_pulse(pulses, || pulse(&vm));
    // The counter only grows, so that nobody has to read it.
    let bound = || {
        vm.register_irqfd(&event, COM1_IRQ)?;
        let took = per_pulse(pulses, || Ok(event.write(1)?))?;
        vm.unregister_irqfd(&event, COM1_IRQ)?;
        Ok(took)
    };
    let cases = vec![Case::new("KVM_IRQ_LINE", levels), Case::new("irqfd", bound)];
    support::compare("a pulse of COM1's line, masked", "ns", options, cases)
}

/// Up and down.
fn pulse(vm: &VmFd) -> Result<(), Box<dyn Error>> {
    vm.set_irq_line(COM1_IRQ, true)?;
    Ok(vm.set_irq_line(COM1_IRQ, false)?)
}

/// The nanoseconds that it takes.
fn per_pulse(
    pulses: u32,
    mut pulse: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    for _ in 0..pulses {
        pulse()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(pulses))
}
