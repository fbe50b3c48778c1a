//! The 8259A's datasheet, section by section; and whatever a guest does.

use proptest::prelude::*;

use super::*;

const CLI_MASKED: u8 = 0xff;

impl PicPair {
    fn command(&mut self, chip: Chip, value: u8) {
        self.write(chip, Register::Command, value);
    }

    fn data(&mut self, chip: Chip, value: u8) {
        self.write(chip, Register::Data, value);
    }

    fn isr(&mut self, chip: Chip) -> u8 {
        self.command(chip, 0x0b);
        self.read(chip, Register::Command)
    }

    fn irr(&mut self, chip: Chip) -> u8 {
        self.command(chip, 0x0a);
        self.read(chip, Register::Command)
    }

    /// An edge.
    fn pulse(&mut self, irq: u8) {
        self.set_input(irq, true);
        self.set_input(irq, false);
    }

    /// The vector of the interrupt that is requested, if one is.
    fn interrupt(&mut self) -> Option<u8> {
        self.intr().then(|| self.acknowledge())
    }
}

/// Both set up as a PC's firmware does, with `icw4`: vectors 0x20 and 0x28, nothing masked.
fn pair_with(icw4: u8) -> PicPair {
    let mut pics = PicPair::default();
    for (chip, base, icw3) in [(Chip::Master, 0x20, 0x04), (Chip::Slave, 0x28, 0x02)] {
        pics.command(chip, 0x11);
        for word in [base, icw3, icw4] {
            pics.data(chip, word);
        }
    }
    pics
}

fn pair() -> PicPair {
    pair_with(0x01)
}

#[test]
fn an_edge_is_requested_taken_and_ended() {
    let mut pics = pair();
    assert!(!pics.intr());
    pics.set_input(4, true);
    assert_eq!(pics.irr(Chip::Master), 0x10);
    assert_eq!(pics.interrupt(), Some(0x24));
    assert_eq!((pics.irr(Chip::Master), pics.isr(Chip::Master)), (0, 0x10));
    // The level does not matter, only the edge does.
    pics.command(Chip::Master, 0x20);
    assert_eq!((pics.isr(Chip::Master), pics.interrupt()), (0, None));
    pics.set_input(4, false);
    pics.set_input(4, true);
    assert_eq!(pics.interrupt(), Some(0x24));
}

#[test]
fn a_lower_priority_waits_for_the_end_and_a_higher_one_does_not() {
    let mut pics = pair();
    pics.pulse(4);
    assert_eq!(pics.interrupt(), Some(0x24));
    pics.pulse(6);
    pics.pulse(4);
    assert_eq!(pics.interrupt(), None);
    pics.pulse(0);
    assert_eq!(pics.interrupt(), Some(0x20));
    // The end is that of the highest in service.
    pics.command(Chip::Master, 0x20);
    assert_eq!((pics.isr(Chip::Master), pics.interrupt()), (0x10, None));
    // The specific end, of 4.
    pics.command(Chip::Master, 0x64);
    assert_eq!(pics.interrupt(), Some(0x24));
}

#[test]
fn a_masked_request_waits() {
    let mut pics = pair();
    pics.data(Chip::Master, 0x10);
    pics.pulse(4);
    assert_eq!((pics.interrupt(), pics.irr(Chip::Master)), (None, 0x10));
    assert_eq!(pics.read(Chip::Master, Register::Data), 0x10);
    pics.data(Chip::Master, 0x00);
    assert_eq!(pics.interrupt(), Some(0x24));
}

#[test]
fn the_slave_is_input_2_of_the_master() {
    let mut pics = pair();
    pics.pulse(12);
    pics.pulse(3);
    assert_eq!(pics.irr(Chip::Master), 0x0c);
    assert_eq!(pics.interrupt(), Some(0x2c), "the cascade's priority is above input 3's");
    assert_eq!((pics.isr(Chip::Master), pics.isr(Chip::Slave)), (0x04, 0x10));
    // A higher one of the slave's waits while the master has input 2 in service, ...
    pics.pulse(8);
    assert_eq!(pics.interrupt(), None);
    // ... and so does the master's 3, until both have their end.
    pics.command(Chip::Slave, 0x20);
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.interrupt(), Some(0x28));
    pics.command(Chip::Slave, 0x20);
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.interrupt(), Some(0x23));
}

#[test]
fn in_special_fully_nested_mode_the_slave_interrupts_itself() {
    let mut pics = pair_with(0x11);
    pics.pulse(12);
    assert_eq!(pics.interrupt(), Some(0x2c));
    pics.pulse(14);
    assert_eq!(pics.interrupt(), None);
    pics.pulse(8);
    assert_eq!(pics.interrupt(), Some(0x28));
}

