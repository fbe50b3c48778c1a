//! Ways to switch the machine off: the ACPI power-off register where QEMU's q35 has it, and
//! the port on which Bochs takes the word "Shutdown".

use crate::devices::GuestEnd;

/// PM1a_CNT as QEMU's q35 places it; the guest writes SLP_EN (ACPI 6.5, section 4.8.3.2.1).
pub const ACPI_PM1A_CNT: u64 = 0x604;

/// Bochs's power-off port.
pub const BOCHS_SHUTDOWN: u64 = 0x8900;

const SLP_EN: u64 = 1 << 13;
const WORD: &[u8] = b"Shutdown";

/// The guest writes `value` to PM1a_CNT.
pub fn write_pm1a_cnt(value: u64) -> Option<GuestEnd> {
    (value & SLP_EN != 0).then_some(GuestEnd::PowerOff)
}

/// Bochs's port: how much of the word has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct BochsShutdown {
    matched: usize,
}

impl BochsShutdown {
    /// The guest writes one byte.
    pub fn write(&mut self, byte: u8) -> Option<GuestEnd> {
        self.matched = match byte {
            byte if byte == WORD[self.matched] => self.matched + 1,
            byte if byte == WORD[0] => 1,
            _ => 0,
        };
        if self.matched < WORD.len() {
            return None;
        }
        self.matched = 0;
        Some(GuestEnd::PowerOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slp_en_powers_off() {
        assert_eq!(write_pm1a_cnt(0x2000), Some(GuestEnd::PowerOff));
        assert_eq!(write_pm1a_cnt(0x3c01), Some(GuestEnd::PowerOff));
        assert_eq!(write_pm1a_cnt(0x1c01), None);
    }

    #[test]
    fn the_word_must_come_whole_and_in_order() {
        let mut port = BochsShutdown::default();
        let mut ends = |text: &[u8]| text.iter().filter_map(|byte| port.write(*byte)).count();
        assert_eq!(ends(b"Shutdow"), 0);
        assert_eq!(ends(b"Shutdown"), 1);
        assert_eq!(ends(b"ShutShutdown"), 1);
        assert_eq!(ends(b"shutdownSSSShutdow n"), 0);
    }
}
