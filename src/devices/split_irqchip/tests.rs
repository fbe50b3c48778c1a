//! Lines, controllers and the boot vCPU's pin together, with local APICs that note what they get.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::irq::Message;
use crate::irq::recording::Changes;

/// What the local APICs were told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Sent(u32, u32),
    Ends(Vec<usize>),
}

#[derive(Clone, Debug, Default)]
struct Apics(Arc<Mutex<Vec<Told>>>);

impl Apics {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock())
    }
}

impl LocalApics for Apics {
    fn send(&mut self, message: Message) -> bool {
        self.0.lock().push(Told::Sent(message.address, message.data));
        true
    }

    fn report_ends(&mut self, messages: &[Option<Message>]) {
        let pins = (0..).zip(messages).filter_map(|(pin, message)| message.map(|_| pin));
        self.0.lock().push(Told::Ends(pins.collect()));
    }
}

#[derive(Debug)]
struct NoVcpus;

impl AskForEnds for NoVcpus {
    fn ask(&self) {}
}

/// INTR is line 99 of the changes.
fn irqchip_with(intr: &Changes) -> (Arc<SplitIrqChip>, Apics) {
    let apics = Apics::default();
    let irqchip = SplitIrqChip::new(Box::new(apics.clone()), intr.line(INTR), Box::new(NoVcpus));
    (Arc::new(irqchip), apics)
}

const INTR: u32 = 99;

fn irqchip() -> (Arc<SplitIrqChip>, Apics) {
    irqchip_with(&Changes::default())
}

/// Both PICs as firmware sets them up, vectors 0x20 and 0x28, all unmasked.
fn start_pics(irqchip: &SplitIrqChip) {
    for (base, vector) in [(0x20, 0x20), (0xa0, 0x28)] {
        irqchip.write_pic(base, 0x11);
        for word in [vector, 0, 0x01] {
            irqchip.write_pic(base + 1, word);
        }
    }
}

fn write_entry(irqchip: &SplitIrqChip, pin: u32, lower: u32) {
    irqchip.write_ioapic(0x00, 0x10 + 2 * pin);
    irqchip.write_ioapic(0x10, lower);
}

#[test]
fn a_line_leads_to_both_controllers() {
    let (irqchip, apics) = irqchip();
    start_pics(&irqchip);
    for pin in 0..24 {
        write_entry(&irqchip, pin, 0x40 + pin);
    }
    apics.take();
    for gsi in [1, 4, 9, 15, 16, 23] {
        let mut line = irqchip.line(gsi);
        line.set_level(true);
        let mut told = vec![Told::Sent(0xfee0_0000, 0x4040 + gsi)];
        if gsi < 16 {
            // INTR is pin 0.
            told.push(Told::Sent(0xfee0_0000, 0x4040));
            let vector = u8::try_from(0x20 + gsi).unwrap();
            assert_eq!(irqchip.acknowledge(), Some(vector));
            irqchip.write_pic(0xa0, 0x20);
            irqchip.write_pic(0x20, 0x20);
        }
        assert_eq!(apics.take(), told, "{gsi}");
        assert_eq!(irqchip.acknowledge(), None);
    }
}

#[test]
fn the_timer_is_input_0_and_pin_2() {
    let (irqchip, apics) = irqchip();
    start_pics(&irqchip);
    write_entry(&irqchip, 2, 0x50);
    assert!(!irqchip.is_timer_busy());
    irqchip.line(TIMER_IRQ).set_level(true);
    assert_eq!(apics.take(), [Told::Sent(0xfee0_0000, 0x4050)]);
    assert!(irqchip.is_timer_busy());
    assert_eq!(irqchip.acknowledge(), Some(0x20));
    irqchip.write_pic(0x20, 0x20);
    assert!(!irqchip.is_timer_busy());
    // Line 2 is the cascade, and nobody's.
    irqchip.line(2).set_level(true);
    assert_eq!((irqchip.acknowledge(), apics.take()), (None, vec![]));
    // No line of the platform is as high as this.
    irqchip.line(u32::MAX).set_level(true);
    assert_eq!((irqchip.acknowledge(), apics.take()), (None, vec![]));
}

