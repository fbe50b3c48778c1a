//! The completion of instructions on a plain struct of a vCPU: results, flags, faults, and what
//! comes after an instruction. What the processor does with random inputs is compared in
//! tests/assist.rs, by a guest; here are the cases that it does not reach.

use super::cpu::gpr::{RAX, RBX, RCX, RDX, RSP};
use super::cpu::{Exception, attributes, bits};
use super::syscall;
use super::testing::{CODE, DATA, GDT, IDT, STACK, TSS, TestCpu};
use crate::boot::state::{Segment, TableRegister};

const RSI: usize = 6;

const POPCNT_RCX_RAX: [u8; 5] = [0xf3, 0x48, 0x0f, 0xb8, 0xc8];
const POPCNT_RCX_AT_RSI: [u8; 5] = [0xf3, 0x48, 0x0f, 0xb8, 0x0e];
const CMPXCHG16B_AT_RSI: [u8; 5] = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];
const CLAC: [u8; 3] = [0x0f, 0x01, 0xca];
const STAC: [u8; 3] = [0x0f, 0x01, 0xcb];
const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
const XSETBV: [u8; 3] = [0x0f, 0x01, 0xd1];
const RDPKRU: [u8; 3] = [0x0f, 0x01, 0xee];
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
const RDTSCP: [u8; 3] = [0x0f, 0x01, 0xf9];
const INVPCID_RAX_AT_RSI: [u8; 5] = [0x66, 0x0f, 0x38, 0x82, 0x06];
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
const INT3: [u8; 1] = [0xcc];
const INT_80: [u8; 2] = [0xcd, 0x80];
const INT1: [u8; 1] = [0xf1];

#[test]
fn an_unknown_instruction_changes_nothing() {
    let mut cpu = TestCpu::long();
    cpu.shadow = true;
    let regs = cpu.regs;
    // VMXOFF; no instruction at all; a prefix without end; FLD1; VPXORD ZMM; DEC with LOCK on EAX.
    let unknown: [&[u8]; 6] = [
        &[0x0f, 0x01, 0xc4],
        &[0x0f, 0x04],
        &[0x66; 15],
        &[0xd9, 0xe8],
        &[0x62, 0xf1, 0x7d, 0x48, 0xef, 0xc1],
        &[0xf0, 0xff, 0xc8],
    ];
    for bytes in unknown {
        assert_eq!(cpu.complete(bytes), None, "{bytes:x?}");
        assert_eq!((cpu.regs, cpu.raised, cpu.shadow), (regs, None, true), "{bytes:x?}");
    }
}

#[test]
fn a_completed_instruction_is_named() {
    let mut cpu = TestCpu::long();
    assert_eq!(cpu.complete(&POPCNT_RCX_RAX).unwrap().to_string(), "popcnt");
    assert_eq!(cpu.complete(&FWAIT).unwrap().name().as_bytes(), b"wait");
}

#[test]
fn what_comes_after_an_instruction() {
    let mut cpu = TestCpu::long();
    cpu.shadow = true;
    cpu.regs.rflags |= bits::RF;
    cpu.run(&POPCNT_RCX_RAX);
    assert!(!cpu.shadow && !cpu.has_flag(bits::RF));
    cpu.regs.rflags |= bits::TF;
    assert!(cpu.complete(&POPCNT_RCX_RAX).is_some());
    assert_eq!(cpu.raised, Some(Exception::DB));
    assert_eq!(cpu.regs.rip, CODE + 10);
}

#[test]
fn bytes_that_kvm_did_not_fetch_are_fetched() {
    let mut cpu = TestCpu::long();
    cpu.put(CODE, &POPCNT_RCX_RAX);
    cpu.regs.gpr[RAX] = 0xff;
    assert!(cpu.complete(&POPCNT_RCX_RAX[..2]).is_some());
    assert_eq!((cpu.regs.gpr[RCX], cpu.regs.rip), (8, CODE + 5));
}

#[test]
fn memory_operands_cross_pages_and_fault_as_a_whole() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA + 0xffc;
    cpu.put(DATA + 0xffc, &[0xff; 8]);
    cpu.run(&POPCNT_RCX_AT_RSI);
    assert_eq!(cpu.regs.gpr[RCX], 64);
    cpu.regs.gpr[RSI] = 1 << 47;
    assert_eq!(cpu.fault(&POPCNT_RCX_AT_RSI), Exception::GP0);
    // MOVUPS [RSP], XMM0 through SS, at the end of what is canonical.
    cpu.regs.gpr[RSP] = (1 << 47) - 8;
    assert_eq!(cpu.fault(&[0x0f, 0x11, 0x04, 0x24]), Exception::SS0);
    // No memory is there: a device, perhaps.
    cpu.regs.gpr[RSI] = 0xfee0_0000;
    assert_eq!(cpu.complete(&POPCNT_RCX_AT_RSI), None);
}

