use super::*;
use crate::exit::PioAddr;
use crate::stress::seed::Seed;

fn pio(port: u16, direction: Direction, size: u8) -> PioExit {
    PioExit { port: PioAddr(port), direction, size, count: 1 }
}

fn write(ports: &mut StressPorts, port: u16, value: u32) -> Effect {
    let pio = pio(port, Direction::Write, 4);
    assert!(StressPorts::answers(pio));
    ports.access(pio, &mut value.to_le_bytes())
}

/// Writes bytes to a port of one byte, by a `rep outsb`.
fn write_text(ports: &mut StressPorts, port: u16, text: &[u8]) -> Effect {
    let pio = pio(port, Direction::Write, 1);
    assert!(StressPorts::answers(pio));
    ports.access(pio, &mut text.to_vec())
}

fn read(ports: &mut StressPorts, port: u16) -> u32 {
    let mut data = [0; 4];
    assert_eq!(ports.access(pio(port, Direction::Read, 4), &mut data), Effect::None);
    u32::from_le_bytes(data)
}

fn in_iteration(number: u64, seed: u64) -> StressPorts {
    let mut ports = StressPorts::new(VcpuId(1));
    ports.begin(Iteration { number, seed: Seed(seed) });
    ports
}

fn outcome(value: u64, label: &str) -> Outcome {
    Outcome { value, label: Label::new(label) }
}

#[test]
fn a_report_has_its_value_label_and_count_and_the_next_has_none_of_them() {
    let mut ports = in_iteration(0, 0);
    assert_eq!(write_text(&mut ports, LABEL, b"not this one\nx=1;\0"), Effect::None);
    assert_eq!(write(&mut ports, OUTCOME_HIGH, 0xdead_beef), Effect::None);
    assert_eq!(write(&mut ports, COUNT, 70), Effect::None);
    assert_eq!(write(&mut ports, OUTCOME_LOW, 7), Effect::None);
    write(&mut ports, OUTCOME_LOW, 7);
    write(&mut ports, OUTCOME_LOW, 7);
    write(&mut ports, COUNT, 0);
    write(&mut ports, OUTCOME_LOW, 8);
    let states = [(outcome(0xdead_beef_0000_0007, "x=1;"), 70), (outcome(7, ""), 2)];
    assert_eq!(ports.take_reported(), Reported { states: states.into(), other: 0 });
    assert_eq!(ports.take_reported(), Reported::default());
}

#[test]
fn states_are_limited_and_counted_beyond() {
    let mut ports = in_iteration(0, 0);
    for value in 0..5000 {
        write(&mut ports, OUTCOME_LOW, value);
    }
    write(&mut ports, OUTCOME_LOW, 3);
    let reported = ports.take_reported();
    assert_eq!((reported.states.len(), reported.other), (STATES_MAX, 5000 - 4096));
    assert_eq!(reported.states[&outcome(3, "")], 2);
}

#[test]
fn texts_are_cut_and_made_harmless() {
    let mut ports = in_iteration(0, 0);
    write_text(&mut ports, LABEL, &[b'l'; 1000]);
    write(&mut ports, OUTCOME_LOW, 0);
    let (label, _) = ports.take_reported().states.pop_first().unwrap();
    assert_eq!(label.label.as_str().len(), Label::MAX_BYTES);
    assert_eq!(write_text(&mut ports, ASSERTION, b"lock.c:12: \x1b[31m"), Effect::None);
    let text = "lock.c:12: \\u{1b}[31mtwo owners".to_owned();
    assert_eq!(write_text(&mut ports, ASSERTION, b"two owners\nmore"), Effect::Assertion(text));
}

#[test]
fn a_vcpu_says_that_it_waits_and_that_it_is_done() {
    let mut ports = in_iteration(0, 0);
    assert_eq!(write_text(&mut ports, PROGRESS, &[0]), Effect::Yield);
    assert_eq!(write_text(&mut ports, PROGRESS, &[2]), Effect::None);
    assert_eq!(write_text(&mut ports, PROGRESS, &[1]), Effect::Done);
}

#[test]
fn the_guest_sees_its_iteration_and_numbers_of_its_own() {
    let mut ports = in_iteration(5, 0x1122_3344_5566_7788);
    assert_eq!(read(&mut ports, OUTCOME_LOW), 0x5566_7788);
    assert_eq!(read(&mut ports, OUTCOME_HIGH), 0x1122_3344);
    assert_eq!(read(&mut ports, COUNT), 5);
    let draw = |ports: &mut StressPorts| [0; 4].map(|_| read(ports, RANDOM));
    let drawn = draw(&mut ports);
    assert_eq!(draw(&mut in_iteration(9, 0x1122_3344_5566_7788)), drawn, "the same seed");
    assert_ne!(draw(&mut in_iteration(5, 0x1122_3344_5566_7789)), drawn, "another seed");
    let mut other = StressPorts::new(VcpuId(0));
    other.begin(Iteration { number: 5, seed: Seed(0x1122_3344_5566_7788) });
    assert_ne!(draw(&mut other), drawn, "another vCPU");
}

#[test]
fn an_access_of_another_size_is_for_the_devices() {
    for (port, size) in [(RANDOM, 1), (OUTCOME_LOW, 2), (LABEL, 4), (PROGRESS, 2), (0x5e5, 1)] {
        assert!(!StressPorts::answers(pio(port, Direction::Write, size)), "{port:#x} {size}");
    }
}
