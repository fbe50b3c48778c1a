//! SYSCALL of 64-bit code in ring 3 (Intel SDM vol. 2, SYSCALL), where a KVM that emulates ring 0
//! carries out a half of it: RIP, RCX, R11 and RFLAGS are as they should be, CS and SS still those
//! of ring 3.
//!
//! The guest then fetches the first byte of its own entry point from ring 3, which is a page fault
//! for every kernel that keeps its pages to itself. So the vCPU is made to stop where the guest's
//! handler of page faults begins; if it is there for such a fetch, the other half is carried out,
//! and if it is not, it goes on.

use std::io;

use iced_x86::{Instruction, Mnemonic};

use super::Completed;
use super::cpu::{Cpu, GeneralRegisters, SystemRegisters, attributes, bits, gpr};
use super::deliver;
use super::exec::Exec;
use super::stop::Stop;
use crate::boot::state::Segment;

/// The registers that SYSCALL goes by, and the bit of EFER that allows it.
const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_FMASK: u32 = 0xc000_0084;
const EFER_SCE: u64 = 1;

/// The number of R11.
const R11: usize = 11;

/// The vector of page faults.
const PAGE_FAULT: u8 = 14;

/// The instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// What SYSCALL makes of CS and SS: flat, of ring 0, 64-bit code and data.
const CODE: u16 = 0xa09b;
const DATA: u16 = 0xc093;

/// Whether the guest uses SYSCALL: it has allowed it and said where it leads.
///
/// # Errors
///
/// The host refuses a call about the vCPU.
pub fn is_used(cpu: &mut impl Cpu) -> io::Result<bool> {
    let system = cpu.system()?;
    let allowed = system.is_long() && system.efer & EFER_SCE != 0;
    Ok(allowed && cpu.msr(IA32_LSTAR)?.unwrap_or(0) != 0)
}

/// Where the vCPU is to stop: the first instruction of the guest's handler of page faults in IA-32e
/// mode. None if it has none as yet.
///
/// # Errors
///
/// The host refuses a call about the vCPU.
pub fn handler(cpu: &mut impl Cpu) -> io::Result<Option<u64>> {
    let mut system = cpu.system()?;
    if !system.is_long() {
        return Ok(None);
    }
    // Keys are for pages of ring 3, where no interrupt table is, and to ask for PKRU takes long.
    system.cr4 &= !bits::CR4_PKE;
    let regs = GeneralRegisters::default();
    let mut exec = Exec::new(cpu, Instruction::default(), regs, system);
    let target = known(deliver::target(&mut exec, PAGE_FAULT))?;
    Ok(target.filter(|address| *address != 0 && system.is_canonical(*address)))
}

/// Carries out the other half of the SYSCALL that has led to the handler of page faults; if none
/// has, nothing changes.
///
/// # Errors
///
/// The host refuses a call about the vCPU.
pub fn complete(cpu: &mut impl Cpu) -> io::Result<Option<Completed>> {
    let (regs, system) = (cpu.registers()?, cpu.system()?);
    let half = half_done(cpu, regs, system);
    let Some((after, new_system)) = known(half)?.flatten() else {
        return Ok(None);
    };
    cpu.set_system(&new_system)?;
    cpu.set_registers(&after)?;
    Ok(Some(Completed(Mnemonic::Syscall)))
}

/// What of the guest's is not there is no fault of its: then it is not known.
fn known<T>(result: Result<T, Stop>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Host(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The state after a SYSCALL, if the page fault is of one that was half done: its frame is of the
/// entry point in ring 3, RCX is behind a SYSCALL, and R11 has the flags that became those in the
/// frame.
fn half_done<C: Cpu>(
    cpu: &mut C,
    regs: GeneralRegisters,
    system: SystemRegisters,
) -> Result<Option<(GeneralRegisters, SystemRegisters)>, Stop> {
    let mut msr = |index| cpu.msr(index).map(Option::unwrap_or_default);
    let (star, entry, mask) = (msr(IA32_STAR)?, msr(IA32_LSTAR)?, msr(IA32_FMASK)?);
    // The error code, RIP, CS, RFLAGS and RSP.
    let mut bytes = [0; 5 * 8];
    let mut exec = Exec::new(cpu, Instruction::default(), regs, system);
    exec.read_as_system(regs.gpr[gpr::RSP], &mut bytes)?;
    let mut words = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes);
    let mut word = || words.next().unwrap_or(0);
    let [_, rip, cs, flags, rsp] = [word(), word(), word(), word(), word()];
    let expected = regs.gpr[R11] & !mask & !bits::RF | bits::RFLAGS_FIXED;
    if rip != entry || cs & 3 != 3 || flags & !bits::RF != expected {
        return Ok(None);
    }
    let mut insn = [0; 2];
    exec.system.ss.attributes |= 3 << attributes::DPL_SHIFT;
    exec.fetch(regs.gpr[gpr::RCX].wrapping_sub(2), &mut insn)?;
    if insn != SYSCALL {
        return Ok(None);
    }
    let selector = u16::try_from(star >> 32 & 0xfffc).unwrap_or(0);
    let flat = |selector, attributes| Segment { selector, base: 0, limit: u32::MAX, attributes };
    let (cs, ss) = (flat(selector, CODE), flat(selector.wrapping_add(8), DATA));
    let mut after = GeneralRegisters { rip, rflags: expected, ..regs };
    after.gpr[gpr::RSP] = rsp;
    Ok(Some((after, SystemRegisters { cs, ss, ..system })))
}
