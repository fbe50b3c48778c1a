//! The registers of every mode, and the entry points and overrides they follow from.

use std::path::PathBuf;

use super::*;
use crate::boot::state::{Registers, Segment, TableRegister};
use crate::config::GuestSource;

const GIB: u64 = 1 << 30;
const IMAGE: Range<u64> = 0x1000..0x1011;

fn config(mode: CpuMode) -> VmConfig {
    let guest = GuestSource::File(PathBuf::from("guest.bin"));
    VmConfig { mode: Some(mode), vcpus: VcpuCount::new(3).unwrap(), ..VmConfig::new(guest) }
}

fn plan(config: &VmConfig) -> Result<EntryPlan, EntryError> {
    let entry = config.entry.unwrap_or(config.flat_load_addr());
    EntryPlan::new(config, &Start::Own { mode: config.flat_mode(), entry, taken: vec![IMAGE] })
}

fn state(config: &VmConfig, id: u32) -> EntryState {
    plan(config).unwrap().state(VcpuId(id))
}

fn entry_at(mode: CpuMode, entry: u64) -> Result<EntryState, EntryError> {
    let memory = MemorySize::from_bytes(8 * GIB).unwrap();
    let config = VmConfig { entry: Some(Gpa(entry)), memory, ..config(mode) };
    plan(&config).map(|plan| plan.state(VcpuId(0)))
}

fn segment(selector: u16, base: u64, limit: u32, attributes: u16) -> Segment {
    Segment { selector, base, limit, attributes }
}

/// 128 MiB of RAM, vCPU 1 of 3, loaded at 0x1000.
fn expected_registers(rsp: u64, rflags: u64) -> Registers {
    Registers {
        rax: 2,
        rbx: 2,
        rcx: 32_768,
        rsi: 3,
        rdi: 1,
        rsp,
        rip: 0x1000,
        rflags,
        ..Registers::default()
    }
}

#[test]
fn real_mode_is_flat_from_0_but_for_the_stack() {
    let data = segment(0, 0, 0xffff, 0x93);
    let table = TableRegister { base: 0, limit: 0xffff };
    let expected = EntryState {
        regs: expected_registers(0x4000, 2),
        cs: segment(0, 0, 0xffff, 0x9b),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: segment(0xf800, 0xf_8000, 0xffff, 0x93),
        tr: segment(0, 0, 0xffff, 0x8b),
        ldtr: Segment::default(),
        gdtr: table,
        idtr: table,
        cr0: 0x10,
        cr3: 0,
        cr4: 0,
        efer: 0,
    };
    assert_eq!(state(&config(CpuMode::Real), 1), expected);
}

#[test]
fn protected_mode_is_flat_and_32_bit() {
    let data = segment(0x10, 0, u32::MAX, 0xc093);
    let expected = EntryState {
        regs: expected_registers((128 << 20) - 0x4000, 2),
        cs: segment(0x08, 0, u32::MAX, 0xc09b),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(0x28, 0xf000_0100, 0x2068, 0x8b),
        ldtr: Segment::default(),
        gdtr: TableRegister { base: 0xf000_0000, limit: 55 },
        idtr: TableRegister::default(),
        cr0: 0x33,
        cr3: 0,
        cr4: 0x600,
        efer: 0,
    };
    assert_eq!(state(&config(CpuMode::Protected), 1), expected);
}

#[test]
fn long_mode_is_64_bit_with_paging_in_ring_0() {
    let protected = state(&config(CpuMode::Protected), 1);
    let expected = EntryState {
        cs: segment(0x08, 0, u32::MAX, 0xa09b),
        cr0: 0x8001_0033,
        cr3: 0xf000_3000,
        cr4: 0x620,
        efer: 0x500,
        ..protected
    };
    assert_eq!(state(&config(CpuMode::Long), 1), expected);
}

