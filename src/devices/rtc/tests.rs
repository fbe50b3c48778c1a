//! The clock as its guests use it: the time in every format, setting it, UIP, the three
//! interrupts, and memory that is plain memory.

use proptest::prelude::*;

use super::*;

/// 31 December 2025, 23:59:58 UTC, a Wednesday.
const UNIX: u64 = 1_767_225_598;

const ZERO: Duration = Duration::ZERO;

fn clock() -> Rtc {
    Rtc::new(Duration::from_secs(UNIX), ZERO, [0; CMOS_LEN])
}

fn get(rtc: &mut Rtc, index: u8, now: Duration) -> u8 {
    rtc.write(0, index, now);
    rtc.read(1, now)
}

fn set(rtc: &mut Rtc, index: u8, value: u8, now: Duration) {
    rtc.write(0, index, now);
    rtc.write(1, value, now);
}

/// Century, year, month, day, weekday, hour, minute, second.
fn time(rtc: &mut Rtc, now: Duration) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_time_of_day_in_every_format() {
    let mut rtc = clock();
    assert_eq!(time(&mut rtc, ZERO), [0x20, 0x25, 0x12, 0x31, 4, 0x23, 0x59, 0x58]);
    set(&mut rtc, REGISTER_B, HOURS_24 | format::BINARY, ZERO);
    assert_eq!(time(&mut rtc, ZERO), [20, 25, 12, 31, 4, 23, 59, 58]);
    set(&mut rtc, REGISTER_B, format::BINARY, ZERO);
    assert_eq!(get(&mut rtc, 4, ZERO), 0x80 | 11);
    assert_eq!(time(&mut rtc, secs(2)), [20, 26, 1, 1, 5, 12, 0, 0]);
    set(&mut rtc, REGISTER_B, 0, secs(2));
    assert_eq!(get(&mut rtc, 4, secs(2 + 12 * 3600)), 0x80 | 0x12);
    assert_eq!(get(&mut rtc, 4, secs(2 + 13 * 3600)), 0x80 | 0x01);
}

#[test]
fn it_starts_within_a_second() {
    // The machine started a quarter of a second after the owner's clock, and into a second.
    let start = Duration::new(UNIX, 900_000_000);
    let mut rtc = Rtc::new(start, millis(250), [0; CMOS_LEN]);
    assert_eq!(get(&mut rtc, 0, millis(349)), 0x58);
    assert_eq!(get(&mut rtc, 0, millis(350)), 0x59);
    let mut rtc = Rtc::new(secs(UNIX), millis(250), [0; CMOS_LEN]);
    assert_eq!(get(&mut rtc, 0, millis(1249)), 0x58);
    assert_eq!(get(&mut rtc, 0, millis(1250)), 0x59);
}

#[test]
fn setting_the_time_with_and_without_holding_it() {
    let mut rtc = clock();
    set(&mut rtc, 4, 0x05, ZERO);
    assert_eq!(time(&mut rtc, secs(2)), [0x20, 0x25, 0x12, 0x31, 4, 0x06, 0x00, 0x00]);
    set(&mut rtc, REGISTER_B, SET | HOURS_24, secs(3));
    for (index, value) in [(0, 0x30), (2, 0x15), (4, 0x08), (7, 0x29), (8, 0x02), (9, 0x24)] {
        set(&mut rtc, index, value, secs(4));
    }
    set(&mut rtc, 0x32, 0x19, secs(4));
    // It stands still, raw.
    set(&mut rtc, 6, 0x77, secs(5));
    assert_eq!(time(&mut rtc, secs(9)), [0x19, 0x24, 0x02, 0x29, 0x77, 0x08, 0x15, 0x30]);
    set(&mut rtc, REGISTER_B, HOURS_24, secs(10));
    assert_eq!(time(&mut rtc, secs(11)), [0x19, 0x24, 0x02, 0x29, 6, 0x08, 0x15, 0x31]);
}

#[test]
fn the_divider_holds_the_time_and_lets_it_go_half_a_second_before_an_update() {
    let mut rtc = clock();
    set(&mut rtc, REGISTER_A, 0x76, millis(300));
    assert_eq!(get(&mut rtc, 0, secs(60)), 0x58);
    assert_eq!(get(&mut rtc, REGISTER_A, secs(60)), 0x76);
    set(&mut rtc, REGISTER_A, 0x26, secs(60) + millis(900));
    assert_eq!(get(&mut rtc, 0, secs(61) + millis(399)), 0x58);
    assert_eq!(get(&mut rtc, 0, secs(61) + millis(400)), 0x59);
}

#[test]
fn uip_comes_on_before_an_update() {
    let mut rtc = clock();
    let before = secs(1) - UIP_TIME;
    assert_eq!(get(&mut rtc, REGISTER_A, before - Duration::from_nanos(1)), 0x26);
    assert_eq!(get(&mut rtc, REGISTER_A, before), 0xa6);
    assert_eq!(get(&mut rtc, REGISTER_A, secs(1)), 0x26);
    set(&mut rtc, REGISTER_B, SET | HOURS_24, secs(1));
    assert_eq!(get(&mut rtc, REGISTER_A, secs(2) - UIP_TIME), 0x26);
}