#[test]
fn intr_follows_the_controllers() {
    let changes = Changes::default();
    let (irqchip, _) = irqchip_with(&changes);
    start_pics(&irqchip);
    let mut line = irqchip.line(4);
    assert_eq!(changes.take(), []);
    line.set_level(true);
    assert_eq!(changes.take(), [(INTR, true)]);
    irqchip.write_pic(0x21, 0xff);
    assert_eq!(changes.take(), [(INTR, false)]);
    assert_eq!(irqchip.acknowledge(), None, "it came too late");
    irqchip.write_pic(0x21, 0x00);
    assert_eq!(changes.take(), [(INTR, true)]);
    assert_eq!(irqchip.acknowledge(), Some(0x24));
    assert_eq!(changes.take(), [(INTR, false)]);
    // A poll takes it, too.
    line.set_level(false);
    irqchip.write_pic(0x20, 0x20);
    line.set_level(true);
    irqchip.write_pic(0x20, 0x0c);
    assert_eq!(changes.take(), [(INTR, true)]);
    assert_eq!(irqchip.read_pic(0x20), 0x84);
    assert_eq!(changes.take(), [(INTR, false)]);
}

#[test]
fn every_port_of_the_pics_is_its_register() {
    let (irqchip, _) = irqchip();
    start_pics(&irqchip);
    for (port, value) in [(0x21, 0x5a), (0xa1, 0xa5), (0x4d0, 0x38), (0x4d1, 0x1e)] {
        irqchip.write_pic(port, value);
    }
    let read = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1].map(|port| irqchip.read_pic(port));
    assert_eq!(read, [0, 0x5a, 0, 0xa5, 0x38, 0x1e]);
}

#[test]
fn ends_are_reported_before_the_first_interrupt_is_sent() {
    let (irqchip, apics) = irqchip();
    irqchip.line(10).set_level(true);
    write_entry(&irqchip, 10, 0x8051);
    let sent = Told::Sent(0xfee0_0000, 0xc051);
    assert_eq!(apics.take(), [Told::Ends(vec![10]), sent.clone()]);
    assert_eq!(irqchip.read_ioapic(0x10), 0xc051, "remote IRR");
    irqchip.end(0x51);
    assert_eq!(apics.take(), [sent]);
    irqchip.line(10).set_level(false);
    irqchip.end(0x51);
    assert_eq!((apics.take(), irqchip.read_ioapic(0x10)), (vec![], 0x8051));
}

#[test]
fn a_reset_takes_all_back() {
    let changes = Changes::default();
    let (irqchip, apics) = irqchip_with(&changes);
    start_pics(&irqchip);
    write_entry(&irqchip, 10, 0x8051);
    let mut line = irqchip.line(10);
    line.set_level(true);
    apics.take();
    line.set_level(false);
    irqchip.reset();
    assert_eq!(apics.take(), [Told::Ends(vec![])]);
    assert_eq!(changes.take(), [(INTR, true), (INTR, false)]);
    assert_eq!(irqchip.read_ioapic(0x00), 0);
    line.set_level(true);
    assert_eq!(apics.take(), []);
    // A second one has nothing to say.
    irqchip.reset();
    assert_eq!(apics.take(), []);
}

#[test]
fn a_line_awaits_the_end_of_its_interrupt_while_it_is_high() {
    let (irqchip, _) = irqchip();
    let mut line = irqchip.line(5);
    let masked = 1 << 16;
    for (entry, awaits) in [(0x8045, Some(0)), (0x45, None), (0x8045 | masked, None)] {
        write_entry(&irqchip, 5, entry);
        assert_eq!(irqchip.awaits_end(), None);
        line.set_level(true);
        assert_eq!(irqchip.awaits_end(), awaits, "{entry:#x}");
        line.set_level(false);
    }
    assert_eq!(irqchip.awaits_end(), None);
    // Still high at its end, it waits for the next.
    write_entry(&irqchip, 5, 0x8045);
    line.set_level(true);
    irqchip.end(0x45);
    assert_eq!(irqchip.awaits_end(), Some(1));
    line.set_level(false);
    irqchip.end(0x45);
    assert_eq!(irqchip.awaits_end(), None);
}
