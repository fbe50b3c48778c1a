//! Moves between vector registers, memory and general registers.

use iced_x86::{Mnemonic, OpKind, Register};

use super::{
    LANE, Vector, is_vex, load, needs_vectors, set_vector_register, source, store, vector_register,
};
use crate::assist::Handler;
use crate::assist::cpu::Cpu;
use crate::assist::exec::Exec;
use crate::assist::stop::Stop;

/// A mask of the low 64 bits of a lane, and of the low 32.
const LOW: u128 = u64::MAX as u128;
const LOW32: u128 = u32::MAX as u128;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    use Mnemonic::*;
    Some(match mnemonic {
        Movdqu | Movups | Movupd | Lddqu | Vmovdqu | Vmovups | Vmovupd | Vlddqu => unaligned,
        Movdqa | Movaps | Movapd | Movntdq | Movntps | Movntpd | Movntdqa | Vmovdqa | Vmovaps
        | Vmovapd | Vmovntdq | Vmovntps | Vmovntpd | Vmovntdqa => aligned,
        Movq | Vmovq => movq,
        Movd | Vmovd => movd,
        Movss | Vmovss => movss,
        Movsd | Vmovsd => movsd,
        Movlps | Movlpd | Vmovlps | Vmovlpd => move_low,
        Movhps | Movhpd | Vmovhps | Vmovhpd => move_high,
        Pmovmskb | Vpmovmskb => pmovmskb,
        Pinsrw | Vpinsrw => pinsrw,
        Pinsrb | Vpinsrb => pinsrb,
        Pinsrd | Vpinsrd => pinsrd,
        Pinsrq | Vpinsrq => pinsrq,
        Pextrw | Vpextrw => pextrw,
        Pextrb | Vpextrb => pextrb,
        Pextrd | Vpextrd => pextrd,
        Pextrq | Vpextrq => pextrq,
        Ptest | Vptest => ptest,
        Vinserti128 | Vinsertf128 => insert_lane,
        Vextracti128 | Vextractf128 => extract_lane,
        Vbroadcasti128 | Vbroadcastf128 => broadcast_lane,
        _ => return None,
    })
}

fn unaligned<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_all(exec, false)
}

fn aligned<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_all(exec, true)
}

fn move_all<C: Cpu>(exec: &mut Exec<'_, C>, aligned: bool) -> Result<(), Stop> {
    needs_vectors(exec)?;
    if exec.insn.op0_kind() == OpKind::Register {
        let destination = exec.insn.op0_register();
        let value = source(exec, 1, destination.size(), aligned)?;
        return set_vector_register(exec, destination, value);
    }
    let register = exec.insn.op1_register();
    let value = vector_register(exec, register)?;
    store(exec, 0, register.size(), aligned, value)
}

/// The low bytes of a vector operand, general operand or memory.
fn scalar<C: Cpu>(exec: &mut Exec<'_, C>, operand: u32, len: usize) -> Result<u128, Stop> {
    let register = exec.insn.op_register(operand);
    let mask = if len == 8 { LOW } else { LOW32 };
    match exec.insn.op_kind(operand) {
        OpKind::Register if register.is_gpr() => Ok(u128::from(exec.register(register)) & mask),
        OpKind::Register => Ok(vector_register(exec, register)?[0] & mask),
        _ => Ok(load(exec, operand, len, false)?[0]),
    }
}

/// A scalar goes to a vector register, with zeros above, to a general register, or to memory.
fn move_scalar<C: Cpu>(exec: &mut Exec<'_, C>, len: usize) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let value = scalar(exec, 1, len)?;
    let register = exec.insn.op0_register();
    match exec.insn.op0_kind() {
        OpKind::Register if register.is_gpr() => {
            exec.set_register(register, u64::try_from(value).unwrap_or(0));
            Ok(())
        }
        OpKind::Register => set_vector_register(exec, register, [value, 0]),
        _ => store(exec, 0, len, false, [value, 0]),
    }
}

fn movq<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_scalar(exec, 8)
}

fn movd<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_scalar(exec, 4)
}

fn movss<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_float(exec, 4, LOW32)
}

/// Not the string instruction of the same name, which has no vector register.
fn movsd<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let has_vector = (0..exec.insn.op_count()).any(|operand| {
        let register = exec.insn.op_register(operand);
        exec.insn.op_kind(operand) == OpKind::Register && register.is_xmm()
    });
    if has_vector { move_float(exec, 8, LOW) } else { Err(Stop::Unknown) }
}

/// Like [`move_scalar`], but from register to register what is above stays, or is that of the
/// second of three operands.
fn move_float<C: Cpu>(exec: &mut Exec<'_, C>, len: usize, mask: u128) -> Result<(), Stop> {
    let operands = exec.insn.op_count();
    let registers = (0..operands).all(|operand| exec.insn.op_kind(operand) == OpKind::Register);
    if !registers {
        return move_scalar(exec, len);
    }
    needs_vectors(exec)?;
    let above = vector_register(exec, exec.insn.op_register(operands - 2))?[0];
    let low = vector_register(exec, exec.insn.op_register(operands - 1))?[0];
    let value = above & !mask | low & mask;
    set_vector_register(exec, exec.insn.op0_register(), [value, 0])
}

