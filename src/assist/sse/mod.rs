//! SSE and AVX instructions that move, combine and shuffle integers and bits, of which code in ring
//! 0 is made: copies, checksums, ciphers. No floating-point arithmetic, no MMX registers, no
//! AVX-512: those are not known here.
//!
//! A vector is one or two lanes of 128 bits. Almost all of these instructions treat each lane by
//! itself, so what they do to one is in `lanes.rs`; here are operands, alignment and moves.

mod lanes;
mod moves;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Handler;
use super::cpu::{Cpu, Exception, bits};
use super::exec::Exec;
use super::extended::{AVX, SSE, component};
use super::segment::Access;
use super::stop::Stop;
use super::x87::needs_sse;

/// YMM_Hi128's number as a component.
const YMM_HI128: u32 = 2;

/// The bytes of a lane.
const LANE: usize = 16;

/// A vector: two lanes, of which the second counts only if there are two.
pub type Vector = [u128; 2];

pub fn handler<C: Cpu>(insn: &Instruction) -> Option<Handler<C>> {
    if !is_plain(insn) {
        return None;
    }
    let mnemonic = insn.mnemonic();
    moves::handler(mnemonic).or_else(|| match mnemonic {
        Mnemonic::Vzeroupper => Some(vzeroupper),
        Mnemonic::Vzeroall => Some(vzeroall),
        _ => lanes::operation(mnemonic).map(|_| combine as Handler<C>),
    })
}

/// Whether only the registers and memory that are known here take part: XMM0 to 15, YMM0 to 15 and
/// general ones, without masks and broadcasts.
fn is_plain(insn: &Instruction) -> bool {
    let known = |operand| match insn.op_kind(operand) {
        OpKind::Register => {
            let register = insn.op_register(operand);
            let vector = register.is_xmm() || register.is_ymm();
            register.is_gpr() || vector && register.number() < 16
        }
        _ => true,
    };
    let no_mask = insn.op_mask() == Register::None && !insn.is_broadcast();
    no_mask && (0..insn.op_count()).all(known)
}

/// Whether the instruction is a VEX-encoded one: it has the same name with a V in front.
fn is_vex(mnemonic: Mnemonic) -> bool {
    format!("{mnemonic:?}").starts_with('V')
}

/// #UD or #NM where the instruction is not to be used for now.
fn needs_vectors<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    if !is_vex(exec.insn.mnemonic()) {
        return needs_sse(exec);
    }
    let on = exec.system.cr4 & bits::CR4_OSXSAVE != 0 && exec.system.is_protected();
    if !on || exec.cpu.xcr0()? & (SSE | AVX) != SSE | AVX {
        return Err(Exception::UD.into());
    }
    let task_switched = exec.system.cr0 & bits::CR0_TS != 0;
    if task_switched { Err(Exception::NM.into()) } else { Ok(()) }
}

/// The upper lane of a vector register.
fn upper<C: Cpu>(exec: &mut Exec<'_, C>, number: usize) -> Result<u128, Stop> {
    let place = component(exec.cpu, YMM_HI128)?.ok_or(Stop::Unknown)?;
    let extended = exec.extended()?;
    if extended.in_use() & AVX == 0 {
        return Ok(0);
    }
    Ok(u128::from_le_bytes(extended.bytes(place.offset + LANE * number)))
}

fn set_upper<C: Cpu>(exec: &mut Exec<'_, C>, number: usize, value: u128) -> Result<(), Stop> {
    let place = component(exec.cpu, YMM_HI128)?.ok_or(Stop::Unknown)?;
    let extended = exec.extended()?;
    let in_use = extended.in_use();
    if in_use & AVX == 0 {
        if value == 0 {
            return Ok(());
        }
        extended.set(place.offset, &vec![0; place.len]);
        extended.set_in_use(in_use | AVX);
    }
    extended.set(place.offset + LANE * number, &value.to_le_bytes());
    Ok(())
}

/// A vector register.
fn vector_register<C: Cpu>(exec: &mut Exec<'_, C>, register: Register) -> Result<Vector, Stop> {
    let low = exec.extended()?.xmm(register.number());
    let high = if register.is_ymm() { upper(exec, register.number())? } else { 0 };
    Ok([low, high])
}