#[test]
fn the_update_interrupt_comes_once_a_second() {
    let mut rtc = clock();
    assert_eq!(rtc.deadline(), None);
    set(&mut rtc, REGISTER_B, HOURS_24 | UPDATE_ENDED, millis(100));
    assert_eq!(rtc.deadline(), Some(secs(1)));
    rtc.advance(millis(999));
    assert!(!rtc.irq_level());
    rtc.advance(secs(1));
    assert!(rtc.irq_level());
    assert_eq!(rtc.deadline(), None);
    let flags = IRQF | UPDATE_ENDED | PERIODIC;
    assert_eq!(get(&mut rtc, REGISTER_C, secs(1)), flags);
    assert!(!rtc.irq_level());
    assert_eq!(get(&mut rtc, REGISTER_C, secs(1)), 0);
    assert_eq!(rtc.deadline(), Some(secs(2)));
    // SET switches it off.
    set(&mut rtc, REGISTER_B, SET | UPDATE_ENDED, secs(1));
    assert_eq!(get(&mut rtc, REGISTER_B, secs(1)), SET);
}

#[test]
fn the_alarm_matches_hours_minutes_and_seconds_or_any() {
    let mut rtc = clock();
    // At 00:00:10, and then at 10 s after each minute.
    for (index, value) in [(5, 0x00), (3, 0x00), (1, 0x10)] {
        set(&mut rtc, index, value, ZERO);
    }
    set(&mut rtc, REGISTER_B, HOURS_24 | ALARM, ZERO);
    assert_eq!(rtc.deadline(), Some(secs(12)));
    rtc.advance(secs(11));
    assert!(!rtc.irq_level());
    rtc.advance(secs(3600));
    assert!(rtc.irq_level(), "told of late");
    assert_eq!(get(&mut rtc, REGISTER_C, secs(3600)) & ALARM, ALARM);
    assert_eq!(rtc.deadline(), Some(secs(12 + 86_400)));
    set(&mut rtc, 5, 0xff, secs(3600));
    set(&mut rtc, 3, 0xc0, secs(3600));
    assert_eq!(rtc.deadline(), Some(secs(3612)));
    // No hour at all.
    set(&mut rtc, 5, 0x25, secs(3600));
    assert_eq!(rtc.deadline(), None);
    assert_eq!(get(&mut rtc, 5, secs(3600)), 0x25);
}

#[test]
fn the_periodic_interrupt_has_fifteen_rates() {
    for (rate, period) in [(1, 128), (2, 256), (3, 4), (6, 32), (15, 16_384)] {
        let mut rtc = clock();
        set(&mut rtc, REGISTER_A, 0x20 | rate, ZERO);
        set(&mut rtc, REGISTER_B, HOURS_24 | PERIODIC, ZERO);
        let due = time_of_tick(period);
        assert_eq!(rtc.deadline(), Some(due), "{rate}");
        rtc.advance(due - Duration::from_nanos(1));
        assert!(!rtc.irq_level(), "{rate}");
        rtc.advance(due);
        assert!(rtc.irq_level(), "{rate}");
        // Those that nobody has asked for are one.
        let flags = get(&mut rtc, REGISTER_C, due + 10 * due);
        assert_eq!(flags & (IRQF | PERIODIC), IRQF | PERIODIC);
        assert_eq!(rtc.deadline(), Some(time_of_tick(12 * period)), "{rate}");
    }
    let mut rtc = clock();
    set(&mut rtc, REGISTER_A, 0x20, ZERO);
    set(&mut rtc, REGISTER_B, HOURS_24 | PERIODIC, ZERO);
    assert_eq!(rtc.deadline(), None);
}

#[test]
fn memory_is_memory_and_bit_7_is_no_part_of_the_index() {
    let mut ram = [0; CMOS_LEN];
    ram[0x34] = 0x70;
    let mut rtc = Rtc::new(ZERO, ZERO, ram);
    assert_eq!(get(&mut rtc, 0x34, ZERO), 0x70);
    assert_eq!(get(&mut rtc, 0xb4, ZERO), 0x70);
    set(&mut rtc, 0x8f, 0x0a, ZERO);
    assert_eq!(get(&mut rtc, 0x0f, ZERO), 0x0a);
    assert_eq!(rtc.read(0, ZERO), 0xff);
    assert_eq!(get(&mut rtc, REGISTER_D, ZERO), 0x80);
    set(&mut rtc, REGISTER_D, 0, ZERO);
    assert_eq!(get(&mut rtc, REGISTER_D, ZERO), 0x80);
    // The alarm's registers are memory, too.
    set(&mut rtc, 1, 0x5a, ZERO);
    assert_eq!(get(&mut rtc, 1, ZERO), 0x5a);
}

proptest! {
    /// Whatever is written in whatever order at whatever time, nothing panics, deadlines lie
    /// ahead, and the pin is up at the latest when one has come.
    #[test]
    fn deadlines_are_kept(
        accesses in prop::collection::vec((0u8..0x35, any::<u8>(), 0u64..5_000_000_000), 1..60),
        start in 0u64..20_000_000_000,
    ) {
        let mut rtc = Rtc::new(Duration::from_secs(start), ZERO, [0; CMOS_LEN]);
        let mut now = ZERO;
        for (index, value, nanos) in accesses {
            now += Duration::from_nanos(nanos);
            set(&mut rtc, index, value, now);
            if let Some(due) = rtc.deadline() {
                prop_assert!(due > now);
                let mut later = rtc.clone();
                later.advance(due);
                prop_assert!(later.irq_level());
                let mut sooner = rtc.clone();
                sooner.advance(due - Duration::from_nanos(1));
                prop_assert!(!sooner.irq_level());
            }
        }
    }
}
