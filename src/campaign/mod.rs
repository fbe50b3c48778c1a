//! A campaign: one guest, run many times, in one VM or several. The iterations themselves go on
//! between the vCPU threads of each VM (`vcpu/repeat.rs`), which ask the ledger for the next
//! one; here the VMs are made, watched over and brought to an end, on the main thread.

mod command;
mod kicks;
mod ledger;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::affinity::{self, AffinityError};
use crate::boot::{self, BootError, BootPlan};
use crate::config::{GuestSource, ImageFormat, SerialConfig, VmConfig};
use crate::console::{self, Console, ConsoleError, ConsoleOutput};
use crate::devices::setup::{DeviceSetup, SetupError};
use crate::exit::VcpuId;
use crate::host::{self, Host, Signals, Taken};
use crate::kvm::vm::{KVM_DEVICE, KvmError, KvmVm};
use crate::outcome::{EndSignal, ExitCode, VmOutcome};
use crate::panics;
use crate::report::VmReport;
use crate::stress::config::StressConfig;
use crate::stress::requirement::Requirement;
use crate::stress::result::{CampaignResult, Cut, Guest, Settings};
use crate::stress::seed::Seed;
use crate::trace::tracer::{TraceSetup, Tracer};
use crate::vcpu::repeat::RepeatSetup;
use crate::vmm::{RoundHandle, StopHandle, Vmm, VmmError};
pub use command::ReplayCommand;
use ledger::{Ledger, Rules};
use progress::Teller;

/// The longest time between two looks at the VMs.
const LOOK_MAX: Duration = Duration::from_millis(100);
const LOOK_MIN: Duration = Duration::from_millis(1);
/// How much later than it should a look may come before something else must have had the time.
const SLACK: Duration = Duration::from_millis(500);

