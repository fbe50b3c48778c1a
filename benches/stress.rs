//! Campaigns: an iteration in a VM that is put back against one in a new VM; what chaos costs
//! that never disturbs; two VMs at once against one after the other; and how far apart vCPUs start.

mod support;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use minivmm::affinity;
use minivmm::campaign::{self, Campaigned, ReplayCommand};
use minivmm::config::{CpuMode, GuestSource, Pinning, Register, SerialConfig, VcpuCount, VmConfig};
use minivmm::console::Console;
use minivmm::devices::setup::DeviceSetup;
use minivmm::host::Host;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::outcome::VmOutcome;
use minivmm::stress::config::StressConfig;
use minivmm::trace::tracer::{TraceSetup, Tracer};
use minivmm::vmm::Vmm;
use support::{Case, Options, Outcome};

const VCPUS: [u32; 4] = [1, 2, 4, 8];

fn main() -> std::process::ExitCode {
    support::bench(7, 400, |options| {
        if support::has_kvm()? {
            let empty = empty_guest()?;
            for vcpus in VCPUS {
                compare_reset(options, &empty, vcpus)?;
            }
            for vcpus in VCPUS {
                compare_chaos(options, vcpus)?;
            }
            compare_jobs(options)?;
            compare_skew(options, &empty)?;
        }
        Ok(())
    })
}

/// `hlt`.
fn empty_guest() -> Result<PathBuf, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty.bin");
    fs::write(&path, [0xf4])?;
    Ok(path)
}

fn config(guest: &Path, vcpus: u32) -> Result<VmConfig, Box<dyn Error>> {
    let mut config = VmConfig::new(GuestSource::File(guest.to_owned()));
    config.vcpus = VcpuCount::new(vcpus)?;
    config.serial = SerialConfig::Kept;
    Ok(config)
}

/// Runs a campaign without failures; the microseconds that an iteration takes, and its result.
fn campaign(
    config: &VmConfig,
    stress: &StressConfig,
    iterations: u32,
) -> Result<(f64, Campaigned), Box<dyn Error>> {
    let stress = StressConfig { iterations: Some(iterations.into()), ..stress.clone() };
    let config = VmConfig { stress: Some(stress.clone()), ..config.clone() };
    let command = ReplayCommand::of([]);
    let started = Instant::now();
    let campaigned = campaign::run(&config, &stress, TraceSetup::default(), command, true)?;
    let took = started.elapsed();
    if campaigned.result.passed() != u64::from(iterations) {
        return Err(campaigned.result.report().into());
    }
    Ok((took.as_secs_f64() * 1e6 / f64::from(iterations), campaigned))
}

/// A guest that does nothing: so this is what an iteration itself costs.
fn compare_reset(options: Options, guest: &Path, vcpus: u32) -> Outcome {
    let config = config(guest, vcpus)?;
    let iterations = options.iterations;
    let (fresh, reset) = (config.clone(), config);
    let cases = vec![
        Case::new("a new VM", move || new_vms(&fresh, iterations.div_ceil(10))),
        Case::new(
            "put back",
            move || Ok(campaign(&reset, &StressConfig::default(), iterations)?.0),
        ),
    ];
    let title = format!("an empty iteration, {} (aim: at most 0.1)", support::count(vcpus, "vCPU"));
    support::compare(&title, "us", options, cases)
}

/// The microseconds that each of so many VMs takes from nothing to nothing, in this process.
fn new_vms(config: &VmConfig, count: u32) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    for _ in 0..count {
        let vm = KvmVm::new(Path::new(KVM_DEVICE), config)?;
        let tracer = Tracer::new(TraceSetup::default(), config.vcpus.get());
        let cpu_for = affinity::plan(config.pin.as_ref())?;
        let vmm = Vmm::new(vm, config.vcpus, cpu_for, tracer, DeviceSetup::default())?;
        let output = Console::open_output(&SerialConfig::Null)?;
        let report = vmm.run(Box::new(output), &mut Host::default(), None);
        if !matches!(report.outcome, VmOutcome::AllHalted) {
            return Err(report.outcome.to_string().into());
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

/// A guest that polls and writes.
fn demo(vcpus: u32) -> Result<VmConfig, Box<dyn Error>> {
    let demo = minivmm_guests::find("bench-poll").ok_or("no such demo")?;
    let mut config = config(Path::new(""), vcpus)?;
    config.guest = GuestSource::Demo(demo);
    config.mode = Some(CpuMode::Real);
    config.regs.push((Register::Rbp, 100));
    config.pin = Some(Pinning::Auto);
    Ok(config)
}

fn compare_chaos(options: Options, vcpus: u32) -> Outcome {
    let config = demo(vcpus)?;
    let iterations = options.iterations.div_ceil(4);
    let case = |name: &str, chaos: Option<&str>| {
        let config = config.clone();
        let chaos = chaos.and_then(|rate| rate.parse().ok());
        let stress = StressConfig { chaos, ..StressConfig::default() };
        Case::new(name, move || Ok(campaign(&config, &stress, iterations)?.0))
    };
    let cases =
        vec![case("off", None), case("--chaos=0", Some("0")), case("--chaos", Some("0.05"))];
    let vcpus = support::count(vcpus, "vCPU");
    let title = format!("200 exits a vCPU, {vcpus} (aim: --chaos=0 at most 1.00)");
    support::compare(&title, "us", options, cases)
}

fn compare_jobs(options: Options) -> Outcome {
    let config = demo(1)?;
    let iterations = options.iterations;
    let case = |jobs| {
        let config = config.clone();
        let stress = StressConfig { jobs, ..StressConfig::default() };
        let name = support::count(jobs, "VM");
        Case::new(name, move || Ok(campaign(&config, &stress, iterations)?.0))
    };
    let title = "200 exits, 1 vCPU: VMs at once, time an iteration";
    support::compare(title, "us", options, vec![case(1), case(2)])
}

/// The ratio says nothing here; the times are what there is to see.
fn compare_skew(options: Options, guest: &Path) -> Outcome {
    let iterations = options.iterations;
    let case = |vcpus, pin: Option<Pinning>| {
        let config = VmConfig { pin: pin.clone(), ..config(guest, vcpus)? };
        let pinned = if pin.is_some() { ", bound to CPUs" } else { "" };
        let name = format!("{vcpus} vCPUs{pinned}");
        Ok::<_, Box<dyn Error>>(Case::new(name, move || {
            let (_, campaigned) = campaign(&config, &StressConfig::default(), iterations)?;
            let median = campaigned.result.skew().percentile(50).ok_or("no skew")?;
            // Nanoseconds, of which a float holds far more than there are.
            #[allow(clippy::cast_precision_loss)]
            Ok(median as f64 / 1e3)
        }))
    };
    let auto = || Some(Pinning::Auto);
    let cases = vec![case(2, auto())?, case(2, None)?, case(4, auto())?, case(8, auto())?];
    support::compare("from the first vCPU's start to the last one's, median", "us", options, cases)
}
