//! Completing instructions that KVM cannot: KVM_RUN has returned with an internal error, "emulation
//! failed", and the instruction's bytes. An instruction that is known here is carried out on the
//! vCPU's registers and memory with its architectural effects, faults included, and the guest runs
//! on; any other stays a failure.
//!
//! [`complete`] is the way in. [`cpu::Cpu`] is all that it needs of a vCPU; nothing here names KVM.
//! A file a family of instructions, a function an instruction; `exec.rs` has what they share,
//! `segment.rs` and `walk.rs` get from an operand to physical memory, `deliver.rs` goes through the
//! guest's interrupt table. docs/assist.md has the table of instructions.

mod bit;
pub mod control;
pub mod cpu;
mod deliver;
mod descriptor;
mod exec;
mod extended;
mod flow;
mod integer;
mod iret;
mod segment;
mod sse;
mod stop;
pub mod syscall;
#[cfg(test)]
mod testing;
mod walk;
mod x87;
mod xsave;

use std::fmt;
use std::io;

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic};

use cpu::{Cpu, Exception, GeneralRegisters, SystemRegisters, bits};
use exec::Exec;
use segment::{Access, SegmentName};
use stop::Stop;

use crate::trace::record::MarkerName;

/// The longest instruction (Intel SDM vol. 2, section 2.3.11).
const MAX_INSN: usize = 15;

/// An instruction that was completed, by its mnemonic in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed(Mnemonic);

impl Completed {
    /// A fetch that has ended in a fault, before anything was decoded.
    const FETCH: Self = Self(Mnemonic::INVALID);

    /// The mnemonic, as a trace has it.
    pub fn name(self) -> MarkerName {
        MarkerName::new(self.to_string().as_bytes())
    }
}

impl fmt::Display for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Mnemonic::INVALID {
            return f.write_str("fetch");
        }
        f.write_str(&format!("{:?}", self.0).to_lowercase())
    }
}

/// What carries out an instruction.
type Handler<C> = fn(&mut Exec<'_, C>) -> Result<(), Stop>;

/// Completes the instruction at the vCPU's RIP, of which `bytes` are the first bytes that KVM has
/// seen; it may end in an exception of the guest's. None if it is not known here: then nothing has
/// changed.
///
/// # Errors
///
/// The host refuses a call about the vCPU.
pub fn complete(cpu: &mut impl Cpu, bytes: &[u8]) -> io::Result<Option<Completed>> {
    let (regs, system) = (cpu.registers()?, cpu.system()?);
    let insn = match decode(cpu, regs, system, bytes) {
        Ok(insn) => insn,
        Err(stop) => return settle(cpu, &regs, stop).map(|done| done.then_some(Completed::FETCH)),
    };
    let Some(handler) = handler_of(&insn) else { return Ok(None) };
    let rflags = regs.rflags & !bits::RF;
    let after = GeneralRegisters { rip: next_ip(&insn, system), rflags, ..regs };
    let mut exec = Exec::new(cpu, insn, after, system);
    let done = match handler(&mut exec) {
        Ok(()) => {
            let (after, new_system) = (exec.regs, exec.new_system);
            let extended = exec.into_extended();
            commit(cpu, regs, after, new_system.as_ref(), extended.as_deref())?;
            true
        }
        Err(stop) => settle(cpu, &regs, stop)?,
    };
    Ok(done.then_some(Completed(insn.mnemonic())))
}

/// The instruction. KVM may have fetched less than all of it.
fn decode<C: Cpu>(
    cpu: &mut C,
    regs: GeneralRegisters,
    system: SystemRegisters,
    bytes: &[u8],
) -> Result<Instruction, Stop> {
    let mut known = bytes.get(..MAX_INSN).unwrap_or(bytes).to_vec();
    loop {
        let mut decoder =
            Decoder::with_ip(system.code_bits(), &known, regs.rip, DecoderOptions::NONE);
        let insn = decoder.decode();
        match decoder.last_error() {
            DecoderError::None => return Ok(insn),
            DecoderError::NoMoreBytes if known.len() < MAX_INSN => {}
            _ => return Err(Stop::Unknown),
        }
        let offset = regs.rip.wrapping_add(known.len() as u64);
        let mut next = [0];
        let linear = segment::linear(&system, SegmentName::Cs, offset, 1, Access::Fetch)?;
        Exec::new(cpu, Instruction::default(), regs, system).fetch(linear, &mut next)?;
        known.extend(next);
    }
}

/// RIP of the next instruction, as wide as the code.
fn next_ip(insn: &Instruction, system: SystemRegisters) -> u64 {
    match system.code_bits() {
        16 => insn.next_ip() & 0xffff,
        32 => insn.next_ip() & 0xffff_ffff,
        _ => insn.next_ip(),
    }
}

/// What carries the instruction out, if anything does.
fn handler_of<C: Cpu>(insn: &Instruction) -> Option<Handler<C>> {
    let mnemonic = insn.mnemonic();
    flow::handler(mnemonic)
        .or_else(|| iret::handler(mnemonic))
        .or_else(|| control::handler(mnemonic))
        .or_else(|| descriptor::handler(mnemonic))
        .or_else(|| integer::handler(mnemonic))
        .or_else(|| bit::handler(mnemonic))
        .or_else(|| x87::handler(mnemonic))
        .or_else(|| xsave::handler(mnemonic))
        .or_else(|| sse::handler(insn))
}

/// The end of an instruction: state goes back to the vCPU, the interrupt shadow ends, and what ran
/// with TF set traps (Intel SDM vol. 3, sections 2.3 and 18.3.1.4).
fn commit(
    cpu: &mut impl Cpu,
    before: GeneralRegisters,
    after: GeneralRegisters,
    system: Option<&SystemRegisters>,
    extended: Option<&[u8]>,
) -> io::Result<()> {
    if let Some(system) = system {
        cpu.set_system(system)?;
    }
    if let Some(extended) = extended {
        cpu.set_extended(extended)?;
    }
    cpu.set_registers(&after)?;
    cpu.end_shadow()?;
    // An interrupt gate clears TF, and then there is no trap.
    if before.rflags & after.rflags & bits::TF != 0 {
        cpu.raise(Exception::DB)?;
    }
    Ok(())
}

/// The end of an instruction that was not completed. True if the guest can go on.
fn settle(cpu: &mut impl Cpu, regs: &GeneralRegisters, stop: Stop) -> io::Result<bool> {
    match stop {
        Stop::Fault(exception) => {
            // RF is set in the image of RFLAGS that a fault saves (Intel SDM vol. 3, 18.3.1.1).
            cpu.set_registers(&GeneralRegisters { rflags: regs.rflags | bits::RF, ..*regs })?;
            cpu.raise(exception)?;
            Ok(true)
        }
        Stop::Again => {
            cpu.set_registers(regs)?;
            Ok(true)
        }
        Stop::Unknown => Ok(false),
        Stop::Host(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
