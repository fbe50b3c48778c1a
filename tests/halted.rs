//! A look at a vCPU that sleeps in a HLT in KVM, on real KVM: no instruction of the guest's is
//! executed for it, and what wakes the vCPU is not lost.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use kvm_bindings::KVM_MP_STATE_HALTED;
use minivmm::config::{CpuMode, GuestSource, IrqChip, VmConfig};
use minivmm::exit::{PioAddr, VcpuId, VmExit};
use minivmm::irq::Message;
use minivmm::kvm::kick;
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::stress::config::StressConfig;
use minivmm::vcpu::{BuildVcpu, VcpuRun};

use support::{image, require_kvm};

/// An NMI to the local APIC with id 0 (Intel SDM vol. 3, section 12.11).
const NMI: Message = Message { address: 0xfee0_0000, data: 4 << 8 };

/// A level-triggered interrupt with vector 0x41, to the same.
const LEVEL: Message = Message { address: 0xfee0_0000, data: 1 << 15 | 1 << 14 | 0x41 };

const END: VmExit = VmExit::IoapicEoi { vector: 0x41 };

/// Real-mode code for address 0x1000 that sets NMI's vector and sleeps with interrupts off.
const CODE: [u8; 22] = [
    0xc7, 0x06, 0x08, 0x00, 0x13, 0x10, // mov word [8], 0x1013
    0xc7, 0x06, 0x0a, 0x00, 0x00, 0x00, // mov word [10], 0
    0xfa, 0xf4, // cli; hlt
    0xe6, 0x82, // out 0x82, al: it must not come here
    0xf4, 0xf4, 0xf4, // hlt
    0xe6, 0x83, // 0x1013: out 0x83, al
    0xf4, // hlt
];
const ASLEEP: u64 = 0x100e;

/// The same for vector 0x41, with interrupts on, and a handler that sleeps.
const INTERRUPTED: [u8; 19] = [
    0xc7, 0x06, 0x04, 0x01, 0x12, 0x10, // mov word [0x104], 0x1012
    0xc7, 0x06, 0x06, 0x01, 0x00, 0x00, // mov word [0x106], 0
    0xfb, 0xf4, // sti; hlt
    0xe6, 0x82, // out 0x82, al: it must not come here
    0xf4, 0xf4, // hlt
    0xf4, // 0x1012: hlt
];
const ASLEEP_IN_HANDLER: u64 = 0x1013;

/// A vCPU with `code`, which can be put back.
fn start(code: &[u8]) -> (KvmVm, KvmVcpu) {
    kick::install_handler();
    let guest = image(code);
    let mut config = VmConfig::new(GuestSource::File(guest.path().to_owned()));
    config.mode = Some(CpuMode::Real);
    config.platform.irqchip = Some(IrqChip::Split);
    config.stress = Some(StressConfig::default());
    let vm = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap();
    let vcpu = vm.build(VcpuId(0)).unwrap();
    (vm, vcpu)
}

/// Runs the guest until it sleeps with this RIP; the exits on the way there.
fn run_to_halt(vcpu: &mut KvmVcpu, rip: u64) -> Vec<VmExit> {
    let asleep = AtomicBool::new(false);
    let kicker = vcpu.kicker();
    let mut exits = Vec::new();
    thread::scope(|scope| {
        let asleep = &asleep;
        scope.spawn(move || {
            while !asleep.load(Ordering::Relaxed) {
                // With a pause, so that the guest gets anywhere between two kicks.
                thread::sleep(Duration::from_millis(1));
                kicker.kick();
            }
        });
        let is_asleep = |vcpu: &KvmVcpu| {
            vcpu.fd().get_mp_state().unwrap().mp_state == KVM_MP_STATE_HALTED
                && vcpu.fd().get_regs().unwrap().rip == rip
        };
        while !is_asleep(vcpu) {
            exits.push(vcpu.run().unwrap());
        }
        asleep.store(true, Ordering::Relaxed);
    });
    // The kicks that came since then.
    kick_is_taken(vcpu);
    exits.retain(|exit| *exit != VmExit::Interrupted);
    exits
}

/// Runs the guest to its next exit; [`VmExit::Interrupted`] if there is none in that time.
fn run_for_at_most(vcpu: &mut KvmVcpu, time: Duration) -> VmExit {
    let (over, wait) = mpsc::channel::<()>();
    let kicker = vcpu.kicker();
    thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                kicker.kick();
            }
        });
        let exit = vcpu.run().unwrap();
        drop(over);
        exit
    })
}

fn kick_is_taken(vcpu: &mut KvmVcpu) {
    vcpu.kicker().kick();
    assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
}

#[test]
fn a_look_at_a_vcpu_that_sleeps_executes_nothing_and_loses_no_wake() {
    if !require_kvm() {
        return;
    }
    let (vm, mut vcpu) = start(&CODE);
    let mut apics = vm.local_apics().unwrap();
    assert_eq!(vcpu.run_halted().unwrap(), None, "it does not sleep yet");
    assert_eq!(run_to_halt(&mut vcpu, ASLEEP), []);
    let before = vcpu.fd().get_regs().unwrap();
    for _ in 0..10 {
        assert_eq!(vcpu.run_halted().unwrap(), Some(VmExit::Interrupted));
        assert_eq!(vcpu.fd().get_regs().unwrap(), before);
    }
    // It still sleeps.
    kick_is_taken(&mut vcpu);
    assert!(apics.send(NMI));
    vcpu.run_halted().unwrap();
    let VmExit::Pio(pio) = run_for_at_most(&mut vcpu, Duration::from_secs(60)) else {
        panic!("the NMI does not come")
    };
    assert_eq!(pio.port, PioAddr(0x83));
}

/// The end of an interrupt may be told before the vCPU sleeps, or be kept by KVM until it is asked.
#[test]
fn an_end_is_told_once_and_not_after_a_reset() {
    if !require_kvm() {
        return;
    }
    let (vm, mut vcpu) = start(&INTERRUPTED);
    let mut apics = vm.local_apics().unwrap();
    apics.report_ends(&[Some(LEVEL)]);
    let mut sleep_in_handler = |vcpu: &mut KvmVcpu| {
        assert_eq!(run_to_halt(vcpu, ASLEEP), []);
        assert!(apics.send(LEVEL));
        let told = run_to_halt(vcpu, ASLEEP_IN_HANDLER);
        assert!(told.len() <= 1 && told.iter().all(|exit| *exit == END), "{told:?}");
        told.len()
    };
    let mut told = sleep_in_handler(&mut vcpu);
    for _ in 0..3 {
        let exit = vcpu.run_halted().unwrap().unwrap();
        assert!(exit == END || exit == VmExit::Interrupted, "{exit:?}");
        told += usize::from(exit == END);
    }
    assert!(told <= 1);
    for _ in 0..20 {
        vcpu.reset().unwrap();
        vm.reset().unwrap();
        sleep_in_handler(&mut vcpu);
    }
}