#[test]
fn a_page_fault_has_its_address_and_the_store_has_not_begun() {
    let mut cpu = TestCpu::long();
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    let tables = super::testing::TABLES;
    cpu.system.cr3 = tables;
    for level in 0..3 {
        cpu.put_u64(tables + 0x1000 * level, (tables + 0x1000 * (level + 1)) | 3);
    }
    // DATA is there, and the page after it is not.
    cpu.put_u64(tables + 0x3000 + 8 * (DATA >> 12), DATA | 3);
    cpu.regs.gpr[RSI] = DATA + 0xff8;
    cpu.put(DATA + 0xff8, &[7; 8]);
    // MOVUPS [RSI], XMM0.
    let fault = cpu.fault(&[0x0f, 0x11, 0x06]);
    assert_eq!(fault, Exception::pf(DATA + 0x1000, 2));
    assert_eq!(cpu.get(DATA + 0xff8), [7; 8]);
}

#[test]
fn registers_of_32_bits_clear_what_is_above_and_of_16_and_8_do_not() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RAX] = u64::MAX;
    cpu.regs.gpr[RCX] = u64::MAX;
    cpu.run(&[0xf3, 0x0f, 0xb8, 0xc8]);
    assert_eq!(cpu.regs.gpr[RCX], 32);
    cpu.regs.gpr[RCX] = u64::MAX;
    cpu.run(&[0x66, 0xf3, 0x0f, 0xb8, 0xc8]);
    assert_eq!(cpu.regs.gpr[RCX], 0xffff_ffff_ffff_0010);
    // CRC32 ECX, AH.
    cpu.regs.gpr[RAX] = 0xff00;
    cpu.regs.gpr[RCX] = 0;
    cpu.run(&[0xf2, 0x0f, 0x38, 0xf0, 0xcc]);
    let with_ah = cpu.regs.gpr[RCX];
    cpu.regs.gpr[RAX] = 0xff;
    cpu.regs.gpr[RCX] = 0;
    cpu.run(&[0xf2, 0x0f, 0x38, 0xf0, 0xc8]);
    assert_eq!(cpu.regs.gpr[RCX], with_ah);
}

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
fn an_unaligned_access_of_ring_3_faults_if_it_asks_for_it() {
    let mut cpu = TestCpu::long().user();
    cpu.regs.gpr[RSI] = DATA + 1;
    cpu.run(&POPCNT_RCX_AT_RSI);
    cpu.regs.rflags |= bits::AC;
    cpu.run(&POPCNT_RCX_AT_RSI);
    cpu.system.cr0 |= bits::CR0_AM;
    assert_eq!(cpu.fault(&POPCNT_RCX_AT_RSI), Exception::AC);
}

#[test]
fn clac_and_stac_are_for_ring_0() {
    let mut cpu = TestCpu::long();
    cpu.run(&STAC);
    assert!(cpu.has_flag(bits::AC));
    cpu.run(&CLAC);
    assert!(!cpu.has_flag(bits::AC));
    let mut cpu = cpu.user();
    assert_eq!(cpu.fault(&STAC), Exception::UD);
}

#[test]
fn xcr0_is_read_and_written_by_its_rules() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RDX] = u64::MAX;
    cpu.run(&XGETBV);
    assert_eq!((cpu.regs.gpr[RAX], cpu.regs.gpr[RDX]), (7, 0));
    cpu.regs.gpr[RCX] = 2;
    assert_eq!(cpu.fault(&XGETBV), Exception::GP0);
    cpu.regs.gpr[RCX] = 0;
    for (value, good) in [(1, true), (3, true), (7, true), (0, false), (5, false), (0xf, false)] {
        cpu.regs.gpr[RAX] = value;
        if good {
            cpu.run(&XSETBV);
            assert_eq!(cpu.xcr0, value);
        } else {
            assert_eq!(cpu.fault(&XSETBV), Exception::GP0, "{value:#x}");
        }
    }
    cpu.system.cr4 &= !bits::CR4_OSXSAVE;
    assert_eq!(cpu.fault(&XGETBV), Exception::UD);
    assert_eq!(cpu.fault(&XSETBV), Exception::UD);
}

