//! What a guest sees of CPUID bits that its table does not have: asked of a guest.
//!
//! Not every KVM can make a guest see its table: with hardware support CPUID always exits, without
//! (PVM) it may not in ring 3, and ring 0 may see the host's bits beside. No capability tells. So a
//! VM of two pages is made, and its vCPU executes the instruction, in either ring. That takes a few
//! milliseconds, and is done only if a bit is to be hidden. Runs on the main thread.

use std::io;

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use minivmm_guests::{Guest, Kind, Mode};

use super::entry::{apply_sregs, to_kvm_regs};
use crate::boot::{self, BootedGuest};
use crate::config::{
    BootConfig, CpuMode, CpuidBit, CpuidRegister, GuestSource, ImageFormat, MemorySize, VmConfig,
};
use crate::exit::VcpuId;
use crate::kvm::call::{host_error, uninterrupted};
use crate::kvm::machine::Machine;

/// Reads a subleaf and a leaf from any port, and writes what CPUID then says, for ever. In 64-bit
/// mode, at any address.
static PROBE: Guest = Guest {
    name: "cpuid-probe",
    summary: "",
    kind: Kind::Demo,
    mode: Mode::Long,
    image: &[
        0xe5, 0x10, // in   $0x10, %eax
        0x89, 0xc1, // mov  %eax, %ecx
        0xe5, 0x10, // in   $0x10, %eax
        0x0f, 0xa2, // cpuid
        0xe7, 0x10, // out  %eax, $0x10
        0x89, 0xd8, // mov  %ebx, %eax
        0xe7, 0x10, // out  %eax, $0x10
        0x89, 0xc8, // mov  %ecx, %eax
        0xe7, 0x10, // out  %eax, $0x10
        0x89, 0xd0, // mov  %edx, %eax
        0xe7, 0x10, // out  %eax, $0x10
        0xeb, 0xe8, // jmp  to the start
    ],
};

/// Those of `bits` that a guest with this CPUID table sees set, in ring 0 or in ring 3, which is
/// [`CpuMode::Long`] or [`CpuMode::User`].
///
/// # Errors
///
/// The guest cannot be run.
pub fn seen(
    kvm: &Kvm,
    table: &CpuId,
    bits: &[CpuidBit],
    mode: CpuMode,
) -> io::Result<Vec<CpuidBit>> {
    let memory = MemorySize::from_bytes(2 * MemorySize::PAGE).map_err(io::Error::other)?;
    let boot = BootConfig { format: Some(ImageFormat::Flat), ..BootConfig::default() };
    let guest = GuestSource::Demo(&PROBE);
    let config = VmConfig { boot, mode: Some(mode), memory, ..VmConfig::new(guest) };
    let BootedGuest { memory, entry, .. } = boot::load(&config, false).map_err(io::Error::other)?;
    let vm = uninterrupted(|| kvm.create_vm()).map_err(host_error)?;
    let machine = Machine::new(vm, memory, false).map_err(io::Error::other)?;
    let mut vcpu = uninterrupted(|| machine.vm.create_vcpu(0)).map_err(host_error)?;
    vcpu.set_cpuid2(table).map_err(host_error)?;
    let state = entry.state(VcpuId(0));
    let mut sregs = vcpu.get_sregs().map_err(host_error)?;
    apply_sregs(&state, &mut sregs);
    vcpu.set_sregs(&sregs).map_err(host_error)?;
    vcpu.set_regs(&to_kvm_regs(&state.regs)).map_err(host_error)?;
    let mut seen = Vec::new();
    for bit in bits {
        let [eax, ebx, ecx, edx] = ask(&mut vcpu, bit.leaf, bit.subleaf)?;
        let register = match bit.register {
            CpuidRegister::Eax => eax,
            CpuidRegister::Ebx => ebx,
            CpuidRegister::Ecx => ecx,
            CpuidRegister::Edx => edx,
        };
        if register >> bit.bit & 1 != 0 {
            seen.push(*bit);
        }
    }
    Ok(seen)
}

/// Once around the loop of the guest.
fn ask(vcpu: &mut VcpuFd, leaf: u32, subleaf: u32) -> io::Result<[u32; 4]> {
    let mut inputs = [subleaf, leaf].into_iter();
    let mut registers = [0; 4];
    let mut outputs = registers.iter_mut();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(_, data)) => {
                let input = inputs.next().ok_or(io::ErrorKind::InvalidData)?;
                data.iter_mut().zip(input.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
            Ok(VcpuExit::IoOut(_, data)) => {
                let value = data.try_into().map_err(io::Error::other)?;
                *outputs.next().ok_or(io::ErrorKind::InvalidData)? = u32::from_le_bytes(value);
                if outputs.len() == 0 {
                    return Ok(registers);
                }
            }
            Ok(exit) => return Err(io::Error::other(format!("unexpected exit {exit:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Err(host_error(error)),
        }
    }
}
