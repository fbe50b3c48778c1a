//! Software interrupts through gates of every kind, and INTO and BOUND, which are one on a
//! condition.

use crate::assist::cpu::gpr::{RAX, RSP};
use crate::assist::cpu::{Exception, attributes, bits};
use crate::assist::testing::{CODE, DATA, GDT, IDT, RSI, STACK, TARGET, TSS, TestCpu};

const INT3: [u8; 1] = [0xcc];
const INT_80: [u8; 2] = [0xcd, 0x80];
const INT1: [u8; 1] = [0xf1];

#[test]
fn int3_goes_through_its_gate_in_64_bit_mode() {
    let mut cpu = TestCpu::long().with_tables();
    cpu.put_gate(3, 0x8e, 0);
    cpu.regs.rflags |= bits::IF | bits::TF | bits::NT;
    cpu.regs.gpr[RSP] = STACK - 4;
    let flags = cpu.regs.rflags;
    assert!(cpu.complete(&INT3).is_some());
    assert_eq!(cpu.raised, None);
    assert_eq!((cpu.regs.rip, cpu.regs.rflags), (TARGET, 2));
    // RIP, CS, RFLAGS, RSP, SS below the stack pointer, aligned to 16.
    let top = STACK - 16;
    assert_eq!(cpu.regs.gpr[RSP], top - 40);
    let frame = [0, 8, 16, 24, 32].map(|offset| cpu.get_u64(top - 40 + offset));
    assert_eq!(frame, [CODE + 1, 8, flags, STACK - 4, 16]);
    assert_eq!(cpu.system.cs.selector, 8);
    assert_eq!(cpu.system.ss.selector, 16);
}

#[test]
fn a_trap_gate_leaves_interrupts_on_and_an_ist_entry_switches_stacks() {
    let mut cpu = TestCpu::long().with_tables();
    cpu.put_gate(0x80, 0x8f, 2);
    cpu.regs.rflags |= bits::IF;
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!(cpu.regs.rflags, 2 | bits::IF);
    assert_eq!(cpu.regs.gpr[RSP], STACK - 0xc00 - 40);
}

#[test]
fn ring_3_comes_to_ring_0_on_its_stack_if_the_gate_lets_it() {
    let mut cpu = TestCpu::long().user().with_tables();
    cpu.put_gate(0x80, 0x8e, 0);
    assert_eq!(cpu.fault(&INT_80), Exception::gp(0x80 << 3 | 2));
    cpu.put_gate(0x80, 0xee, 0);
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!(cpu.raised, None);
    assert_eq!(cpu.regs.gpr[RSP], STACK - 0x800 - 40);
    assert_eq!(cpu.system.cpl(), 0);
    assert_eq!((cpu.system.cs.selector, cpu.system.ss.selector), (8, 0));
    assert_eq!(cpu.get_u64(STACK - 0x800 - 32), 8 | 3);
    // INT1 does not ask for the gate's DPL.
    let mut cpu = TestCpu::long().user().with_tables();
    cpu.put_gate(1, 0x8e, 0);
    assert!(cpu.complete(&INT1).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip), (None, TARGET));
}

#[test]
fn faults_of_a_delivery_have_their_error_codes() {
    let error = |prepare: fn(&mut TestCpu)| {
        let mut cpu = TestCpu::long().with_tables();
        cpu.put_gate(0x80, 0x8e, 0);
        prepare(&mut cpu);
        cpu.fault(&INT_80)
    };
    let vector = 0x80 << 3 | 2;
    assert_eq!(error(|cpu| cpu.system.idtr.limit = 0x80 * 16 + 14), Exception::gp(vector));
    assert_eq!(error(|cpu| cpu.put_gate(0x80, 0x0e, 0)), Exception::np(vector));
    assert_eq!(error(|cpu| cpu.put_gate(0x80, 0x86, 0)), Exception::gp(vector));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0)), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0x00af_1b00_0000_ffff)), Exception::np(8));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0x00cf_9b00_0000_ffff)), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.system.gdtr.limit = 14), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.put_u64(IDT + 0x808, 0x8000)), Exception::gp(0));
    assert_eq!(error(|cpu| cpu.regs.gpr[RSP] = (1 << 47) + 24), Exception::ss(0));
    let tss = |cpu: &mut TestCpu| {
        cpu.system.tr.limit = 0x2b;
        cpu.put_gate(0x80, 0x8e, 2);
    };
    assert_eq!(error(tss), Exception::ts(32));
}