/// Between memory and the low half of a lane.
fn move_low<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_half(exec, 0)
}

/// Between memory and the high half.
fn move_high<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    move_half(exec, 64)
}

fn move_half<C: Cpu>(exec: &mut Exec<'_, C>, shift: u32) -> Result<(), Stop> {
    needs_vectors(exec)?;
    if exec.insn.op0_kind() != OpKind::Register {
        let value = vector_register(exec, exec.insn.op1_register())?[0] >> shift & LOW;
        return store(exec, 0, 8, false, [value, 0]);
    }
    let last = exec.insn.op_count() - 1;
    let rest = vector_register(exec, exec.insn.op_register(last - 1))?[0];
    let half = load(exec, last, 8, false)?[0];
    let value = rest & !(LOW << shift) | half << shift;
    set_vector_register(exec, exec.insn.op0_register(), [value, 0])
}

/// The sign bits of all bytes.
fn pmovmskb<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let register = exec.insn.op1_register();
    let bytes = vector_register(exec, register)?.map(u128::to_le_bytes);
    let signs = bytes.as_flattened()[..register.size()].iter().enumerate();
    let mask = signs.fold(0, |mask, (index, byte)| mask | u64::from(byte >> 7) << index);
    exec.set_register(exec.insn.op0_register(), mask);
    Ok(())
}

/// Replaces one element of `len` bytes.
fn insert<C: Cpu>(exec: &mut Exec<'_, C>, len: usize) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let operands = exec.insn.op_count();
    let (rest, element) = (operands - 3, operands - 2);
    let value = match exec.insn.op_kind(element) {
        OpKind::Register => u128::from(exec.register(exec.insn.op_register(element))),
        _ => load(exec, element, len, false)?[0],
    };
    let mut lane = vector_register(exec, exec.insn.op_register(rest))?[0].to_le_bytes();
    let index = usize::from(exec.insn.immediate8()) % (LANE / len);
    lane[index * len..(index + 1) * len].copy_from_slice(&value.to_le_bytes()[..len]);
    set_vector_register(exec, exec.insn.op0_register(), [u128::from_le_bytes(lane), 0])
}

fn pinsrb<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    insert(exec, 1)
}

fn pinsrw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    insert(exec, 2)
}

fn pinsrd<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    insert(exec, 4)
}

fn pinsrq<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    insert(exec, 8)
}

/// Takes one element of `len` bytes, zero-extended.
fn extract<C: Cpu>(exec: &mut Exec<'_, C>, len: usize) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let lane = vector_register(exec, exec.insn.op1_register())?[0].to_le_bytes();
    let index = usize::from(exec.insn.immediate8()) % (LANE / len);
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&lane[index * len..(index + 1) * len]);
    if exec.insn.op0_kind() == OpKind::Register {
        exec.set_register(exec.insn.op0_register(), u64::from_le_bytes(bytes));
        return Ok(());
    }
    store(exec, 0, len, false, [u128::from(u64::from_le_bytes(bytes)), 0])
}

fn pextrb<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    extract(exec, 1)
}

fn pextrw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    extract(exec, 2)
}

fn pextrd<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    extract(exec, 4)
}

fn pextrq<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    extract(exec, 8)
}

/// ZF: the two have no bit in common. CF: the second has none that the first lacks.
fn ptest<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    use crate::assist::cpu::bits;
    use crate::assist::integer::ARITHMETIC;
    needs_vectors(exec)?;
    let first = exec.insn.op0_register();
    let a = vector_register(exec, first)?;
    let aligned = !is_vex(exec.insn.mnemonic());
    let b = source(exec, 1, first.size(), aligned)?;
    let all = |test: fn(u128, u128) -> u128| test(a[0], b[0]) | test(a[1], b[1]) == 0;
    let zero = if all(|a, b| a & b) { bits::ZF } else { 0 };
    let carry = if all(|a, b| !a & b) { bits::CF } else { 0 };
    exec.set_flags(ARITHMETIC, zero | carry);
    Ok(())
}

/// Which lane an immediate names.
fn lane_index<C>(exec: &Exec<'_, C>) -> usize {
    usize::from(exec.insn.immediate8() & 1)
}

fn insert_lane<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let mut value = vector_register(exec, exec.insn.op1_register())?;
    let lane = source(exec, 2, LANE, false)?[0];
    value[lane_index(exec)] = lane;
    set_vector_register(exec, exec.insn.op0_register(), value)
}

fn extract_lane<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let value = vector_register(exec, exec.insn.op1_register())?;
    let lane: Vector = [value[lane_index(exec)], 0];
    if exec.insn.op0_kind() == OpKind::Register {
        let register: Register = exec.insn.op0_register();
        return set_vector_register(exec, register, lane);
    }
    store(exec, 0, LANE, false, lane)
}

fn broadcast_lane<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_vectors(exec)?;
    let lane = load(exec, 1, LANE, false)?[0];
    set_vector_register(exec, exec.insn.op0_register(), [lane, lane])
}