#[test]
fn a_request_that_is_gone_is_input_7() {
    let mut pics = pair();
    assert_eq!(pics.acknowledge(), 0x27);
    assert_eq!(pics.isr(Chip::Master), 0, "a spurious interrupt is not in service");
    // The slave's, which the master has in service all the same.
    pics.set_input(12, true);
    pics.data(Chip::Slave, CLI_MASKED);
    assert_eq!(pics.interrupt(), Some(0x2f));
    assert_eq!((pics.isr(Chip::Master), pics.isr(Chip::Slave)), (0x04, 0));
}

#[test]
fn a_level_is_requested_while_it_is_high() {
    let mut pics = pair();
    pics.write(Chip::Slave, Register::Trigger, 0xff);
    assert_eq!(pics.read(Chip::Slave, Register::Trigger), 0xde);
    pics.write(Chip::Master, Register::Trigger, 0xff);
    assert_eq!(pics.read(Chip::Master, Register::Trigger), 0xf8);
    pics.set_input(11, true);
    assert_eq!(pics.interrupt(), Some(0x2b));
    assert_eq!(pics.irr(Chip::Slave), 0x08);
    for chip in [Chip::Slave, Chip::Master] {
        pics.command(chip, 0x20);
    }
    assert_eq!(pics.interrupt(), Some(0x2b), "still high");
    pics.set_input(11, false);
    for chip in [Chip::Slave, Chip::Master] {
        pics.command(chip, 0x20);
    }
    assert_eq!((pics.interrupt(), pics.irr(Chip::Slave)), (None, 0));
}

#[test]
fn automatic_end_keeps_nothing_in_service_and_rotates_if_told() {
    let mut pics = pair_with(0x03);
    pics.pulse(3);
    assert_eq!(pics.interrupt(), Some(0x23));
    assert_eq!(pics.isr(Chip::Master), 0);
    pics.command(Chip::Master, 0x80);
    pics.pulse(3);
    assert_eq!(pics.interrupt(), Some(0x23));
    // Now 3 is the lowest.
    pics.pulse(3);
    pics.pulse(6);
    assert_eq!((pics.interrupt(), pics.interrupt()), (Some(0x26), Some(0x23)));
    pics.command(Chip::Master, 0x00);
    pics.pulse(1);
    assert_eq!(pics.interrupt(), Some(0x21));
    pics.pulse(3);
    pics.pulse(5);
    assert_eq!(pics.interrupt(), Some(0x25), "the order stays, with 3 the lowest");
}

#[test]
fn priorities_rotate_with_the_end_or_are_set() {
    let mut pics = pair();
    // Set priority: 5 is the lowest, 6 the highest.
    pics.command(Chip::Master, 0xc5);
    pics.pulse(0);
    pics.pulse(7);
    assert_eq!(pics.interrupt(), Some(0x27));
    pics.pulse(6);
    assert_eq!(pics.interrupt(), Some(0x26));
    // Rotate on non-specific end: the highest in service, 6, becomes the lowest.
    pics.command(Chip::Master, 0xa0);
    assert_eq!(pics.isr(Chip::Master), 0x80);
    pics.pulse(6);
    assert_eq!(pics.interrupt(), None);
    // Rotate on specific end: 7 becomes the lowest, and 0 the highest.
    pics.command(Chip::Master, 0xe7);
    assert_eq!((pics.interrupt(), pics.interrupt()), (Some(0x20), None));
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.interrupt(), Some(0x26));
    // The no-operation.
    pics.command(Chip::Master, 0x40);
    assert_eq!(pics.isr(Chip::Master), 0x40);
}

#[test]
fn special_mask_mode_lets_lower_priorities_in() {
    let mut pics = pair();
    pics.pulse(3);
    assert_eq!(pics.interrupt(), Some(0x23));
    pics.pulse(6);
    pics.data(Chip::Master, 0x08);
    assert_eq!(pics.interrupt(), None);
    pics.command(Chip::Master, 0x68);
    assert_eq!(pics.interrupt(), Some(0x26));
    // The end that names nobody is not that of a masked one.
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.isr(Chip::Master), 0x08);
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.isr(Chip::Master), 0x08);
    pics.command(Chip::Master, 0x48);
    pics.command(Chip::Master, 0x20);
    assert_eq!(pics.isr(Chip::Master), 0);
}

