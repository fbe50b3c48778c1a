//! The interrupt controllers that the kernel has: making them, the pins of the local APICs, the
//! lines that devices drive, and their first state, which a campaign puts back.
//!
//! KVM must know all memory slots before: after KVM_CREATE_IRQCHIP each change of one waits for the
//! readers of the routing table, which takes milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MP_STATE_RUNNABLE, KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting,
    kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_irqchip, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_pit_config,
    kvm_pit_state2, kvm_vcpu_events,
};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::boot::tables::PIT_PIN;
use crate::config::{IrqChip, StartVcpus};
use crate::exit::VcpuId;
use crate::irq::{IrqLine, NullIrq};
use crate::kvm::call::{host_error, uninterrupted};
use crate::kvm::machine::Machine;

/// The pins of the IOAPIC, which are the first GSIs.
pub const IOAPIC_PINS: u32 = 24;

/// The pins of both PICs.
const PIC_PINS: u32 = 16;
/// The master's pin that the slave is at: no interrupt of its own.
const CASCADE: u32 = 2;

/// Registers of the local APIC, by their offsets (Intel SDM vol. 3, table 12-1).
mod lapic {
    pub const SPURIOUS: usize = 0xf0;
    pub const LINT0: usize = 0x350;
    pub const LINT1: usize = 0x360;
    /// Spurious-interrupt vector register: the APIC is on, spurious interrupts have vector 0xff.
    pub const ENABLED: u32 = 0x1ff;
    /// Delivery modes of a local vector table entry.
    pub const NMI: u32 = 4 << 8;
    pub const EXTINT: u32 = 7 << 8;
}

/// A call to KVM that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct IrqChipError {
    /// The ioctl.
    pub call: &'static str,
    /// Why.
    pub source: io::Error,
}

fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> IrqChipError {
    move |error| IrqChipError { call, source: host_error(error) }
}

/// Makes the controllers of a VM that has its memory and no vCPU yet.
///
/// # Errors
///
/// KVM has them not.
pub fn create(vm: &VmFd, irqchip: IrqChip) -> Result<(), IrqChipError> {
    match irqchip {
        IrqChip::None => Ok(()),
        IrqChip::Kernel => {
            uninterrupted(|| vm.create_irq_chip()).map_err(failed("KVM_CREATE_IRQCHIP"))?;
            route(vm)?;
            // With port 0x61, whose bits are those of the PIT's channel 2.
            let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            uninterrupted(|| vm.create_pit2(config)).map_err(failed("KVM_CREATE_PIT2"))
        }
        IrqChip::Split => {
            let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
            split.args[0] = IOAPIC_PINS.into();
            vm.enable_cap(&split).map_err(failed("KVM_ENABLE_CAP of KVM_CAP_SPLIT_IRQCHIP"))
        }
    }
}

/// Wires the lines as on a PC: an ISA interrupt goes to the PICs and to the pin of the IOAPIC with
/// its number, but 0, the PIT, to pin 2, as the tables say, where KVM has it on pin 0 by default;
/// and 2 leads nowhere.
fn route(vm: &VmFd) -> Result<(), IrqChipError> {
    let pic = (0..PIC_PINS).filter(|gsi| *gsi != CASCADE).map(|gsi| {
        let master = gsi < PIC_PINS / 2;
        let chip = if master { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE };
        pin(gsi, chip, gsi % (PIC_PINS / 2))
    });
    let io_apic = (0..IOAPIC_PINS)
        .filter(|gsi| *gsi != CASCADE)
        .map(|gsi| pin(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { PIT_PIN.into() } else { gsi }));
    let entries: Vec<_> = pic.chain(io_apic).collect();
    let routing = KvmIrqRouting::from_entries(&entries)
        .map_err(|_| failed("KVM_SET_GSI_ROUTING")(kvm_ioctls::Error::new(libc::E2BIG)))?;
    vm.set_gsi_routing(&routing).map_err(failed("KVM_SET_GSI_ROUTING"))
}

/// The route of an interrupt to a pin of a controller.
fn pin(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let chip = kvm_irq_routing_irqchip { irqchip, pin };
    let u = kvm_irq_routing_entry__bindgen_ty_1 { irqchip: chip };
    kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, u, ..Default::default() }
}

/// Connects a new vCPU's local APIC as a PC's firmware does: the PICs to the boot vCPU's LINT0,
/// NMI to LINT1 of each (Intel MP specification 1.4, section 3.6.2.2). If all vCPUs are to
/// start, those run that would wait for SIPI.
///
/// # Errors
///
/// What the first ioctl to fail says.
pub fn connect_vcpu(fd: &VcpuFd, id: VcpuId, start: StartVcpus) -> Result<(), IrqChipError> {
    let mut state = fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?;
    set_lapic_register(&mut state, lapic::SPURIOUS, lapic::ENABLED);
    if id.0 == 0 {
        set_lapic_register(&mut state, lapic::LINT0, lapic::EXTINT);
    }
    set_lapic_register(&mut state, lapic::LINT1, lapic::NMI);
    fd.set_lapic(&state).map_err(failed("KVM_SET_LAPIC"))?;
    if start == StartVcpus::All {
        let running = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        fd.set_mp_state(running).map_err(failed("KVM_SET_MP_STATE"))?;
    }
    Ok(())
}

