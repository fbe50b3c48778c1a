//! The 8254's datasheet, mode by mode; and whatever a guest does, against a counter that is
//! stepped.

use proptest::prelude::*;

use super::*;

/// A counter that is told ticks, set up by the control word's lower six bits and a count.
struct Bench {
    counter: Counter,
    now: u64,
}

impl Bench {
    fn new(control: u8, count: &[u8]) -> Self {
        let mut counter = Counter::new(true);
        counter.control(control);
        for byte in count {
            counter.write(*byte);
        }
        Self { counter, now: 0 }
    }

    fn step(&mut self) -> bool {
        self.now += 1;
        self.counter.advance(self.now);
        self.counter.output()
    }

    /// The output after each of so many ticks, as `-` and `_`.
    fn outputs(&mut self, ticks: usize) -> String {
        (0..ticks).map(|_| if self.step() { '-' } else { '_' }).collect()
    }

    fn count(&mut self) -> u16 {
        self.counter.control(0x00);
        u16::from_le_bytes([self.counter.read(), self.counter.read()])
    }

    /// The count after each of so many ticks.
    fn counts(&mut self, ticks: usize) -> Vec<u16> {
        (0..ticks)
            .map(|_| {
                self.step();
                self.count()
            })
            .collect()
    }

    fn status(&mut self) -> u8 {
        self.counter.latch_status();
        self.counter.read()
    }
}

#[test]
fn mode_0_rises_at_the_terminal_count() {
    let mut bench = Bench::new(0x30, &[4, 0]);
    assert!(!bench.counter.output());
    assert_eq!(bench.outputs(7), "____---", "N + 1 ticks after the count was written");
    assert_eq!(bench.counter.take_rises(), 1);
    assert_eq!(bench.counts(1), [0xfffd], "it counts on");
    // A new count takes the output down, and starts with its second byte.
    bench.counter.write(3);
    assert_eq!(bench.outputs(3), "___");
    bench.counter.write(0);
    assert_eq!(bench.counts(5), [3, 2, 1, 0, 0xffff]);
    // A low gate stops it.
    bench.counter.write(4);
    bench.counter.write(0);
    assert_eq!(bench.counts(2), [4, 3]);
    bench.counter.set_gate(false);
    assert_eq!(bench.counts(2), [3, 3]);
    assert_eq!(bench.counter.next_rise(), None);
    bench.counter.set_gate(true);
    assert_eq!(bench.counts(2), [2, 1]);
    assert_eq!(bench.counter.next_rise(), Some(bench.now + 1));
}

#[test]
fn mode_1_is_a_pulse_after_each_edge_of_the_gate() {
    let mut bench = Bench::new(0x32, &[3, 0]);
    assert_eq!(bench.outputs(3), "---");
    bench.counter.set_gate(false);
    bench.counter.set_gate(true);
    assert_eq!(bench.outputs(5), "___--");
    bench.counter.set_gate(false);
    bench.counter.set_gate(true);
    assert_eq!(bench.outputs(2), "__");
    // A new count is for the next edge, which begins the pulse anew.
    bench.counter.write(2);
    bench.counter.write(0);
    bench.counter.set_gate(false);
    bench.counter.set_gate(true);
    assert_eq!(bench.outputs(4), "__--");
}

#[test]
fn mode_2_is_low_for_one_tick_of_each_period() {
    let mut bench = Bench::new(0x34, &[3, 0]);
    assert_eq!(bench.outputs(8), "--_--_--");
    assert_eq!(bench.counter.take_rises(), 2);
    // A new count is for the next period.
    bench.counter.write(2);
    bench.counter.write(0);
    assert_eq!(bench.outputs(5), "_-_-_");
    // A low gate takes the output up, an edge begins anew.
    bench.counter.set_gate(false);
    assert_eq!(bench.outputs(3), "---");
    bench.counter.set_gate(true);
    assert_eq!(bench.outputs(4), "-_-_");
}

#[test]
fn mode_3_is_a_square_wave_with_even_and_odd_counts() {
    let mut bench = Bench::new(0x36, &[4, 0]);
    assert_eq!(bench.counts(5), [4, 2, 4, 2, 4]);
    assert_eq!(bench.outputs(7), "-__--__");
    let mut bench = Bench::new(0x36, &[5, 0]);
    assert_eq!(bench.counts(7), [4, 2, 0, 4, 2, 4, 2]);
    let mut bench = Bench::new(0x3e, &[5, 0]);
    assert_eq!(bench.outputs(10), "---__---__", "and so is mode 7");
    bench.step();
    // A new count is for the next half.
    bench.counter.write(2);
    bench.counter.write(0);
    assert_eq!(bench.outputs(6), "--_-_-");
    bench.counter.set_gate(false);
    assert!(bench.counter.output());
}

