//! The kick: the product's `VcpuControl` and run loop, with a model of KVM_RUN and of signals
//! in the place of the kernel.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use minivmm::devices::DeviceSet;
use minivmm::devices::queue::DeviceQueue;
use minivmm::devices::setup::DeviceSetup;
use minivmm::exit::{VcpuId, VmExit};
use minivmm::irq::{LocalApics, Message};
use minivmm::sync::{AtomicBool, Condvar, Mutex, Ordering};
use minivmm::trace::tracer::{TraceSetup, Tracer};
use minivmm::vcpu::intr::SplitInterrupts;
use minivmm::vcpu::registers::Registers;
use minivmm::vcpu::runner::Runner;
use minivmm::vcpu::state::VcpuControl;
use minivmm::vcpu::{Kick, VcpuEnd, VcpuRun};

use crate::explore;

/// What can be wrong with a kick, or with the vCPU's answer to it.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The kick is a signal only.
    NoImmediateExit,
    /// The kick sends its signal before it sets `immediate_exit`.
    SignalFirst,
    /// `immediate_exit` is taken back before KVM_RUN, and so after the request was looked at.
    ClearedAtEntry,
    /// Taking it back does not order what comes after it.
    ClearedRelaxed,
    /// The vCPU is dropped while it can still be kicked.
    DroppedFirst,
}

/// What KVM and the kernel have of a vCPU and its thread.
struct Machine {
    flaw: Flaw,
    immediate_exit: AtomicBool,
    /// The kernel's lock of a thread's signals: one that is handled orders its sender's past
    /// before what the thread does next.
    signal: Mutex<Signal>,
    sent: Condvar,
    /// The vCPU has been dropped.
    gone: AtomicBool,
}

#[derive(Default)]
struct Signal {
    /// The thread is inside KVM_RUN.
    in_kvm: bool,
    /// A signal has come since then. One that comes before runs its handler, which does
    /// nothing, and is gone.
    pending: bool,
}

impl Machine {
    fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self {
            flaw,
            immediate_exit: AtomicBool::new(false),
            signal: Mutex::default(),
            sent: Condvar::new(),
            gone: AtomicBool::new(false),
        })
    }

    /// pthread_kill.
    fn signal(&self) {
        let mut signal = self.signal.lock();
        signal.pending = signal.in_kvm;
        self.sent.notify_all();
    }

    /// KVM_RUN of a guest that never exits by itself; returns on EINTR.
    fn kvm_run(&self) {
        self.signal.lock().in_kvm = true;
        // The kernel reads it once, at the start, and promises no order.
        let exit = self.immediate_exit.load(Ordering::Relaxed);
        let mut signal = self.signal.lock();
        while !exit && !signal.pending {
            self.sent.wait(&mut signal);
        }
        *signal = Signal::default();
    }
}

/// As `kvm/kick.rs` does it.
struct ModelKick(Arc<Machine>);

impl Kick for ModelKick {
    fn kick(&self) {
        let Self(machine) = self;
        if machine.flaw == Flaw::SignalFirst {
            machine.signal();
        }
        if machine.flaw != Flaw::NoImmediateExit {
            machine.immediate_exit.store(true, Ordering::Release);
        }
        if machine.flaw != Flaw::SignalFirst {
            machine.signal();
        }
        assert!(!machine.gone.load(Ordering::Relaxed), "the vCPU is gone");
    }

    fn take_back(&self) {
        self.0.immediate_exit.store(false, Ordering::Relaxed);
    }
}

/// As `kvm/vcpu.rs` does it.
struct ModelVcpu {
    machine: Arc<Machine>,
    /// The guest halts at once.
    halts: bool,
    /// It exits when it can take an interrupt, which is at once.
    window: bool,
}

impl VcpuRun for ModelVcpu {
    fn run(&mut self) -> io::Result<VmExit> {
        if self.halts || self.window {
            return Ok(VmExit::Hlt);
        }
        let Machine { flaw, immediate_exit, .. } = &*self.machine;
        if *flaw == Flaw::ClearedAtEntry {
            immediate_exit.swap(false, Ordering::AcqRel);
        }
        self.machine.kvm_run();
        match flaw {
            Flaw::ClearedAtEntry => {}
            Flaw::ClearedRelaxed => drop(immediate_exit.swap(false, Ordering::Relaxed)),
            _ => drop(immediate_exit.swap(false, Ordering::AcqRel)),
        }
        Ok(VmExit::Interrupted)
    }

    fn data(&mut self) -> &mut [u8] {
        &mut []
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        None
    }

    fn request_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    /// The question has arrived, and that is the end.
    fn run_halted(&mut self) -> io::Result<Option<VmExit>> {
        Ok(Some(VmExit::Hlt))
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        Box::new(ModelKick(Arc::clone(&self.machine)))
    }
}

/// Starts a vCPU's thread, which lives as in `vcpu/handle.rs`.
fn start(control: &Arc<VcpuControl>, machine: &Arc<Machine>, halts: bool) -> JoinHandle<VcpuEnd> {
    start_with(None, control, machine, halts)
}

