//! One VM run in this process, in two ways: by minivmm, and by a bare loop around KVM_RUN that
//! serves port I/O inline on the vCPU's thread, which is the least that a VMM can do. Both have
//! the same memory, image, CPUID and registers, and are timed alike: on the vCPUs' own threads,
//! from before the first KVM_RUN of any to after the last of all.

use std::any::Any;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use minivmm::affinity;
use minivmm::boot::{self, BootedGuest};
use minivmm::config::{GuestSource, Pinning, Register, VcpuCount, VmConfig};
use minivmm::console::Output;
use minivmm::devices::setup::DeviceSetup;
use minivmm::exit::{VcpuId, VmExit};
use minivmm::host::Host;
use minivmm::kvm::cpuid::{self, CpuidTemplate};
use minivmm::kvm::entry::{apply_sregs, to_kvm_regs};
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::outcome::VmOutcome;
use minivmm::report::VmReport;
use minivmm::sync::Mutex;
use minivmm::trace::clock::Counter;
use minivmm::trace::tracer::{TraceSetup, Tracer};
use minivmm::vcpu::registers::Registers;
use minivmm::vcpu::{BuildVcpu, Kick, VcpuError, VcpuRun};
use minivmm::vmm::Vmm;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// LSR with the transmitter empty, which is what a UART that has sent everything says.
const LSR_IDLE: u8 = 0x60;

/// Where minivmm puts the pages that VMX needs for its real mode.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A demo guest on so many vCPUs that iterates so many times on each.
pub fn config(demo: &str, vcpus: u32, iterations: u32) -> Result<VmConfig, Box<dyn Error>> {
    let demo = minivmm_guests::find(demo).ok_or("no such demo")?;
    let mut config = VmConfig::new(GuestSource::Demo(demo));
    config.vcpus = VcpuCount::new(vcpus)?;
    config.regs.push((Register::Rbp, u64::from(iterations)));
    Ok(config)
}

/// Runs the guest under minivmm until all its vCPUs have halted, tracing what `setup` says; how
/// long that took.
pub fn run_minivmm(
    config: &VmConfig,
    output: impl Output + 'static,
    setup: TraceSetup,
) -> Result<(Duration, VmReport), Box<dyn Error>> {
    let vm = KvmVm::new(Path::new(KVM_DEVICE), config)?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let builder = TimedVm { vm, times: Arc::clone(&times) };
    let tracer = Tracer::new(setup, config.vcpus.get());
    let (cpu_for, devices) = (affinity::plan(Some(&Pinning::Auto))?, DeviceSetup::default());
    let vmm = Vmm::new(builder, config.vcpus, cpu_for, tracer, devices)?;
    let report = vmm.run(Box::new(output), &mut Host::default(), None);
    match report.outcome {
        VmOutcome::AllHalted => Ok((span(&times.lock()), report)),
        outcome => Err(outcome.to_string().into()),
    }
}

/// Runs the guest in bare loops; every byte that a vCPU sends goes to the function that `sink`
/// makes for it, inline. How long that took.
pub fn run_inline<S: FnMut(u8) + Send>(
    config: &VmConfig,
    sink: impl Fn() -> S,
) -> Result<Duration, Box<dyn Error>> {
    let vm = BareVm::new(config)?;
    let vcpus = vm.vcpus(config)?;
    let gate = Barrier::new(vcpus.len());
    let cpu_for = affinity::plan(Some(&Pinning::Auto))?;
    let times: Result<Vec<_>, _> = thread::scope(|scope| {
        let run = |(id, mut vcpu)| {
            let (gate, sink, cpu) = (&gate, sink(), cpu_for(VcpuId(id)));
            move || {
                bind_to(cpu)?;
                gate.wait();
                let started = Instant::now();
                run_vcpu(&mut vcpu, sink).map(|()| started..Instant::now())
            }
        };
        let threads: Vec<_> = (0..).zip(vcpus).map(|vcpu| scope.spawn(run(vcpu))).collect();
        let join = |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(panicked);
        threads.into_iter().map(join).collect()
    });
    Ok(span(&times?))
}

/// Both sides bind their vCPU threads to the same CPUs in turn: where the scheduler happens to
/// put them would else be a larger difference than the one that is measured.
fn bind_to(cpu: Option<usize>) -> Result<(), String> {
    let mut cpus = CpuSet::new();
    let bound = cpu.map_or(Ok(()), |cpu| {
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)
    });
    bound.map_err(|error| format!("cannot bind a thread to a CPU: {error}"))
}

