//! ACPI's fixed hardware, as a pure register machine: the PM1a event and control registers and the
//! power management timer, where QEMU's q35 has them and the FADT says so. ACPI is on from the
//! start (SCI_EN); the only event is the timer's overflow, and a write of SLP_EN switches the
//! machine off, whatever the sleep type. The source is the ACPI specification 6.5, sections 4.8.3
//! and 4.8.3.3; time is a value that the owner tells.

use std::time::Duration;

use crate::devices::GuestEnd;

/// The ports. PM1a_EVT: status and enable, of two bytes each.
pub const PM1A_EVT: u16 = 0x600;
/// PM1a_CNT, of two bytes.
pub const PM1A_CNT: u16 = 0x604;
/// The timer, of four.
pub const PM_TIMER: u16 = 0x608;
/// The first of them all.
pub const ACPI_BASE: u64 = PM1A_EVT as u64;
/// Up to the end of the timer.
pub const ACPI_LEN: u64 = 12;
/// The system control interrupt.
pub const SCI: u32 = 9;

const STATUS: usize = 0;
const ENABLE: usize = 2;
const CONTROL: usize = (PM1A_CNT - PM1A_EVT) as usize;
const TIMER: usize = (PM_TIMER - PM1A_EVT) as usize;
const LEN: usize = 12;

/// PM1 status and enable: the timer's highest bit has changed.
const TIMER_EVENT: u8 = 1 << 0;
/// The enable bits that are kept: of the timer, the global lock, the two buttons (in the upper
/// byte) and the RTC.
const ENABLE_BITS: [u8; 2] = [1 << 0 | 1 << 5, 1 << 0 | 1 << 1 | 1 << 2];
/// PM1 control: SCI_EN, always on.
const SCI_EN: u8 = 1 << 0;
/// In its upper byte: the sleep type, which is kept, and SLP_EN, which acts.
const SLP_TYP: u8 = 0b111 << 2;
const SLP_EN: u8 = 1 << 5;

/// The timer's clock (section 4.8.3.3).
const TIMER_HZ: u128 = 3_579_545;
/// The event's bit of the timer, which is 32 bits wide, changes after so many ticks.
const HALF: u64 = 1 << 31;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcpiPm {
    status: u8,
    enable: [u8; 2],
    sleep_type: u8,
    /// Ticks up to which the status is right.
    seen: u64,
}

impl AcpiPm {
    /// The state after a reset at the time `now`.
    pub fn new(now: Duration) -> Self {
        Self { seen: ticks(now), ..Self::default() }
    }

    /// The guest reads `size` bytes at `offset`, which lie in the range: all of one moment.
    pub fn read(&mut self, offset: u64, size: u8, now: Duration) -> u64 {
        self.advance(now);
        let mut registers = [0xff; LEN];
        registers[STATUS..][..2].copy_from_slice(&[self.status, 0]);
        registers[ENABLE..][..2].copy_from_slice(&self.enable);
        registers[CONTROL..][..2].copy_from_slice(&[SCI_EN, self.sleep_type]);
        registers[TIMER..].copy_from_slice(&self.seen.to_le_bytes()[..4]);
        let bytes = registers.iter().skip(index(offset)).take(size.into());
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// The guest writes there. Status bits are cleared by a 1.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, now: Duration) -> Option<GuestEnd> {
        self.advance(now);
        for (at, byte) in (index(offset)..).zip(value.to_le_bytes()).take(size.into()) {
            match at {
                STATUS => self.status &= !byte,
                ENABLE => self.enable[0] = byte & ENABLE_BITS[0],
                at if at == ENABLE + 1 => self.enable[1] = byte & ENABLE_BITS[1],
                at if at == CONTROL + 1 && byte & SLP_EN != 0 => return Some(GuestEnd::PowerOff),
                at if at == CONTROL + 1 => self.sleep_type = byte & SLP_TYP,
                _ => {}
            }
        }
        None
    }

