//! The interval timer (Intel 8254) as a pure register machine, for a machine without the in-kernel
//! one: the counters can be set, read and latched, and timer 2's output is seen in port 0x61. The
//! owner tells the time; nothing ticks here, all is computed from when a counter was started. The
//! source is Intel's 8254 datasheet (order number 231164), whose modes and names these are.
//!
//! No pin leads anywhere: whoever has an interrupt controller in the kernel has this timer there,
//! too. Counting in BCD is not done: its counters count in binary.

mod counter;

use std::time::Duration;

use counter::Counter;

/// The first of four ports: three counters and the control word.
pub const PIT: u64 = 0x40;
/// How many ports there are.
pub const PIT_LEN: u64 = 4;

/// The control word: which counter, or all that are named, to be read back.
const SELECT_SHIFT: u8 = 6;
const READ_BACK: u8 = 3;
/// The read-back command: 0 latches a count, and 0 latches a status.
const NO_COUNT: u8 = 1 << 5;
const NO_STATUS: u8 = 1 << 4;
/// The counter whose gate port 0x61 has.
const GATED: usize = 2;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Pit {
    counters: [Counter; 3],
}

impl Default for Pit {
    fn default() -> Self {
        let mut counters = [Counter::new(true); 3];
        counters[GATED] = Counter::new(false);
        Self { counters }
    }
}

impl Pit {
    /// The guest reads port `offset`. The control word cannot be read.
    pub fn read(&mut self, offset: u64, now: Duration) -> u8 {
        match self.counter(offset) {
            Some(counter) => counter.read(now),
            None => u8::MAX,
        }
    }

    /// The guest writes port `offset`.
    pub fn write(&mut self, offset: u64, value: u8, now: Duration) {
        if let Some(counter) = self.counter(offset) {
            return counter.write(value, now);
        }
        let select = value >> SELECT_SHIFT;
        if select != READ_BACK {
            return self.counters[usize::from(select)].control(value, now);
        }
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << index != 0 {
                counter.read_back(value & NO_COUNT == 0, value & NO_STATUS == 0, now);
            }
        }
    }

    /// Port 0x61 sets the gate of timer 2.
    pub fn set_gate(&mut self, gate: bool, now: Duration) {
        self.counters[GATED].set_gate(gate, now);
    }

    /// The output of timer 2.
    pub fn output(&self, now: Duration) -> bool {
        self.counters[GATED].output(now)
    }

    fn counter(&mut self, offset: u64) -> Option<&mut Counter> {
        self.counters.get_mut(usize::try_from(offset).ok()?)
    }
}

#[cfg(test)]
mod tests;