#[test]
fn gates_of_32_and_16_bits_push_as_wide_as_they_are() {
    for (access, width, target) in [(0x8e, 4u64, 0x9876_5432u64), (0x86, 2, 0x5432)] {
        let mut cpu = TestCpu::protected().with_tables();
        cpu.put_gate(0x80, access, 0);
        assert!(cpu.complete(&INT_80).is_some());
        assert_eq!((cpu.raised, cpu.regs.rip), (None, target));
        assert_eq!(cpu.regs.gpr[RSP], STACK - 3 * width);
        let ip: [u8; 4] = cpu.get(STACK - 3 * width);
        assert_eq!(u64::from(u16::from_le_bytes([ip[0], ip[1]])), CODE + 2);
        let cs: [u8; 2] = cpu.get(STACK - 2 * width);
        assert_eq!(u16::from_le_bytes(cs), 8);
    }
}

#[test]
fn a_32_bit_task_state_segment_has_the_stack_of_ring_0() {
    let mut cpu = TestCpu::protected().user().with_tables();
    cpu.put_gate(0x80, 0xee, 0);
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!((cpu.raised, cpu.regs.gpr[RSP]), (None, 0x6800 - 20));
    let words = [0u64, 4, 8, 12, 16].map(|at| u32::from_le_bytes(cpu.get(0x6800 - 20 + at)));
    assert_eq!([words[0], words[1], words[3], words[4]], [0x1002, 8 | 3, 0x7000, 16 | 3]);
    assert_eq!((cpu.system.cpl(), cpu.system.ss.selector), (0, 16));
    // A stack segment that is not ring 0's.
    let mut cpu = TestCpu::protected().user().with_tables();
    cpu.put_gate(0x80, 0xee, 0);
    cpu.put(TSS + 8, &(56u16 | 3).to_le_bytes());
    assert_eq!(cpu.fault(&INT_80), Exception::ts(56));
    // A task gate is not known here.
    cpu.put_gate(0x80, 0xe5, 0);
    assert_eq!(cpu.complete(&INT_80), None);
}

#[test]
fn a_16_bit_stack_keeps_the_rest_of_esp() {
    let mut cpu = TestCpu::protected().with_tables();
    cpu.put_gate(3, 0x8e, 0);
    cpu.system.ss.attributes &= !attributes::BIG;
    cpu.regs.gpr[RSP] = 0xabcd_0000 | STACK;
    assert!(cpu.complete(&INT3).is_some());
    assert_eq!(cpu.regs.gpr[RSP], 0xabcd_0000 | (STACK - 12));
}

#[test]
fn into_and_bound_trap_on_what_they_look_for() {
    let mut cpu = TestCpu::protected().with_tables();
    cpu.put_gate(4, 0x8e, 0);
    cpu.run(&[0xce]);
    cpu.regs.rflags |= bits::OF;
    assert!(cpu.complete(&[0xce]).is_some());
    assert_eq!(cpu.regs.rip, 0x9876_5432);
    let mut cpu = TestCpu::protected();
    cpu.regs.gpr[RSI] = DATA;
    cpu.put(DATA, &(-2i32).to_le_bytes());
    cpu.put(DATA + 4, &5i32.to_le_bytes());
    // BOUND EAX, [ESI].
    for (index, inside) in [(-3i32, false), (-2, true), (5, true), (6, false)] {
        cpu.regs.gpr[RAX] = u64::from(index.cast_unsigned());
        if inside {
            cpu.run(&[0x62, 0x06]);
        } else {
            assert_eq!(cpu.fault(&[0x62, 0x06]), Exception::plain(5));
        }
    }
}