#[test]
fn mode_4_and_5_are_strobes() {
    let mut bench = Bench::new(0x38, &[3, 0]);
    assert_eq!(bench.outputs(7), "---_---");
    bench.counter.write(1);
    bench.counter.write(0);
    assert_eq!(bench.outputs(4), "-_--");
    assert_eq!(bench.counter.take_rises(), 2);
    let mut bench = Bench::new(0x3a, &[3, 0]);
    assert_eq!(bench.outputs(3), "---");
    bench.counter.set_gate(false);
    bench.counter.set_gate(true);
    assert_eq!(bench.outputs(6), "---_--");
}

#[test]
fn the_largest_count_is_zero() {
    let mut bench = Bench::new(0x34, &[0, 0]);
    assert_eq!(bench.counts(2), [0, 0xffff]);
    assert_eq!(bench.counter.next_rise(), Some(1 + 0x1_0000));
    let mut bench = Bench::new(0x35, &[0, 0]);
    assert_eq!(bench.counts(2), [0, 0x9999]);
    assert_eq!(bench.counter.next_rise(), Some(1 + 10_000));
}

#[test]
fn decimal_counts_wrap_at_ten_thousand() {
    let mut bench = Bench::new(0x31, &[0x01, 0x10]);
    assert_eq!(bench.counts(3), [0x1001, 0x1000, 0x0999]);
    bench.counter.advance(1 + 1002);
    bench.now = 1 + 1002;
    assert_eq!(bench.count(), 0x9999);
}

#[test]
fn one_byte_counts_have_the_other_byte_zero() {
    let mut bench = Bench::new(0x14, &[5]);
    assert_eq!(bench.counts(2), [0x0505, 0x0404], "each read is of the low byte");
    let mut bench = Bench::new(0x24, &[5]);
    bench.step();
    assert_eq!(bench.counter.read(), 5);
    bench.step();
    assert_eq!(bench.counter.read(), 4);
}

#[test]
fn a_latched_count_stays_until_it_is_read() {
    let mut bench = Bench::new(0x34, &[0x10, 0x20]);
    bench.step();
    bench.counter.control(0x00);
    bench.outputs(5);
    bench.counter.control(0x00);
    assert_eq!([bench.counter.read(), bench.counter.read()], [0x10, 0x20]);
    assert_eq!([bench.counter.read(), bench.counter.read()], [0x0b, 0x20]);
}

#[test]
fn the_status_tells_the_output_whether_the_count_is_in_use_and_the_mode() {
    let mut bench = Bench::new(0x30, &[2]);
    assert_eq!(bench.status(), 0x70);
    bench.counter.write(0);
    assert_eq!(bench.status(), 0x70);
    bench.step();
    assert_eq!(bench.status(), 0x30);
    bench.outputs(2);
    assert_eq!(bench.status(), 0xb0);
    let mut bench = Bench::new(0x1f, &[7]);
    bench.step();
    assert_eq!(bench.status(), 0x97, "mode 7 is mode 3");
    bench.counter.write(9);
    assert_eq!(bench.status(), 0xd7);
    // Status first, then the count.
    bench.counter.latch_count();
    bench.counter.latch_status();
    bench.step();
    assert_eq!([bench.counter.read(), bench.counter.read()], [0xd7, 6]);
}

#[test]
fn read_back_is_for_several_counters() {
    let now = Duration::from_nanos;
    let mut pit = Pit8254::new();
    for (offset, control) in [(0, 0x14), (1, 0x54), (2, 0x92)] {
        pit.write(CONTROL, control, now(0));
        pit.write(offset, 100, now(0));
    }
    // Counters 0 and 2, count and status.
    pit.write(CONTROL, 0xca, now(5_000));
    assert_eq!(pit.read(0, now(50_000)), 0x94);
    assert_eq!(pit.read(0, now(50_000)), 100 - 4);
    assert_eq!(pit.read(1, now(50_000)), 100 - 58, "not latched");
    assert_eq!(pit.read(2, now(50_000)), 0xd2, "its gate is low");
    // Counter 1, the count only.
    pit.write(CONTROL, 0xd4, now(50_000));
    assert_eq!(pit.read(1, now(70_000)), 100 - 58);
    assert_eq!(pit.read(CONTROL, now(70_000)), 0xff);
}

