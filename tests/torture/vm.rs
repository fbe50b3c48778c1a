//! VMs of this process, on real KVM, of which every byte is counted: by the vCPU when KVM hands it
//! over, and by the output.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use minivmm::config::{GuestSource, Register, VcpuCount, VmConfig};
use minivmm::console::Output;
use minivmm::devices::setup::DeviceSetup;
use minivmm::exit::{Direction, PioAddr, VcpuId, VmExit};
use minivmm::host::Host;
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::report::VmReport;
use minivmm::stress::config::StressConfig;
use minivmm::sync::Mutex;
use minivmm::trace::tracer::{TraceSetup, Tracer};
use minivmm::vcpu::registers::Registers;
use minivmm::vcpu::repeat::RepeatSetup;
use minivmm::vcpu::{BuildVcpu, Kick, VcpuError, VcpuRun};
use minivmm::vmm::Vmm;

use crate::theme::INJECTED;

/// Makes KVM's vCPUs and taps them.
pub struct TappedVm {
    vm: KvmVm,
    tap: Arc<Tap>,
}

/// What is known of a VM's vCPUs, and what is done to them.
#[derive(Default)]
struct Tap {
    sent: AtomicU64,
    /// Which vCPU panics at its exit of which number, counted from 0.
    panic_at: Option<(VcpuId, u64)>,
}

/// A vCPU whose bytes to the UART are counted.
pub struct TappedVcpu {
    vcpu: KvmVcpu,
    id: VcpuId,
    exits: u64,
    tap: Arc<Tap>,
}

impl BuildVcpu for TappedVm {
    type Vcpu = TappedVcpu;

    fn build(&self, id: VcpuId) -> Result<TappedVcpu, VcpuError> {
        let vcpu = self.vm.build(id)?;
        Ok(TappedVcpu { vcpu, id, exits: 0, tap: Arc::clone(&self.tap) })
    }

    fn reset(&self) -> io::Result<()> {
        self.vm.reset()
    }
}

impl VcpuRun for TappedVcpu {
    fn run(&mut self) -> io::Result<VmExit> {
        let exit = self.vcpu.run()?;
        let number = self.exits;
        self.exits += 1;
        if self.tap.panic_at == Some((self.id, number)) {
            panic!("{INJECTED}: {} at exit {number}", self.id);
        }
        if let VmExit::Pio(pio) = &exit
            && pio.port == PioAddr(0x3f8)
            && pio.direction == Direction::Write
        {
            self.tap.sent.fetch_add(pio.count.into(), Ordering::Relaxed);
        }
        Ok(exit)
    }

    fn data(&mut self) -> &mut [u8] {
        self.vcpu.data()
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        self.vcpu.registers()
    }

    fn reset(&mut self) -> io::Result<()> {
        self.vcpu.reset()
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        self.vcpu.kicker()
    }
}

/// A demo guest on so many vCPUs that iterates so many times on each; 0 for its own number.
pub fn guest(demo: &str, vcpus: u32, iterations: u64) -> VmConfig {
    let mut config = VmConfig::new(GuestSource::Demo(minivmm_guests::find(demo).unwrap()));
    config.vcpus = VcpuCount::new(vcpus).unwrap();
    config.regs.push((Register::Rbp, iterations));
    config
}

/// A VM that has not run.
pub struct TestVm {
    pub vmm: Vmm<TappedVm>,
    tap: Arc<Tap>,
}

/// A VM that has run.
pub struct Ran {
    pub report: VmReport,
    /// What the output has taken.
    pub received: Vec<u8>,
    sent: u64,
}

impl TestVm {
    pub fn new(config: &VmConfig) -> Self {
        Self::with(config, None, None)
    }

    /// One of whose vCPUs panics at its exit of this number.
    pub fn panicking(config: &VmConfig, vcpu: VcpuId, exit: u64) -> Self {
        Self::with(config, Some((vcpu, exit)), None)
    }

    /// One that runs its guest again and again; the output goes to the campaign.
    pub fn repeating(
        config: &VmConfig,
        panic_at: Option<(VcpuId, u64)>,
        repeat: RepeatSetup,
    ) -> Self {
        Self::with(config, panic_at, Some(repeat))
    }

    fn with(
        config: &VmConfig,
        panic_at: Option<(VcpuId, u64)>,
        repeat: Option<RepeatSetup>,
    ) -> Self {
        let mut config = config.clone();
        config.stress = repeat.is_some().then(StressConfig::default);
        let tap = Arc::new(Tap { panic_at, ..Tap::default() });
        let vm = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap();
        let builder = TappedVm { vm, tap: Arc::clone(&tap) };
        let tracer = Tracer::new(TraceSetup::default(), config.vcpus.get());
        let devices = DeviceSetup::default();
        let vmm = match repeat {
            None => Vmm::new(builder, config.vcpus, |_| None, tracer, devices),
            Some(repeat) => {
                let devices = DeviceSetup { keep_output: true, ..devices };
                Vmm::repeating(builder, config.vcpus, |_| None, tracer, devices, repeat)
            }
        };
        Self { vmm: vmm.unwrap(), tap }
    }

    /// Has it stopped by another thread after `delay`.
    pub fn stop_after(&self, delay: Duration) -> thread::JoinHandle<()> {
        let stop = self.vmm.stop_handle();
        thread::spawn(move || {
            thread::sleep(delay);
            stop.stop();
        })
    }

    /// Runs it on an output that takes everything.
    #[track_caller]
    pub fn run(self) -> Ran {
        self.run_on(|bytes| Ok(bytes.len()))
    }

    /// Runs it; `write` is its output. Fails if a byte is unaccounted for.
    #[track_caller]
    pub fn run_on(self, write: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> Ran {
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink { write, received: Arc::clone(&received) };
        let report = self.vmm.run(Box::new(sink), &mut Host::default(), None);
        let received = std::mem::take(&mut *received.lock());
        let ran = Ran { report, received, sent: self.tap.sent.load(Ordering::Relaxed) };
        let output = &ran.report.output;
        assert_eq!(output.written, u64::try_from(ran.received.len()).unwrap());
        assert_eq!(
            output.written + output.lost,
            ran.sent,
            "written, lost and sent; {}",
            ran.report.outcome
        );
        ran
    }

    /// Runs one whose output goes to its campaign.
    pub fn run_campaign(self) -> VmReport {
        let no_output = |_: &[u8]| -> io::Result<usize> { panic!("output is kept") };
        let sink = Sink { write: no_output, received: Arc::default() };
        self.vmm.run(Box::new(sink), &mut Host::default(), None)
    }
}

/// An output in a closure.
struct Sink<F> {
    write: F,
    received: Arc<Mutex<Vec<u8>>>,
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Send> Output for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = (self.write)(bytes)?;
        self.received.lock().extend(&bytes[..len]);
        Ok(len)
    }
}

/// The output of a storm guest that was cut short: bytes that each vCPU has sent in order, from its
/// first, at most `each`.
#[track_caller]
pub fn assert_is_storm_cut_short(vcpus: u32, each: usize, bytes: &[u8]) {
    let mut sent = [0; 16];
    for (position, byte) in bytes.iter().enumerate() {
        let vcpu = usize::from(byte >> 4);
        assert_eq!(usize::from(byte & 15), sent[vcpu] % 16, "byte {position} is out of order");
        sent[vcpu] += 1;
    }
    for (vcpu, sent) in (0..).zip(sent) {
        let due = if vcpu < vcpus { each } else { 0 };
        assert!(sent <= due, "{sent} bytes of vCPU {vcpu}");
    }
}