#[test]
fn pkru_is_there_while_keys_are_on() {
    let mut cpu = TestCpu::long();
    assert_eq!(cpu.fault(&RDPKRU), Exception::UD);
    cpu.system.cr4 |= bits::CR4_PKE;
    cpu.regs.gpr[RAX] = 0x5555_5554;
    cpu.run(&WRPKRU);
    cpu.regs.gpr[RAX] = 0;
    cpu.run(&RDPKRU);
    assert_eq!(cpu.regs.gpr[RAX], 0x5555_5554);
    cpu.regs.gpr[RDX] = 1;
    assert_eq!(cpu.fault(&WRPKRU), Exception::GP0);
}

#[test]
fn invpcid_checks_its_descriptor_and_flushes() {
    let mut cpu = TestCpu::long();
    cpu.regs.gpr[RSI] = DATA;
    // Type, PCID word, address; good?
    let table = [
        (0u64, 0u64, 0x1000u64, true),
        (1, 0, 0, true),
        (2, 0, 0, true),
        (3, 0, 0, true),
        (4, 0, 0, false),
        (0, 1, 0, false),
        (2, 1, 0, true),
        (0, 0, 1 << 47, false),
        (2, 1 << 12, 0, false),
    ];
    for (kind, pcid, address, good) in table {
        cpu.regs.gpr[RAX] = kind;
        cpu.put_u64(DATA, pcid);
        cpu.put_u64(DATA + 8, address);
        let before = cpu.flushes;
        if good {
            cpu.run(&INVPCID_RAX_AT_RSI);
        } else {
            assert_eq!(cpu.fault(&INVPCID_RAX_AT_RSI), Exception::GP0, "{kind} {pcid:#x}");
        }
        assert_eq!(cpu.flushes - before, usize::from(good));
    }
    let mut cpu = cpu.user();
    assert_eq!(cpu.fault(&INVPCID_RAX_AT_RSI), Exception::GP0);
}

#[test]
fn rdtscp_reads_the_clock_and_the_processors_number() {
    let mut cpu = TestCpu::long();
    cpu.msrs.insert(0x10, 0x1_2345_6789);
    assert_eq!(cpu.fault(&RDTSCP), Exception::UD);
    cpu.msrs.insert(0xc000_0103, 3);
    cpu.run(&RDTSCP);
    assert_eq!(cpu.regs.gpr[..3], [0x2345_6789, 3, 1]);
    let mut cpu = cpu.user();
    cpu.system.cr4 |= bits::CR4_TSD;
    assert_eq!(cpu.fault(&RDTSCP), Exception::GP0);
}

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

#[test]
fn selectors_are_looked_at_without_being_loaded() {
    let mut cpu = with_tables(TestCpu::long());
    let look = |cpu: &mut TestCpu, opcode: [u8; 2], modrm, selector: u64| {
        cpu.regs.gpr[RAX] = selector;
        cpu.run(&[opcode[0], opcode[1], modrm]);
        cpu.has_flag(bits::ZF)
    };
    // VERR AX and VERW AX: code that can be read, data, the TSS, null, beyond the table.
    let table = [(8, true, false), (16, true, true), (32, false, false), (0, false, false)];
    for (selector, readable, writable) in table {
        assert_eq!(look(&mut cpu, [0x0f, 0x00], 0xe0, selector), readable, "{selector}");
        assert_eq!(look(&mut cpu, [0x0f, 0x00], 0xe8, selector), writable, "{selector}");
    }
    assert!(!look(&mut cpu, [0x0f, 0x00], 0xe0, 0x1000));
    // RPL 3 does not reach data of DPL 0.
    assert!(!look(&mut cpu, [0x0f, 0x00], 0xe8, 16 | 3));
    // LAR ECX, EAX and LSL ECX, EAX.
    assert!(look(&mut cpu, [0x0f, 0x02], 0xc8, 16));
    assert_eq!(cpu.regs.gpr[RCX], 0x00cf_9300 & 0x00ff_ff00);
    assert!(look(&mut cpu, [0x0f, 0x03], 0xc8, 16));
    assert_eq!(cpu.regs.gpr[RCX], 0xffff_ffff);
    assert!(look(&mut cpu, [0x0f, 0x03], 0xc8, 32));
    assert_eq!(cpu.regs.gpr[RCX], 0x67);
    assert!(!look(&mut cpu, [0x0f, 0x02], 0xc8, 0));
    assert_eq!(cpu.regs.gpr[RCX], 0x67);
}

