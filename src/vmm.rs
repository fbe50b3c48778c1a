//! The VM as a whole: the only place that knows every thread. It starts them, waits for the
//! first terminal event, stops them, and puts together how the run came out. Runs on the main
//! thread. docs/concurrency.md has the timeline.
//!
//! Who waits for whom: the vCPU threads for the devices, the device thread for the host that
//! reads the output, the supervisor for all of them. For the supervisor ended vCPU threads wait,
//! at the exit gate, and those at a turnstile that will not open; it sees to both on every path.

mod end;
mod outside;
mod verdict;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bus::BusError;
use crate::config::VcpuCount;
use crate::console::{ConsoleOutput, Output, OutputReport};
use crate::devices::DeviceSet;
use crate::devices::queue::DeviceQueue;
use crate::devices::setup::DeviceSetup;
use crate::devices::thread::{DeviceControl, DeviceThread};
use crate::events::{self, Event, EventReceiver, EventSender};
use crate::exit::VcpuId;
use crate::host::{Host, Wake};
use crate::kvm::{kick, slice};
use crate::outcome::VmOutcome;
use crate::panics;
use crate::report::VmReport;
use crate::trace::record::Source;
use crate::trace::tracer::{RecorderMaker, TraceEvent, Tracer};
use crate::vcpu::handle::vcpu_life;
use crate::vcpu::intr::SplitInterrupts;
use crate::vcpu::registers::Registers;
use crate::vcpu::repeat::{Repeat, RepeatSetup};
use crate::vcpu::rounds::Rounds;
use crate::vcpu::shared::{Shared, VcpuSeat};
use crate::vcpu::state::{Gate, VcpuControl};
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError};
pub use outside::RoundHandle;
use verdict::Verdict;

/// Accesses that may be on their way to the devices at once.
const QUEUE_CAPACITY: usize = 1024;
/// How long a thread may take to stop before it counts as stuck. Stopping takes microseconds;
/// this is for a host that is very busy.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long after the guest's start the trace's clock becomes a cheaper one. To find out whether
/// there is one costs the host a percent of the time to the guest's first byte, which is out by
/// then, and a guest that has ended by then has few exits to pay for.
const COUNTER_DELAY: Duration = Duration::from_millis(5);

/// Why there is no VM to run.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The devices do not fit together.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No descriptor for the event bell.
    #[error("cannot make an event descriptor: {0}")]
    Events(io::Error),
}

/// A VM that is ready to start.
#[derive(Debug)]
pub struct Vmm<B> {
    shared: Arc<Shared<B>>,
    vcpus: Vec<Vcpu>,
    /// How many of them have a thread that has not reported its end.
    running: usize,
    device_control: Arc<DeviceControl>,
    device_thread: Option<JoinHandle<()>>,
    /// Where the ports besides COM1 send, until the device thread has them.
    port_outputs: Vec<ConsoleOutput>,
    output: Option<OutputReport>,
    tracer: Tracer,
    /// How the trace's writer has ended.
    trace_end: Option<io::Result<()>>,
    /// Writes the flight recorders to standard error.
    showing: Option<JoinHandle<()>>,
    /// When the guest started.
    started: Option<Instant>,
    /// When to look for a counter for the trace's clock, once the guest has started.
    counter_due: Option<Instant>,
    /// Somebody outside wants an end, be it decided already or not.
    stop_requested: bool,
    events: EventReceiver,
    sender: EventSender,
    stop_limit: Duration,
    /// A field so that a test can be a host without threads to give.
    spawn: Spawn,
}

