//! What leads from interrupt controllers that are not in the kernel (`devices/split_irqchip.rs`) to
//! the vCPUs: the INTR pin of the boot vCPU, and the question to each whether it has an end of an
//! interrupt to tell ([`EndCall`]). Any thread may drive the pin or ask; the vCPU's own looks before
//! each entry into the guest. It takes the interrupt then if the guest can be interrupted, and tells
//! the end if there is one.
//!
//! A pin that rises is a kick ([`VcpuControl::kick`]) like a request to stop: the level is stored,
//! then the vCPU is made to leave the guest, wherever it is, halted too. So the vCPU's next look
//! sees the level: either the look before the entry did, or the kick came after that look, and then
//! its `immediate_exit`, or its signal, ends the entry that follows, and the look after that is
//! ordered behind the kick's store by the swap that takes it back. The question is the same.

use std::sync::OnceLock;

use crate::devices::split_irqchip::SplitIrqChip;
use crate::irq::{AskForEnds, IrqLine, LocalApics};
use crate::sync::{Arc, AtomicBool, Ordering, ThreadId, current_thread};
use crate::vcpu::rounds::BOOT_VCPU;
use crate::vcpu::state::VcpuControl;

/// Interrupt controllers that are not in the kernel, and the pin that they drive.
#[derive(Clone, Debug)]
pub struct SplitInterrupts {
    /// The controllers.
    pub irqchip: Arc<SplitIrqChip>,
    /// INTR of the boot vCPU.
    pub intr: Arc<IntrPin>,
    /// The question to each vCPU, in their order.
    pub ends: Arc<[EndCall]>,
}

impl SplitInterrupts {
    /// Controllers that lead to `apics`, and to the vCPUs, whose controls these are.
    pub fn new(apics: Box<dyn LocalApics>, vcpus: &[Arc<VcpuControl>]) -> Self {
        let intr = Arc::new(IntrPin::of(Arc::clone(&vcpus[BOOT_VCPU.index()])));
        let line = Box::new(IntrLine(Arc::clone(&intr)));
        let ends: Arc<[_]> = vcpus.iter().map(|vcpu| EndCall::to(Arc::clone(vcpu))).collect();
        let vcpus = Box::new(EndCalls(Arc::clone(&ends)));
        Self { irqchip: Arc::new(SplitIrqChip::new(apics, line, vcpus)), intr, ends }
    }
}

/// Asks one vCPU to tell the end of an interrupt, if its local APIC has reported one that the host
/// keeps for the next entry into the guest.
#[derive(Debug)]
pub struct EndCall {
    asked: AtomicBool,
    control: Arc<VcpuControl>,
}

impl EndCall {
    /// A question to the vCPU with this control, not asked yet.
    pub fn to(control: Arc<VcpuControl>) -> Self {
        Self { asked: AtomicBool::new(false), control }
    }

    /// Asks, and has the vCPU leave the guest for it, wherever it is.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            self.control.kick();
        }
    }

    /// Whether it was asked since the last call. For the vCPU's thread.
    pub fn take(&self) -> bool {
        // Mostly it was not, and then this writes nothing.
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::AcqRel)
    }
}

#[derive(Debug)]
struct EndCalls(Arc<[EndCall]>);

impl AskForEnds for EndCalls {
    fn ask(&self) {
        self.0.iter().for_each(EndCall::ask);
    }
}

#[derive(Debug)]
struct IntrLine(Arc<IntrPin>);

impl IrqLine for IntrLine {
    fn set_level(&mut self, high: bool) {
        self.0.set_level(high);
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct IntrPin {
    level: AtomicBool,
    control: Arc<VcpuControl>,
    /// The vCPU's own, which need not be kicked.
    thread: OnceLock<ThreadId>,
}

impl IntrPin {
    /// A low pin of the vCPU with this control.
    pub fn of(control: Arc<VcpuControl>) -> Self {
        Self { level: AtomicBool::new(false), control, thread: OnceLock::new() }
    }

    /// Names the calling thread as that of the vCPU.
    pub fn adopt(&self) {
        let _ = self.thread.set(current_thread().id());
    }

    /// The pin goes to `high`. To be called by one thread at a time.
    pub fn set_level(&self, high: bool) {
        if self.level.swap(high, Ordering::AcqRel) || !high {
            return;
        }
        if self.thread.get() != Some(&current_thread().id()) {
            self.control.kick();
        }
    }

    /// The pin's level.
    pub fn is_high(&self) -> bool {
        self.level.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::exit::VmExit;
    use crate::testing::watched;
    use crate::vcpu::VcpuRun;
    use crate::vcpu::scripted::{ScriptedVcpu, Step};

    #[test]
    fn a_pin_that_rises_gets_the_vcpu_out_of_the_guest_once() {
        watched(|| {
            let control = Arc::new(VcpuControl::new());
            let mut vcpu = ScriptedVcpu::new([Step::Spin]);
            let _published = control.publish(vcpu.kicker());
            let pin = IntrPin::of(control.clone());
            pin.set_level(true);
            assert!(pin.is_high());
            assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
            // It stays high, and then falls: nothing new.
            pin.set_level(true);
            pin.set_level(false);
            assert!(!pin.is_high());
            thread::scope(|scope| {
                scope.spawn(|| pin.set_level(true));
                assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
            });
            assert!(pin.is_high());
        });
    }

    #[test]
    fn a_question_gets_the_vcpu_out_of_the_guest_once() {
        watched(|| {
            let control = Arc::new(VcpuControl::new());
            let mut vcpu = ScriptedVcpu::new([Step::Spin]);
            let _published = control.publish(vcpu.kicker());
            let call = EndCall::to(control.clone());
            assert!(!call.take());
            call.ask();
            call.ask();
            assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
            assert!(call.take() && !call.take());
            thread::scope(|scope| {
                scope.spawn(|| call.ask());
                assert_eq!(vcpu.run().unwrap(), VmExit::Interrupted);
            });
            assert!(call.take());
        });
    }

    #[test]
    fn the_vcpus_own_thread_kicks_nobody() {
        let control = Arc::new(VcpuControl::new());
        let mut vcpu = ScriptedVcpu::new([]);
        let _published = control.publish(vcpu.kicker());
        let pin = IntrPin::of(control.clone());
        pin.adopt();
        pin.set_level(true);
        assert_eq!(vcpu.run().unwrap(), VmExit::Hlt);
    }
}
