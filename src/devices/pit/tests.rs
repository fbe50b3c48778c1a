//! The timer as its guests use it: each mode's output over time, counts latched and not, and the
//! gate.

use super::*;

/// The time of so many clocks, and a little.
fn clocks(count: u64) -> Duration {
    Duration::from_nanos(count * 1_000_000_000 / 1_193_182 + 1)
}

/// Counter 2 in this mode with this count, both bytes of it, its gate on from the start.
fn started(mode: u8, count: u16) -> Pit {
    let mut pit = Pit::default();
    pit.set_gate(true, Duration::ZERO);
    pit.write(3, 0xb0 | mode << 1, Duration::ZERO);
    for byte in count.to_le_bytes() {
        pit.write(2, byte, Duration::ZERO);
    }
    pit
}

fn read_count(pit: &mut Pit, now: Duration) -> u16 {
    u16::from_le_bytes([pit.read(2, now), pit.read(2, now)])
}

#[test]
fn a_terminal_count_ends_once() {
    let mut pit = started(0, 1000);
    assert_eq!(read_count(&mut pit, Duration::ZERO), 1000);
    assert_eq!(read_count(&mut pit, clocks(400)), 600);
    assert!(!pit.output(clocks(999)));
    assert!(pit.output(clocks(1000)));
    assert!(pit.output(clocks(1_000_000)));
    // It counts on below 0.
    assert_eq!(read_count(&mut pit, clocks(1001)), 0xffff);
    // A new count starts when both of its bytes have come.
    pit.write(2, 0, clocks(2000));
    assert!(!pit.output(clocks(9000)));
    pit.write(2, 1, clocks(3000));
    assert!(!pit.output(clocks(3255)));
    assert!(pit.output(clocks(3257)));
}

#[test]
fn a_count_of_0_is_the_longest() {
    let pit = started(0, 0);
    assert!(!pit.output(clocks(0xffff)));
    assert!(pit.output(clocks(0x1_0000)));
}

#[test]
fn the_gate_pauses_a_terminal_count() {
    let mut pit = started(0, 1000);
    pit.set_gate(false, clocks(500));
    assert!(!pit.output(clocks(5000)));
    assert_eq!(read_count(&mut pit, clocks(5000)), 500);
    pit.set_gate(true, clocks(5000));
    assert!(!pit.output(clocks(5499)));
    assert!(pit.output(clocks(5501)));
}

#[test]
fn periodic_modes_repeat_and_begin_anew_with_the_gate() {
    let mut pit = started(2, 100);
    for (at, output) in [(0, true), (98, true), (99, false), (100, true), (199, false)] {
        assert_eq!(pit.output(clocks(at)), output, "{at}");
    }
    assert_eq!(read_count(&mut pit, clocks(101)), 99);
    pit.set_gate(false, clocks(110));
    assert!(pit.output(clocks(199)));
    pit.set_gate(true, clocks(150));
    assert!(!pit.output(clocks(150) + clocks(99)));

    let mut square = started(3, 100);
    for (at, output) in [(0, true), (49, true), (50, false), (99, false), (100, true)] {
        assert_eq!(square.output(clocks(at)), output, "{at}");
    }
    assert_eq!(read_count(&mut square, clocks(10)), 80);
}

#[test]
fn a_trigger_starts_the_others() {
    let mut pit = started(1, 100);
    assert!(pit.output(clocks(1)));
    pit.set_gate(false, clocks(10));
    pit.set_gate(true, clocks(20));
    assert!(!pit.output(clocks(119)));
    assert!(pit.output(clocks(121)));
    let strobe = started(4, 100);
    assert!(strobe.output(clocks(99)) && !strobe.output(clocks(100)) && strobe.output(clocks(101)));
}

#[test]
fn a_latched_count_stands_still_until_it_is_read() {
    let mut pit = started(0, 1000);
    pit.write(3, 0x80, clocks(100));
    // A second latch in between does not count.
    pit.write(3, 0x80, clocks(200));
    assert_eq!(read_count(&mut pit, clocks(300)), 900);
    assert_eq!(read_count(&mut pit, clocks(300)), 700);
    // Read back status and count of counter 2: the status comes first.
    pit.write(3, 0xc8, clocks(400));
    assert_eq!(pit.read(2, clocks(500)), 0x30);
    assert_eq!(read_count(&mut pit, clocks(500)), 600);
    pit.write(3, 0xe8, clocks(1000));
    assert_eq!(pit.read(2, clocks(1000)), 0xb0);
}

#[test]
fn counts_of_one_byte() {
    let mut pit = Pit::default();
    pit.write(3, 0x10, Duration::ZERO);
    pit.write(0, 0x34, Duration::ZERO);
    assert_eq!(pit.read(0, Duration::ZERO), 0x34);
    assert_eq!(pit.read(0, Duration::ZERO), 0x34);
    pit.write(3, 0x24, Duration::ZERO);
    pit.write(0, 0x12, Duration::ZERO);
    assert_eq!(pit.read(0, Duration::ZERO), 0x12);
    assert_eq!(pit.read(3, Duration::ZERO), 0xff);
    // A counter without a count.
    pit.write(3, 0xb0, Duration::ZERO);
    pit.write(3, 0xe8, Duration::ZERO);
    assert_eq!(pit.read(2, Duration::ZERO), 0x70);
}