/// A GDT: code at 8 and data at 16 of ring 0, a TSS at 32, code at 48 and data at 56 of ring 3; a
/// TSS with stacks, and an empty IDT of 256 entries.
fn with_tables(mut cpu: TestCpu) -> TestCpu {
    let long = cpu.system.is_long();
    let code = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let data = 0x00cf_9300_0000_ffff;
    let ring3 = 3 << 45;
    let tss = 0x0000_8b00_0000_0067 | TSS << 16;
    for (offset, value) in
        [(8, code), (16, data), (32, tss), (48, code | ring3), (56, data | ring3)]
    {
        cpu.put_u64(GDT + offset, value);
    }
    cpu.system.gdtr = TableRegister { base: GDT, limit: 63 };
    let limit = if long { 256 * 16 - 1 } else { 256 * 8 - 1 };
    cpu.system.idtr = TableRegister { base: IDT, limit };
    cpu.system.tr = Segment { selector: 32, base: TSS, limit: 0x67, attributes: 0x8b };
    if long {
        cpu.put_u64(TSS + 4, STACK - 0x800);
        // IST 2.
        cpu.put_u64(TSS + 0x2c, STACK - 0xc00);
    } else {
        cpu.put(TSS + 4, &0x6800u32.to_le_bytes());
        cpu.put(TSS + 8, &16u16.to_le_bytes());
    }
    cpu
}

/// A gate of type and DPL `access` to 0x9876_5432 (low half if 16-bit) in segment 8.
fn put_gate(cpu: &mut TestCpu, vector: u64, access: u64, ist: u64) {
    let low = 0x9876_0000_0008_5432 | access << 40 | ist << 32;
    let len = if cpu.system.is_long() { 16 } else { 8 };
    cpu.put_u64(IDT + vector * len, low);
    if len == 16 {
        cpu.put_u64(IDT + vector * len + 8, 0x7f);
    }
}

const TARGET: u64 = 0x7f_9876_5432;

#[test]
fn int3_goes_through_its_gate_in_64_bit_mode() {
    let mut cpu = with_tables(TestCpu::long());
    put_gate(&mut cpu, 3, 0x8e, 0);
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
    let mut cpu = with_tables(TestCpu::long());
    put_gate(&mut cpu, 0x80, 0x8f, 2);
    cpu.regs.rflags |= bits::IF;
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!(cpu.regs.rflags, 2 | bits::IF);
    assert_eq!(cpu.regs.gpr[RSP], STACK - 0xc00 - 40);
}

#[test]
fn ring_3_comes_to_ring_0_on_its_stack_if_the_gate_lets_it() {
    let mut cpu = with_tables(TestCpu::long().user());
    put_gate(&mut cpu, 0x80, 0x8e, 0);
    assert_eq!(cpu.fault(&INT_80), Exception::gp(0x80 << 3 | 2));
    put_gate(&mut cpu, 0x80, 0xee, 0);
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!(cpu.raised, None);
    assert_eq!(cpu.regs.gpr[RSP], STACK - 0x800 - 40);
    assert_eq!(cpu.system.cpl(), 0);
    assert_eq!((cpu.system.cs.selector, cpu.system.ss.selector), (8, 0));
    assert_eq!(cpu.get_u64(STACK - 0x800 - 32), 8 | 3);
    // INT1 does not ask for the gate's DPL.
    let mut cpu = with_tables(TestCpu::long().user());
    put_gate(&mut cpu, 1, 0x8e, 0);
    assert!(cpu.complete(&INT1).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip), (None, TARGET));
}

#[test]
fn faults_of_a_delivery_have_their_error_codes() {
    let error = |prepare: fn(&mut TestCpu)| {
        let mut cpu = with_tables(TestCpu::long());
        put_gate(&mut cpu, 0x80, 0x8e, 0);
        prepare(&mut cpu);
        cpu.fault(&INT_80)
    };
    let vector = 0x80 << 3 | 2;
    assert_eq!(error(|cpu| cpu.system.idtr.limit = 0x80 * 16 + 14), Exception::gp(vector));
    assert_eq!(error(|cpu| put_gate(cpu, 0x80, 0x0e, 0)), Exception::np(vector));
    assert_eq!(error(|cpu| put_gate(cpu, 0x80, 0x86, 0)), Exception::gp(vector));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0)), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0x00af_1b00_0000_ffff)), Exception::np(8));
    assert_eq!(error(|cpu| cpu.put_u64(GDT + 8, 0x00cf_9b00_0000_ffff)), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.system.gdtr.limit = 14), Exception::gp(8));
    assert_eq!(error(|cpu| cpu.put_u64(IDT + 0x808, 0x8000)), Exception::gp(0));
    assert_eq!(error(|cpu| cpu.regs.gpr[RSP] = (1 << 47) + 24), Exception::ss(0));
    let tss = |cpu: &mut TestCpu| {
        cpu.system.tr.limit = 0x2b;
        put_gate(cpu, 0x80, 0x8e, 2);
    };
    assert_eq!(error(tss), Exception::ts(32));
}

