//! What other threads may do to the iterations of a VM that runs.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::exit::VcpuId;
use crate::vcpu::BuildVcpu;
use crate::vcpu::shared::Shared;

/// Reaches into the rounds of a VM from any thread, for as long as it exists.
#[derive(Clone)]
pub struct RoundHandle(Weak<dyn Outside>);

impl fmt::Debug for RoundHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoundHandle").finish()
    }
}

/// What may be done to the rounds of a VM from outside.
trait Outside: Send + Sync {
    fn end_round(&self, round: u64);
    fn kick(&self, vcpu: VcpuId);
}

impl<B: BuildVcpu> Outside for Shared<B> {
    fn end_round(&self, round: u64) {
        self.rounds.end(round);
    }

    fn kick(&self, vcpu: VcpuId) {
        if let Some(control) = self.controls.get(vcpu.index()) {
            control.kick();
        }
    }
}

impl RoundHandle {
    /// To the VM whose threads share this.
    pub(super) fn to<B: BuildVcpu + 'static>(shared: &Arc<Shared<B>>) -> Self {
        let shared: Arc<dyn Outside> = Arc::clone(shared) as _;
        Self(Arc::downgrade(&shared))
    }

    /// Ends the VM's iteration number `round`, counted from 1, if that is still going on: it has
    /// taken too long.
    pub fn end(&self, round: u64) {
        if let Some(vm) = self.0.upgrade() {
            vm.end_round(round);
        }
    }

    /// Makes a vCPU leave the guest; it goes back in by itself. One that is kicked again before it
    /// is back does not get there: whoever kicks without a pause keeps it out of the guest.
    pub fn kick(&self, vcpu: VcpuId) {
        if let Some(vm) = self.0.upgrade() {
            vm.kick(vcpu);
        }
    }
}
