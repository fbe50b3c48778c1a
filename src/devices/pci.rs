//! PCI's configuration ports, with nothing behind them: the address register works, so that a
//! guest finds configuration mechanism 1, and every device that it looks for reads as all ones.
//! Among them is the reset control register, which is a byte wide (Intel ICH9 datasheet, section
//! 13.7.5; the ports: PCI Local Bus Specification 3.0, section 3.2.2.3.2). Pure registers.

use crate::devices::{GuestEnd, all_ones};

/// The address register; the data register follows.
pub const PCI_CONFIG: u64 = 0xcf8;
/// The length of both.
pub const PCI_CONFIG_LEN: u64 = 8;

/// Offset of the reset control register.
const RESET_CONTROL: u64 = 1;
/// CONFIG_ADDRESS: all but the bits that read as 0.
const ADDRESS_BITS: u64 = 0x80ff_fffc;
/// RST_CNT: the bit that resets when it goes on, and those that say how, which are kept.
const RESET_CPU: u64 = 1 << 2;
const RESET_KIND: u8 = 1 << 1 | 1 << 3;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct PciConfig {
    address: u64,
    reset_kind: u8,
}

impl PciConfig {
    /// The guest reads at `offset` from 0xcf8. Only four bytes at once are the address register.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (0, 4) => self.address,
            (RESET_CONTROL, 1) => self.reset_kind.into(),
            _ => all_ones(size),
        }
    }

    /// The guest writes there. Only one byte reaches the reset control register: four are a
    /// configuration address, whatever its bits.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) -> Option<GuestEnd> {
        match (offset, size) {
            (0, 4) => self.address = value & ADDRESS_BITS,
            (RESET_CONTROL, 1) if value & RESET_CPU != 0 => return Some(GuestEnd::Reset),
            (RESET_CONTROL, 1) => self.reset_kind = value.to_le_bytes()[0] & RESET_KIND,
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_reads_back_and_the_data_is_all_ones() {
        let mut pci = PciConfig::default();
        assert_eq!(pci.read(0, 4), 0);
        assert_eq!(pci.write(0, 4, 0xffff_ffff), None);
        assert_eq!(pci.read(0, 4), 0x80ff_fffc);
        pci.write(0, 4, 0x8000_0000);
        // Other widths do not reach it.
        pci.write(3, 1, 1);
        pci.write(0, 2, 0x1234);
        assert_eq!(pci.read(0, 4), 0x8000_0000);
        assert_eq!(pci.read(0, 1), 0xff);
        assert_eq!(pci.read(2, 2), 0xffff);
        for (offset, size) in [(4, 4), (4, 2), (6, 2), (7, 1)] {
            pci.write(offset, size, 0);
            assert_eq!(pci.read(offset, size), all_ones(size));
        }
    }

    #[test]
    fn only_a_byte_to_the_reset_register_resets() {
        let mut pci = PciConfig::default();
        assert_eq!(pci.write(0, 4, 0x8000_0400), None);
        assert_eq!(pci.write(0, 1, 0x06), None);
        // First the kind, then the reset.
        assert_eq!(pci.write(1, 1, 0xfb), None);
        assert_eq!(pci.read(1, 1), 0x0a);
        assert_eq!(pci.write(1, 1, 0x06), Some(GuestEnd::Reset));
        assert_eq!(pci.write(1, 1, 0x04), Some(GuestEnd::Reset));
    }
}
