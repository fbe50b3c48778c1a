//! Ways to reset the machine: the keyboard controller's pulse of the reset line and the
//! chipset's reset control register. Both end the VM.

use crate::devices::GuestEnd;

/// The keyboard controller's command and status port.
pub const I8042_COMMAND: u64 = 0x64;

/// PCI's configuration address register; its second byte is also the reset control register.
pub const PCI_CONFIG_ADDRESS: u64 = 0xcf8;

/// Offset of the reset control register (0xcf9) in the range at [`PCI_CONFIG_ADDRESS`].
const RESET_CONTROL: u64 = 1;

const I8042_PULSE_RESET: u64 = 0xfe;
const RESET_CPU: u64 = 1 << 2;

/// The status that a keyboard controller without a keyboard shows: both buffers empty, so
/// that a guest which waits to send a command gets on.
pub const I8042_STATUS: u64 = 0;

/// The guest writes a command to the keyboard controller.
pub fn write_i8042(command: u64) -> Option<GuestEnd> {
    (command & 0xff == I8042_PULSE_RESET).then_some(GuestEnd::Reset)
}

/// The guest writes at `offset` from 0xcf8. Only a one-byte write reaches the reset control
/// register: a write of four bytes is a PCI configuration address, whatever its bits.
pub fn write_pci_config_address(offset: u64, size: u8, value: u64) -> Option<GuestEnd> {
    let resets = offset == RESET_CONTROL && size == 1 && value & RESET_CPU != 0;
    resets.then_some(GuestEnd::Reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pulse_command_resets() {
        assert_eq!(write_i8042(0xfe), Some(GuestEnd::Reset));
        assert_eq!(write_i8042(0xaa), None);
    }

    #[test]
    fn a_pci_address_is_no_reset() {
        assert_eq!(write_pci_config_address(1, 1, 0x06), Some(GuestEnd::Reset));
        assert_eq!(write_pci_config_address(1, 1, 0x02), None);
        assert_eq!(write_pci_config_address(0, 4, 0x8000_0400), None);
        assert_eq!(write_pci_config_address(0, 1, 0x06), None);
    }
}