/// How a thread is started: its name and what it does.
type Spawn = fn(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// What the supervisor has of one vCPU.
#[derive(Debug)]
struct Vcpu {
    cpu: Option<usize>,
    control: Arc<VcpuControl>,
    thread: Option<JoinHandle<()>>,
    ended: bool,
    registers: Option<Box<Registers>>,
}

/// Stops a VM, or has it shown, from any thread.
#[derive(Clone, Debug)]
pub struct StopHandle(EventSender);

impl StopHandle {
    /// Asks the VM to stop.
    pub fn stop(&self) {
        self.0.send(Event::StopRequested);
    }

    /// Has the VM's last exits shown on standard error.
    pub fn show_exits(&self) {
        self.0.send(Event::LookRequested);
    }
}

impl<B: BuildVcpu + 'static> Vmm<B> {
    /// A VM of `vcpus` vCPUs that `builder` makes, the thread of each bound to the host CPU
    /// that `cpu_for` gives. `tracer` records what it does; `devices` says which devices it has.
    ///
    /// # Errors
    ///
    /// See [`VmmError`].
    pub fn new(
        builder: B,
        vcpus: VcpuCount,
        cpu_for: impl Fn(VcpuId) -> Option<usize>,
        tracer: Tracer,
        devices: DeviceSetup,
    ) -> Result<Self, VmmError> {
        Self::with(builder, vcpus, cpu_for, tracer, devices, None)
    }

    /// The same, for a VM that runs its guest as often as `repeat` has it.
    ///
    /// # Errors
    ///
    /// See [`VmmError`].
    pub fn repeating(
        builder: B,
        vcpus: VcpuCount,
        cpu_for: impl Fn(VcpuId) -> Option<usize>,
        tracer: Tracer,
        devices: DeviceSetup,
        repeat: RepeatSetup,
    ) -> Result<Self, VmmError> {
        let repeat = Repeat::new(repeat, vcpus.get());
        Self::with(builder, vcpus, cpu_for, tracer, devices, Some(repeat))
    }

    fn with(
        builder: B,
        vcpus: VcpuCount,
        cpu_for: impl Fn(VcpuId) -> Option<usize>,
        tracer: Tracer,
        devices: DeviceSetup,
        repeat: Option<Repeat>,
    ) -> Result<Self, VmmError> {
        let (sender, events) = events::channel().map_err(VmmError::Events)?;
        let vcpus: Vec<_> = (0..vcpus.get()).map(|id| Vcpu::new(cpu_for(VcpuId(id)))).collect();
        let controls: Vec<_> = vcpus.iter().map(|vcpu| Arc::clone(&vcpu.control)).collect();
        let interrupts = builder.local_apics().map(|apics| SplitInterrupts::new(apics, &controls));
        let irqchip = interrupts.as_ref().map(|interrupts| Arc::clone(&interrupts.irqchip));
        let mut line = |irq| {
            let line = match &irqchip {
                Some(irqchip) => irqchip.line(irq),
                None => builder.irq_line(irq),
            };
            tracer.irq_line(irq, line)
        };
        let devices =
            DeviceSet::new(DeviceSetup { irqchip: irqchip.clone(), ..devices }, &mut line)?;
        let posting = devices.post_policy();
        let queue = DeviceQueue::new(devices, QUEUE_CAPACITY);
        kick::install_handler();
        Ok(Self {
            shared: Arc::new(Shared {
                queue,
                posting,
                rounds: Rounds::new(controls.iter().cloned()),
                controls,
                interrupts,
                repeat,
                exit: Gate::new(),
                builder,
            }),
            vcpus,
            running: 0,
            device_control: Arc::default(),
            device_thread: None,
            port_outputs: Vec::new(),
            output: None,
            tracer,
            trace_end: None,
            showing: None,
            started: None,
            counter_due: None,
            stop_requested: false,
            events,
            sender,
            stop_limit: STOP_LIMIT,
            spawn: |name, body| thread::Builder::new().name(name).spawn(body),
        })
    }

    /// Has the ports besides COM1 whose output is written send to these, in their order.
    pub fn connect_ports(&mut self, outputs: Vec<ConsoleOutput>) {
        self.port_outputs = outputs;
    }

    /// What stops this VM.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.sender.clone())
    }

    /// What ends an iteration of this VM, or disturbs it.
    pub fn round_handle(&self) -> RoundHandle {
        RoundHandle::to(&self.shared)
    }

    /// Runs the VM to its end. The guest may run for `limit`, counted from its start.
    pub fn run(
        mut self,
        output: Box<dyn Output>,
        host: &mut Host,
        limit: Option<Duration>,
    ) -> VmReport {
        let mut verdict = Verdict::default();
        self.start(output, &mut verdict);
        // After the threads have been spawned, which would inherit it.
        slice::prefer_short();
        self.supervise(host, limit, &mut verdict);
        let ran = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        self.stop_vcpus(host, limit, &mut verdict);
        self.finish_output(host, limit, &mut verdict);
        self.finish_trace(host, limit, &mut verdict);
        // Before the VM and its memory go, which takes time.
        host.terminal = None;
        self.join(verdict, ran)
    }

    /// Starts all threads; the vCPUs' start the guest when all of them are ready. What fails is in
    /// the verdict.
    fn start(&mut self, output: Box<dyn Output>, verdict: &mut Verdict) {
        if let Err(error) = self.start_trace_writer() {
            verdict.consider(VmOutcome::ThreadNotStarted { thread: "trace's writer", error });
            return;
        }
        for (id, vcpu) in (0..).map(VcpuId).zip(&mut self.vcpus) {
            let seat = VcpuSeat {
                id,
                cpu: vcpu.cpu,
                control: Arc::clone(&vcpu.control),
                events: self.sender.clone(),
                tracing: self.tracer.vcpu_tracing(id),
            };
            let life = vcpu_life(Arc::clone(&self.shared), seat);
            match (self.spawn)(format!("vcpu{}", id.0), Box::new(life)) {
                Ok(thread) => {
                    vcpu.thread = Some(thread);
                    self.running += 1;
                }
                Err(error) => {
                    let error = VcpuError::Spawn(error);
                    verdict.consider(VmOutcome::VcpuFailed { vcpu: id, error });
                    return;
                }
            }
        }
        // Second, so that the vCPUs get ready meanwhile.
        match self.spawn_device_thread(output) {
            Ok(thread) => self.device_thread = Some(thread),
            Err(error) => {
                verdict.consider(VmOutcome::ThreadNotStarted { thread: "device thread", error })
            }
        }
    }

    /// When the guest's time is over, if it is limited and the guest has started.
    fn deadline(&self, limit: Option<Duration>) -> Option<Instant> {
        self.started?.checked_add(limit?)
    }

    fn spawn_device_thread(&mut self, output: Box<dyn Output>) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let control = Arc::clone(&self.device_control);
        let events = self.sender.clone();
        let recorders = self.tracer.recorders(Source::Devices);
        let ports = std::mem::take(&mut self.port_outputs).into_iter();
        let ports = ports.map(|port| -> Box<dyn Output> { Box::new(port) });
        let life = move || {
            let serve = std::panic::AssertUnwindSafe(|| {
                let on_event = |event| events.send(event);
                let recorder = recorders.as_ref().map(RecorderMaker::make);
                let thread = DeviceThread::new(&shared.queue, &control, output, on_event, recorder);
                thread.with_ports(ports).run()
            });
            let end = std::panic::catch_unwind(serve);
            events.send(Event::DevicesEnded(end.map_err(|payload| panics::message(&*payload))));
        };
        (self.spawn)("devices".into(), Box::new(life))
    }

    fn start_trace_writer(&mut self) -> io::Result<()> {
        let (spawn, events) = (self.spawn, self.sender.clone());
        let on_event = move |event| events.send(Event::Trace(event));
        self.tracer.start_writer(|body| spawn("trace".into(), body), on_event)
    }

    /// Waits for the first terminal event.
    fn supervise(&mut self, host: &mut Host, limit: Option<Duration>, verdict: &mut Verdict) {
        while verdict.outcome.is_none() {
            let deadline = self.deadline(limit);
            let until = deadline.into_iter().chain(self.counter_due).min();
            let wake = host.wait(&self.events, &self.shared.queue, until);
            // What the VM itself has reported by now came first, whatever woke us; and all of it
            // is looked at before the first of it decides, so that an error beats a success
            // that came just before it.
            self.note_queued(verdict);
            if verdict.outcome.is_some() {
                return;
            }
            match wake {
                Ok(Wake::Events) => {}
                Ok(Wake::Signal(signal)) => verdict.consider(VmOutcome::Signal(signal)),
                Ok(Wake::Quit) => verdict.consider(VmOutcome::Quit),
                Ok(Wake::Look) => self.show_flight_recorders(),
                Ok(Wake::Deadline) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    self.look_for_counter();
                }
                Ok(Wake::Deadline) => {
                    verdict.consider(VmOutcome::TimedOut(limit.unwrap_or_default()));
                }
                Err(error) => verdict.consider(VmOutcome::SupervisorFailed(error)),
            }
        }
    }

    fn look_for_counter(&mut self) {
        self.counter_due = None;
        if let Some(counter) = self.shared.builder.counter() {
            self.tracer.use_counter(counter);
        }
    }

    fn note_queued(&mut self, verdict: &mut Verdict) {
        while let Ok(event) = self.events.events().try_recv() {
            self.note(event, verdict);
        }
    }

    /// Takes note of one event.
    fn note(&mut self, event: Event, verdict: &mut Verdict) {
        match event {
            Event::Started(at) => {
                self.started = Some(at);
                self.counter_due = Some(at + COUNTER_DELAY);
            }
            Event::VcpuEnded(id, end) => {
                self.vcpus[id.index()].ended = true;
                self.running -= 1;
                self.note_end(id, end, verdict);
            }
            Event::OutputFailed(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                verdict.consider_output(VmOutcome::OutputClosed);
            }
            Event::OutputFailed(error) => verdict.consider_output(VmOutcome::OutputFailed(error)),
            Event::DevicesEnded(Ok(report)) => self.output = Some(report),
            Event::DevicesEnded(Err(message)) => {
                self.output = Some(OutputReport::default());
                verdict.consider_output(VmOutcome::DeviceThreadFailed(message));
            }
            Event::Trace(TraceEvent::Failed(error)) => self.note_trace_failure(error, verdict),
            Event::Trace(TraceEvent::Ended(end)) => self.trace_end = Some(end),
            Event::StopRequested => {
                self.stop_requested = true;
                verdict.consider(VmOutcome::Stopped);
            }
            Event::LookRequested => self.show_flight_recorders(),
            Event::InputRoom => {}
        }
    }

    fn note_end(&mut self, vcpu: VcpuId, end: VcpuEnd, verdict: &mut Verdict) {
        log::debug!(target: "minivmm::vcpu", "{vcpu} has ended: {end:?}");
        match end {
            VcpuEnd::Halted => {
                verdict.halted += 1;
                if verdict.halted == self.vcpus.len() {
                    verdict.consider(VmOutcome::AllHalted);
                }
            }
            VcpuEnd::Stopped { registers } => self.vcpus[vcpu.index()].registers = registers,
            VcpuEnd::Failed { error, registers } => {
                self.vcpus[vcpu.index()].registers = registers;
                verdict.consider(VmOutcome::VcpuFailed { vcpu, error });
            }
            end => verdict.consider(VmOutcome::of_end(vcpu, end)),
        }
    }
}

impl Vcpu {
    fn new(cpu: Option<usize>) -> Self {
        Self { cpu, control: Arc::default(), thread: None, ended: false, registers: None }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
