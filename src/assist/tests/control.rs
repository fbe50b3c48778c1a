//! Instructions about the vCPU itself: flags, XCR0, PKRU, translations, the clock, and those that
//! look at descriptors. Who may execute them, and with what.

use crate::assist::cpu::gpr::{RAX, RCX, RDX};
use crate::assist::cpu::{Exception, bits};
use crate::assist::testing::{DATA, RSI, TestCpu};

const CLAC: [u8; 3] = [0x0f, 0x01, 0xca];
const STAC: [u8; 3] = [0x0f, 0x01, 0xcb];
const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
const XSETBV: [u8; 3] = [0x0f, 0x01, 0xd1];
const RDPKRU: [u8; 3] = [0x0f, 0x01, 0xee];
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
const RDTSCP: [u8; 3] = [0x0f, 0x01, 0xf9];
const INVPCID_RAX_AT_RSI: [u8; 5] = [0x66, 0x0f, 0x38, 0x82, 0x06];

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
fn selectors_are_looked_at_without_being_loaded() {
    let mut cpu = TestCpu::long().with_tables();
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