/// Connects the PICs to a vCPU's local APIC, whatever the guest has made of its LINT0.
///
/// # Errors
///
/// What the first ioctl to fail says.
pub fn connect_pics(fd: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut state = fd.get_lapic()?;
    set_lapic_register(&mut state, lapic::LINT0, lapic::EXTINT);
    fd.set_lapic(&state)
}

fn set_lapic_register(state: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (byte, new) in state.regs[offset..].iter_mut().zip(value.to_ne_bytes()) {
        *byte = std::ffi::c_char::from_ne_bytes([new]);
    }
}

/// The line of interrupt `gsi`, if the controllers that it leads to are in the kernel.
pub fn line(machine: &Arc<Machine>, irqchip: IrqChip, gsi: u32) -> Box<dyn IrqLine> {
    match irqchip {
        IrqChip::Kernel => Box::new(KvmIrqLine { machine: Arc::clone(machine), gsi }),
        IrqChip::None | IrqChip::Split => Box::new(NullIrq),
    }
}

/// A pin of the kernel's controllers, driven with KVM_IRQ_LINE: the level itself, which an irqfd
/// does not carry.
#[derive(Debug)]
struct KvmIrqLine {
    machine: Arc<Machine>,
    gsi: u32,
}

impl IrqLine for KvmIrqLine {
    fn set_level(&mut self, high: bool) {
        if let Err(error) = self.machine.vm.set_irq_line(self.gsi, high) {
            log::error!(target: "minivmm::kvm", "KVM_IRQ_LINE of GSI {}: {error}", self.gsi);
        }
    }
}

/// What the controllers of a VM are before its first run. A vCPU's part must not be put back before
/// all vCPUs have ended: one that still runs could send it an interrupt.
#[derive(Debug)]
pub struct FirstIrqChip {
    chips: Vec<kvm_irqchip>,
    pit: Option<kvm_pit_state2>,
}

impl FirstIrqChip {
    /// The state that they have now.
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn of(vm: &VmFd, irqchip: IrqChip) -> io::Result<Self> {
        let mut first = Self { chips: Vec::new(), pit: None };
        if irqchip == IrqChip::Kernel {
            for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
                let mut chip = kvm_irqchip { chip_id, ..Default::default() };
                vm.get_irqchip(&mut chip).map_err(host_error)?;
                first.chips.push(chip);
            }
            first.pit = Some(vm.get_pit2().map_err(host_error)?);
        }
        Ok(first)
    }

    /// Puts it back.
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn put_back(&self, vm: &VmFd) -> io::Result<()> {
        if let Some(pit) = &self.pit {
            vm.set_pit2(pit).map_err(host_error)?;
        }
        for chip in &self.chips {
            vm.set_irqchip(chip).map_err(host_error)?;
        }
        Ok(())
    }
}

/// What of a vCPU others can change: its local APIC, the events that wait, and whether it runs.
#[derive(Debug)]
pub struct FirstLapic {
    fd: VcpuFd,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
}

impl FirstLapic {
    /// The state that the vCPU has now. It keeps a descriptor of its own of the vCPU.
    ///
    /// # Errors
    ///
    /// What the first call to fail says.
    pub fn of(vm: &VmFd, fd: &VcpuFd) -> io::Result<Self> {
        let fd = duplicate(vm, fd)?;
        Ok(Self {
            lapic: fd.get_lapic().map_err(host_error)?,
            events: fd.get_vcpu_events().map_err(host_error)?,
            mp_state: fd.get_mp_state().map_err(host_error)?,
            fd,
        })
    }

    /// Puts it back, while the vCPU does not run.
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn put_back(&self) -> io::Result<()> {
        // To ask for the state has KVM take an INIT or SIPI that waits.
        self.fd.get_mp_state().map_err(host_error)?;
        self.fd.set_lapic(&self.lapic).map_err(host_error)?;
        self.fd.set_vcpu_events(&self.events).map_err(host_error)?;
        self.fd.set_mp_state(self.mp_state).map_err(host_error)
    }
}

fn duplicate(vm: &VmFd, fd: &VcpuFd) -> io::Result<VcpuFd> {
    use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

    // SAFETY: `fd` is open for as long as this borrow lives.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let copy: OwnedFd = borrowed.try_clone_to_owned()?;
    // SAFETY: the descriptor is a vCPU's of this VM, and nobody else's any more.
    unsafe { vm.create_vcpu_from_rawfd(copy.into_raw_fd()) }.map_err(host_error)
}
