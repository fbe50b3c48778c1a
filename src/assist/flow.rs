//! Instructions that raise exceptions or software interrupts on purpose.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, Exception, bits};
use super::deliver::{self, Cause};
use super::exec::Exec;
use super::stop::Stop;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Int3 => int3,
        Mnemonic::Int => int,
        Mnemonic::Int1 => int1,
        Mnemonic::Into => into,
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => undefined,
        Mnemonic::Bound => bound,
        _ => return None,
    })
}

/// INT3: #BP through a gate that the CPL may use; not redirected in virtual-8086 mode.
fn int3<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    deliver::interrupt(exec, 3, Cause::Software)
}

fn int<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let vector = exec.insn.immediate8();
    deliver::interrupt(exec, vector, Cause::Software)
}

/// INT1: #DB through a gate whose DPL does not matter.
fn int1<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    deliver::interrupt(exec, 1, Cause::Privileged)
}

fn into<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    if exec.regs.rflags & bits::OF == 0 {
        return Ok(());
    }
    deliver::interrupt(exec, 4, Cause::Software)
}

/// UD0, UD1 and UD2 exist to raise #UD.
fn undefined<C: Cpu>(_: &mut Exec<'_, C>) -> Result<(), Stop> {
    Err(Exception::UD.into())
}

/// BOUND: #BR unless an index lies within the two bounds in memory, signed.
fn bound<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let len = exec.operand_size(0);
    let linear = exec.address(1, 2 * len, super::segment::Access::Read)?;
    let mut bytes = [0; 8];
    exec.read(linear, &mut bytes[..2 * len])?;
    let signed = |bytes: &[u8]| match *bytes {
        [a, b] => i32::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let index = exec.register(exec.insn.op0_register()).to_le_bytes();
    let (index, lower) = (signed(&index[..len]), signed(&bytes[..len]));
    let upper = signed(&bytes[len..2 * len]);
    // #BR is vector 5.
    if (lower..=upper).contains(&index) { Ok(()) } else { Err(Exception::plain(5).into()) }
}
