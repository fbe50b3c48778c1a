//! A look at a vCPU that sleeps in a HLT in KVM, on real KVM: no instruction of the guest's is
//! executed for it, and what wakes the vCPU is not lost.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use minivmm::config::{CpuMode, GuestSource, IrqChip, VmConfig};
use minivmm::exit::{PioAddr, VcpuId, VmExit};
use minivmm::irq::Message;
use minivmm::kvm::kick;
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::vcpu::{BuildVcpu, VcpuRun};

use support::{image, require_kvm};

/// An NMI to the local APIC with id 0 (Intel SDM vol. 3, section 12.11).
const NMI: Message = Message { address: 0xfee0_0000, data: 4 << 8 };

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

/// Runs the guest until it sleeps.
fn run_to_halt(vcpu: &mut KvmVcpu) {
    let asleep = AtomicBool::new(false);
    let kicker = vcpu.kicker();
    thread::scope(|scope| {
        let asleep = &asleep;
        scope.spawn(move || {
            while !asleep.load(Ordering::Relaxed) {
                // With a pause, so that the guest gets anywhere between two kicks.
                thread::sleep(Duration::from_millis(1));
                kicker.kick();
            }
        });
        while vcpu.fd().get_mp_state().unwrap().mp_state != kvm_bindings::KVM_MP_STATE_HALTED {
            assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
        }
        asleep.store(true, Ordering::Relaxed);
    });
    // The kicks that came since then.
    kick_is_taken(vcpu);
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
    kick::install_handler();
    let guest = image(&CODE);
    let mut config = VmConfig::new(GuestSource::File(guest.path().to_owned()));
    config.mode = Some(CpuMode::Real);
    config.platform.irqchip = Some(IrqChip::Split);
    let vm = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap();
    let mut apics = vm.local_apics().unwrap();
    let mut vcpu = vm.build(VcpuId(0)).unwrap();
    assert_eq!(vcpu.run_halted().unwrap(), None, "it does not sleep yet");
    run_to_halt(&mut vcpu);
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
