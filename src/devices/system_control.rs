//! The PC's two system control ports, as pure registers. Port A, 0x92, resets the machine and
//! switches the A20 line, which here is always on. Port B, 0x61, has the gate and the output of
//! timer 2, the speaker, and a bit that toggles as memory was once refreshed; the in-kernel PIT
//! has a port B of its own, and then this one is never asked. The source is IBM's PS/2 Hardware
//! Interface Technical Reference, "System Control Port A" and "B".

use std::time::Duration;

use crate::devices::GuestEnd;

/// System control port A.
pub const PORT_A: u64 = 0x92;
/// System control port B.
pub const PORT_B: u64 = 0x61;

/// Port A: a reset when it goes on; A20.
const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// Port B: the gate of timer 2 and the speaker's data; both, and the switches of two error checks,
/// are kept.
pub const TIMER_2_GATE: u8 = 1 << 0;
const KEPT: u8 = 0x0f;
const REFRESH: u8 = 1 << 4;
const TIMER_2_OUTPUT: u8 = 1 << 5;
/// The refresh bit toggles this often (PC/AT: 15.085 µs).
const REFRESH_PERIOD: Duration = Duration::from_nanos(15_085);

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct SystemControl {
    port_a: u8,
    port_b: u8,
}

impl Default for SystemControl {
    fn default() -> Self {
        Self { port_a: A20, port_b: 0 }
    }
}

impl SystemControl {
    /// The guest reads port A.
    pub fn read_a(&self) -> u8 {
        self.port_a
    }

    /// The guest writes port A.
    pub fn write_a(&mut self, value: u8) -> Option<GuestEnd> {
        self.port_a = value & A20;
        (value & FAST_RESET != 0).then_some(GuestEnd::Reset)
    }

    /// The guest reads port B while the output of timer 2 is at `timer_2`.
    pub fn read_b(&self, timer_2: bool, now: Duration) -> u8 {
        let toggles = now.as_nanos() / REFRESH_PERIOD.as_nanos();
        let refresh = if toggles % 2 == 1 { REFRESH } else { 0 };
        self.port_b | refresh | if timer_2 { TIMER_2_OUTPUT } else { 0 }
    }

    /// The guest writes port B.
    pub fn write_b(&mut self, value: u8) {
        self.port_b = value & KEPT;
    }

    /// Whether port B lets timer 2 count.
    pub fn timer_2_gate(&self) -> bool {
        self.port_b & TIMER_2_GATE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_a_keeps_a20_and_resets() {
        let mut ports = SystemControl::default();
        assert_eq!(ports.read_a(), 0x02);
        assert_eq!(ports.write_a(0xfc), None);
        assert_eq!(ports.read_a(), 0x00);
        assert_eq!(ports.write_a(0x02), None);
        assert_eq!(ports.read_a(), 0x02);
        assert_eq!(ports.write_a(0x01), Some(GuestEnd::Reset));
    }

    #[test]
    fn port_b_keeps_four_bits_and_shows_refresh_and_timer_2() {
        let mut ports = SystemControl::default();
        ports.write_b(0xff);
        assert!(ports.timer_2_gate());
        let just_before = REFRESH_PERIOD - Duration::from_nanos(1);
        assert_eq!(ports.read_b(false, just_before), 0x0f);
        assert_eq!(ports.read_b(false, REFRESH_PERIOD), 0x1f);
        assert_eq!(ports.read_b(true, 2 * REFRESH_PERIOD), 0x2f);
        ports.write_b(0x02);
        assert!(!ports.timer_2_gate());
        assert_eq!(ports.read_b(false, Duration::ZERO), 0x02);
    }
}
