//! Putting a vCPU and its VM's memory back, on real KVM: whatever the last exit was, the next run
//! begins as the first did.

mod support;

use minivmm::config::{CpuMode, IrqChip};
use minivmm::exit::{Direction, VmExit};
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::KvmVm;
use minivmm::vcpu::{BuildVcpu, VcpuRun};

use support::require_kvm;
use support::vcpu::resettable;

fn vm(code: &[u8], mode: CpuMode) -> (KvmVm, KvmVcpu) {
    resettable(code, mode, None)
}

/// Runs to the next exit that is an access, and expects a write of `value`.
fn expect_write(vcpu: &mut KvmVcpu, value: &[u8]) {
    let exit = vcpu.run().unwrap();
    assert!(
        matches!(exit, VmExit::Pio(pio) if pio.direction == Direction::Write)
            || matches!(exit, VmExit::Mmio(mmio) if mmio.direction == Direction::Write),
        "{exit:?}"
    );
    assert_eq!(vcpu.data(), value);
}

/// A vCPU writes what is in AL at its start, and then comes to `code`; it is put back there, with
/// what it reads answered and not, and writes AL again.
fn begins_again_after(code: &[u8], mode: CpuMode, mut at_end: impl FnMut(VmExit)) {
    if !require_kvm() {
        return;
    }
    // out 0x81, al
    let (vm, mut vcpu) = vm(&[&[0xe6, 0x81], code].concat(), mode);
    for answer in [None, Some(0x55), None] {
        expect_write(&mut vcpu, &[2]);
        at_end(vcpu.run().unwrap());
        if let Some(answer) = answer {
            vcpu.data().fill(answer);
        }
        vcpu.reset().unwrap();
        vm.reset().unwrap();
    }
    expect_write(&mut vcpu, &[2]);
}

#[test]
fn after_a_read_of_a_port() {
    // in al, 0x80; hlt
    begins_again_after(&[0xe4, 0x80, 0xf4], CpuMode::Real, |exit| {
        assert!(matches!(exit, VmExit::Pio(pio) if pio.direction == Direction::Read), "{exit:?}");
    });
}

#[test]
fn in_the_middle_of_a_string_of_reads() {
    // mov di, 0x2000; mov cx, 40; mov dx, 0x80; rep insb; hlt
    let code = [0xbf, 0, 0x20, 0xb9, 40, 0, 0xba, 0x80, 0, 0xf3, 0x6c, 0xf4];
    begins_again_after(&code, CpuMode::Real, |exit| {
        assert!(matches!(exit, VmExit::Pio(pio) if pio.direction == Direction::Read), "{exit:?}");
    });
}

#[test]
fn in_the_middle_of_a_string_of_loads() {
    // mov esi, 0xd0000000; mov edi, 0x200000; mov ecx, 4000; rep movsb; hlt: each element an exit.
    let code = [
        0xbe, 0x00, 0x00, 0x00, 0xd0, 0xbf, 0x00, 0x00, 0x20, 0x00, 0xb9, 0xa0, 0x0f, 0x00, 0x00,
        0xf3, 0xa4, 0xf4,
    ];
    begins_again_after(&code, CpuMode::Long, |exit| {
        assert!(
            matches!(exit, VmExit::Mmio(mmio) if mmio.direction == Direction::Read),
            "{exit:?}"
        );
    });
}

#[test]
fn after_a_load_that_is_in_two_parts() {
    // mov ebx, 0xd0000ffc; mov rax, [rbx]; hlt: 4 bytes of one page and 4 of the next.
    let code = [0xbb, 0xfc, 0x0f, 0x00, 0xd0, 0x48, 0x8b, 0x03, 0xf4];
    begins_again_after(&code, CpuMode::Long, |exit| {
        assert!(
            matches!(exit, VmExit::Mmio(mmio) if mmio.direction == Direction::Read),
            "{exit:?}"
        );
    });
}

#[test]
fn after_a_halt() {
    begins_again_after(&[0xf4], CpuMode::Long, |exit| assert_eq!(exit, VmExit::Hlt));
}