/// Why there is no campaign.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The host CPUs asked for.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// KVM, or the guest.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The devices, or the events.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The files for the devices.
    #[error(transparent)]
    Devices(#[from] SetupError),
    /// Where the guest's output goes.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The guest's image.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The same, for the result.
    #[error("cannot read guest image '{path}': {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Signals or threads.
    #[error("{what}: {source}")]
    Host {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A campaign that is over.
#[derive(Debug)]
pub struct Campaigned {
    /// What has come out.
    pub result: CampaignResult,
    /// How each VM has come to its end.
    pub vms: Vec<VmReport>,
}

/// Runs a campaign. `setup` is what its VM is to trace, if there is only one; `command` runs an
/// iteration again; without `quiet` it is shown how far it is.
///
/// # Errors
///
/// The VMs cannot be made. What happens to them later is in the result.
pub fn run(
    config: &VmConfig,
    stress: &StressConfig,
    setup: TraceSetup,
    command: ReplayCommand,
    quiet: bool,
) -> Result<Campaigned, CampaignError> {
    let jobs = usize::try_from(stress.jobs).unwrap_or(usize::MAX);
    let seed = stress.seed.unwrap_or_else(drawn_seed);
    let result = empty_result(config, stress, seed)?;
    let total = stress.iterations.map(|_| result.due());
    let rules = Rules {
        numbers: numbers(stress),
        seed,
        keep_going: stress.keep_going,
        forbid: stress.forbid.clone(),
        command,
    };
    let ledger = Arc::new(Ledger::new(rules, result, jobs));
    let mut vms = Fleet::make(config, stress, &ledger, setup)?;
    let signals = Signals::take().map_err(host_error("cannot take signals"))?;
    let began = Instant::now();
    let teller = Teller::start(Arc::clone(&ledger), total, quiet)
        .map_err(host_error("cannot start a thread"))?;
    if let Err(error) = vms.start(config, stress, &ledger) {
        vms.finish(&ledger);
        return Err(error);
    }
    let watch = Watch { ledger: &ledger, stress, signals: &signals, limit: config.timeout };
    let cut = watch.run(&mut vms, began);
    let is_cut = cut.is_some();
    let cut = cut.or_else(|| vms.cut());
    vms.finish(&ledger);
    // From here on a signal ends us, should nobody read standard error.
    drop(signals);
    teller.finish(is_cut);
    let result = ledger.take_result(|result| {
        result.add_elapsed(began.elapsed());
        if stress.iterations.is_none() {
            result.end_here();
        }
        if let Some(cut) = cut {
            result.add_cut(cut);
        }
    });
    Ok(Campaigned { result, vms: vms.reports })
}

/// What a VM's own end means for the campaign, if it ended by itself.
fn cut_of(report: &VmReport) -> Option<Cut> {
    match &report.outcome {
        VmOutcome::AllHalted | VmOutcome::Stopped => None,
        outcome => Some(Cut { why: outcome.to_string(), exit_code: outcome.exit_code() }),
    }
}

/// A seed that nobody has chosen.
fn drawn_seed() -> Seed {
    use std::hash::{BuildHasher, Hasher, RandomState};

    // The keys of a new hasher come from the host's random numbers.
    Seed(RandomState::new().build_hasher().finish())
}

fn numbers(stress: &StressConfig) -> Box<dyn Iterator<Item = u64> + Send> {
    match (stress.iterations, stress.shard) {
        (Some(total), Some(shard)) => Box::new(shard.iterations(total)),
        (Some(total), None) => Box::new(0..total),
        (None, _) => Box::new(0..u64::MAX),
    }
}

fn empty_result(
    config: &VmConfig,
    stress: &StressConfig,
    seed: Seed,
) -> Result<CampaignResult, CampaignError> {
    // Before the file is read: it is one then, and has an end.
    let plan = boot::plan(config)?;
    let guest = match &config.guest {
        GuestSource::Demo(demo) => Guest::new(&config.guest, demo.image),
        GuestSource::File(path) => {
            let image = fs::read(path).map_err(|source| CampaignError::Read {
                path: path.display().to_string(),
                source,
            })?;
            Guest::new(&config.guest, &image)
        }
    };
    let settings = Settings {
        minivmm: env!("CARGO_PKG_VERSION").into(),
        seed,
        vcpus: config.vcpus.get(),
        memory_bytes: config.memory.bytes(),
        mode: plan.mode(),
        options: options(config, stress, &plan),
    };
    let expect = stress.expect.iter().cloned().map(Requirement::Expect);
    let forbid = stress.forbid.iter().cloned().map(Requirement::Forbid);
    let asked = stress.iterations.unwrap_or(u64::MAX);
    Ok(CampaignResult::new(guest, settings, asked, stress.shard, expect.chain(forbid)))
}

/// What else makes a difference to an iteration, as the user writes it.
fn options(config: &VmConfig, stress: &StressConfig, plan: &BootPlan) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut add = |name: &str, value: String| options.insert(name.to_owned(), value);
    match plan.format() {
        ImageFormat::Flat => add("load-addr", config.flat_load_addr().to_string()),
        format => add("format", format.to_string()),
    };
    if let Some(cmdline) = &config.boot.cmdline {
        add("cmdline", cmdline.clone());
    }
    if let Some(initrd) = &config.boot.initrd {
        add("initrd", initrd.display().to_string());
    }
    for (index, module) in config.boot.modules.iter().enumerate() {
        add(&format!("module {index}"), format!("{}={}", module.path.display(), module.args));
    }
    add("start", stress.start.to_string());
    if let Some(entry) = config.entry {
        add("entry", entry.to_string());
    }
    for (register, value) in &config.regs {
        add(&format!("reg {register}"), format!("{value:#x}"));
    }
    if let Some(rate) = stress.chaos {
        add("chaos", rate.to_string());
    }
    if stress.lockstep {
        add("lockstep", "yes".into());
    }
    options
}

fn host_error(what: &'static str) -> impl FnOnce(io::Error) -> CampaignError {
    move |source| CampaignError::Host { what, source }
}

/// The campaign's VMs.
struct Fleet {
    /// Not started yet.
    ready: Vec<(Vmm<KvmVm>, ConsoleOutput)>,
    stops: Vec<StopHandle>,
    rounds: Vec<RoundHandle>,
    /// The VMs' threads; none for one that has ended.
    vms: Vec<Option<JoinHandle<VmReport>>>,
    /// The others.
    threads: Vec<JoinHandle<()>>,
    ended: Receiver<()>,
    bell: mpsc::Sender<()>,
    reports: Vec<VmReport>,
    /// VMs whose thread has panicked.
    panicked: Option<Cut>,
}

/// Rings when a VM's thread ends, be it by a panic.
struct Ring(mpsc::Sender<()>);

impl Drop for Ring {
    fn drop(&mut self) {
        // The main thread waits for it, unless it has gone itself.
        let _ = self.0.send(());
    }
}

impl Fleet {
    fn make(
        config: &VmConfig,
        stress: &StressConfig,
        ledger: &Arc<Ledger>,
        mut setup: TraceSetup,
    ) -> Result<Self, CampaignError> {
        let (bell, ended) = mpsc::channel();
        let (ready, stops, rounds) = (Vec::new(), Vec::new(), Vec::new());
        let (vms, threads, reports, panicked) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut fleet = Self { ready, stops, rounds, vms, threads, ended, bell, reports, panicked };
        let cpu_for = affinity::plan(config.pin.as_ref())?;
        let vcpus = config.vcpus.get();
        let all = vcpus.saturating_mul(stress.jobs);
        affinity::allow_open_files(stress.jobs, vcpus);
        let own_cpus = has_own_cpus(all, &cpu_for);
        if config.pin.is_some() && !own_cpus {
            log::warn!(
                target: "minivmm",
                "some of the {all} vCPUs share a CPU: those do not run at the same time"
            );
        }
        let keep_output = config.serial == SerialConfig::Kept;
        let devices = DeviceSetup { keep_output, ..DeviceSetup::read(config)? };
        for vm in 0..stress.jobs {
            let kvm = KvmVm::new(Path::new(KVM_DEVICE), config)?;
            let tracer = Tracer::new(std::mem::take(&mut setup), vcpus);
            let setup = RepeatSetup {
                campaign: Arc::clone(ledger) as _,
                vm: usize::try_from(vm).unwrap_or(usize::MAX),
                start: stress.start,
                chaos: stress.chaos,
                lockstep: stress.lockstep,
                limit: stress.iteration_timeout,
                own_cpus,
            };
            let cpu_for = |id: VcpuId| cpu_for(VcpuId(vm * vcpus + id.0));
            let devices = devices.clone();
            let mut vmm = Vmm::repeating(kvm, config.vcpus, cpu_for, tracer, devices, setup)?;
            vmm.connect_ports(console::open_ports(&config.platform.devices)?);
            fleet.stops.push(vmm.stop_handle());
            fleet.rounds.push(vmm.round_handle());
            fleet.ready.push((vmm, Console::open_output(&config.serial)?));
        }
        Ok(fleet)
    }

    fn start(
        &mut self,
        config: &VmConfig,
        stress: &StressConfig,
        ledger: &Arc<Ledger>,
    ) -> Result<(), CampaignError> {
        let cannot = "cannot start a thread";
        for (vm, (vmm, output)) in self.ready.drain(..).enumerate() {
            let ring = Ring(self.bell.clone());
            let run = move || {
                let _ring = ring;
                vmm.run(Box::new(output), &mut Host::default(), None)
            };
            let thread = thread::Builder::new().name(format!("vm{vm}")).spawn(run);
            self.vms.push(Some(thread.map_err(host_error(cannot))?));
        }
        let period = stress.chaos.and_then(|rate| rate.kick_period());
        if let Some(period) = period.filter(|_| !stress.lockstep) {
            for (vm, rounds) in self.rounds.iter().cloned().enumerate() {
                let (ledger, vcpus) = (Arc::clone(ledger), config.vcpus.get());
                let run = move || kicks::kick(&ledger, vm, vcpus, &rounds, period);
                let thread = thread::Builder::new().name(format!("chaos{vm}")).spawn(run);
                self.threads.push(thread.map_err(host_error(cannot))?);
            }
        }
        Ok(())
    }

    fn stop(&self) {
        self.stops.iter().for_each(StopHandle::stop);
    }

    /// Waits for a VM to end, for `limit` at most; whether all have ended.
    fn wait(&mut self, limit: Duration) -> bool {
        // It does not matter which has rung, or whether any has.
        let _ = self.ended.recv_timeout(limit);
        for vm in &mut self.vms {
            let Some(thread) = vm.take_if(|thread| thread.is_finished()) else { continue };
            match thread.join() {
                Ok(report) => self.reports.push(report),
                Err(payload) => {
                    let why = format!("a VM's thread panicked: {}", panics::message(&*payload));
                    self.panicked = Some(Cut { why, exit_code: ExitCode::Thread as u8 });
                }
            }
        }
        self.vms.iter().all(Option::is_none)
    }

    /// What a VM that has ended by itself means for the campaign, if any has.
    fn cut(&self) -> Option<Cut> {
        self.panicked.clone().or_else(|| self.reports.iter().find_map(cut_of))
    }

    /// Ends all that still runs, and waits for it.
    fn finish(&mut self, ledger: &Ledger) {
        ledger.end();
        self.stop();
        while !self.wait(LOOK_MAX) {}
        ledger.close();
        for thread in self.threads.drain(..) {
            // One that kicks vCPUs; a panic of it was printed.
            let _ = thread.join();
        }
    }
}

/// Whether each of so many vCPUs has a host CPU of its own.
fn has_own_cpus(vcpus: u32, cpu_for: impl Fn(VcpuId) -> Option<usize>) -> bool {
    let mut cpus = BTreeSet::new();
    let distinct = |cpu: Option<usize>| cpu.is_none_or(|cpu| cpus.insert(cpu));
    let all = usize::try_from(vcpus).unwrap_or(usize::MAX);
    all <= affinity::cpus() && (0..vcpus).map(VcpuId).map(cpu_for).all(distinct)
}

/// Watches over the VMs.
struct Watch<'a> {
    ledger: &'a Ledger,
    stress: &'a StressConfig,
    signals: &'a Signals,
    limit: Option<Duration>,
}