#[test]
fn gates_of_32_and_16_bits_push_as_wide_as_they_are() {
    for (access, width, target) in [(0x8e, 4u64, 0x9876_5432u64), (0x86, 2, 0x5432)] {
        let mut cpu = with_tables(TestCpu::protected());
        put_gate(&mut cpu, 0x80, access, 0);
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
    let mut cpu = with_tables(TestCpu::protected().user());
    put_gate(&mut cpu, 0x80, 0xee, 0);
    assert!(cpu.complete(&INT_80).is_some());
    assert_eq!((cpu.raised, cpu.regs.gpr[RSP]), (None, 0x6800 - 20));
    let words = [0u64, 4, 8, 12, 16].map(|at| u32::from_le_bytes(cpu.get(0x6800 - 20 + at)));
    assert_eq!([words[0], words[1], words[3], words[4]], [0x1002, 8 | 3, 0x7000, 16 | 3]);
    assert_eq!((cpu.system.cpl(), cpu.system.ss.selector), (0, 16));
    // A stack segment that is not ring 0's.
    let mut cpu = with_tables(TestCpu::protected().user());
    put_gate(&mut cpu, 0x80, 0xee, 0);
    cpu.put(TSS + 8, &(56u16 | 3).to_le_bytes());
    assert_eq!(cpu.fault(&INT_80), Exception::ts(56));
    // A task gate is not known here.
    put_gate(&mut cpu, 0x80, 0xe5, 0);
    assert_eq!(cpu.complete(&INT_80), None);
}

#[test]
fn a_16_bit_stack_keeps_the_rest_of_esp() {
    let mut cpu = with_tables(TestCpu::protected());
    put_gate(&mut cpu, 3, 0x8e, 0);
    cpu.system.ss.attributes &= !attributes::BIG;
    cpu.regs.gpr[RSP] = 0xabcd_0000 | STACK;
    assert!(cpu.complete(&INT3).is_some());
    assert_eq!(cpu.regs.gpr[RSP], 0xabcd_0000 | (STACK - 12));
}

#[test]
fn into_and_bound_trap_on_what_they_look_for() {
    let mut cpu = with_tables(TestCpu::protected());
    put_gate(&mut cpu, 4, 0x8e, 0);
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

const IRETD: [u8; 1] = [0xcf];
const IRET16: [u8; 2] = [0x66, 0xcf];
const IRETQ: [u8; 2] = [0x48, 0xcf];

/// Flags that a frame may have.
const FRAME_FLAGS: u64 = 2 | bits::CF | bits::IF | bits::DF | bits::AC | bits::RF;

/// Puts a frame on the stack, in words of `width` bytes.
fn put_frame(cpu: &mut TestCpu, width: usize, words: &[u64]) {
    for (index, word) in words.iter().enumerate() {
        let at = cpu.regs.gpr[RSP] + u64::try_from(width * index).unwrap();
        cpu.put(at, &word.to_le_bytes()[..width]);
    }
}

#[test]
fn iret_returns_within_ring_0_with_a_frame_of_any_width() {
    for (bytes, width, flags) in
        [(&IRETD[..], 4, FRAME_FLAGS), (&IRET16[..], 2, FRAME_FLAGS & 0xffff)]
    {
        let mut cpu = with_tables(TestCpu::protected());
        cpu.nmis_blocked = true;
        put_frame(&mut cpu, width, &[0x5432, 8, FRAME_FLAGS]);
        assert!(cpu.complete(bytes).is_some());
        assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, 0x5432, flags));
        assert_eq!(cpu.regs.gpr[RSP], STACK + 3 * u64::try_from(width).unwrap());
        assert_eq!((cpu.system.cs.selector, cpu.nmis_blocked), (8, false));
    }
    let mut cpu = with_tables(TestCpu::long());
    put_frame(&mut cpu, 8, &[TARGET, 8, FRAME_FLAGS, 0x1234, 16]);
    assert!(cpu.complete(&IRETQ).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, TARGET, FRAME_FLAGS));
    assert_eq!((cpu.regs.gpr[RSP], cpu.system.ss.selector), (0x1234, 16));
}

