//! The PC's timer, an 8254 with three counters, as a pure register machine: time and gates are
//! told, outputs are values. Output 0 is interrupt 0 (`split_irqchip.rs`), gate and output 2 are
//! bits of port 0x61, and counter 1 once refreshed memory. With the timer in the kernel this is not
//! used.
//!
//! The source is Intel's 8254 datasheet (order number 231164). The counters themselves are in
//! `counter.rs`.

mod counter;

use std::time::Duration;

use counter::Counter;

/// Where it is: three counters and the control word.
pub const PIT: u64 = 0x40;
/// How many ports there are.
pub const PIT_LEN: u64 = 4;

/// The clock of the counters in Hz: a third of the PC's first one's 14.31818 MHz colour clock.
const CLOCK_HZ: u128 = 1_193_182;
const NANOSECONDS: u128 = 1_000_000_000;

/// The control word's register; those below are the counters.
const CONTROL: u64 = 3;

/// Bits of the control word and the read-back command (datasheet, figures 7 and 10).
mod word {
    /// The command that concerns several counters, instead of a counter's number.
    pub const READ_BACK: u8 = 3;
    /// Read-back: not the count, not the status.
    pub const NO_COUNT: u8 = 1 << 5;
    pub const NO_STATUS: u8 = 1 << 4;
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Pit8254 {
    counters: [Counter; 3],
}

impl Pit8254 {
    /// The timer at power-on, when nothing counts yet; gate 2 is low.
    pub fn new() -> Self {
        Self { counters: [true, true, false].map(Counter::new) }
    }

    /// The guest reads register `offset`, 0 to 3.
    pub fn read(&mut self, offset: u64, now: Duration) -> u8 {
        self.advance(now);
        match self.counter(offset) {
            Some(counter) => counter.read(),
            // The control word cannot be read.
            None => 0xff,
        }
    }

    /// The guest writes register `offset`, 0 to 3.
    pub fn write(&mut self, offset: u64, value: u8, now: Duration) {
        self.advance(now);
        if offset == CONTROL {
            self.control(value);
        } else if let Some(counter) = self.counter(offset) {
            counter.write(value);
        }
    }

    /// Gate 2 goes to `high`.
    pub fn set_gate_2(&mut self, high: bool, now: Duration) {
        self.advance(now);
        self.counters[2].set_gate(high);
    }

    /// The level of output 2.
    pub fn output_2(&mut self, now: Duration) -> bool {
        self.advance(now);
        self.counters[2].output()
    }

    /// The level of output 0, as of the time told last.
    pub fn output_0(&self) -> bool {
        self.counters[0].output()
    }

    /// Tells the time, counted from any fixed start. Time that goes backwards stands still.
    pub fn advance(&mut self, now: Duration) {
        let ticks = ticks(now);
        for counter in &mut self.counters {
            counter.advance(ticks);
        }
    }

    /// How often output 0 has risen since the last call.
    pub fn take_rises_0(&mut self) -> u64 {
        self.counters[0].take_rises()
    }

    /// Whether the guest has given counter 0 a mode or a count since the last call.
    pub fn take_restart_0(&mut self) -> bool {
        self.counters[0].take_restart()
    }

    /// When it rises next, on the same clock.
    pub fn next_rise_0(&self) -> Option<Duration> {
        self.counters[0].next_rise().map(time_of)
    }

    fn counter(&mut self, offset: u64) -> Option<&mut Counter> {
        usize::try_from(offset).ok().and_then(|index| self.counters.get_mut(index))
    }

    fn control(&mut self, value: u8) {
        let select = value >> 6;
        if select == word::READ_BACK {
            let chosen = (1..).zip(&mut self.counters).filter(|(bit, _)| value >> bit & 1 != 0);
            for (_, counter) in chosen {
                if value & word::NO_COUNT == 0 {
                    counter.latch_count();
                }
                if value & word::NO_STATUS == 0 {
                    counter.latch_status();
                }
            }
        } else if let Some(counter) = self.counter(select.into()) {
            counter.control(value);
        }
    }
}

impl Default for Pit8254 {
    fn default() -> Self {
        Self::new()
    }
}

/// Whole ticks of the clock in `time`.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * CLOCK_HZ / NANOSECONDS).unwrap_or(u64::MAX)
}

/// The first moment at which so many ticks have passed.
fn time_of(ticks: u64) -> Duration {
    let nanoseconds = (u128::from(ticks) * NANOSECONDS).div_ceil(CLOCK_HZ);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
