//! The timeline of a VM's end: whichever thread fails, and wherever, all come to their ends. The
//! turnstile, the controls and the exit gate are the product's; the supervisor is that of `vmm.rs`
//! and `vmm/end.rs` in little, and a guest is a loop that only a kick ends.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use minivmm::exit::VcpuId;
use minivmm::sync::{self, Mutex, Parker};
use minivmm::vcpu::Kick;
use minivmm::vcpu::rounds::Rounds;
use minivmm::vcpu::state::{Gate, VcpuControl};

use crate::explore;

/// Where a vCPU's thread fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    Never,
    /// Before it comes to the turnstile.
    Making,
    /// In the guest, be it a fault, a panic, or the guest's wish to end.
    Running,
}

/// What the supervisor can do wrong.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// It stops the vCPUs, but leaves the turnstile shut.
    LeavesTurnstile,
    /// It leaves the exit gate shut.
    LeavesGate,
}

struct Vm {
    rounds: Rounds<()>,
    controls: [sync::Arc<VcpuControl>; 2],
    /// Ends that were reported, and who sleeps until there are some.
    ended: Mutex<[bool; 2]>,
    bell: Parker,
    exit: Gate<()>,
}

/// KVM's `immediate_exit` and the signal in one: a kick is kept until the guest is entered.
struct ModelKick(Arc<Parker>);

impl Kick for ModelKick {
    fn kick(&self) {
        self.0.unpark();
    }

    /// As a kick that is taken back late: the guest is entered and left once more.
    fn take_back(&self) {}
}

impl Vm {
    fn live(&self, id: VcpuId, fails: Fails) {
        if fails != Fails::Making {
            self.run(id, fails);
        }
        self.ended.lock()[id.index()] = true;
        self.bell.unpark();
        self.exit.wait();
    }

    fn run(&self, id: VcpuId, fails: Fails) {
        let control = &self.controls[id.index()];
        let guest = Arc::new(Parker::default());
        // By hand, because nothing of loom's may be used while a found deadlock unwinds.
        let published = ManuallyDrop::new(control.publish(Box::new(ModelKick(Arc::clone(&guest)))));
        if self.rounds.arrive(id, ()).is_some() {
            self.rounds.open();
            self.rounds.let_run(VcpuId(0), 1);
            self.rounds.let_run(VcpuId(1), 1);
        }
        if self.rounds.wait(id, 1) && fails != Fails::Running {
            while !control.stop_requested() {
                guest.park(None);
            }
        }
        drop(ManuallyDrop::into_inner(published));
    }

    fn wait_for(&self, enough: impl Fn([bool; 2]) -> bool) {
        while !enough(*self.ended.lock()) {
            self.bell.park(None);
        }
    }

    /// The supervisor, from the first terminal event, or from a stop at any time, to the end.
    fn supervise(&self, stopped_from_outside: bool, flaw: Flaw) {
        if !stopped_from_outside {
            self.wait_for(|ended| ended != [false; 2]);
        }
        if flaw != Flaw::LeavesTurnstile {
            self.rounds.close();
        }
        self.controls.iter().for_each(|control| control.stop());
        self.wait_for(|ended| ended == [true; 2]);
        if flaw != Flaw::LeavesGate {
            self.exit.open(());
        }
    }
}

/// (k) All threads come to their ends.
fn all_end(fails: [Fails; 2], stopped_from_outside: bool, flaw: Flaw) {
    let controls = [0; 2].map(|_| sync::Arc::new(VcpuControl::new()));
    let vm = Arc::new(Vm {
        rounds: Rounds::new(controls.iter().cloned()),
        controls,
        ended: Mutex::new([false; 2]),
        bell: Parker::default(),
        exit: Gate::new(),
    });
    let vcpus: [JoinHandle<()>; 2] = [0, 1].map(|id| {
        let vm = Arc::clone(&vm);
        thread::spawn(move || vm.live(VcpuId(id), fails[VcpuId(id).index()]))
    });
    vm.bell.adopt();
    vm.supervise(stopped_from_outside, flaw);
    vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
}

#[test]
fn wherever_a_vcpu_fails_all_end() {
    use Fails::{Making, Never, Running};
    explore::bounded(2, || all_end([Making, Never], false, Flaw::None));
    explore::bounded(1, || all_end([Running, Never], false, Flaw::None));
}

#[test]
fn stopped_at_any_time_all_end() {
    use Fails::{Making, Never};
    explore::bounded(1, || all_end([Never, Never], true, Flaw::None));
    explore::bounded(2, || all_end([Never, Making], true, Flaw::None));
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_the_turnstile_shut_who_waits_there_waits_for_ever() {
    let fails = [Fails::Making, Fails::Never];
    explore::bounded(2, move || all_end(fails, false, Flaw::LeavesTurnstile));
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_the_exit_gate_shut_nobody_can_be_joined() {
    let fails = [Fails::Running, Fails::Never];
    explore::bounded(2, move || all_end(fails, false, Flaw::LeavesGate));
}
