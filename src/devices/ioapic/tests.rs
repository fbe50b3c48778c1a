//! The 82093AA's datasheet, register by register; and whatever a guest does.

use proptest::prelude::*;

use super::*;

/// An IOAPIC and the messages that it has sent, which local APICs took.
#[derive(Default)]
struct Bench {
    ioapic: IoApic,
    sent: Vec<Message>,
    deaf: bool,
}

impl Bench {
    fn select(&mut self, register: u8) {
        self.ioapic.write(REGISTER_SELECT, register.into());
    }

    fn read(&mut self, register: u8) -> u32 {
        self.select(register);
        self.ioapic.read(WINDOW)
    }

    fn write(&mut self, register: u8, value: u32) -> Written {
        self.select(register);
        let written = self.ioapic.write(WINDOW, value);
        let Self { ioapic, sent, deaf } = self;
        ioapic.serve(|message| {
            sent.push(message);
            !*deaf
        });
        written
    }

    fn set_entry(&mut self, pin: u8, bits: u64) {
        let [lower, upper] = halves(bits);
        self.write(0x11 + 2 * pin, upper);
        self.write(0x10 + 2 * pin, lower);
    }

    fn entry(&mut self, pin: u8) -> u64 {
        u64::from(self.read(0x10 + 2 * pin)) | u64::from(self.read(0x11 + 2 * pin)) << 32
    }

    fn set_pin(&mut self, pin: usize, high: bool) {
        let Self { ioapic, sent, deaf } = self;
        ioapic.set_pin(pin, high, |message| {
            sent.push(message);
            !*deaf
        });
    }

    fn end(&mut self, vector: u8) {
        let Self { ioapic, sent, deaf } = self;
        ioapic.end(vector, |message| {
            sent.push(message);
            !*deaf
        });
    }

    fn take_sent(&mut self) -> Vec<(u32, u32)> {
        self.sent.drain(..).map(|message| (message.address, message.data)).collect()
    }
}

const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const REMOTE_IRR: u64 = 1 << 14;

#[test]
fn registers_after_a_reset() {
    let mut bench = Bench::default();
    assert_eq!([0, 1, 2].map(|register| bench.read(register)), [0, 0x0017_0011, 0]);
    for pin in 0..24 {
        assert_eq!(bench.entry(pin), MASKED);
    }
    assert_eq!(bench.read(0x40), u32::MAX, "no such pin");
    assert_eq!(bench.read(0x03), u32::MAX);
    bench.write(0, 0xffff_ffff);
    bench.write(1, 0);
    bench.write(2, 0);
    assert_eq!(
        [0, 1, 2].map(|register| bench.read(register)),
        [0x0f00_0000, 0x0017_0011, 0x0f00_0000]
    );
    assert_eq!(bench.ioapic.read(REGISTER_SELECT), 2);
    assert_eq!(bench.ioapic.read(0x20), 0);
}

#[test]
fn an_entry_keeps_what_can_be_written() {
    let mut bench = Bench::default();
    bench.set_entry(23, u64::MAX);
    assert_eq!(bench.entry(23), 0xff00_0000_0001_afff);
    bench.set_entry(23, 0);
    assert_eq!(bench.entry(23), 0);
    assert_eq!(bench.write(0x40, 0), Written::Register, "there is no pin 24");
    assert_eq!(bench.take_sent(), []);
}

#[test]
fn an_edge_is_one_message() {
    let mut bench = Bench::default();
    bench.set_entry(4, 0x0200_0000_0000_0024);
    for _ in 0..2 {
        bench.set_pin(4, true);
        bench.set_pin(4, true);
        assert_eq!(bench.take_sent(), [(0xfee0_2000, 0x4024)]);
        bench.set_pin(4, false);
    }
    assert_eq!(bench.entry(4), 0x0200_0000_0000_0024);
    // One that is masked is lost.
    bench.set_entry(4, MASKED | 0x24);
    bench.set_pin(4, true);
    bench.set_entry(4, 0x24);
    assert_eq!(bench.take_sent(), []);
}

#[test]
fn delivery_and_destination_modes_are_in_the_message() {
    let mut bench = Bench::default();
    // Fixed, lowest priority, SMI, NMI, INIT, ExtINT.
    for mode in [0u32, 1, 2, 4, 5, 7] {
        bench.set_entry(9, 0xff00_0000_0000_0030 | u64::from(mode) << 8 | 1 << 11);
        bench.set_pin(9, true);
        bench.set_pin(9, false);
        assert_eq!(bench.take_sent(), [(0xfeef_f004, 0x4030 | mode << 8)]);
    }
}

#[test]
fn a_level_is_sent_again_after_each_end_while_it_is_high() {
    let mut bench = Bench::default();
    bench.set_entry(10, LEVEL | 0x51);
    bench.set_pin(10, true);
    assert_eq!(bench.take_sent(), [(0xfee0_0000, 0xc051)]);
    assert_eq!(bench.entry(10), LEVEL | REMOTE_IRR | 0x51);
    // Not before its end, whatever the pin does.
    bench.set_pin(10, false);
    bench.set_pin(10, true);
    bench.end(0x52);
    assert_eq!(bench.take_sent(), []);
    bench.end(0x51);
    assert_eq!(bench.take_sent(), [(0xfee0_0000, 0xc051)]);
    bench.set_pin(10, false);
    bench.end(0x51);
    assert_eq!((bench.take_sent(), bench.entry(10)), (vec![], LEVEL | 0x51));
}

