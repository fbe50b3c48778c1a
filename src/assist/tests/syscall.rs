//! The other half of a SYSCALL, and where a vCPU stops for it.

use crate::assist::cpu::bits;
use crate::assist::cpu::gpr::{RCX, RSP};
use crate::assist::syscall;
use crate::assist::testing::{DATA, IDT, STACK, TARGET, TestCpu};

/// A vCPU at its handler of page faults, for the first byte of the entry point that SYSCALL went
/// to.
fn after_half_a_syscall() -> TestCpu {
    let mut cpu = TestCpu::long().with_tables();
    cpu.put_gate(14, 0x8e, 0);
    cpu.system.efer |= 1;
    let [star, lstar, fmask] = [0xc000_0081, 0xc000_0082, 0xc000_0084];
    cpu.msrs.extend([(star, 0x0010_0008 << 32), (lstar, TARGET), (fmask, bits::IF | bits::TF)]);
    cpu.put(DATA - 2, &[0x0f, 0x05]);
    cpu.regs.gpr[RCX] = DATA;
    cpu.regs.gpr[11] = 2 | bits::CF | bits::IF;
    let frame = [0x15, TARGET, 48 | 3, 2 | bits::CF | bits::RF, 0x9000, 56 | 3];
    cpu.put_frame(8, &frame);
    cpu
}

#[test]
fn syscall_is_used_if_it_is_allowed_and_leads_somewhere() {
    let mut cpu = after_half_a_syscall();
    assert!(syscall::is_used(&mut cpu).unwrap());
    cpu.system.efer &= !1;
    assert!(!syscall::is_used(&mut cpu).unwrap());
    let mut cpu = after_half_a_syscall();
    cpu.msrs.clear();
    assert!(!syscall::is_used(&mut cpu).unwrap());
}

#[test]
fn the_vcpu_stops_where_page_faults_go_now() {
    let mut cpu = after_half_a_syscall();
    assert_eq!(syscall::handler(&mut cpu).unwrap(), Some(TARGET));
    // Another offset in the same gate, and another table.
    cpu.put(IDT + 14 * 16, &[0x34, 0x12]);
    assert_eq!(syscall::handler(&mut cpu).unwrap(), Some(TARGET & !0xffff | 0x1234));
    cpu.system.idtr.base += 16;
    cpu.put_gate(15, 0x8f, 0);
    assert_eq!(syscall::handler(&mut cpu).unwrap(), Some(TARGET));
}

#[test]
fn a_vcpu_without_a_handler_of_page_faults_has_none() {
    let without: [fn(&mut TestCpu); 6] = [
        // Absent; no gate; beyond the table; not canonical; in no memory; not in IA-32e mode.
        |cpu| cpu.put_gate(14, 0x0e, 0),
        |cpu| cpu.put_gate(14, 0x89, 0),
        |cpu| cpu.system.idtr.limit = 14 * 16 + 14,
        |cpu| cpu.put_u64(IDT + 14 * 16 + 8, 0x8000),
        |cpu| cpu.system.idtr.base = 0xfee0_0000,
        |cpu| cpu.system.efer = 1,
    ];
    for (index, prepare) in without.into_iter().enumerate() {
        let mut cpu = after_half_a_syscall();
        prepare(&mut cpu);
        assert_eq!(syscall::handler(&mut cpu).unwrap(), None, "{index}");
    }
}

#[test]
fn the_other_half_of_a_syscall_is_ring_0() {
    let mut cpu = after_half_a_syscall();
    assert_eq!(syscall::complete(&mut cpu).unwrap().unwrap().to_string(), "syscall");
    assert_eq!((cpu.regs.rip, cpu.regs.rflags), (TARGET, 2 | bits::CF));
    assert_eq!((cpu.regs.gpr[RSP], cpu.regs.gpr[RCX]), (0x9000, DATA));
    assert_eq!((cpu.system.cs.selector, cpu.system.ss.selector), (8, 16));
    assert_eq!((cpu.system.cpl(), cpu.system.is_64_bit()), (0, true));
}

#[test]
fn other_page_faults_are_left_alone() {
    let others: [fn(&mut TestCpu); 5] = [
        // Elsewhere; of ring 0; not behind a SYSCALL; with other flags; no stack.
        |cpu| cpu.put_u64(STACK + 8, TARGET + 1),
        |cpu| cpu.put_u64(STACK + 16, 8),
        |cpu| cpu.put(DATA - 2, &[0x0f, 0x34]),
        |cpu| cpu.regs.gpr[11] ^= bits::DF,
        |cpu| cpu.regs.gpr[RSP] = 1 << 40,
    ];
    for (index, prepare) in others.into_iter().enumerate() {
        let mut cpu = after_half_a_syscall();
        prepare(&mut cpu);
        let (regs, system) = (cpu.regs, cpu.system);
        assert_eq!(syscall::complete(&mut cpu).unwrap(), None, "{index}");
        assert!(cpu.regs == regs && cpu.system == system && cpu.raised.is_none(), "{index}");
    }
}
