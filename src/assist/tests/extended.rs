//! The x87, SSE and further state: when it is to be had, and the image that XSAVE makes of it.

use crate::assist::cpu::gpr::{RAX, RDX};
use crate::assist::cpu::{Exception, bits};
use crate::assist::testing::{DATA, RSI, TestCpu};

const FWAIT: [u8; 1] = [0x9b];
const FLDCW_AT_RSI: [u8; 2] = [0xd9, 0x2e];
const LDMXCSR_AT_RSI: [u8; 3] = [0x0f, 0xae, 0x16];
const MOVDQA_XMM0_AT_RSI: [u8; 4] = [0x66, 0x0f, 0x6f, 0x06];
const PXOR_XMM0_XMM1: [u8; 4] = [0x66, 0x0f, 0xef, 0xc1];
const VPXOR_XMM0_XMM0_XMM1: [u8; 4] = [0xc5, 0xf9, 0xef, 0xc1];
const XSAVE64_AT_RSI: [u8; 4] = [0x48, 0x0f, 0xae, 0x26];
const XSAVES64_AT_RSI: [u8; 4] = [0x48, 0x0f, 0xc7, 0x2e];
const XRSTOR64_AT_RSI: [u8; 4] = [0x48, 0x0f, 0xae, 0x2e];
const XRSTORS64_AT_RSI: [u8; 4] = [0x48, 0x0f, 0xc7, 0x1e];

#[test]
fn x87_and_sse_can_be_off() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    cpu.system.cr0 |= bits::CR0_TS;
    for bytes in [&FLDCW_AT_RSI[..], &LDMXCSR_AT_RSI, &PXOR_XMM0_XMM1, &XSAVE64_AT_RSI] {
        assert_eq!(cpu.fault(bytes), Exception::NM, "{bytes:x?}");
    }
    cpu.run(&FWAIT);
    cpu.system.cr0 |= bits::CR0_MP;
    assert_eq!(cpu.fault(&FWAIT), Exception::NM);
    cpu.system.cr0 = cpu.system.cr0 & !(bits::CR0_TS | bits::CR0_MP) | bits::CR0_EM;
    assert_eq!(cpu.fault(&FLDCW_AT_RSI), Exception::NM);
    assert_eq!(cpu.fault(&PXOR_XMM0_XMM1), Exception::UD);
    cpu.system.cr0 &= !bits::CR0_EM;
    cpu.system.cr4 &= !bits::CR4_OSFXSR;
    assert_eq!(cpu.fault(&LDMXCSR_AT_RSI), Exception::UD);
    cpu.run(&VPXOR_XMM0_XMM0_XMM1);
    cpu.xcr0 = 3;
    assert_eq!(cpu.fault(&VPXOR_XMM0_XMM0_XMM1), Exception::UD);
}

#[test]
fn a_pending_x87_exception_comes_with_the_next_instruction() {
    let mut cpu = TestCpu::long();
    // Zero divide is pending and unmasked; component x87 is in use.
    cpu.extended[0..4].copy_from_slice(&[0x7b, 0x03, 0x84, 0x80]);
    cpu.extended[512] = 1;
    assert_eq!(cpu.fault(&FWAIT), Exception::MF);
    // FNCLEX takes it back.
    cpu.run(&[0xdb, 0xe2]);
    cpu.run(&FWAIT);
    // FLDCW that unmasks an exception that is there makes it pending.
    cpu.extended[0..4].copy_from_slice(&[0x7f, 0x03, 0x04, 0x00]);
    cpu.regs.gpr[RSI] = DATA;
    cpu.put(DATA, &[0x7b, 0x03]);
    cpu.run(&FLDCW_AT_RSI);
    assert_eq!(cpu.fault(&FWAIT), Exception::MF);
    cpu.system.cr0 &= !bits::CR0_NE;
    assert_eq!(cpu.complete(&FWAIT), None);
}

#[test]
fn mxcsr_and_alignment_are_checked() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    cpu.put(DATA, &0x1_0000u32.to_le_bytes());
    assert_eq!(cpu.fault(&LDMXCSR_AT_RSI), Exception::GP0);
    cpu.run(&MOVDQA_XMM0_AT_RSI);
    cpu.regs.gpr[RSI] = DATA + 8;
    assert_eq!(cpu.fault(&MOVDQA_XMM0_AT_RSI), Exception::GP0);
}

