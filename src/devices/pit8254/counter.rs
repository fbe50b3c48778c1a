//! One counter of the 8254, in any of its six modes. Time is in ticks of its clock, and told; what
//! has happened up to then is computed, not stepped through, so that a long time costs no more than
//! a short one.

use std::mem;

/// The status byte (datasheet, figure 11): the output's level; the count is not yet in use.
const OUTPUT: u8 = 1 << 7;
const NULL_COUNT: u8 = 1 << 6;

/// Which bytes of the count the guest reads and writes, as the control word has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    Low = 1,
    High = 2,
    Both = 3,
}

/// The modes, by their numbers (datasheet, "Mode definitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    TerminalCount = 0,
    OneShot = 1,
    Rate = 2,
    Square = 3,
    SoftwareStrobe = 4,
    HardwareStrobe = 5,
}

impl Mode {
    /// Of three bits, the first of which does not matter for modes 2 and 3.
    fn of(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::Rate | Self::Square)
    }

    /// Begins at an edge of the gate, whose level does not matter; in the others a low gate stops
    /// it.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// The counting element at work.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// What it counts from: 1 to 65,536.
    period: u64,
    /// It has counted `done` at the tick `since`.
    since: u64,
    done: u64,
    /// The gate stops it.
    held: bool,
}

impl Run {
    /// How many ticks it has counted.
    fn counted(&self, now: u64) -> u64 {
        if self.held { self.done } else { self.done + now.saturating_sub(self.since) }
    }

    /// The part of a square wave's period with a high output.
    fn high_half(&self) -> u64 {
        self.period.div_ceil(2)
    }

    fn output(&self, mode: Mode, now: u64) -> bool {
        let counted = self.counted(now);
        match mode {
            Mode::TerminalCount | Mode::OneShot => counted >= self.period,
            Mode::Rate => self.held || counted % self.period != self.period - 1,
            Mode::Square => self.held || counted % self.period < self.high_half(),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => counted != self.period,
        }
    }

    /// What the element holds; without BCD, and 0 for the largest count.
    fn value(&self, mode: Mode, now: u64, modulus: u64) -> u64 {
        let counted = self.counted(now);
        match mode {
            Mode::Rate => self.period - counted % self.period,
            Mode::Square => {
                let in_period = counted % self.period;
                let in_half = in_period.checked_sub(self.high_half()).unwrap_or(in_period);
                // By twos, from an even number.
                (self.period & !1).saturating_sub(2 * in_half)
            }
            _ => self.period + modulus - counted % modulus,
        }
    }

    /// How many ticks it will have counted when the output next rises, with `counted` now.
    fn next_rise(&self, mode: Mode, counted: u64) -> Option<u64> {
        match mode {
            Mode::Rate | Mode::Square => Some((counted / self.period + 1) * self.period),
            Mode::TerminalCount | Mode::OneShot => (counted < self.period).then_some(self.period),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                (counted <= self.period).then_some(self.period + 1)
            }
        }
    }

    /// How often the output rises on the way from one number of ticks to another.
    fn rises(&self, mode: Mode, from: u64, to: u64) -> u64 {
        match self.next_rise(mode, from) {
            Some(next) if next <= to && mode.is_periodic() => 1 + (to - next) / self.period,
            Some(next) => u64::from(next <= to),
            None => 0,
        }
    }
}

/// A count that goes to the counting element at a tick to come.
#[derive(Clone, Copy, Debug)]
struct Load {
    at: u64,
    /// The part of it that then counts as done: the high half, if the low one is next.
    low_half_next: bool,
}

/// A count that was latched for reading.
#[derive(Clone, Copy, Debug)]
struct Latched {
    value: u16,
    low_read: bool,
}

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    mode: Mode,
    bcd: bool,
    bytes: Bytes,
    gate: bool,
    now: u64,
    /// The count as written, once it is whole.
    count: Option<u64>,
    load: Option<Load>,
    run: Option<Run>,
    null_count: bool,
    rises: u64,
    /// The guest has set it up anew.
    restarted: bool,
    /// The first of two bytes written.
    low_written: Option<u8>,
    /// The first of two bytes was read.
    low_read: bool,
    latched: Option<Latched>,
    status: Option<u8>,
}