/// From the first start to the last end.
fn span(times: &[Range<Instant>]) -> Duration {
    let started = times.iter().map(|time| time.start).min();
    let ended = times.iter().map(|time| time.end).max();
    started.zip(ended).map_or(Duration::ZERO, |(started, ended)| ended - started)
}

fn panicked<T>(_: Box<dyn Any + Send>) -> Result<T, String> {
    Err("a vCPU's thread panicked".into())
}

fn run_vcpu(vcpu: &mut VcpuFd, mut sink: impl FnMut(u8)) -> Result<(), String> {
    loop {
        match vcpu.run().map_err(|error| format!("KVM_RUN: {error}"))? {
            VcpuExit::IoOut(_, data) => data.iter().for_each(|&byte| sink(byte)),
            VcpuExit::IoIn(_, data) => data.fill(LSR_IDLE),
            VcpuExit::Hlt => return Ok(()),
            exit => return Err(format!("unexpected exit {exit:?}")),
        }
    }
}

/// Makes KVM's vCPUs, and has them timed.
struct TimedVm {
    vm: KvmVm,
    times: Arc<Mutex<Vec<Range<Instant>>>>,
}

impl BuildVcpu for TimedVm {
    type Vcpu = TimedVcpu;

    fn build(&self, id: VcpuId) -> Result<TimedVcpu, VcpuError> {
        let vcpu = self.vm.build(id)?;
        Ok(TimedVcpu { vcpu, started: None, times: Arc::clone(&self.times) })
    }

    fn counter(&self) -> Option<Counter> {
        self.vm.counter()
    }
}

/// A vCPU that notes when it first ran and when it halted.
struct TimedVcpu {
    vcpu: KvmVcpu,
    started: Option<Instant>,
    times: Arc<Mutex<Vec<Range<Instant>>>>,
}

impl VcpuRun for TimedVcpu {
    fn run(&mut self) -> io::Result<VmExit> {
        let started = *self.started.get_or_insert_with(Instant::now);
        let exit = self.vcpu.run()?;
        if exit == VmExit::Hlt {
            self.times.lock().push(started..Instant::now());
        }
        Ok(exit)
    }

    fn data(&mut self) -> &mut [u8] {
        self.vcpu.data()
    }

    fn rip(&mut self) -> Option<u64> {
        self.vcpu.rip()
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        self.vcpu.registers()
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        self.vcpu.kicker()
    }
}

/// A VM as the KVM API's document has it, and nothing around it.
struct BareVm {
    // Dropped in this order: the VM must not outlive the memory that it maps.
    vm: VmFd,
    guest: BootedGuest,
    cpuid: CpuidTemplate,
}

impl BareVm {
    fn new(config: &VmConfig) -> Result<Self, Box<dyn Error>> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let gib_pages = cpuid::has_gib_pages(supported.as_slice(), &config.platform.cpu);
        let guest = boot::load(config, gib_pages)?;
        for (slot, region) in (0..).zip(guest.memory.regions()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.gpa.0,
                memory_size: region.len,
                userspace_addr: region.host_addr,
            };
            // SAFETY: the region is a mapping of `guest.memory`, which `BareVm` keeps until
            // after the VM is closed, and the regions do not overlap.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        vm.set_tss_address(TSS_ADDRESS)?;
        let entries = supported.as_slice().to_vec();
        let cpuid = CpuidTemplate::new(entries, config.topology()?, None)?;
        Ok(Self { vm, guest, cpuid })
    }

    fn vcpus(&self, config: &VmConfig) -> Result<Vec<VcpuFd>, Box<dyn Error>> {
        (0..config.vcpus.get()).map(|id| Ok(self.vcpu(VcpuId(id))?)).collect()
    }

    fn vcpu(&self, id: VcpuId) -> Result<VcpuFd, kvm_ioctls::Error> {
        let vcpu = self.vm.create_vcpu(u64::from(id.0))?;
        vcpu.set_cpuid2(&self.cpuid.for_vcpu(id))?;
        let state = self.guest.entry.state(id);
        let mut sregs = vcpu.get_sregs()?;
        apply_sregs(&state, &mut sregs);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&to_kvm_regs(&state.regs))?;
        Ok(vcpu)
    }
}
