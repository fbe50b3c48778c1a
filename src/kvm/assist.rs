//! What KVM's vCPU is to the completion of instructions (`src/assist/`). Its state is in `cpu.rs`,
//! its memory in `memory.rs`, and where it stops for a SYSCALL in `stop.rs`; here is what a vCPU
//! keeps for all of them. Used by the vCPU's own thread.

mod cpu;
mod memory;
mod stop;

use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;

use crate::kvm::machine::Machine;
use cpu::KvmCpu;
pub use memory::WrittenPages;
use stop::SyscallStop;

/// What a vCPU needs to have instructions completed.
#[derive(Debug)]
pub struct Assistance {
    machine: Arc<Machine>,
    /// Where to note what is written, if somebody wants to know.
    written: Option<Arc<WrittenPages>>,
    /// What KVM_GET_CPUID2 says, once it was asked.
    cpuid: Option<CpuId>,
    stop: SyscallStop,
}

impl Assistance {
    /// Assistance with the memory of `machine`; pages that it writes are added to `written`.
    pub fn new(machine: Arc<Machine>, written: Option<Arc<WrittenPages>>) -> Self {
        Self { machine, written, cpuid: None, stop: SyscallStop::default() }
    }

    /// The vCPU `fd`, for one instruction.
    pub fn of<'a>(&'a mut self, fd: &'a VcpuFd) -> KvmCpu<'a> {
        KvmCpu { fd, assistance: self, sregs: None }
    }
}
