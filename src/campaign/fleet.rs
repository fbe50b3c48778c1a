//! The VMs of a campaign: how they are made, and the threads that they and their kicks run on, from
//! the start to the last end. When one is to end is not decided here, but in `watch.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::kicks;
use super::ledger::Ledger;
use super::{CampaignError, host_error};
use crate::affinity;
use crate::config::{SerialConfig, VmConfig};
use crate::console::{self, Console, ConsoleOutput};
use crate::devices::setup::DeviceSetup;
use crate::exit::VcpuId;
use crate::host::Host;
use crate::kvm::vm::{KVM_DEVICE, KvmVm};
use crate::outcome::{ExitCode, VmOutcome};
use crate::panics;
use crate::report::VmReport;
use crate::stress::config::StressConfig;
use crate::stress::result::Cut;
use crate::trace::tracer::{TraceSetup, Tracer};
use crate::vcpu::repeat::RepeatSetup;
use crate::vmm::{RoundHandle, StopHandle, Vmm};

/// The longest time between two looks at the VMs.
pub(super) const LOOK_MAX: Duration = Duration::from_millis(100);

/// The campaign's VMs.
pub(super) struct Fleet {
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
    /// Makes the VMs, which do not run yet.
    pub(super) fn make(
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

    /// Starts the VMs, and what kicks them if there is chaos.
    pub(super) fn start(
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

    /// Asks all VMs to stop.
    pub(super) fn stop(&self) {
        self.stops.iter().for_each(StopHandle::stop);
    }

    /// Ends a round of a VM.
    pub(super) fn end_round(&self, vm: usize, round: u64) {
        self.rounds[vm].end(round);
    }

    /// Has all VMs show the last exits of their vCPUs.
    pub(super) fn show_exits(&self) {
        self.stops.iter().for_each(StopHandle::show_exits);
    }

    /// How each VM has come to its end, of those that have.
    pub(super) fn into_reports(self) -> Vec<VmReport> {
        self.reports
    }

    /// Waits for a VM to end, for `limit` at most; whether all have ended.
    pub(super) fn wait(&mut self, limit: Duration) -> bool {
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
    pub(super) fn cut(&self) -> Option<Cut> {
        self.panicked.clone().or_else(|| self.reports.iter().find_map(cut_of))
    }

    /// Ends all that still runs, and waits for it.
    pub(super) fn finish(&mut self, ledger: &Ledger) {
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

/// What a VM's own end means for the campaign, if it ended by itself.
fn cut_of(report: &VmReport) -> Option<Cut> {
    match &report.outcome {
        VmOutcome::AllHalted | VmOutcome::Stopped => None,
        outcome => Some(Cut { why: outcome.to_string(), exit_code: outcome.exit_code() }),
    }
}
