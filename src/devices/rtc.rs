//! The real-time clock and CMOS memory: an MC146818 as a pure register machine. The time of day
//! is the host's, in UTC, until the guest sets it; the three interrupts (periodic, alarm, update
//! ended) follow the time that the owner tells.
//!
//! No clock is read here: the owner says what time it was when the machine started, and how long
//! ago that is at each access. It calls [`Rtc::advance`] at the [`deadline`](Rtc::deadline), and
//! drives the pin with [`irq_level`](Rtc::irq_level). The source is the Motorola MC146818A
//! datasheet, by whose registers' names things are called here. An update takes no time; the
//! update-in-progress bit comes on before it for as long as the chip promises.

mod calendar;
pub mod cmos;
mod format;
#[cfg(test)]
mod tests;

use std::time::Duration;

use format::{Alarm, Format, TimeRegisters};

/// The index port; the data port is the next one.
pub const RTC_INDEX: u64 = 0x70;
/// How many ports there are.
pub const RTC_LEN: u64 = 2;
/// Its interrupt line.
pub const RTC_IRQ: u32 = 8;
/// Bytes behind the index, registers included.
pub const CMOS_LEN: usize = 128;

/// Bit 7 of the index port masks the NMI, of which there is none here, and is no part of the
/// index.
const INDEX: u8 = 0x7f;

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

/// Register A: an update is about to happen; divider; rate of the periodic interrupt.
const UIP: u8 = 1 << 7;
const DIVIDER: u8 = 0x70;
/// The highest divider setting that lets the clock run, which is that for 32,768 Hz.
const DIVIDER_32_KHZ: u8 = 0x20;
const RATE: u8 = 0x0f;
/// The rate that a BIOS sets: 1,024 Hz.
const RATE_1024_HZ: u8 = 6;

/// Register B: no updates; enables of the interrupts, of the same bits as the flags in C.
const SET: u8 = 1 << 7;
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE_ENDED: u8 = 1 << 4;
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATE_ENDED;
/// Hours from 0 to 23.
const HOURS_24: u8 = 1 << 1;

/// Register C: an enabled interrupt is pending.
const IRQF: u8 = 1 << 7;
/// Register D: the battery is good.
const VRT: u8 = 1 << 7;

/// How long before an update UIP is on (datasheet, table "Update cycle times", t_BUC).
const UIP_TIME: Duration = Duration::from_micros(244);
const SECOND: Duration = Duration::from_secs(1);
/// The first update comes so long after the divider was let go (datasheet, "Divider control").
const AFTER_DIVIDER: Duration = Duration::from_millis(500);
/// The time base, and its ticks' number in a second.
const BASE_HZ: u64 = 32_768;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    /// All bytes; those of the time and of registers A to D are elsewhere.
    ram: [u8; CMOS_LEN],
    a: u8,
    b: u8,
    /// Register C without IRQF.
    flags: u8,
    /// The guest's time of day when the owner's time was 0, without its fraction, ...
    origin: i64,
    /// ... which is this: what the owner's time lacks to a whole second.
    phase: Duration,
    /// The time registers while the clock stands still.
    held: Option<TimeRegisters>,
    /// Up to here the flags are right.
    seen: Duration,
}

impl Rtc {
    /// A clock that shows `unix`, the time since the beginning of 1970, when the owner's time is
    /// `now`, with this in its memory.
    pub fn new(unix: Duration, now: Duration, ram: [u8; CMOS_LEN]) -> Self {
        // As late as the host may have been set, or as far before the epoch.
        let start = i128::from(unix.as_secs()) - i128::from(now.as_secs());
        let (origin, phase) = match unix.subsec_nanos().checked_sub(now.subsec_nanos()) {
            Some(nanos) => (start, nanos),
            None => (start - 1, unix.subsec_nanos() + 1_000_000_000 - now.subsec_nanos()),
        };
        Self {
            index: 0,
            ram,
            a: DIVIDER_32_KHZ | RATE_1024_HZ,
            b: HOURS_24,
            flags: 0,
            origin: i64::try_from(origin).unwrap_or(0),
            phase: Duration::from_nanos(phase.into()),
            held: None,
            seen: now,
        }
    }

    /// The guest reads a port: `offset` 0 or 1. The index cannot be read back (all ones, as on
    /// QEMU).
    pub fn read(&mut self, offset: u64, now: Duration) -> u8 {
        if offset == 0 {
            return u8::MAX;
        }
        self.advance(now);
        match self.index {
            REGISTER_A => self.a | if self.update_is_near() { UIP } else { 0 },
            REGISTER_B => self.b,
            REGISTER_C => {
                let flags = self.flags | if self.irq_level() { IRQF } else { 0 };
                self.flags = 0;
                flags
            }
            REGISTER_D => VRT,
            index if TimeRegisters::has(index) => self.time_registers().get(index),
            index => self.ram[usize::from(index)],
        }
    }