#[test]
fn iret_to_ring_3_changes_stacks_and_leaves_no_inner_segment() {
    let mut cpu = with_tables(TestCpu::protected());
    cpu.system.es.attributes |= 0x60;
    put_frame(&mut cpu, 4, &[0x5432, 48 | 3, 2 | bits::IF, 0x9000, 56 | 3]);
    assert!(cpu.complete(&IRETD).is_some());
    assert_eq!((cpu.raised, cpu.regs.rip, cpu.regs.rflags), (None, 0x5432, 2 | bits::IF));
    assert_eq!((cpu.system.cpl(), cpu.regs.gpr[RSP]), (3, 0x9000));
    let selectors = [cpu.system.cs, cpu.system.ss, cpu.system.es, cpu.system.ds];
    assert_eq!(selectors.map(|segment| segment.selector), [51, 59, 16, 0]);
    assert_eq!(cpu.system.ds.attributes, 0);
}

#[test]
fn iret_of_ring_3_changes_neither_if_nor_iopl() {
    let mut cpu = with_tables(TestCpu::protected().user());
    put_frame(&mut cpu, 4, &[0x5432, 48 | 3, 2 | bits::CF | bits::IF | bits::RFLAGS_IOPL_3]);
    assert!(cpu.complete(&IRETD).is_some());
    assert_eq!((cpu.raised, cpu.regs.rflags), (None, 2 | bits::CF));
}

#[test]
fn faults_of_iret_have_their_error_codes_and_change_nothing() {
    let fault = |words: &[u64]| {
        let mut cpu = with_tables(TestCpu::protected());
        cpu.system.cs.limit = 0xf_ffff;
        put_frame(&mut cpu, 4, words);
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
    let mut cpu = with_tables(TestCpu::long());
    put_frame(&mut cpu, 8, &[1 << 47, 8, 2, 0x1234, 16]);
    assert_eq!(cpu.fault(&IRETQ), Exception::GP0);
    cpu.regs.rflags |= bits::NT;
    assert_eq!(cpu.fault(&IRETQ), Exception::GP0);
    // Not known here: to virtual-8086 mode, and to another task.
    let mut cpu = with_tables(TestCpu::protected());
    put_frame(&mut cpu, 4, &[0x5432, 8, 2 | bits::VM]);
    assert_eq!(cpu.complete(&IRETD), None);
    cpu.regs.rflags |= bits::NT;
    assert_eq!(cpu.complete(&IRETD), None);
}

/// A vCPU at its handler of page faults, for the first byte of the entry point that SYSCALL went
/// to.
fn after_half_a_syscall() -> TestCpu {
    let mut cpu = with_tables(TestCpu::long());
    put_gate(&mut cpu, 14, 0x8e, 0);
    cpu.system.efer |= 1;
    let [star, lstar, fmask] = [0xc000_0081, 0xc000_0082, 0xc000_0084];
    cpu.msrs.extend([(star, 0x0010_0008 << 32), (lstar, TARGET), (fmask, bits::IF | bits::TF)]);
    cpu.put(DATA - 2, &[0x0f, 0x05]);
    cpu.regs.gpr[RCX] = DATA;
    cpu.regs.gpr[11] = 2 | bits::CF | bits::IF;
    let frame = [0x15, TARGET, 48 | 3, 2 | bits::CF | bits::RF, 0x9000, 56 | 3];
    put_frame(&mut cpu, 8, &frame);
    cpu
}

#[test]
fn the_vcpu_stops_where_page_faults_go_if_syscall_is_used() {
    let mut cpu = after_half_a_syscall();
    assert_eq!(syscall::stop_at(&mut cpu).unwrap(), Some(TARGET));
    cpu.system.efer &= !1;
    assert_eq!(syscall::stop_at(&mut cpu).unwrap(), None);
    let mut cpu = after_half_a_syscall();
    cpu.msrs.clear();
    assert_eq!(syscall::stop_at(&mut cpu).unwrap(), None);
    // A table that is in no memory.
    let mut cpu = after_half_a_syscall();
    cpu.system.idtr.base = 0xfee0_0000;
    assert_eq!(syscall::stop_at(&mut cpu).unwrap(), None);
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