#[test]
fn user_mode_is_long_mode_in_ring_3_with_iopl_3() {
    let data = segment(0x1b, 0, u32::MAX, 0xc0f3);
    let expected = EntryState {
        regs: expected_registers((128 << 20) - 0x4000, 0x3002),
        cs: segment(0x23, 0, u32::MAX, 0xa0fb),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ..state(&config(CpuMode::Long), 1)
    };
    assert_eq!(state(&config(CpuMode::User), 1), expected);
}

#[test]
fn each_vcpu_has_its_own_index_and_stack() {
    for mode in CpuMode::ALL {
        let plan = plan(&config(mode)).unwrap();
        let mut above: Option<u64> = None;
        for id in 0..3 {
            let state = plan.state(VcpuId(id));
            assert_eq!((state.regs.rdi, state.regs.rsp % 16), (id.into(), 0), "{mode}");
            let top = state.ss.base + state.regs.rsp;
            assert!(above.is_none_or(|above| top + 0x4000 == above), "{mode} {id}");
            above = Some(top);
        }
    }
}

#[test]
fn a_real_mode_entry_above_64_kib_moves_cs() {
    let cs_ip = |entry| {
        let state = entry_at(CpuMode::Real, entry).unwrap();
        assert_eq!(state.cs.base, u64::from(state.cs.selector) << 4);
        assert_eq!(state.cs.base + state.regs.rip, entry);
        (state.cs.selector, state.regs.rip)
    };
    assert_eq!(cs_ip(0), (0, 0));
    assert_eq!(cs_ip(0xffff), (0, 0xffff));
    assert_eq!(cs_ip(0x1_0000), (0x1000, 0));
    assert_eq!(cs_ip(0x1_2345), (0x1234, 5));
    assert_eq!(cs_ip(0xf_ffff), (0xffff, 0xf));
}

#[test]
fn an_entry_out_of_the_modes_reach_is_refused() {
    assert_eq!(
        entry_at(CpuMode::Real, 0x10_0000).unwrap_err().to_string(),
        "entry point 0x100000 is out of reach in real mode, which ends at 0x100000"
    );
    assert!(entry_at(CpuMode::Protected, 0xbfff_ffff).is_ok());
    assert_eq!(
        entry_at(CpuMode::Protected, 4 * GIB).unwrap_err().to_string(),
        "entry point 0x100000000 is out of reach in protected mode, which ends at 0x100000000"
    );
    for mode in [CpuMode::Long, CpuMode::User] {
        assert_eq!(entry_at(mode, 9 * GIB - 1).unwrap().regs.rip, 9 * GIB - 1);
    }
}

#[test]
fn an_entry_outside_ram_is_refused() {
    for mode in CpuMode::ALL {
        for entry in [3 * GIB, 0xf000_0000, 9 * GIB, u64::MAX] {
            assert_eq!(
                entry_at(mode, entry).unwrap_err().to_string(),
                format!(
                    "entry point {entry:#x} is outside the 8 GiB of memory \
                     (0x0-0xbfffffff and 0x100000000-0x23fffffff)"
                )
            );
        }
    }
}

#[test]
fn overrides_come_last_in_order_and_on_every_vcpu() {
    let regs = vec![
        (Register::Rdi, 7),
        (Register::Rsp, 0x500),
        (Register::R15, 1),
        (Register::R15, u64::MAX),
    ];
    let config = VmConfig { regs, ..config(CpuMode::Real) };
    for id in 0..3 {
        let state = state(&config, id);
        let regs = state.regs;
        assert_eq!((regs.rdi, regs.rsp, regs.r15), (7, 0x500, u64::MAX));
        assert_ne!(state.ss.selector, 0, "the segments stay");
    }
}

#[test]
fn too_many_vcpus_for_the_memory_are_refused() {
    let memory = MemorySize::from_bytes(0x2000).unwrap();
    let vcpus = VcpuCount::new(1024).unwrap();
    let error = plan(&VmConfig { memory, vcpus, ..config(CpuMode::Long) });
    assert_eq!(
        error.unwrap_err().to_string(),
        "no room for 1024 stacks of at least 64 bytes between 0x1011 and 0x2000"
    );
}
