//! The time and alarm registers of the clock: binary or BCD, 12 or 24 hours. What a register
//! cannot mean counts as the nearest that it can.

use super::CMOS_LEN;
use super::calendar::DateTime;

/// Register B, DM: numbers are binary, not BCD.
pub const BINARY: u8 = 1 << 2;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
/// The century is no register of the chip but a byte of its memory by convention, which ACPI's
/// FADT names and QEMU has here.
const CENTURY: u8 = 0x32;
const ALARM_SECONDS: usize = 1;
const ALARM_MINUTES: usize = 3;
const ALARM_HOURS: usize = 5;

/// Bit 7 of the hours, with 12 of them: after noon.
const PM: u8 = 1 << 7;
/// An alarm register with these bits set matches anything (datasheet, "Time, calendar and alarm
/// locations").
const ANY: u8 = 0xc0;

/// How numbers are written: register B's DM and 24/12.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub binary: bool,
    pub hours_24: bool,
}

impl Format {
    fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(self, register: u8) -> u8 {
        if self.binary { register } else { (register >> 4) * 10 + (register & 0xf) }
    }

    fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let of_12 = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(of_12) | if hour >= 12 { PM } else { 0 }
    }

    fn decode_hour(self, register: u8) -> u8 {
        if self.hours_24 {
            return self.decode(register);
        }
        let afternoon = if register & PM != 0 { 12 } else { 0 };
        self.decode(register & !PM) % 12 + afternoon
    }
}

/// The bytes of the time of day and the date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRegisters {
    second: u8,
    minute: u8,
    hour: u8,
    weekday: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

impl TimeRegisters {
    /// Whether the register at this index is one of them.
    pub fn has(index: u8) -> bool {
        matches!(index, SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY)
    }

    /// What they show at this moment.
    pub fn encode(unix: i64, format: Format) -> Self {
        let moment = DateTime::from_unix(unix);
        let two_digits = |value: i64| u8::try_from(value.rem_euclid(100)).unwrap_or(0);
        Self {
            second: format.encode(moment.second),
            minute: format.encode(moment.minute),
            hour: format.encode_hour(moment.hour),
            weekday: format.encode(moment.weekday()),
            day: format.encode(moment.day),
            month: format.encode(moment.month),
            year: format.encode(two_digits(moment.year)),
            century: format.encode(two_digits(moment.year.div_euclid(100))),
        }
    }

    /// The moment that they show. The day of the week follows from the date.
    pub fn decode(self, format: Format) -> i64 {
        let number = |register, range: std::ops::RangeInclusive<u8>| {
            format.decode(register).clamp(*range.start(), *range.end())
        };
        let (century, year) = (number(self.century, 0..=99), number(self.year, 0..=99));
        let moment = DateTime {
            year: i64::from(century) * 100 + i64::from(year),
            month: number(self.month, 1..=12),
            day: number(self.day, 1..=31),
            hour: format.decode_hour(self.hour).min(23),
            minute: number(self.minute, 0..=59),
            second: number(self.second, 0..=59),
        };
        moment.to_unix()
    }

    /// The register at an index that [`has`](Self::has) one.
    pub fn get(mut self, index: u8) -> u8 {
        *self.at(index)
    }

    /// Sets it.
    pub fn set(&mut self, index: u8, value: u8) {
        *self.at(index) = value;
    }

    fn at(&mut self, index: u8) -> &mut u8 {
        match index {
            SECONDS => &mut self.second,
            MINUTES => &mut self.minute,
            HOURS => &mut self.hour,
            WEEKDAY => &mut self.weekday,
            DAY => &mut self.day,
            MONTH => &mut self.month,
            YEAR => &mut self.year,
            _ => &mut self.century,
        }
    }
}

/// When the alarm is due: hour, minute and second, each possibly any.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    hour: Option<u8>,
    minute: Option<u8>,
    second: Option<u8>,
}

impl Alarm {
    /// The alarm that these registers set.
    pub fn new(ram: &[u8; CMOS_LEN], format: Format) -> Self {
        let specific = |at: usize| Some(ram[at]).filter(|register| register & ANY != ANY);
        Self {
            hour: specific(ALARM_HOURS).map(|hour| format.decode_hour(hour)),
            minute: specific(ALARM_MINUTES).map(|minute| format.decode(minute)),
            second: specific(ALARM_SECONDS).map(|second| format.decode(second)),
        }
    }

    /// The first second after `unix` at which it is due; none if its registers are no time of
    /// day.
    pub fn next_after(self, unix: i64) -> Option<i64> {
        let matches = |wanted: Option<u8>, value| wanted.is_none_or(|wanted| wanted == value);
        let mut at = unix + 1;
        // A wrong hour is passed over as a whole, and so is a wrong minute: within a day and an
        // hour all of them come up.
        for _ in 0..25 + 2 * 60 + 60 {
            let DateTime { hour, minute, second, .. } = DateTime::from_unix(at);
            let (minutes, seconds) = (i64::from(minute), i64::from(second));
            if !matches(self.hour, hour) {
                at += 3600 - 60 * minutes - seconds;
            } else if !matches(self.minute, minute) {
                at += 60 - seconds;
            } else if !matches(self.second, second) {
                at += 1;
            } else {
                return Some(at);
            }
        }
        None
    }
}