#[test]
fn a_poll_takes_the_interrupt() {
    let mut pics = pair();
    pics.command(Chip::Master, 0x0c);
    assert_eq!(pics.read(Chip::Master, Register::Command), 0x07);
    pics.pulse(9);
    pics.command(Chip::Master, 0x0c);
    assert_eq!(pics.read(Chip::Master, Register::Command), 0x82);
    pics.command(Chip::Slave, 0x0c);
    assert_eq!(pics.read(Chip::Slave, Register::Data), 0x81, "the next read, wherever");
    assert_eq!((pics.isr(Chip::Master), pics.isr(Chip::Slave)), (0x04, 0x02));
    assert!(!pics.intr());
    assert_eq!(pics.read(Chip::Slave, Register::Data), 0, "one read only");
}

#[test]
fn a_poll_of_the_slave_takes_back_its_request() {
    let mut pics = pair();
    pics.pulse(9);
    pics.command(Chip::Slave, 0x0c);
    assert_eq!(pics.read(Chip::Slave, Register::Command), 0x81);
    assert_eq!((pics.interrupt(), pics.irr(Chip::Master)), (None, 0));
}

#[test]
fn icw1_starts_anew_and_needs_new_edges() {
    let mut pics = pair();
    pics.write(Chip::Master, Register::Trigger, 0x20);
    pics.data(Chip::Master, 0xff);
    pics.command(Chip::Master, 0xc3);
    pics.set_input(4, true);
    pics.set_input(5, true);
    pics.command(Chip::Master, 0x0b);
    pics.command(Chip::Master, 0x11);
    assert!(!pics.intr(), "not before it is set up");
    for word in [0x40, 0x04, 0x01] {
        pics.data(Chip::Master, word);
    }
    assert_eq!(pics.read(Chip::Master, Register::Data), 0);
    assert_eq!(pics.read(Chip::Master, Register::Command), 0x20, "IRR: only the level");
    assert_eq!(pics.interrupt(), Some(0x45));
    assert_eq!(pics.interrupt(), None);
}

#[test]
fn icw1_says_which_words_follow() {
    for (icw1, words) in [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)] {
        let mut pics = PicPair::default();
        pics.command(Chip::Master, icw1);
        for _ in 0..words {
            pics.data(Chip::Master, 0);
        }
        pics.data(Chip::Master, 0x5a);
        assert_eq!(pics.read(Chip::Master, Register::Data), 0x5a, "{icw1:#x}");
    }
}

#[test]
fn busy_is_what_waits_or_is_served_and_is_not_masked() {
    let mut pics = pair();
    assert!(!pics.is_busy(0));
    pics.pulse(0);
    assert!(pics.is_busy(0));
    pics.data(Chip::Master, 1);
    assert!(!pics.is_busy(0));
    pics.data(Chip::Master, 0);
    assert_eq!(pics.interrupt(), Some(0x20));
    assert!(pics.is_busy(0));
    pics.command(Chip::Master, 0x20);
    assert!(!pics.is_busy(0));
}

/// What a guest, its devices and its CPU do.
#[derive(Clone, Debug)]
enum Step {
    Input(u8, bool),
    Read(Chip, Register),
    Write(Chip, Register, u8),
    Acknowledge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let chip = prop_oneof![Just(Chip::Master), Just(Chip::Slave)];
    let register =
        prop_oneof![Just(Register::Command), Just(Register::Data), Just(Register::Trigger)];
    let irq = (0..16u8).prop_filter("the cascade", |irq| *irq != CASCADE);
    let step = prop_oneof![
        (irq, any::<bool>()).prop_map(|(irq, high)| Step::Input(irq, high)),
        (chip.clone(), register.clone()).prop_map(|(chip, register)| Step::Read(chip, register)),
        (chip, register, any::<u8>())
            .prop_map(|(chip, register, value)| Step::Write(chip, register, value)),
        Just(Step::Acknowledge),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn whatever_a_guest_does_an_acknowledge_makes_progress(steps in steps()) {
        let mut pics = PicPair::default();
        for step in steps {
            match step {
                Step::Input(irq, high) => pics.set_input(irq, high),
                Step::Read(chip, register) => drop(pics.read(chip, register)),
                Step::Write(chip, register, value) => pics.write(chip, register, value),
                Step::Acknowledge => {
                    let (asked, before) = (pics.intr(), pics.master);
                    let vector = pics.acknowledge();
                    let after = pics.master;
                    if asked {
                        let input = before.request().unwrap();
                        // It is in service, or its end was automatic.
                        prop_assert_eq!(
                            after.in_service & 1 << input != 0,
                            !before.auto_eoi || before.in_service & 1 << input != 0
                        );
                        prop_assert!(input == CASCADE || vector == before.base | input);
                    } else {
                        prop_assert_eq!(vector, before.base | SPURIOUS);
                        prop_assert_eq!(after.in_service, before.in_service);
                    }
                }
            }
        }
    }
}