impl Counter {
    /// A counter at power-on, whose state the datasheet leaves open: here its output is at the
    /// level of its gate, so that one that counts freely does not rise when the guest sets it up.
    pub fn new(gate: bool) -> Self {
        Self {
            mode: if gate { Mode::Square } else { Mode::TerminalCount },
            bcd: false,
            bytes: Bytes::Both,
            gate,
            now: 0,
            count: None,
            load: None,
            run: None,
            null_count: true,
            rises: 0,
            restarted: false,
            low_written: None,
            low_read: false,
            latched: None,
            status: None,
        }
    }

    /// The output's level.
    pub fn output(&self) -> bool {
        match &self.run {
            Some(run) => run.output(self.mode, self.now),
            None => self.mode != Mode::TerminalCount,
        }
    }

    /// It is tick `now`, or later.
    pub fn advance(&mut self, now: u64) {
        if let Some(load) = self.load.filter(|load| load.at <= now) {
            self.count_to(load.at);
            self.change(|counter| counter.load_count(load));
        }
        self.count_to(now);
    }

    fn count_to(&mut self, now: u64) {
        let now = now.max(self.now);
        if let Some(run) = &self.run {
            self.rises += run.rises(self.mode, run.counted(self.now), run.counted(now));
        }
        self.now = now;
    }

    fn load_count(&mut self, load: Load) {
        self.load = None;
        let Some(count) = self.count else { return };
        // A period of 1 is not allowed; it counts as 2.
        let period = if self.mode.is_periodic() { count.max(2) } else { count };
        let held = !self.mode.is_triggered() && !self.gate;
        let mut run = Run { period, since: load.at, done: 0, held };
        if load.low_half_next {
            run.done = run.high_half();
        }
        self.run = Some(run);
        self.null_count = false;
    }

    /// How often the output has risen since the last call.
    pub fn take_rises(&mut self) -> u64 {
        mem::take(&mut self.rises)
    }

    /// Whether the guest has set it up anew since the last call.
    pub fn take_restart(&mut self) -> bool {
        mem::take(&mut self.restarted)
    }

    /// The tick at which it rises next.
    pub fn next_rise(&self) -> Option<u64> {
        let next = |run: &Run, now: u64| {
            let counted = run.counted(now);
            let rise = run.next_rise(self.mode, counted)?;
            (!run.held).then(|| now + (rise - counted))
        };
        let now = self.run.and_then(|run| next(&run, self.now));
        let Some(load) = self.load else { return now };
        if now.is_some_and(|now| now <= load.at) {
            return now;
        }
        let mut then = *self;
        then.count_to(load.at);
        then.rises = 0;
        then.change(|counter| counter.load_count(load));
        if then.rises > 0 {
            return Some(load.at);
        }
        then.run.and_then(|run| next(&run, load.at))
    }