#[test]
fn a_hundred_hertz_are_a_hundred_rises_a_second() {
    let mut pit = Pit8254::new();
    pit.write(CONTROL, 0x34, Duration::ZERO);
    let count = 11_932u16.to_le_bytes();
    pit.write(0, count[0], Duration::ZERO);
    assert_eq!(pit.next_rise_0(), None);
    pit.write(0, count[1], Duration::ZERO);
    let first = pit.next_rise_0().unwrap();
    assert_eq!(first.as_micros(), 10_000);
    pit.advance(first - Duration::from_nanos(1));
    assert_eq!(pit.take_rises_0(), 0);
    pit.advance(first);
    assert_eq!((pit.take_rises_0(), pit.output_0()), (1, true));
    pit.advance(Duration::from_millis(1005));
    assert_eq!(pit.take_rises_0(), 99);
    // Back in time: nothing.
    pit.advance(Duration::ZERO);
    assert_eq!(pit.take_rises_0(), 0);
}

#[test]
fn gate_2_lets_counter_2_count() {
    let at = Duration::from_millis;
    let mut pit = Pit8254::new();
    pit.write(CONTROL, 0xb0, at(0));
    pit.write(2, 0xa9, at(0));
    pit.write(2, 0x04, at(0));
    assert!(!pit.output_2(at(5)));
    pit.set_gate_2(true, at(5));
    assert!(!pit.output_2(at(5)));
    assert!(pit.output_2(at(7)), "1193 ticks are a millisecond");
}

/// What happens to a counter.
#[derive(Clone, Debug)]
enum Step {
    Ticks(u64),
    Control(u8),
    Write(u8),
    Read,
    Gate(bool),
    Status,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..40u64).prop_map(Step::Ticks),
        1 => (0..1u64 << 40).prop_map(Step::Ticks),
        1 => any::<u8>().prop_map(Step::Control),
        3 => (0..12u8).prop_map(Step::Write),
        1 => any::<u8>().prop_map(Step::Write),
        1 => Just(Step::Read),
        2 => any::<bool>().prop_map(Step::Gate),
        1 => Just(Step::Status),
    ];
    prop::collection::vec(step, 0..60)
}

impl Step {
    fn take(&self, counter: &mut Counter) {
        match self {
            Self::Ticks(_) => {}
            Self::Control(value) => counter.control(*value),
            Self::Write(value) => counter.write(*value),
            Self::Read => drop(counter.read()),
            Self::Gate(high) => counter.set_gate(*high),
            Self::Status => counter.latch_status(),
        }
    }
}

proptest! {
    /// The same whether it is told every tick or only now and then; and the next rise is when it
    /// says.
    #[test]
    fn a_jump_in_time_is_as_many_steps(steps in steps()) {
        let (mut jumping, mut stepping) = (Counter::new(true), Counter::new(true));
        let (mut now, mut rises) = (0u64, 0u64);
        for step in steps {
            if let Step::Ticks(ticks) = step {
                let next = jumping.next_rise();
                jumping.advance(now + ticks);
                if ticks < 1000 {
                    for _ in 0..ticks {
                        now += 1;
                        let before = stepping.output();
                        stepping.advance(now);
                        let rises_now = stepping.take_rises();
                        // One that is low for less than a tick has still risen.
                        prop_assert!(rises_now <= 1);
                        prop_assert!(rises_now == 1 || before || !stepping.output());
                        rises += rises_now;
                    }
                    prop_assert_eq!(next.is_some_and(|next| next <= now), rises > 0);
                } else {
                    now += ticks;
                    stepping.advance(now);
                    rises += stepping.take_rises();
                }
                prop_assert_eq!(jumping.take_rises(), rises);
                rises = 0;
            } else {
                step.take(&mut jumping);
                step.take(&mut stepping);
                prop_assert_eq!(jumping.take_rises(), stepping.take_rises());
            }
            prop_assert_eq!(jumping.output(), stepping.output());
            for counter in [&mut jumping, &mut stepping] {
                counter.latch_count();
            }
            for _ in 0..3 {
                prop_assert_eq!(jumping.read(), stepping.read());
            }
        }
    }

    #[test]
    fn no_access_panics(
        accesses in prop::collection::vec(
            (any::<bool>(), 0..5u64, any::<u8>(), 0..u64::MAX / 2),
            0..100,
        ),
    ) {
        let mut pit = Pit8254::new();
        for (write, offset, value, now) in accesses {
            let now = Duration::from_nanos(now);
            if write {
                pit.write(offset, value, now);
            } else {
                pit.read(offset, now);
            }
            pit.set_gate_2(value & 1 != 0, now);
            let next = pit.next_rise_0();
            prop_assert!(next.is_none_or(|next| next > Duration::ZERO));
        }
    }
}
