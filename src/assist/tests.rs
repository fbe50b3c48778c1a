//! The completion of instructions on a plain struct of a vCPU: which are known, what comes after
//! one, and operands, here; results, flags and faults of each family in a file below. What the
//! processor does with random inputs is compared in tests/assist.rs, by a guest; here are the cases
//! that it does not reach.

mod control;
mod extended;
mod flow;
mod integer;
mod iret;
mod syscall;

use crate::assist::cpu::gpr::{RAX, RCX, RSP};
use crate::assist::cpu::{Exception, bits};
use crate::assist::testing::{CODE, DATA, RSI, TABLES, TestCpu};

const POPCNT_RCX_RAX: [u8; 5] = [0xf3, 0x48, 0x0f, 0xb8, 0xc8];
const POPCNT_RCX_AT_RSI: [u8; 5] = [0xf3, 0x48, 0x0f, 0xb8, 0x0e];
const FWAIT: [u8; 1] = [0x9b];

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
    let tables = TABLES;
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
fn an_unaligned_access_of_ring_3_faults_if_it_asks_for_it() {
    let mut cpu = TestCpu::long().user();
    cpu.regs.gpr[RSI] = DATA + 1;
    cpu.run(&POPCNT_RCX_AT_RSI);
    cpu.regs.rflags |= bits::AC;
    cpu.run(&POPCNT_RCX_AT_RSI);
    cpu.system.cr0 |= bits::CR0_AM;
    assert_eq!(cpu.fault(&POPCNT_RCX_AT_RSI), Exception::AC);
}
