//! A level-triggered line of an IOAPIC that is not in the kernel, and the end that it waits for:
//! when the device thread is woken for it, comes back for it, and asks the vCPUs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::devices::uart16550::regs::mcr;
use crate::irq::{AskForEnds, LocalApics, Message};

/// Local APICs that take everything.
#[derive(Debug)]
struct Apics;

impl LocalApics for Apics {
    fn send(&mut self, _: Message) -> bool {
        true
    }

    fn report_ends(&mut self, _: &[Option<Message>]) {}
}

/// Counts the questions.
#[derive(Clone, Debug, Default)]
struct Vcpus(Arc<AtomicU32>);

impl AskForEnds for Vcpus {
    fn ask(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Vcpus {
    fn asked(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// COM1's pin is a level with vector 0x41.
fn wired(vcpus: &Vcpus) -> (DeviceSet, Arc<SplitIrqChip>) {
    let irqchip = SplitIrqChip::new(Box::new(Apics), Box::new(NullIrq), Box::new(vcpus.clone()));
    let irqchip = Arc::new(irqchip);
    let setup = DeviceSetup { irqchip: Some(Arc::clone(&irqchip)), ..DeviceSetup::default() };
    let mut devices = DeviceSet::new(setup, &mut |gsi| irqchip.line(gsi)).unwrap();
    for (gpa, value) in [(0xfec0_0000, 0x10 + 2 * 4), (0xfec0_0010, 0x8041)] {
        serve(&mut devices, memory(Write, gpa, 4, value));
    }
    (devices, irqchip)
}

/// Has the UART raise its pin, or lower it.
fn set_pin(devices: &mut DeviceSet, high: bool) {
    serve(devices, com1(Write, regs::MCR, mcr::OUT2));
    serve(devices, com1(Write, regs::IER, if high { ier::ETBEI } else { 0 }));
}

#[test]
fn an_end_that_does_not_come_is_asked_for() {
    let vcpus = Vcpus::default();
    let (mut devices, irqchip) = wired(&vcpus);
    assert_eq!(devices.tick(), None);
    assert!(!devices.needs_thread());
    set_pin(&mut devices, true);
    assert!(devices.needs_thread(), "nobody watches yet");
    for asked in 1..=3 {
        let due = devices.tick().unwrap();
        assert!(!devices.needs_thread());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        devices.tick();
        assert_eq!(vcpus.asked(), asked);
    }
    // It comes, and the line is still high: that is another wait.
    irqchip.end(0x41);
    assert!(devices.tick().is_some());
    assert_eq!(vcpus.asked(), 3);
    set_pin(&mut devices, false);
    assert_eq!(devices.tick(), None);
    assert!(!devices.needs_thread());
}

#[test]
fn after_a_reset_no_end_is_waited_for() {
    let vcpus = Vcpus::default();
    let (mut devices, _irqchip) = wired(&vcpus);
    set_pin(&mut devices, true);
    assert!(devices.tick().is_some());
    devices.reset().unwrap();
    assert_eq!(devices.tick(), None);
    assert_eq!(vcpus.asked(), 0);
}