    /// The guest writes a port: `offset` 0 or 1.
    pub fn write(&mut self, offset: u64, value: u8, now: Duration) {
        if offset == 0 {
            self.index = value & INDEX;
            return;
        }
        self.advance(now);
        match self.index {
            REGISTER_A => {
                let let_go = self.a & DIVIDER > DIVIDER_32_KHZ;
                self.a = value & !UIP;
                self.hold_or_go(let_go);
            }
            REGISTER_B => {
                // SET stops an update that is under way, and so its interrupt.
                self.b = if value & SET != 0 { value & !UPDATE_ENDED } else { value };
                self.hold_or_go(false);
            }
            REGISTER_C | REGISTER_D => {}
            index if TimeRegisters::has(index) => {
                let mut registers = self.time_registers();
                registers.set(index, value);
                match &mut self.held {
                    Some(held) => *held = registers,
                    None => self.set_time(registers),
                }
            }
            index => self.ram[usize::from(index)] = value,
        }
    }

    /// The level of the interrupt pin.
    pub fn irq_level(&self) -> bool {
        self.flags & self.b & INTERRUPTS != 0
    }

    /// Tells the time, and sets the flags of what has happened since it was last told. Time that
    /// goes backwards stands still.
    pub fn advance(&mut self, now: Duration) {
        let (before, now) = (self.seen, now.max(self.seen));
        self.seen = now;
        if let Some(period) = self.period()
            && ticks(before) / period != ticks(now) / period
        {
            self.flags |= PERIODIC;
        }
        if self.held.is_none() && self.seconds_at(now) > self.seconds_at(before) {
            self.flags |= UPDATE_ENDED;
            let due = self.alarm().next_after(self.seconds_at(before));
            if due.is_some_and(|due| due <= self.seconds_at(now)) {
                self.flags |= ALARM;
            }
        }
    }

    /// When [`advance`](Self::advance) would next raise the pin, on the owner's clock.
    pub fn deadline(&self) -> Option<Duration> {
        if self.b & INTERRUPTS == 0 || self.irq_level() {
            return None;
        }
        let enabled = |bit| self.b & bit != 0;
        let running = self.held.is_none();
        let periodic = self.period().filter(|_| enabled(PERIODIC)).map(|period| {
            let due = (ticks(self.seen) / period + 1) * period;
            time_of_tick(due)
        });
        let now = self.seconds_at(self.seen);
        let update = (running && enabled(UPDATE_ENDED)).then_some(now + 1);
        let alarm = if running && enabled(ALARM) { self.alarm().next_after(now) } else { None };
        let second = update.into_iter().chain(alarm).min().map(|second| self.time_of(second));
        periodic.into_iter().chain(second).min()
    }

    /// The periodic interrupt's period in ticks of the time base, if it has one (datasheet, table
    /// "Periodic interrupt rate").
    fn period(&self) -> Option<u64> {
        let running = self.a & DIVIDER <= DIVIDER_32_KHZ;
        match self.a & RATE {
            _ if !running => None,
            0 => None,
            // With this time base the two fastest are those of 8 and 9.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn update_is_near(&self) -> bool {
        let fraction = (self.seen + self.phase).subsec_nanos();
        self.held.is_none() && SECOND - Duration::from_nanos(fraction.into()) <= UIP_TIME
    }

    fn format(&self) -> Format {
        Format { binary: self.b & format::BINARY != 0, hours_24: self.b & HOURS_24 != 0 }
    }

    fn alarm(&self) -> Alarm {
        Alarm::new(&self.ram, self.format())
    }

    fn time_registers(&self) -> TimeRegisters {
        self.held
            .unwrap_or_else(|| TimeRegisters::encode(self.seconds_at(self.seen), self.format()))
    }

    /// From now on these are the registers; the second does not begin anew.
    fn set_time(&mut self, registers: TimeRegisters) {
        let wanted = registers.decode(self.format());
        self.origin += wanted - self.seconds_at(self.seen);
    }

    /// The clock stands still while SET is on or the divider is held, and goes on from what its
    /// registers are then.
    fn hold_or_go(&mut self, divider_let_go: bool) {
        let stands = self.b & SET != 0 || self.a & DIVIDER > DIVIDER_32_KHZ;
        match (stands, self.held) {
            (true, None) => self.held = Some(self.time_registers()),
            (false, Some(registers)) => {
                self.held = None;
                if divider_let_go {
                    let now = Duration::from_nanos(self.seen.subsec_nanos().into());
                    let phase = SECOND + AFTER_DIVIDER - now;
                    self.phase = Duration::from_nanos(phase.subsec_nanos().into());
                }
                self.set_time(registers);
            }
            _ => {}
        }
    }

    /// The guest's time, in seconds since 1970, when the owner's is `now`.
    fn seconds_at(&self, now: Duration) -> i64 {
        self.origin.saturating_add_unsigned((now + self.phase).as_secs())
    }

    /// The owner's time when the guest's seconds become `seconds`.
    fn time_of(&self, seconds: i64) -> Duration {
        let whole = u64::try_from(seconds.saturating_sub(self.origin)).unwrap_or(0);
        Duration::from_secs(whole).saturating_sub(self.phase)
    }
}

/// Ticks of the time base up to `now`.
fn ticks(now: Duration) -> u64 {
    now.as_secs() * BASE_HZ + u64::from(now.subsec_nanos()) * BASE_HZ / 1_000_000_000
}

/// The first moment at which [`ticks`] are so many.
fn time_of_tick(tick: u64) -> Duration {
    let nanos = (tick % BASE_HZ * 1_000_000_000).div_ceil(BASE_HZ);
    Duration::from_secs(tick / BASE_HZ) + Duration::from_nanos(nanos)
}
