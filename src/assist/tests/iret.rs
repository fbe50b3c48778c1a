//! IRET, with frames of every width.

use crate::assist::cpu::gpr::RSP;
use crate::assist::cpu::{Exception, bits};
use crate::assist::testing::{STACK, TARGET, TestCpu};

const IRETD: [u8; 1] = [0xcf];
const IRET16: [u8; 2] = [0x66, 0xcf];
const IRETQ: [u8; 2] = [0x48, 0xcf];

/// Flags that a frame may have.
const FRAME_FLAGS: u64 = 2 | bits::CF | bits::IF | bits::DF | bits::AC | bits::RF;

#[test]
fn iret_returns_within_ring_0_with_a_frame_of_any_width() {
    for (bytes, width, flags) in
        [(&IRETD[..], 4, FRAME_FLAGS), (&IRET16[..], 2, FRAME_FLAGS & 0xffff)]
    {
        let mut cpu = TestCpu::protected().with_tables();
        cpu.nmis_blocked = true;
        cpu.put_frame(width, &[0x5432, 8, FRAME_FLAGS]);
        assert!(cpu.complete(bytes).is_some());
        assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, 0x5432, flags));
        assert_eq!(cpu.regs.gpr[RSP], STACK + 3 * u64::try_from(width).unwrap());
        assert_eq!((cpu.system.cs.selector, cpu.nmis_blocked), (8, false));
    }
    let mut cpu = TestCpu::long().with_tables();
    cpu.put_frame(8, &[TARGET, 8, FRAME_FLAGS, 0x1234, 16]);
    assert!(cpu.complete(&IRETQ).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, TARGET, FRAME_FLAGS));
    assert_eq!((cpu.regs.gpr[RSP], cpu.system.ss.selector), (0x1234, 16));
}

#[test]
fn iret_to_ring_3_changes_stacks_and_leaves_no_inner_segment() {
    let mut cpu = TestCpu::protected().with_tables();
    cpu.system.es.attributes |= 0x60;
    cpu.put_frame(4, &[0x5432, 48 | 3, 2 | bits::IF, 0x9000, 56 | 3]);
    assert!(cpu.complete(&IRETD).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, 0x5432, 2 | bits::IF));
    assert_eq!((cpu.system.cpl(), cpu.regs.gpr[RSP]), (3, 0x9000));
    let selectors = [cpu.system.cs, cpu.system.ss, cpu.system.es, cpu.system.ds];
    assert_eq!(selectors.map(|segment| segment.selector), [51, 59, 16, 0]);
    assert_eq!(cpu.system.ds.attributes, 0);
}

#[test]
fn iret_of_ring_3_changes_neither_if_nor_iopl() {
    let mut cpu = TestCpu::protected().user().with_tables();
    cpu.put_frame(4, &[0x5432, 48 | 3, 2 | bits::CF | bits::IF | bits::RFLAGS_IOPL_3]);
    assert!(cpu.complete(&IRETD).is_some());
    assert_eq!((cpu.raised, cpu.regs.rflags), (None, 2 | bits::CF));
}

#[test]
fn faults_of_iret_have_their_error_codes_and_change_nothing() {
    let fault = |words: &[u64]| {
        let mut cpu = TestCpu::protected().with_tables();
        cpu.system.cs.limit = 0xf_ffff;
        cpu.put_frame(4, words);
        cpu.fault(&IRETD)
    };
    // No code segment, data, beyond the table, the wrong level.
    assert_eq!(fault(&[0x5432, 0, 2]), Exception::GP0);
    assert_eq!(fault(&[0x5432, 16, 2]), Exception::gp(16));
    assert_eq!(fault(&[0x5432, 64, 2]), Exception::gp(64));
    assert_eq!(fault(&[0x5432, 8 | 3, 2, 0x9000, 56 | 3]), Exception::gp(8));
    // The stack of another level, code as a stack, none.
    for (ss, error) in [(16 | 3, 16), (48 | 3, 48), (0, 0)] {
        assert_eq!(fault(&[0x5432, 48 | 3, 2, 0x9000, ss]), Exception::gp(error));
    }
    // What is not canonical, and the nested task that IA-32e mode does not have.
    let mut cpu = TestCpu::long().with_tables();
    cpu.put_frame(8, &[1 << 47, 8, 2, 0x1234, 16]);
    assert_eq!(cpu.fault(&IRETQ), Exception::GP0);
    cpu.regs.rflags |= bits::NT;
    assert_eq!(cpu.fault(&IRETQ), Exception::GP0);
    // Not known here: to virtual-8086 mode, and to another task.
    let mut cpu = TestCpu::protected().with_tables();
    cpu.put_frame(4, &[0x5432, 8, 2 | bits::VM]);
    assert_eq!(cpu.complete(&IRETD), None);
    cpu.regs.rflags |= bits::NT;
    assert_eq!(cpu.complete(&IRETD), None);
}
