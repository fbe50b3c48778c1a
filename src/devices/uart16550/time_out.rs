//! The receive time-out, the one part of the UART that knows time: with received data below
//! the trigger level, four character times without a new character or an RBR read raise an
//! interrupt (datasheet, "FIFO interrupt mode operation").
//!
//! Time is a value that the owner tells; no clock is read here. The registers and the pin
//! are in the parent module.

use std::time::Duration;

use super::Uart16550;
use super::regs::{ier, lcr};

/// The crystal of a PC's serial port, in Hz: divisor 1 is 115,200 baud (datasheet, table
/// "Baud rates, divisors and crystals").
const CLOCK_HZ: u64 = 1_843_200;

/// Time, for the receive time-out only.
impl Uart16550 {
    /// Whether the time-out can ever fire: the FIFOs are on and the receive interrupt is
    /// enabled. While it is true the owner calls [`advance`](Self::advance) before every other
    /// call, and again at the [`deadline`](Self::deadline). What was received before counts
    /// from the time last told, so at worst its time-out is early.
    pub fn uses_time(&self) -> bool {
        self.fifos_on() && self.ier & ier::ERBFI != 0
    }

    /// Tells the time, counted from any fixed start, and fires the time-out if it is due. Time
    /// that goes backwards stands still.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.rx_timed_out |= self.deadline().is_some_and(|due| due <= self.now);
    }

    /// When [`advance`](Self::advance) next has something to do, on the same clock.
    pub fn deadline(&self) -> Option<Duration> {
        let below_trigger = (1..self.trigger_level()).contains(&self.rx.len());
        let waiting = self.uses_time() && below_trigger && !self.rx_timed_out;
        let four_characters = 4 * self.character_time();
        waiting.then(|| self.rx_quiet_since.saturating_add(four_characters))
    }

    /// How long one character takes on the line: start bit, data, parity and stop bits, at 16
    /// clocks a divisor step each. A divisor of 0, which the datasheet does not allow, counts
    /// as 1, so that a guest that never sets it still gets its time-outs.
    pub(super) fn character_time(&self) -> Duration {
        let data_bits = 5 + u64::from(self.lcr & lcr::WORD_LENGTH);
        let parity_bits = u64::from(self.lcr & lcr::PARITY != 0);
        let stop_half_bits = match (self.lcr & lcr::STOP != 0, data_bits) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 * (1 + data_bits + parity_bits) + stop_half_bits;
        let clocks = half_bits * 8 * u64::from(self.divisor.max(1));
        Duration::from_nanos(clocks * 1_000_000_000 / CLOCK_HZ)
    }
}