/// Sets the first operand, a vector register: a VEX-encoded instruction clears what is above.
fn set_vector_register<C: Cpu>(
    exec: &mut Exec<'_, C>,
    register: Register,
    value: Vector,
) -> Result<(), Stop> {
    exec.extended()?.set_xmm(register.number(), value[0]);
    if is_vex(exec.insn.mnemonic()) {
        let high = if register.is_ymm() { value[1] } else { 0 };
        set_upper(exec, register.number(), high)?;
    }
    Ok(())
}

/// `len` bytes at a memory operand, zero-extended.
fn load<C: Cpu>(
    exec: &mut Exec<'_, C>,
    operand: u32,
    len: usize,
    aligned: bool,
) -> Result<Vector, Stop> {
    let align = if aligned { len as u64 } else { 1 };
    let linear = exec.aligned_address(operand, len, align, Access::Read)?;
    let mut bytes = [0; 2 * LANE];
    exec.read(linear, &mut bytes[..len])?;
    Ok(to_vector(bytes))
}

fn to_vector(bytes: [u8; 2 * LANE]) -> Vector {
    let mut vector = [0; 2];
    for (lane, bytes) in vector.iter_mut().zip(bytes.as_chunks::<LANE>().0) {
        *lane = u128::from_le_bytes(*bytes);
    }
    vector
}

/// Stores the first `len` bytes of a vector to a memory operand.
fn store<C: Cpu>(
    exec: &mut Exec<'_, C>,
    operand: u32,
    len: usize,
    aligned: bool,
    value: Vector,
) -> Result<(), Stop> {
    let align = if aligned { len as u64 } else { 1 };
    let linear = exec.aligned_address(operand, len, align, Access::Write)?;
    let bytes = value.map(u128::to_le_bytes);
    exec.write(linear, &bytes.as_flattened()[..len])
}

/// A vector operand of `len` bytes, register or memory.
fn source<C: Cpu>(
    exec: &mut Exec<'_, C>,
    operand: u32,
    len: usize,
    aligned: bool,
) -> Result<Vector, Stop> {
    if exec.insn.op_kind(operand) == OpKind::Register {
        return vector_register(exec, exec.insn.op_register(operand));
    }
    load(exec, operand, len, aligned)
}

/// The first operand becomes what [`lanes::operation`] makes of the sources, lane by lane.
///
/// The sources are the last two operands before an immediate: for an instruction that is not
/// VEX-encoded the first operand is itself one.
fn combine<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let mnemonic = exec.insn.mnemonic();
    let operation = lanes::operation(mnemonic).ok_or(Stop::Unknown)?;
    let vex = is_vex(mnemonic);
    let operands = exec.insn.op_count();
    let has_immediate = exec.insn.op_kind(operands - 1) == OpKind::Immediate8;
    let immediate = if has_immediate { exec.insn.immediate8() } else { 0 };
    let vectors = operands - u32::from(has_immediate);
    let destination = exec.insn.op0_register();
    if !destination.is_xmm() && !destination.is_ymm() {
        return Err(Stop::Unknown);
    }
    let last = vectors - 1;
    let (a, b) = if operation.is_shift && has_immediate {
        (vector_register(exec, exec.insn.op_register(last))?, [u128::from(immediate); 2])
    } else if operation.is_shift {
        // The count is one lane, however wide the vector is, and of that the low half.
        let a = vector_register(exec, exec.insn.op_register(last - 1))?;
        let count = source(exec, last, LANE, !vex)?[0] & u128::from(u64::MAX);
        (a, [count; 2])
    } else {
        let a = vector_register(exec, exec.insn.op_register(last.saturating_sub(1)))?;
        (a, source(exec, last, destination.size(), !vex)?)
    };
    let apply = operation.apply;
    let result = [apply(a[0], b[0], immediate), apply(a[1], b[1], immediate)];
    set_vector_register(exec, destination, result)
}

fn vzeroupper<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    zero(exec, false)
}

fn vzeroall<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    zero(exec, true)
}

/// Clears the upper halves, and with `all` the lower ones, of the registers that the mode has. The
/// parts that only AVX-512 has must not be in use: they would have to be cleared too.
fn zero<C: Cpu>(exec: &mut Exec<'_, C>, all: bool) -> Result<(), Stop> {
    const ZMM_HI256: u64 = 1 << 6;
    if exec.extended()?.in_use() & ZMM_HI256 != 0 {
        return Err(Stop::Unknown);
    }
    let registers = if exec.system.is_64_bit() { 16 } else { 8 };
    for number in 0..registers {
        set_upper(exec, number, 0)?;
        if all {
            exec.extended()?.set_xmm(number, 0);
        }
    }
    Ok(())
}