#[test]
fn xsave_keeps_what_it_is_not_asked_for() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    cpu.extended[160] = 0x11;
    cpu.extended[512] = 2;
    cpu.put(DATA, &[0xaa; 1024]);
    cpu.put_u64(DATA + 512, 5);
    // x87 alone, which is in its initial state.
    (cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]) = (1, 0);
    cpu.run(&XSAVE64_AT_RSI);
    assert_eq!(cpu.get(DATA), [0x7f, 0x03, 0, 0]);
    assert_eq!(cpu.get(DATA + 24), [0xaa; 8]);
    assert_eq!(cpu.get(DATA + 160), [0xaa; 4]);
    assert_eq!(cpu.get_u64(DATA + 512), 4);
    // SSE as well: MXCSR goes with it.
    cpu.regs.gpr[RAX] = 3;
    cpu.run(&XSAVE64_AT_RSI);
    assert_eq!(cpu.get(DATA + 24), [0x80, 0x1f, 0, 0]);
    assert_eq!(cpu.get(DATA + 160), [0x11, 0, 0, 0]);
    assert_eq!(cpu.get_u64(DATA + 512), 6);
    cpu.regs.gpr[RSI] = DATA + 32;
    assert_eq!(cpu.fault(&XSAVE64_AT_RSI), Exception::GP0);
}

#[test]
fn the_compacted_format_has_components_side_by_side() {
    let mut cpu = TestCpu::long();
    cpu.msrs.insert(0xda0, 0);
    cpu.xcr0 = 0x201;
    cpu.system.cr4 |= bits::CR4_PKE;
    cpu.regs.gpr[RSI] = DATA;
    // PKRU is component 9.
    cpu.extended[2688] = 0x54;
    cpu.extended[513] = 2;
    (cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]) = (u64::MAX, u64::MAX);
    cpu.run(&XSAVES64_AT_RSI);
    assert_eq!(cpu.get_u64(DATA + 512), 0x200);
    assert_eq!(cpu.get_u64(DATA + 520), 1 << 63 | 0x201);
    assert_eq!(cpu.get(DATA + 576), [0x54, 0]);
    cpu.extended[2688] = 0;
    cpu.run(&XRSTORS64_AT_RSI);
    assert_eq!(cpu.extended[2688], 0x54);
    // What the area says is initial becomes initial.
    cpu.put_u64(DATA + 512, 0);
    cpu.run(&XRSTORS64_AT_RSI);
    assert_eq!(cpu.extended[513], 0);
    // A component of IA32_XSS is not known here.
    cpu.msrs.insert(0xda0, 1 << 11);
    assert_eq!(cpu.complete(&XSAVES64_AT_RSI), None);
    let mut cpu = cpu.user();
    assert_eq!(cpu.fault(&XSAVES64_AT_RSI), Exception::GP0);
}

#[test]
fn xrstor_refuses_a_header_that_lies() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    (cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]) = (7, 0);
    let header = |cpu: &mut TestCpu, in_area, format, third| {
        cpu.put_u64(DATA + 512, in_area);
        cpu.put_u64(DATA + 520, format);
        cpu.put_u64(DATA + 528, third);
    };
    let bad = [
        (8, 0, 0),
        (1, 1, 0),
        (1, 0, 1),
        (1, 1 << 63, 0),
        (1, 1 << 63 | 8, 0),
        (1, 1 << 63 | 1, 1),
        (1 << 63 | 1, 1 << 63 | 1, 0),
    ];
    for (in_area, format, third) in bad {
        header(&mut cpu, in_area, format, third);
        assert_eq!(cpu.fault(&XRSTOR64_AT_RSI), Exception::GP0, "{in_area:#x} {format:#x}");
    }
    header(&mut cpu, 0, 0, 0);
    assert_eq!(cpu.fault(&XRSTORS64_AT_RSI), Exception::GP0);
    // MXCSR is loaded in the standard format whatever XSTATE_BV says.
    cpu.put(DATA + 24, &0x1_1f80u32.to_le_bytes());
    assert_eq!(cpu.fault(&XRSTOR64_AT_RSI), Exception::GP0);
    cpu.put(DATA + 24, &0x1fc0u32.to_le_bytes());
    cpu.run(&XRSTOR64_AT_RSI);
    assert_eq!(cpu.extended[24..28], 0x1fc0u32.to_le_bytes());
}