#[test]
fn a_level_that_was_masked_is_sent_when_it_is_not() {
    let mut bench = Bench::default();
    bench.set_entry(10, MASKED | LEVEL | 0x51);
    bench.set_pin(10, true);
    assert_eq!(bench.take_sent(), []);
    bench.set_entry(10, LEVEL | 0x51);
    assert_eq!(bench.take_sent(), [(0xfee0_0000, 0xc051)]);
    // Masked while it is served: its end counts, and the next comes when it is not masked any more.
    bench.set_entry(10, MASKED | LEVEL | 0x51);
    bench.end(0x51);
    assert_eq!(bench.entry(10), MASKED | LEVEL | 0x51);
    bench.set_entry(10, LEVEL | 0x51);
    assert_eq!(bench.take_sent(), [(0xfee0_0000, 0xc051)]);
}

#[test]
fn a_level_that_nobody_takes_is_not_waited_for() {
    let mut bench = Bench { deaf: true, ..Bench::default() };
    bench.set_entry(10, LEVEL | 0x51);
    bench.set_pin(10, true);
    assert_eq!((bench.take_sent().len(), bench.entry(10)), (1, LEVEL | 0x51));
    bench.deaf = false;
    bench.set_pin(10, false);
    bench.set_pin(10, true);
    assert_eq!((bench.take_sent().len(), bench.entry(10)), (1, LEVEL | REMOTE_IRR | 0x51));
}

#[test]
fn an_entry_that_becomes_edge_triggered_forgets_its_remote_irr() {
    let mut bench = Bench::default();
    bench.set_entry(10, LEVEL | 0x51);
    bench.set_pin(10, true);
    bench.take_sent();
    bench.set_entry(10, MASKED | 0x51);
    assert_eq!(bench.entry(10), MASKED | 0x51);
    bench.set_entry(10, LEVEL | 0x51);
    assert_eq!(bench.take_sent(), [(0xfee0_0000, 0xc051)]);
}

#[test]
fn whoever_tells_ends_is_told_of_level_messages_only() {
    let mut bench = Bench::default();
    assert_eq!(bench.write(0, 0), Written::Register);
    assert_eq!(bench.write(0x10, 0x30), Written::Entry, "an edge");
    assert_eq!(bench.write(0x10, 0x8030), Written::LevelMessage);
    assert_eq!(bench.write(0x10, 0x1_8030), Written::Entry, "it may still be in service");
    assert_eq!(bench.write(0x10, 0x1_8031), Written::LevelMessage);
    assert_eq!(bench.write(0x11, 0x0100_0000), Written::LevelMessage);
    let message = Message { address: 0xfee0_1000, data: 0xc031 };
    let messages = bench.ioapic.level_messages();
    assert_eq!((messages[0], messages[1..].iter().flatten().count()), (Some(message), 0));
    assert_eq!(bench.write(0x10, 0x30), Written::LevelMessage);
}

#[derive(Clone, Debug)]
enum Step {
    Select(u8),
    Window(u32),
    Write(u64, u32),
    Pin(usize, bool),
    End(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..=0x41u8).prop_map(Step::Select),
        any::<u32>().prop_map(Step::Window),
        (0..0x100u64, any::<u32>()).prop_map(|(offset, value)| Step::Write(offset, value)),
        (0..PINS + 1, any::<bool>()).prop_map(|(pin, high)| Step::Pin(pin, high)),
        any::<u8>().prop_map(Step::End),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn a_level_waits_for_its_end_exactly_while_remote_irr_says_so(steps in steps()) {
        let mut bench = Bench::default();
        for step in steps {
            let before = bench.ioapic.clone();
            match step {
                Step::Select(register) => bench.select(register),
                Step::Window(value) => {
                    let register = bench.ioapic.select;
                    bench.write(register, value);
                }
                Step::Write(offset, value) => {
                    bench.ioapic.write(offset, value);
                    bench.ioapic.read(offset);
                }
                Step::Pin(pin, high) => bench.set_pin(pin, high),
                Step::End(vector) => bench.end(vector),
            }
            let entries = before.entries.iter().zip(&bench.ioapic.entries);
            for (pin, (before, now)) in entries.enumerate() {
                let raised = before & REMOTE_IRR == 0 && now & REMOTE_IRR != 0;
                let high = bench.ioapic.pins & 1 << pin != 0;
                prop_assert!(!raised || (now & LEVEL != 0 && high && !bench.sent.is_empty()));
                prop_assert!(now & LEVEL != 0 || now & REMOTE_IRR == 0);
            }
            for message in bench.sent.drain(..) {
                prop_assert_eq!(message.address & 0xfff0_0ff8, 0xfee0_0000);
                prop_assert_eq!(message.data & 0xffff_3800, 0);
            }
        }
    }
}
