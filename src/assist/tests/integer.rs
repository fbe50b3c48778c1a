//! Integer instructions: flags, and what memory they want.

use crate::assist::cpu::gpr::{RAX, RBX, RCX, RDX};
use crate::assist::cpu::{Exception, bits};
use crate::assist::testing::{DATA, RSI, TestCpu};

const CMPXCHG16B_AT_RSI: [u8; 5] = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];

#[test]
fn leading_and_trailing_zeros_have_the_flags_that_bit_scans_lack() {
    let mut cpu = TestCpu::long();
    for (value, leading, trailing) in [(0u64, 64, 64), (1, 63, 0), (1 << 63, 0, 63)] {
        for (opcode, zeros) in [(0xbd, leading), (0xbc, trailing)] {
            cpu.regs.gpr[RAX] = value;
            cpu.run(&[0xf3, 0x48, 0x0f, opcode, 0xc8]);
            assert_eq!(cpu.regs.gpr[RCX], zeros);
            assert_eq!(cpu.has_flag(bits::CF), value == 0);
            assert_eq!(cpu.has_flag(bits::ZF), zeros == 0);
        }
    }
}

#[test]
fn cmpxchg16b_exchanges_or_loads_and_wants_alignment() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    cpu.put_u64(DATA, 1);
    cpu.put_u64(DATA + 8, 2);
    (cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]) = (1, 2);
    (cpu.regs.gpr[RBX], cpu.regs.gpr[RCX]) = (3, 4);
    cpu.run(&CMPXCHG16B_AT_RSI);
    assert!(cpu.has_flag(bits::ZF));
    assert_eq!((cpu.get_u64(DATA), cpu.get_u64(DATA + 8)), (3, 4));
    cpu.run(&CMPXCHG16B_AT_RSI);
    assert!(!cpu.has_flag(bits::ZF));
    assert_eq!((cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]), (3, 4));
    cpu.regs.gpr[RSI] = DATA + 8;
    assert_eq!(cpu.fault(&CMPXCHG16B_AT_RSI), Exception::GP0);
}

#[test]
fn decimal_adjustments() {
    let mut cpu = TestCpu::protected();
    // DAA: 0x79 + 0x35 = 0xae becomes 0x14 with a carry (Intel SDM vol. 2, DAA).
    cpu.regs.gpr[RAX] = 0xae;
    cpu.run(&[0x27]);
    assert_eq!(cpu.regs.gpr[RAX], 0x14);
    assert!(cpu.has_flag(bits::CF) && cpu.has_flag(bits::AF));
    // AAA and AAS.
    cpu.regs.rflags = 2;
    cpu.regs.gpr[RAX] = 0x010c;
    cpu.run(&[0x37]);
    assert_eq!(cpu.regs.gpr[RAX], 0x0202);
    cpu.regs.rflags = 2;
    cpu.regs.gpr[RAX] = 0x02fe;
    cpu.run(&[0x3f]);
    assert_eq!(cpu.regs.gpr[RAX], 0x0108);
}
