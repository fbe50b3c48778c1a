//! A VM and the memory that it maps, for all who need either: its vCPUs, its interrupt controllers,
//! and who completes instructions.

use std::io;
use std::sync::atomic::AtomicU64;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use thiserror::Error;

use crate::exit::Gpa;
use crate::kvm::call::{host_error, uninterrupted};
use crate::memory::{GuestMemory, MemoryRegion, RamLayout};

/// See the module's text.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the VM must not outlive the memory that it maps.
    /// The VM.
    pub vm: VmFd,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The linear address of the handler of page faults that was found last on any vCPU: there
    /// those stop that have none of their own. While it is 0 no vCPU stops anywhere.
    pub stop_at: AtomicU64,
}

/// KVM cannot have this much memory, or not there.
#[derive(Debug, Error)]
#[error("KVM_SET_USER_MEMORY_REGION of {len:#x} bytes at {gpa}, for {ram}: {source}")]
pub struct SlotError {
    /// Where the stretch begins.
    gpa: Gpa,
    /// Its length.
    len: u64,
    /// All of the guest's RAM.
    ram: RamLayout,
    /// Why.
    source: io::Error,
}

impl Machine {
    /// Maps `memory` into a new VM: KVM_SET_USER_MEMORY_REGION for every stretch of it, with a log
    /// of the pages that the guest writes to if `log_dirty`.
    ///
    /// # Errors
    ///
    /// KVM refuses one of them.
    pub fn new(vm: VmFd, memory: GuestMemory, log_dirty: bool) -> Result<Self, SlotError> {
        let machine = Self { vm, memory, stop_at: AtomicU64::new(0) };
        let Self { vm, memory, .. } = &machine;
        for (slot, MemoryRegion { gpa, len, host_addr }) in (0..).zip(memory.regions()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: if log_dirty { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: gpa.0,
                memory_size: len,
                userspace_addr: host_addr,
            };
            // SAFETY: the region is a mapping of `memory`, which `machine` keeps until after the VM
            // is closed; the stretches do not overlap. What the guest does to it is seen by us only
            // through vm-memory's volatile accesses.
            uninterrupted(|| unsafe { vm.set_user_memory_region(region) }).map_err(|error| {
                SlotError { gpa, len, ram: memory.layout(), source: host_error(error) }
            })?;
        }
        Ok(machine)
    }
}