    /// Tells the time. Time that goes backwards stands still.
    pub fn advance(&mut self, now: Duration) {
        let now = ticks(now).max(self.seen);
        if now / HALF != self.seen / HALF {
            self.status |= TIMER_EVENT;
        }
        self.seen = now;
    }

    /// The level of the SCI.
    pub fn irq_level(&self) -> bool {
        self.status & self.enable[0] & TIMER_EVENT != 0
    }

    /// When [`advance`](Self::advance) would next raise the SCI.
    pub fn deadline(&self) -> Option<Duration> {
        let waits = self.enable[0] & TIMER_EVENT != 0 && !self.irq_level();
        waits.then(|| time_of_tick((self.seen / HALF + 1) * HALF))
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(LEN)
}

fn ticks(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() * TIMER_HZ / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The first moment at which [`ticks`] are so many.
fn time_of_tick(tick: u64) -> Duration {
    let nanos = (u128::from(tick) * 1_000_000_000).div_ceil(TIMER_HZ);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn slp_en_powers_off_and_the_type_is_kept() {
        let mut pm = AcpiPm::default();
        assert_eq!(pm.write(4, 2, 0x2000, START), Some(GuestEnd::PowerOff));
        assert_eq!(pm.write(4, 2, 0x3c01, START), Some(GuestEnd::PowerOff));
        assert_eq!(pm.write(5, 1, 0x20, START), Some(GuestEnd::PowerOff));
        assert_eq!(pm.write(4, 1, 0x20, START), None);
        assert_eq!(pm.read(4, 2, START), 0x0001);
        assert_eq!(pm.write(4, 2, 0xdc00, START), None);
        assert_eq!(pm.read(4, 2, START), 0x1c01);
        assert_eq!(pm.read(5, 1, START), 0x1c);
    }

    #[test]
    fn the_timer_counts_at_its_frequency_and_wraps() {
        let mut pm = AcpiPm::default();
        assert_eq!(pm.read(8, 4, START), 0);
        assert_eq!(pm.read(8, 4, Duration::from_secs(1)), 3_579_545);
        assert_eq!(pm.read(9, 1, Duration::from_secs(1)), 0x9e);
        let wrapped = time_of_tick(1 << 32);
        assert_eq!(pm.read(8, 4, wrapped - Duration::from_nanos(1)), 0xffff_ffff);
        assert_eq!(pm.read(8, 4, wrapped), 0);
        // Not writable.
        pm.write(8, 4, 0x1234, wrapped);
        assert_eq!(pm.read(8, 4, wrapped), 0);
        assert_eq!(pm.read(8, 4, START), 0, "time does not go back");
    }

    #[test]
    fn an_overflow_is_an_event_and_raises_the_sci_if_enabled() {
        let mut pm = AcpiPm::new(Duration::from_secs(1));
        assert_eq!(pm.deadline(), None);
        pm.write(2, 2, 0xffff, Duration::from_secs(1));
        assert_eq!(pm.read(2, 2, Duration::from_secs(1)), 0x0721);
        let due = pm.deadline().unwrap();
        assert_eq!(due, time_of_tick(HALF));
        pm.advance(due - Duration::from_nanos(1));
        assert!(!pm.irq_level());
        pm.advance(due);
        assert!(pm.irq_level());
        assert_eq!(pm.deadline(), None);
        assert_eq!(pm.read(0, 4, due), 0x0721_0001);
        // Zeros do not clear it.
        pm.write(0, 2, 0, due);
        assert!(pm.irq_level());
        pm.write(0, 2, 1, due);
        assert!(!pm.irq_level());
        assert_eq!(pm.deadline(), Some(time_of_tick(2 * HALF)));
        // Without the enable it is only a bit.
        pm.write(2, 2, 0, due);
        pm.advance(time_of_tick(3 * HALF));
        assert!(!pm.irq_level());
        assert_eq!(pm.read(0, 2, time_of_tick(3 * HALF)), 1);
    }
}
