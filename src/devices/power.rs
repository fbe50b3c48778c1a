//! The port on which Bochs takes the word "Shutdown" and switches the machine off. ACPI's way is
//! in `acpi_pm.rs`.

use crate::devices::GuestEnd;

/// Bochs's power-off port.
pub const BOCHS_SHUTDOWN: u64 = 0x8900;

const WORD: &[u8] = b"Shutdown";

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
    fn the_word_must_come_whole_and_in_order() {
        let mut port = BochsShutdown::default();
        let mut ends = |text: &[u8]| text.iter().filter_map(|byte| port.write(*byte)).count();
        assert_eq!(ends(b"Shutdow"), 0);
        assert_eq!(ends(b"Shutdown"), 1);
        assert_eq!(ends(b"ShutShutdown"), 1);
        assert_eq!(ends(b"shutdownSSSShutdow n"), 0);
    }
}