#[test]
fn after_a_triple_fault() {
    // ud2, without an interrupt table
    begins_again_after(&[0x0f, 0x0b], CpuMode::Protected, |exit| {
        assert_eq!(exit, VmExit::Shutdown);
    });
}

#[test]
fn memory_comes_back_as_it_was() {
    if !require_kvm() {
        return;
    }
    // again: mov al, [0x100]; mov ah, [0x9000]; out 0x81, ax;
    // inc byte [0x100]; inc byte [0x9000]; jmp again
    // of which the first is a page below the image, and the other one above.
    let code = [
        0xa0, 0x00, 0x01, 0x8a, 0x26, 0x00, 0x90, 0xe7, 0x81, 0xfe, 0x06, 0x00, 0x01, 0xfe, 0x06,
        0x00, 0x90, 0xeb, 0xed,
    ];
    let (vm, mut vcpu) = vm(&code, CpuMode::Real);
    for _ in 0..3 {
        for count in 0..3 {
            expect_write(&mut vcpu, &[count, count]);
        }
        vcpu.reset().unwrap();
        vm.reset().unwrap();
    }
}

#[test]
fn a_kick_that_comes_too_late_can_be_taken_back() {
    if !require_kvm() {
        return;
    }
    let (vm, mut vcpu) = vm(&[0xe6, 0x81, 0xf4], CpuMode::Real);
    expect_write(&mut vcpu, &[2]);
    assert_eq!(vcpu.run().unwrap(), VmExit::Hlt);
    vcpu.reset().unwrap();
    vm.reset().unwrap();
    let kicker = vcpu.kicker();
    kicker.kick();
    kicker.take_back();
    expect_write(&mut vcpu, &[2]);
}

/// KVM keeps an interrupt that it was given until the guest takes it, which may be in another
/// iteration.
#[test]
fn an_interrupt_that_was_not_taken_is_gone() {
    if !require_kvm() {
        return;
    }
    // out 0x81, al; mov word [0x100], handler; mov [0x102], cs;
    // sti; in al, 0x82; nop; mov al, 0x33; out 0x81, al; hlt; handler: mov al, 0x77; out 0x81, al
    let real = [
        0xe6, 0x81, 0xc7, 0x06, 0x00, 0x01, 0x15, 0x10, 0x8c, 0x0e, 0x02, 0x01, 0xfb, 0xe4, 0x82,
        0x90, 0xb0, 0x33, 0xe6, 0x81, 0xf4, 0xb0, 0x77, 0xe6, 0x81,
    ];
    // out 0x81, al; sti; in al, 0x82; nop; mov al, 0x33; out 0x81, al; hlt
    let other = [0xe6, 0x81, 0xfb, 0xe4, 0x82, 0x90, 0xb0, 0x33, 0xe6, 0x81, 0xf4];
    for (mode, code) in
        [(CpuMode::Real, &real[..]), (CpuMode::Protected, &other), (CpuMode::Long, &other)]
    {
        let (vm, mut vcpu) = resettable(code, mode, Some(IrqChip::Split));
        let until_read = |vcpu: &mut KvmVcpu, interrupt: bool| {
            expect_write(vcpu, &[2]);
            if interrupt {
                assert!(!vcpu.can_be_interrupted());
                vcpu.interrupt(0x40).unwrap();
            }
        };
        for _ in 0..3 {
            until_read(&mut vcpu, true);
            vcpu.reset().unwrap();
            vm.reset().unwrap();
        }
        until_read(&mut vcpu, false);
        assert!(vcpu.run().unwrap().is_read(), "{mode:?}");
        expect_write(&mut vcpu, &[0x33]);
        vcpu.reset().unwrap();
        vm.reset().unwrap();
        if mode == CpuMode::Real {
            until_read(&mut vcpu, true);
            assert!(vcpu.run().unwrap().is_read());
            expect_write(&mut vcpu, &[0x77]);
        }
    }
}