    /// Does what may raise the output at once.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.output();
        change(self);
        self.rises += u64::from(!before && self.output());
    }

    /// The gate goes to `high`.
    pub fn set_gate(&mut self, high: bool) {
        if high == self.gate {
            return;
        }
        self.gate = high;
        let now = self.now;
        self.change(|counter| match (counter.mode, &mut counter.run) {
            (mode, _) if mode.is_triggered() || (mode.is_periodic() && high) => {
                // An edge begins it anew, with the count that was written last.
                if high && counter.count.is_some() {
                    counter.load = Some(Load { at: now + 1, low_half_next: false });
                }
            }
            (mode, Some(run)) => {
                run.done = run.counted(now);
                run.since = now;
                run.held = !high;
                if mode.is_periodic() {
                    counter.load = None;
                }
            }
            (_, None) => {}
        });
    }

    /// The guest writes the control word for this counter, or latches its count.
    pub fn control(&mut self, value: u8) {
        let bytes = match value >> 4 & 3 {
            0 => return self.latch_count(),
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        self.change(|counter| {
            *counter = Self {
                mode: Mode::of(value >> 1),
                bcd: value & 1 != 0,
                bytes,
                now: counter.now,
                rises: counter.rises,
                restarted: true,
                ..Self::new(counter.gate)
            };
        });
    }

    /// The guest writes a byte of the count.
    pub fn write(&mut self, value: u8) {
        if self.mode == Mode::TerminalCount {
            // It begins anew, and with the first of two bytes it stops.
            self.change(|counter| (counter.run, counter.load) = (None, None));
        }
        let count = match (self.bytes, self.low_written) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, None) => {
                self.low_written = Some(value);
                return;
            }
            (Bytes::Both, Some(low)) => u16::from_le_bytes([low, value]),
        };
        self.low_written = None;
        self.set_count(count);
    }

    fn set_count(&mut self, written: u16) {
        let count = if self.bcd { from_bcd(written) } else { u64::from(written) };
        self.count = Some(if count == 0 { self.modulus() } else { count });
        self.restarted = true;
        self.null_count = true;
        self.load = match &self.run {
            // It waits for the gate, unless that has just come.
            _ if self.mode.is_triggered() => self.load,
            Some(run) if self.mode.is_periodic() => {
                let counted = run.counted(self.now);
                let in_period = counted % run.period;
                let low_half_next = self.mode == Mode::Square && in_period < run.high_half();
                let end = if low_half_next { run.high_half() } else { run.period };
                let at = self.now + (end - in_period);
                (!run.held).then_some(Load { at, low_half_next })
            }
            _ => Some(Load { at: self.now + 1, low_half_next: false }),
        };
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 1 << 16 }
    }

    fn value(&self) -> u16 {
        let modulus = self.modulus();
        let value = self.run.map_or(0, |run| run.value(self.mode, self.now, modulus)) % modulus;
        if self.bcd { to_bcd(value) } else { u16::try_from(value).unwrap_or(u16::MAX) }
    }

    /// Keeps the count until it is read.
    pub fn latch_count(&mut self) {
        let value = self.value();
        self.latched.get_or_insert(Latched { value, low_read: false });
    }

    /// Keeps the status until it is read.
    pub fn latch_status(&mut self) {
        let output = if self.output() { OUTPUT } else { 0 };
        let null_count = if self.null_count { NULL_COUNT } else { 0 };
        let mode = (self.bytes as u8) << 4 | (self.mode as u8) << 1 | u8::from(self.bcd);
        self.status.get_or_insert(output | null_count | mode);
    }

    /// The guest reads a byte: of the status if it is latched, else of the count.
    pub fn read(&mut self) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let latched = self.latched.take();
        let [low, high] =
            latched.map_or_else(|| self.value(), |latched| latched.value).to_le_bytes();
        let low_read = latched.map_or(self.low_read, |latched| latched.low_read);
        let first_of_two = self.bytes == Bytes::Both && !low_read;
        match latched {
            Some(latched) if first_of_two => {
                self.latched = Some(Latched { low_read: true, ..latched });
            }
            Some(_) => {}
            None => self.low_read = first_of_two,
        }
        match self.bytes {
            Bytes::Low => low,
            Bytes::High => high,
            Bytes::Both => {
                if first_of_two {
                    low
                } else {
                    high
                }
            }
        }
    }
}

/// The number with these decimal digits; one above 9 counts as what it is.
fn from_bcd(digits: u16) -> u64 {
    [12, 8, 4, 0].into_iter().fold(0, |number, shift| 10 * number + u64::from(digits >> shift & 15))
}

/// The decimal digits of a number below 10,000.
fn to_bcd(number: u64) -> u16 {
    let digit = |unit| u16::try_from(number / unit % 10).unwrap_or(0);
    digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
}
