//! A look at a vCPU that sleeps in a HLT in KVM, on real KVM: no instruction of the guest's is
//! executed for it, and what wakes the vCPU is not lost.

mod support;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::KVM_MP_STATE_HALTED;
use minivmm::config::{CpuMode, IrqChip};
use minivmm::exit::{PioAddr, VmExit};
use minivmm::irq::Message;
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::vcpu::{BuildVcpu, VcpuRun};

use support::require_kvm;
use support::vcpu::resettable;

/// Only a guest that hangs takes so long.
const LIMIT: Duration = Duration::from_secs(60);

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

/// The same for vector 0x41, with interrupts on, and a handler that ends the interrupt, by the
/// x2APIC's register, and sleeps.
const INTERRUPTED: [u8; 44] = [
    0xc7, 0x06, 0x04, 0x01, 0x1d, 0x10, // mov word [0x104], 0x101d
    0xc7, 0x06, 0x06, 0x01, 0x00, 0x00, // mov word [0x106], 0
    0xb9, 0x1b, 0x00, // mov cx, 0x1b: IA32_APIC_BASE
    0x0f, 0x32, // rdmsr
    0x80, 0xcc, 0x0c, // or ah, 0x0c: on, and x2APIC
    0x0f, 0x30, // wrmsr
    0xfb, 0xf4, // sti; hlt
    0xe6, 0x82, // out 0x82, al: it must not come here
    0xf4, 0xf4, 0xf4, // hlt
    0xb9, 0x0b, 0x08, // 0x101d: mov cx, 0x80b: IA32_X2APIC_EOI
    0x66, 0x31, 0xc0, // xor eax, eax
    0x66, 0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xf4, // hlt
    0xf4, 0xf4, 0xf4, // hlt
];
const ASLEEP_AFTER_X2APIC: u64 = 0x1018;
const ASLEEP_IN_HANDLER: u64 = 0x1029;

/// Runs the guest until it sleeps with this RIP; the exits on the way there.
#[track_caller]
fn run_to_halt(vcpu: &mut KvmVcpu, rip: u64) -> Vec<VmExit> {
    let (over, wait) = mpsc::channel::<()>();
    let kicker = vcpu.kicker();
    let exits = thread::scope(|scope| {
        // With a pause between two kicks, so that the guest gets anywhere; until `over` is dropped,
        // be it by a panic.
        scope.spawn(move || {
            while wait.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                kicker.kick();
            }
        });
        let _over = over;
        let began = Instant::now();
        let mut exits = Vec::new();
        while !is_asleep(vcpu, rip) {
            assert!(began.elapsed() < LIMIT, "the guest does not come to {rip:#x}");
            let exit = vcpu.run().unwrap();
            assert!(exit == VmExit::Interrupted || exit == END, "{exit:?}");
            exits.push(exit);
        }
        exits
    });
    // The kicks that came since then.
    kick_is_taken(vcpu);
    exits.into_iter().filter(|exit| *exit != VmExit::Interrupted).collect()
}

fn is_asleep(vcpu: &KvmVcpu, rip: u64) -> bool {
    vcpu.fd().get_mp_state().unwrap().mp_state == KVM_MP_STATE_HALTED
        && vcpu.fd().get_regs().unwrap().rip == rip
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
    let (vm, mut vcpu) = resettable(&CODE, CpuMode::Real, Some(IrqChip::Split));
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
    let VmExit::Pio(pio) = run_for_at_most(&mut vcpu, LIMIT) else {
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
    let (vm, mut vcpu) = resettable(&INTERRUPTED, CpuMode::Real, Some(IrqChip::Split));
    let mut apics = vm.local_apics().unwrap();
    apics.report_ends(&[Some(LEVEL)]);
    let mut sleep_in_handler = |vcpu: &mut KvmVcpu| {
        assert_eq!(run_to_halt(vcpu, ASLEEP_AFTER_X2APIC), []);
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
    assert_eq!(told, 1);
    for _ in 0..20 {
        vcpu.reset().unwrap();
        vm.reset().unwrap();
        sleep_in_handler(&mut vcpu);
    }
}
