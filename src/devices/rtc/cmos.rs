//! What the CMOS memory holds at the start, where a BIOS would have written it: how much memory
//! and how many CPUs there are. The places are those of the PC/AT (IBM, Personal Computer AT
//! Technical Reference, "CMOS RAM address map") and, from 0x34 on, QEMU's (`hw/i386/pc.c`).

use super::CMOS_LEN;
use crate::config::VcpuCount;
use crate::memory::RamLayout;

/// The equipment byte: a floating-point unit, no floppy drive, no display.
const EQUIPMENT: usize = 0x14;
const EQUIPMENT_FPU: u8 = 1 << 1;
/// Memory below 1 MiB, in KiB.
const BASE_MEMORY: usize = 0x15;
const BASE_MEMORY_KIB: u16 = 640;
/// Memory from 1 MiB, in KiB, up to 65,535; as set up and as found by the POST.
const EXTENDED_MEMORY: [usize; 2] = [0x17, 0x30];
/// Memory from 16 MiB and below 4 GiB, in units of 64 KiB.
const HIGH_MEMORY: usize = 0x34;
/// Memory from 4 GiB, in units of 64 KiB: three bytes.
const MEMORY_ABOVE_4G: usize = 0x5b;
/// CPUs that start besides the first.
const MORE_CPUS: usize = 0x5f;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const UNIT: u64 = 64 * KIB;

/// The memory of a machine with this RAM and so many CPUs.
pub fn first_contents(ram: RamLayout, cpus: VcpuCount) -> [u8; CMOS_LEN] {
    let mut cmos = [0; CMOS_LEN];
    let mut put = |at: usize, value: u64, len: usize| {
        cmos[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    let low = ram.low().end;
    let high = ram.high().end - ram.high().start;
    let at_most = |value: u64, bytes: u32| value.min((1 << (8 * bytes)) - 1);
    put(EQUIPMENT, EQUIPMENT_FPU.into(), 1);
    put(BASE_MEMORY, (low / KIB).min(BASE_MEMORY_KIB.into()), 2);
    for place in EXTENDED_MEMORY {
        put(place, at_most(low.saturating_sub(MIB) / KIB, 2), 2);
    }
    put(HIGH_MEMORY, at_most(low.saturating_sub(16 * MIB) / UNIT, 2), 2);
    put(MEMORY_ABOVE_4G, at_most(high / UNIT, 3), 3);
    put(MORE_CPUS, at_most(u64::from(cpus.get() - 1), 1), 1);
    cmos
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    fn word(cmos: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([cmos[at], cmos[at + 1]])
    }

    #[test]
    fn sizes_of_memory() {
        let sizes = |bytes| {
            let ram = RamLayout::new(MemorySize::from_bytes(bytes).unwrap());
            let cmos = first_contents(ram, VcpuCount::default());
            assert_eq!(word(&cmos, 0x17), word(&cmos, 0x30));
            let above = u32::from_le_bytes([cmos[0x5b], cmos[0x5c], cmos[0x5d], 0]);
            (word(&cmos, 0x15), word(&cmos, 0x17), word(&cmos, 0x34), above)
        };
        assert_eq!(sizes(64 * KIB), (64, 0, 0, 0));
        assert_eq!(sizes(MIB), (640, 0, 0, 0));
        assert_eq!(sizes(16 * MIB), (640, 15 * 1024, 0, 0));
        assert_eq!(sizes(128 * MIB), (640, 65_535, 112 * 16, 0));
        assert_eq!(sizes(8 << 30), (640, 65_535, (3072 - 16) * 16, 5 << 14));
        // As much as three bytes can say.
        assert_eq!(sizes(8 << 40).3, 0xff_ffff);
    }

    #[test]
    fn the_number_of_cpus_saturates() {
        let ram = RamLayout::new(MemorySize::default());
        let more = |cpus| first_contents(ram, VcpuCount::new(cpus).unwrap())[MORE_CPUS];
        assert_eq!([1, 4, 256, 257, 1000].map(more), [0, 3, 255, 255, 255]);
    }
}