/// The same, with interrupt controllers that are not in the kernel.
fn start_with(
    interrupts: Option<SplitInterrupts>,
    control: &Arc<VcpuControl>,
    machine: &Arc<Machine>,
    halts: bool,
) -> JoinHandle<VcpuEnd> {
    let (control, machine) = (Arc::clone(control), Arc::clone(machine));
    thread::spawn(move || {
        let devices =
            DeviceSet::unconnected(DeviceSetup { input_limit: 0, ..DeviceSetup::default() })
                .unwrap();
        let posting = devices.post_policy();
        let queue = DeviceQueue::new(devices, 1);
        let setup = TraceSetup { no_flight_recorder: true, ..TraceSetup::default() };
        let vcpu = ModelVcpu { machine: Arc::clone(&machine), halts, window: false };
        let tracer = Tracer::new(setup, 1);
        let tracing = tracer.vcpu_tracing(VcpuId(0));
        let mut runner = Runner::new(VcpuId(0), vcpu, &control, &queue, posting, tracing);
        runner.set_interrupts(interrupts);
        // By hand, because nothing of loom's may be used while a found deadlock unwinds.
        let published = ManuallyDrop::new(control.publish(runner.vcpu().kicker()));
        let end = runner.run();
        if machine.flaw != Flaw::DroppedFirst {
            drop(ManuallyDrop::into_inner(published));
            machine.gone.store(true, Ordering::Relaxed);
        } else {
            machine.gone.store(true, Ordering::Relaxed);
            drop(ManuallyDrop::into_inner(published));
        }
        end
    })
}

/// (g) A vCPU that is stopped at any time, before it can be kicked too, ends.
fn a_stop_ends_it(flaw: Flaw) {
    let (control, machine) = (Arc::new(VcpuControl::new()), Machine::new(flaw));
    let vcpu = start(&control, &machine, false);
    control.stop();
    assert!(matches!(vcpu.join().unwrap(), VcpuEnd::Stopped { .. }));
}

#[test]
fn a_stop_ends_the_vcpu() {
    explore::all(|| a_stop_ends_it(Flaw::None));
}

/// (g) So does one that another signal gets out of the guest just before.
#[test]
fn a_stop_ends_the_vcpu_among_other_signals() {
    explore::bounded(4, || {
        let (control, machine) = (Arc::new(VcpuControl::new()), Machine::new(Flaw::None));
        let vcpu = start(&control, &machine, false);
        let other = thread::spawn({
            let machine = Arc::clone(&machine);
            move || machine.signal()
        });
        control.stop();
        assert!(matches!(vcpu.join().unwrap(), VcpuEnd::Stopped { .. }));
        other.join().unwrap();
    });
}

/// (g) And one that two threads stop.
#[test]
fn two_stops_end_the_vcpu() {
    explore::bounded(4, || {
        let (control, machine) = (Arc::new(VcpuControl::new()), Machine::new(Flaw::None));
        let vcpu = start(&control, &machine, false);
        let other = thread::spawn({
            let control = Arc::clone(&control);
            move || control.stop()
        });
        control.stop();
        assert!(matches!(vcpu.join().unwrap(), VcpuEnd::Stopped { .. }));
        other.join().unwrap();
    });
}

/// (g) A stop that comes when the vCPU ends by itself reaches a vCPU that is still there, or
/// none.
fn a_stop_meets_an_end(flaw: Flaw) {
    let (control, machine) = (Arc::new(VcpuControl::new()), Machine::new(flaw));
    let vcpu = start(&control, &machine, true);
    control.stop();
    let end = vcpu.join().unwrap();
    assert!(matches!(end, VcpuEnd::Halted | VcpuEnd::Stopped { .. }));
}

#[test]
fn a_kick_reaches_no_vcpu_that_is_gone() {
    explore::all(|| a_stop_meets_an_end(Flaw::None));
}

#[test]
#[should_panic(expected = "the vCPU is gone")]
fn it_does_if_the_vcpu_is_dropped_first() {
    explore::all(|| a_stop_meets_an_end(Flaw::DroppedFirst));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_signal_alone_is_lost() {
    explore::all(|| a_stop_ends_it(Flaw::NoImmediateExit));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_signal_sent_first_is_lost() {
    explore::all(|| a_stop_ends_it(Flaw::SignalFirst));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_taken_back_at_entry_is_lost() {
    explore::all(|| a_stop_ends_it(Flaw::ClearedAtEntry));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_taken_back_without_order_is_lost() {
    explore::all(|| a_stop_ends_it(Flaw::ClearedRelaxed));
}

/// Local APICs that nothing is sent to.
#[derive(Debug)]
struct NoApics;

impl LocalApics for NoApics {
    fn send(&mut self, _: Message) -> bool {
        false
    }

    fn report_ends(&mut self, _: &[Option<Message>]) {}
}

/// (g) What interrupt controllers that are not in the kernel want of a vCPU is seen, whenever it
/// comes: `signal` is the question for an end, or INTR.
fn the_controllers_are_heard(flaw: Flaw, signal: fn(&SplitInterrupts)) {
    let controls = [Arc::new(VcpuControl::new())];
    let machine = Machine::new(flaw);
    let interrupts = SplitInterrupts::new(Box::new(NoApics), &controls);
    let vcpu = start_with(Some(interrupts.clone()), &controls[0], &machine, false);
    signal(&interrupts);
    assert!(matches!(vcpu.join().unwrap(), VcpuEnd::Halted));
}

fn ask_for_ends(interrupts: &SplitInterrupts) {
    interrupts.irqchip.ask_for_ends();
}

fn raise_intr(interrupts: &SplitInterrupts) {
    interrupts.intr.set_level(true);
}

#[test]
fn a_question_for_an_end_is_heard() {
    explore::all(|| the_controllers_are_heard(Flaw::None, ask_for_ends));
}

#[test]
fn intr_is_heard() {
    explore::all(|| the_controllers_are_heard(Flaw::None, raise_intr));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_the_signal_comes_first_a_question_may_be_missed() {
    explore::all(|| the_controllers_are_heard(Flaw::SignalFirst, ask_for_ends));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_taking_back_is_relaxed_intr_may_be_missed() {
    explore::all(|| the_controllers_are_heard(Flaw::ClearedRelaxed, raise_intr));
}
