//! The way from an IOAPIC outside the kernel to the local APICs in it: KVM_SIGNAL_MSI for a message
//! (KVM API document, section 4.71), and KVM_SET_GSI_ROUTING to say whose ends are reported. Of the
//! routes of the GSIs that KVM_CAP_SPLIT_IRQCHIP has reserved, KVM looks at those that are
//! level-triggered, and makes the end of such an interrupt an exit (section 7.5,
//! KVM_EXIT_IOAPIC_EOI).
//!
//! A change of the routes waits for those who read them at that moment, all in the kernel and
//! without a wait of their own; it happens when a guest sets up a level-triggered pin, and not at
//! an interrupt.

use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_msi,
};

use crate::irq::{LocalApics, Message};
use crate::kvm::machine::Machine;

/// See the module's text.
#[derive(Debug)]
pub struct KvmLocalApics {
    machine: Arc<Machine>,
}

impl KvmLocalApics {
    /// Those of this VM.
    pub fn of(machine: &Arc<Machine>) -> Self {
        Self { machine: Arc::clone(machine) }
    }
}

impl LocalApics for KvmLocalApics {
    fn send(&mut self, message: Message) -> bool {
        let msi = kvm_msi { address_lo: message.address, data: message.data, ..kvm_msi::default() };
        // The number of those who took it; an error if it addresses nobody.
        self.machine.vm.signal_msi(msi).is_ok_and(|taken| taken > 0)
    }

    fn report_ends(&mut self, messages: &[Option<Message>]) {
        let routes: Vec<_> =
            (0..).zip(messages).filter_map(|(gsi, m)| Some(route(gsi, (*m)?))).collect();
        let set = KvmIrqRouting::from_entries(&routes).map_err(|error| error.to_string()).and_then(
            |routes| self.machine.vm.set_gsi_routing(&routes).map_err(|error| error.to_string()),
        );
        if let Err(error) = set {
            log::error!(target: "minivmm::kvm", "KVM_SET_GSI_ROUTING: {error}");
        }
    }
}

fn route(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: message.address,
        data: message.data,
        ..kvm_irq_routing_msi::default()
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..kvm_irq_routing_entry::default()
    }
}
