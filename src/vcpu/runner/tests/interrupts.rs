//! Interrupt controllers that are not in the kernel: what the run loop does with INTR, and with the
//! ends that the local APICs report. The guests program the real ones through their ports.

use std::mem;

use parking_lot::Mutex;

use super::*;
use crate::devices::split_irqchip::SplitIrqChip;
use crate::irq::{LocalApics, Message};
use crate::vcpu::scripted::Offer;

/// Notes the messages.
#[derive(Clone, Debug, Default)]
struct Apics(Arc<Mutex<Vec<u32>>>);

impl LocalApics for Apics {
    fn send(&mut self, message: Message) -> bool {
        self.0.lock().push(message.data);
        true
    }

    fn report_ends(&mut self, _: &[Option<Message>]) {}
}

/// A guest's set-up of the master alone, as ICW1 may have it, with vectors from 0x20.
fn start_pic() -> Vec<Step> {
    let words = [(0x20, 0x13), (0x21, 0x20), (0x21, 0x01)];
    words.into_iter().map(|(port, value)| Step::out8(port, value)).collect()
}

/// Writes a register of the IOAPIC.
fn ioapic(register: u32, value: u32) -> [Step; 2] {
    [(0xfec0_0000, register), (0xfec0_0010, value)]
        .map(|(gpa, value)| Step::Store { gpa, data: value.to_le_bytes().to_vec() })
}

/// Runs a script on vCPU `id`; what it was offered, and the messages that were sent.
fn run_on(
    id: VcpuId,
    steps: impl FnOnce(&Arc<SplitIrqChip>) -> Vec<Step>,
) -> (Vec<Offer>, Vec<u32>) {
    let apics = Apics::default();
    let controls = [0, 1].map(|_| Arc::new(VcpuControl::new()));
    let interrupts = SplitInterrupts::new(Box::new(apics.clone()), &controls);
    let irqchip = &interrupts.irqchip;
    let setup = DeviceSetup { irqchip: Some(Arc::clone(irqchip)), ..DeviceSetup::default() };
    let devices = DeviceSet::new(setup, &mut |gsi| irqchip.line(gsi)).unwrap();
    let posting = devices.post_policy();
    let queue = DeviceQueue::new(devices, 64);
    let control = &controls[id.index()];
    let vcpu = ScriptedVcpu::new(steps(irqchip));
    let log = vcpu.log();
    let tracing = Tracer::new(TraceSetup::default(), 1).vcpu_tracing(id);
    let mut runner = Runner::new(id, vcpu, control, &queue, posting, tracing);
    runner.set_interrupts(Some(interrupts));
    let _published = control.publish(runner.vcpu().kicker());
    let end = runner.run();
    assert!(matches!(end, VcpuEnd::Halted), "{end:?}");
    (log.interrupts(), mem::take(&mut apics.0.lock()))
}

/// What the guest of the boot vCPU is offered.
fn offers(steps: impl FnOnce(&Arc<SplitIrqChip>) -> Vec<Step>) -> Vec<Offer> {
    run_on(ID, steps).0
}

/// Raises a line, on the vCPU's thread.
fn raise(irqchip: &Arc<SplitIrqChip>, gsi: u32) -> Step {
    let mut line = irqchip.line(gsi);
    Step::call(move || line.set_level(true))
}

#[test]
fn an_interrupt_is_taken_when_the_guest_can_be_interrupted() {
    let offers = offers(|irqchip| {
        let mut steps = start_pic();
        steps.extend([
            raise(irqchip, 4),
            // Not yet, ...
            Step::out8(0x3ff, 0),
            Step::out8(0x3ff, 0),
            // ... and then at the next entry.
            Step::Exit(VmExit::IrqWindowOpen),
            Step::out8(0x3ff, 0),
        ]);
        steps
    });
    assert_eq!(offers, [Offer::Window, Offer::Window, Offer::Vector(0x24)]);
}

#[test]
fn a_second_interrupt_waits_for_the_next_exit() {
    let offers = offers(|irqchip| {
        let mut steps = start_pic();
        steps.extend([raise(irqchip, 4), Step::out8(0x3ff, 0)]);
        steps.push(Step::Exit(VmExit::IrqWindowOpen));
        // A higher one, while the first is in service.
        steps.extend([raise(irqchip, 1), Step::out8(0x3ff, 0)]);
        steps.push(Step::Exit(VmExit::IrqWindowOpen));
        steps
    });
    let expected = [Offer::Window, Offer::Vector(0x24), Offer::Window, Offer::Vector(0x21)];
    assert_eq!(offers, expected);
}

#[test]
fn an_interrupt_that_is_masked_meanwhile_is_not_taken() {
    let offers = offers(|irqchip| {
        let mut steps = start_pic();
        steps.extend([raise(irqchip, 4), Step::out8(0x3ff, 0), Step::out8(0x21, 0xff)]);
        steps.push(Step::Exit(VmExit::IrqWindowOpen));
        steps
    });
    assert_eq!(offers, [Offer::Window]);
}

#[test]
fn only_the_boot_vcpu_takes_the_interrupts_of_the_pics() {
    let (offers, _) = run_on(VcpuId(1), |irqchip| {
        let mut steps = start_pic();
        steps.extend([raise(irqchip, 4), Step::Exit(VmExit::IrqWindowOpen)]);
        steps
    });
    assert_eq!(offers, []);
}

#[test]
fn an_end_that_a_local_apic_reports_gets_to_the_ioapic() {
    for id in [ID, VcpuId(1)] {
        let (_, sent) = run_on(id, |irqchip| {
            let mut steps = Vec::from(ioapic(0x18, 0x8051));
            steps.extend([raise(irqchip, 4), Step::Exit(VmExit::IoapicEoi { vector: 0x51 })]);
            steps
        });
        assert_eq!(sent, [0xc051, 0xc051], "still high");
    }
}

#[test]
fn an_end_that_the_host_keeps_is_told_when_it_is_asked_for() {
    for id in [ID, VcpuId(1)] {
        let (_, sent) = run_on(id, |irqchip| {
            let asked = Arc::clone(irqchip);
            let mut steps = Vec::from(ioapic(0x18, 0x8051));
            let untold = Step::Untold(VmExit::IoapicEoi { vector: 0x51 });
            steps.extend([raise(irqchip, 4), untold, Step::out8(0x3ff, 0)]);
            steps.extend([Step::call(move || asked.ask_for_ends()), Step::out8(0x3ff, 0)]);
            steps
        });
        assert_eq!(sent, [0xc051, 0xc051], "still high");
    }
}
