//! A campaign: one guest, run many times, in one VM or several. The iterations themselves go on
//! between the vCPU threads of each VM (`vcpu/repeat.rs`), which ask the [`Ledger`] for the next
//! one; here the VMs are made, watched over and brought to an end, on the main thread.

mod command;
mod kicks;
mod ledger;
mod progress;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::affinity::{self, AffinityError};
use crate::config::{GuestSource, SerialConfig, VmConfig};
use crate::console::{Console, ConsoleError, ConsoleOutput};
use crate::exit::VcpuId;
use crate::host::{self, Host, Signals, Taken};
use crate::kvm::vm::{KVM_DEVICE, KvmError, KvmVm};
use crate::outcome::{EndSignal, ExitCode, VmOutcome};
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
use progress::Progress;

/// The longest time between two looks at the VMs.
const LOOK_MAX: Duration = Duration::from_millis(100);
const LOOK_MIN: Duration = Duration::from_millis(1);

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
    /// Where the guest's output goes.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The guest's image, for the result.
    #[error("cannot read guest image '{path}': {source}")]
    Image {
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
    /// How often guests were disturbed on purpose.
    pub perturbations: u64,
    /// How often a vCPU in lockstep had to be interrupted: then the order was not the seed's alone.
    pub preemptions: u64,
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
    if let Err(error) = vms.start(config, stress, &ledger) {
        // Those that have started would go on while the caller believes that there is nothing.
        ledger.end();
        vms.stop();
        vms.join();
        return Err(error);
    }
    let progress = Progress::new(total, quiet);
    let watch = Watch { ledger: &ledger, stress, signals: &signals, limit: config.timeout, began };
    let cut = watch.run(&mut vms, progress);
    let vms = vms.join();
    drop(signals);
    let (result, totals) = ledger.take_result(|result| {
        result.add_elapsed(began.elapsed());
        if stress.iterations.is_none() {
            result.end_here();
        }
        cut.into_iter().chain(vms.iter().filter_map(cut_of)).for_each(|cut| result.add_cut(cut));
    });
    let ledger::Totals { perturbations, preemptions } = totals;
    Ok(Campaigned { result, vms, perturbations, preemptions })
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
    let guest = match &config.guest {
        GuestSource::Demo(demo) => Guest::new(&config.guest, demo.image),
        GuestSource::File(path) => {
            let image = fs::read(path).map_err(|source| CampaignError::Image {
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
        mode: config.mode,
        options: options(config, stress),
    };
    let expect = stress.expect.iter().cloned().map(Requirement::Expect);
    let forbid = stress.forbid.iter().cloned().map(Requirement::Forbid);
    let asked = stress.iterations.unwrap_or(u64::MAX);
    Ok(CampaignResult::new(guest, settings, asked, stress.shard, expect.chain(forbid)))
}

/// What else makes a difference to an iteration, as the user writes it.
fn options(config: &VmConfig, stress: &StressConfig) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut add = |name: &str, value: String| options.insert(name.to_owned(), value);
    add("load-addr", config.load_addr.to_string());
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
    threads: Vec<JoinHandle<()>>,
    ended: Receiver<VmReport>,
    sender: mpsc::Sender<VmReport>,
    reports: Vec<VmReport>,
}

impl Fleet {
    fn make(
        config: &VmConfig,
        stress: &StressConfig,
        ledger: &Arc<Ledger>,
        mut setup: TraceSetup,
    ) -> Result<Self, CampaignError> {
        let (sender, ended) = mpsc::channel();
        let (ready, stops, rounds) = (Vec::new(), Vec::new(), Vec::new());
        let (threads, reports) = (Vec::new(), Vec::new());
        let mut fleet = Self { ready, stops, rounds, threads, ended, sender, reports };
        let cpu_for = affinity::plan(config.pin.as_ref())?;
        let vcpus = config.vcpus.get();
        let all = vcpus.saturating_mul(stress.jobs);
        affinity::allow_open_files(stress.jobs, vcpus);
        let cpus = affinity::cpus();
        let own_cpus = usize::try_from(all).is_ok_and(|all| all <= cpus);
        if config.pin.is_some() && !own_cpus {
            log::warn!(
                target: "minivmm",
                "{all} vCPUs share {cpus} CPUs: those on the same one do not run at the same time"
            );
        }
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
            let keep = config.serial == SerialConfig::Kept;
            let vmm = Vmm::repeating(kvm, config.vcpus, cpu_for, tracer, setup, keep)?;
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
            let ended = self.sender.clone();
            let run = move || {
                let report = vmm.run(Box::new(output), &mut Host::default(), None);
                // The main thread waits for it.
                let _ = ended.send(report);
            };
            let thread = thread::Builder::new().name(format!("vm{vm}")).spawn(run);
            self.threads.push(thread.map_err(host_error(cannot))?);
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
        match self.ended.recv_timeout(limit) {
            Ok(report) => self.reports.push(report),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.reports.len() == self.stops.len()
    }

    fn join(self) -> Vec<VmReport> {
        for thread in self.threads {
            // A VM's thread reports before it ends; a panic of it was printed.
            let _ = thread.join();
        }
        self.reports
    }
}

/// Watches over the VMs.
struct Watch<'a> {
    ledger: &'a Ledger,
    stress: &'a StressConfig,
    signals: &'a Signals,
    limit: Option<Duration>,
    began: Instant,
}

impl Watch<'_> {
    /// Until all have ended. Returns what has cut the campaign short, if anything from outside did.
    fn run(&self, vms: &mut Fleet, mut progress: Progress) -> Option<Cut> {
        let look = (self.stress.iteration_timeout / 8).clamp(LOOK_MIN, LOOK_MAX);
        let mut cut = None;
        loop {
            let ended = vms.wait(look);
            for story in self.ledger.take_stories() {
                progress.say(&format!("minivmm: {story}"));
            }
            if ended {
                progress.finish();
                return cut;
            }
            let (run, failed) = self.ledger.progress();
            progress.show(run, failed);
            for (vm, round) in self.ledger.overdue(self.stress.iteration_timeout) {
                vms.rounds[vm].end(round);
            }
            if let Some(why) = self.cut(vms, cut.is_some()) {
                cut = cut.or(Some(why));
                self.ledger.end();
                vms.stop();
            } else if vms.reports.iter().any(|report| cut_of(report).is_some()) {
                // One VM that cannot go on is the end of all.
                self.ledger.end();
                vms.stop();
            }
        }
    }

    /// What ends the campaign from outside, if anything does now.
    fn cut(&self, vms: &Fleet, is_cut: bool) -> Option<Cut> {
        match self.signals.try_next() {
            Some(Taken::End(signal)) => {
                let outcome = VmOutcome::Signal(signal);
                return Some(Cut { why: name_of(signal).into(), exit_code: outcome.exit_code() });
            }
            Some(Taken::Look) => vms.stops.iter().for_each(StopHandle::show_exits),
            Some(Taken::Suspend) => host::suspend(),
            Some(Taken::Continue) | None => {}
        }
        let limit = self.limit.filter(|limit| !is_cut && self.began.elapsed() >= *limit)?;
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
