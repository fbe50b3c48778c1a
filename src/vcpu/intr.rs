//! The INTR pin of the boot vCPU, where the interrupt controllers that drive it are not in the
//! kernel (`devices/split_irqchip.rs`). Any thread may drive it; the vCPU's own looks at it before
//! each entry into the guest, and takes the interrupt then if the guest can be interrupted.
//!
//! A pin that rises is a kick ([`VcpuControl::kick`]) like a request to stop: the level is stored,
//! then the vCPU is made to leave the guest, wherever it is, halted too. So the vCPU's next look
//! sees the level: either the look before the entry did, or the kick came after that look, and then
//! its `immediate_exit`, or its signal, ends the entry that follows, and the look after that is
//! ordered behind the kick's store by the swap that takes it back.

use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use crate::devices::split_irqchip::SplitIrqChip;
use crate::irq::{IrqLine, LocalApics};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::vcpu::state::VcpuControl;

/// Interrupt controllers that are not in the kernel, and the pin that they drive.
#[derive(Clone, Debug)]
pub struct SplitInterrupts {
    /// The controllers.
    pub irqchip: Arc<SplitIrqChip>,
    /// INTR of the boot vCPU.
    pub intr: Arc<IntrPin>,
}

impl SplitInterrupts {
    /// Controllers that lead to `apics`, and to the boot vCPU, whose control this is.
    pub fn new(apics: Box<dyn LocalApics>, boot_vcpu: Arc<VcpuControl>) -> Self {
        let intr = Arc::new(IntrPin::of(boot_vcpu));
        let line = Box::new(IntrLine(Arc::clone(&intr)));
        Self { irqchip: Arc::new(SplitIrqChip::new(apics, line)), intr }
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
        let _ = self.thread.set(thread::current().id());
    }

    /// The pin goes to `high`. To be called by one thread at a time.
    pub fn set_level(&self, high: bool) {
        if self.level.swap(high, Ordering::AcqRel) || !high {
            return;
        }
        if self.thread.get() != Some(&thread::current().id()) {
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
