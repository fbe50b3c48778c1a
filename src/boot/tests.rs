//! From a configuration to a guest in memory, in every mode.

use std::io::Write;

use super::*;
use crate::config::{CpuMode, GuestSource, MemorySize};
use crate::exit::{Gpa, VcpuId};
use crate::memory::BOOT_AREA;

fn config(mode: CpuMode, image: &[u8]) -> (VmConfig, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(image).unwrap();
    let guest = GuestSource::File(file.path().to_owned());
    (VmConfig { mode: Some(mode), ..VmConfig::new(guest) }, file)
}

#[test]
fn one_page_is_enough_in_every_mode() {
    for mode in CpuMode::ALL {
        let (config, _file) = config(mode, b"guest");
        let memory = MemorySize::from_bytes(4096).unwrap();
        let config = VmConfig { memory, load_addr: Some(Gpa(0)), ..config };
        let guest = load(&config, false).unwrap();
        let mut bytes = [0; 6];
        guest.memory.read_slice(Gpa(0), &mut bytes).unwrap();
        assert_eq!(&bytes, b"guest\0", "{mode}");
        let state = guest.entry.state(VcpuId(0));
        assert_eq!((state.regs.rip, state.ss.base + state.regs.rsp), (0, 4096), "{mode}");
    }
}

#[test]
fn the_boot_area_has_what_the_state_points_to() {
    let boot_area_len = |mode| {
        let (config, _file) = config(mode, b"guest");
        let guest = load(&config, false).unwrap();
        let state = guest.entry.state(VcpuId(0));
        let region = guest.memory.regions().find(|region| region.gpa == BOOT_AREA);
        if let Some(region) = region {
            let mut code = [0; 8];
            let at = state.gdtr.base + u64::from(state.cs.selector & !7);
            guest.memory.read_slice(Gpa(at), &mut code).unwrap();
            assert_eq!(code[5], state.cs.attributes.to_le_bytes()[0], "{mode}");
            let tss_end = state.tr.base + u64::from(state.tr.limit);
            assert!(tss_end < BOOT_AREA.0 + region.len, "{mode}");
        }
        (region.map_or(0, |region| region.len), state.cr3)
    };
    assert_eq!(boot_area_len(CpuMode::Real), (0, 0));
    assert_eq!(boot_area_len(CpuMode::Protected), (3 * 4096, 0));
    assert_eq!(boot_area_len(CpuMode::Long), (9 * 4096, 0xf000_3000));
    assert_eq!(boot_area_len(CpuMode::User), (9 * 4096, 0xf000_3000));
}

#[test]
fn errors_of_every_part_come_through_as_they_are() {
    let (good, _file) = config(CpuMode::Long, b"guest");
    let error = |config: VmConfig| load(&config, false).unwrap_err().to_string();
    let missing = GuestSource::File("/nowhere/guest.bin".into());
    let errors = [
        error(VmConfig { guest: missing, ..good.clone() }),
        error(VmConfig { load_addr: Some(Gpa(128 << 20)), ..good.clone() }),
        error(VmConfig { entry: Some(Gpa(128 << 20)), ..good.clone() }),
        error(VmConfig { memory: MemorySize::from_bytes(2 << 40).unwrap(), ..good }),
    ];
    let starts = [
        "cannot open guest image '/nowhere/guest.bin'",
        "image of 5 bytes at 0x8000000 does not fit in 128 MiB of memory",
        "entry point 0x8000000 is outside the 128 MiB of memory",
        "mapping 2 TiB of memory in pages of 2 MiB takes",
    ];
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn a_machine_with_interrupt_controllers_has_tables_where_guests_look() {
    let (config, _file) = config(CpuMode::Long, b"guest");
    let with = |irqchip| {
        let platform = PlatformConfig { irqchip: Some(irqchip), ..PlatformConfig::default() };
        VmConfig { platform, ..config.clone() }
    };
    let signature = |guest: &BootedGuest, at| {
        let mut bytes = [0; 4];
        guest.memory.read_slice(Gpa(at), &mut bytes).unwrap();
        bytes
    };
    let none = load(&with(IrqChip::None), false).unwrap();
    assert_eq!((none.loaded.len(), signature(&none, 0xe_0000)), (2, [0; 4]));
    for irqchip in [IrqChip::Kernel, IrqChip::Split] {
        let guest = load(&with(irqchip), false).unwrap();
        assert_eq!(signature(&guest, 0xe_0000), *b"RSD ");
        assert_eq!(signature(&guest, 0xf_0000), *b"_MP_");
        let starts: Vec<_> = guest.loaded.iter().map(|range| range.start).collect();
        assert_eq!(starts, [0x1000, 0xe_0000, 0xf_0000, 0xf000_0000]);
    }
    let error = |config| load(&config, false).unwrap_err().to_string();
    let kernel = with(IrqChip::Kernel);
    let in_the_way = VmConfig { load_addr: Some(Gpa(0xf_8000)), ..kernel.clone() };
    let in_the_way = error(in_the_way);
    assert_eq!(
        in_the_way,
        "image at 0xf8000-0xf8004 overlaps the machine's tables at 0xe0000-0xfdfff"
    );
    let topology = Some("1:2:1".parse().unwrap());
    let platform = PlatformConfig { topology, ..kernel.platform.clone() };
    let mismatch = error(VmConfig { platform, ..kernel });
    assert_eq!(mismatch, "--topology 1:2:1 is for 2 vCPUs, and --vcpus is 1");
}