impl Watch<'_> {
    /// Until all have ended. Returns what has cut the campaign short, if anything from outside did.
    fn run(&self, vms: &mut Fleet, began: Instant) -> Option<Cut> {
        let look = (self.stress.iteration_timeout / 8).clamp(LOOK_MIN, LOOK_MAX);
        let (mut cut, mut stopped) = (None, false);
        let mut ran = began.elapsed();
        let mut looked = Instant::now();
        loop {
            let ended = vms.wait(look);
            // Time in which we were stopped, or had no CPU, is not the guests'.
            let passed = looked.elapsed();
            looked = Instant::now();
            let lost = passed.saturating_sub(look + SLACK);
            ran += passed - lost;
            if !lost.is_zero() {
                self.ledger.forgive(lost);
            }
            if ended {
                return cut;
            }
            for (vm, round) in self.ledger.overdue(self.stress.iteration_timeout) {
                vms.rounds[vm].end(round);
            }
            cut = cut.or_else(|| self.cut(vms, ran));
            // One VM that cannot go on is the end of all.
            if !stopped && (cut.is_some() || vms.cut().is_some()) {
                stopped = true;
                self.ledger.end();
                vms.stop();
            }
        }
    }

    /// What ends the campaign from outside, if anything does now.
    fn cut(&self, vms: &Fleet, ran: Duration) -> Option<Cut> {
        match self.signals.try_next() {
            Some(Taken::End(signal)) => {
                let outcome = VmOutcome::Signal(signal);
                return Some(Cut { why: name_of(signal).into(), exit_code: outcome.exit_code() });
            }
            Some(Taken::Look) => vms.stops.iter().for_each(StopHandle::show_exits),
            Some(Taken::Suspend) => host::suspend(),
            Some(Taken::Continue) | None => {}
        }
        let limit = self.limit.filter(|limit| ran >= *limit)?;
        let why = format!("time-out after {}", humantime::format_duration(limit));
        Some(Cut { why, exit_code: ExitCode::TimedOut as u8 })
    }
}

fn name_of(signal: EndSignal) -> &'static str {
    match signal {
        EndSignal::Hangup => "SIGHUP",
        EndSignal::Interrupt => "SIGINT",
        EndSignal::Quit => "SIGQUIT",
        EndSignal::Terminate => "SIGTERM",
    }
}
