//! One of the timer's three counters.

use std::time::Duration;

/// The clock of a PC's timer: a third of the colour carrier's 3.579545 MHz.
const HZ: u128 = 1_193_182;

/// The control word: how many bytes a count has, and the mode.
const ACCESS_SHIFT: u8 = 4;
const ACCESS: u8 = 3;
const LATCH: u8 = 0;
const LOW_BYTE: u8 = 1;
const HIGH_BYTE: u8 = 2;
const MODE_SHIFT: u8 = 1;
/// Bits of the control word that the status shows.
const IN_STATUS: u8 = 0x3f;
/// The status byte.
const OUTPUT: u8 = 1 << 7;
const NULL_COUNT: u8 = 1 << 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// 0: the output goes on at the end of the count.
    TerminalCount,
    /// 1: off from the trigger to the end of the count.
    OneShot,
    /// 2: off for the last clock of each period.
    Rate,
    /// 3: on for the first half of each period.
    Square,
    /// 4: off for one clock at the end of the count.
    SoftwareStrobe,
    /// 5: the same, from the trigger.
    HardwareStrobe,
}

impl Mode {
    fn of(control: u8) -> Self {
        match control >> MODE_SHIFT & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    /// The gate starts it; it does not stop it.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::Rate | Self::Square)
    }
}

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    control: u8,
    gate: bool,
    /// The count that was written; 0 stands for 65,536.
    reload: u16,
    /// A count is there. Without one the output is where the control word has put it.
    loaded: bool,
    /// Clocks that were counted before `since`, ...
    counted: u64,
    /// ... from when it counts; none while it does not.
    since: Option<Duration>,
    /// The low byte of a count of two, when the high one is to come.
    low_byte: Option<u8>,
    /// The next byte to be read of a count of two is the high one.
    high_is_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Counter {
    /// A counter that was not set up, with its gate as given.
    pub fn new(gate: bool) -> Self {
        Self {
            control: (LOW_BYTE | HIGH_BYTE) << ACCESS_SHIFT,
            gate,
            reload: 0,
            loaded: false,
            counted: 0,
            since: None,
            low_byte: None,
            high_is_next: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// A control word for this counter.
    pub fn control(&mut self, word: u8, now: Duration) {
        if word >> ACCESS_SHIFT & ACCESS == LATCH {
            self.read_back(true, false, now);
        } else {
            *self = Self { control: word & IN_STATUS, ..Self::new(self.gate) };
        }
    }

    /// Keeps the count or the status, or both, until they are read. What is kept already stays.
    pub fn read_back(&mut self, count: bool, status: bool, now: Duration) {
        if status && self.latched_status.is_none() {
            let output = if self.output(now) { OUTPUT } else { 0 };
            let null = if self.loaded { 0 } else { NULL_COUNT };
            self.latched_status = Some(self.control | output | null);
        }
        if count && self.latched_count.is_none() {
            self.latched_count = Some(self.count(now));
        }
    }

    /// The guest reads the counter's port.
    pub fn read(&mut self, now: Duration) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count(now)).to_le_bytes();
        let (byte, last) = match self.access() {
            LOW_BYTE => (low, true),
            HIGH_BYTE => (high, true),
            _ => {
                self.high_is_next = !self.high_is_next;
                if self.high_is_next { (low, false) } else { (high, true) }
            }
        };
        if last {
            self.latched_count = None;
        }
        byte
    }

    /// The guest writes the counter's port.
    pub fn write(&mut self, value: u8, now: Duration) {
        let count = match (self.access(), self.low_byte.take()) {
            (LOW_BYTE, _) => u16::from(value),
            (HIGH_BYTE, _) => u16::from(value) << 8,
            (_, Some(low)) => u16::from_le_bytes([low, value]),
            (_, None) => {
                self.low_byte = Some(value);
                if self.mode() == Mode::TerminalCount {
                    // The first byte stops the count.
                    (self.loaded, self.since) = (false, None);
                }
                return;
            }
        };
        self.reload = count;
        if !(self.mode().is_triggered() && self.loaded) {
            self.loaded = true;
            let runs = self.gate && !self.mode().is_triggered();
            (self.counted, self.since) = (0, runs.then_some(now));
        }
    }

    /// The gate goes to `gate`.
    pub fn set_gate(&mut self, gate: bool, now: Duration) {
        if gate == self.gate {
            return;
        }
        let counted = self.clocks(now);
        self.gate = gate;
        let mode = self.mode();
        if mode.is_triggered() {
            if gate && self.loaded {
                (self.counted, self.since) = (0, Some(now));
            }
        } else if self.loaded {
            // A periodic count begins anew, any other goes on.
            self.counted = if mode.is_periodic() { 0 } else { counted };
            self.since = gate.then_some(now);
        }
    }

    /// The level of the output.
    pub fn output(&self, now: Duration) -> bool {
        let (mode, clocks, period) = (self.mode(), self.clocks(now), self.period());
        let started = self.since.is_some() || self.counted > 0;
        match mode {
            Mode::TerminalCount => self.loaded && clocks >= period,
            _ if !self.loaded || !started => true,
            Mode::OneShot => clocks >= period,
            Mode::Rate => clocks % period != period - 1,
            Mode::Square => clocks % period < period.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => clocks != period,
        }
    }

    fn count(&self, now: Duration) -> u16 {
        let (clocks, period) = (self.clocks(now), self.period());
        let left = match self.mode() {
            Mode::Rate => period - clocks % period,
            // Two at a time, twice in a period.
            Mode::Square => period - 2 * clocks % period,
            // It goes on after its end.
            _ => period.wrapping_sub(clocks),
        };
        let [low, high, ..] = left.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn clocks(&self, now: Duration) -> u64 {
        let running = self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let clocks = running.as_nanos() * HZ / 1_000_000_000;
        self.counted.saturating_add(u64::try_from(clocks).unwrap_or(u64::MAX))
    }

    fn period(&self) -> u64 {
        if self.reload == 0 { 0x1_0000 } else { self.reload.into() }
    }

    fn mode(&self) -> Mode {
        Mode::of(self.control)
    }

    fn access(&self) -> u8 {
        self.control >> ACCESS_SHIFT & ACCESS
    }
}
