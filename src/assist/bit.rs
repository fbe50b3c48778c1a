//! The bit manipulation extensions BMI1 and BMI2 (Intel SDM vol. 1, section 5.1.16). All are
//! VEX-encoded, so they exist in protected mode only, which is where KVM lacks them.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, bits};
use super::exec::Exec;
use super::integer::ARITHMETIC;
use super::stop::Stop;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Andn => andn,
        Mnemonic::Bextr => bextr,
        Mnemonic::Blsi => blsi,
        Mnemonic::Blsmsk => blsmsk,
        Mnemonic::Blsr => blsr,
        Mnemonic::Bzhi => bzhi,
        Mnemonic::Mulx => mulx,
        Mnemonic::Pdep => pdep,
        Mnemonic::Pext => pext,
        Mnemonic::Rorx => rorx,
        Mnemonic::Sarx => sarx,
        Mnemonic::Shlx => shlx,
        Mnemonic::Shrx => shrx,
        _ => return None,
    })
}

/// The operand's width in bits, and a mask of that width.
fn shape<C: Cpu>(exec: &Exec<'_, C>) -> (u32, u64) {
    if exec.operand_size(0) == 8 { (64, u64::MAX) } else { (32, u64::from(u32::MAX)) }
}

/// Sets the first operand, ZF and SF by it, and CF; clears OF. The other flags are undefined and
/// stay.
fn finish<C: Cpu>(exec: &mut Exec<'_, C>, value: u64, carry: bool) -> Result<(), Stop> {
    let (width, mask) = shape(exec);
    let value = value & mask;
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    let flags = flag(value == 0, bits::ZF)
        | flag(value >> (width - 1) & 1 != 0, bits::SF)
        | flag(carry, bits::CF);
    exec.set_flags(bits::ZF | bits::SF | bits::CF | bits::OF, flags);
    exec.set_operand(0, value)
}

fn andn<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = !exec.operand(1)? & exec.operand(2)?;
    finish(exec, value, false)
}

/// A field of bits; of the flags only ZF is defined beside the cleared ones.
fn bextr<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, control) = (exec.operand(1)?, exec.operand(2)?);
    let (start, len) = (control & 0xff, control >> 8 & 0xff);
    let low = if start < 64 { value >> start } else { 0 };
    let field = if len < 64 { low & ((1 << len) - 1) } else { low };
    exec.set_flags(ARITHMETIC, if field == 0 { bits::ZF } else { 0 });
    exec.set_operand(0, field)
}

/// The lowest set bit.
fn blsi<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    finish(exec, value & value.wrapping_neg(), value != 0)
}

/// A mask up to the lowest set bit.
fn blsmsk<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    finish(exec, value ^ value.wrapping_sub(1), value == 0)
}

/// Without the lowest set bit.
fn blsr<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    finish(exec, value & value.wrapping_sub(1), value == 0)
}

/// Without the bits from an index on.
fn bzhi<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, index) = (exec.operand(1)?, exec.operand(2)? & 0xff);
    let (width, _) = shape(exec);
    let beyond = index >= u64::from(width);
    let kept = if beyond { value } else { value & ((1 << index) - 1) };
    finish(exec, kept, beyond)
}

/// The product with RDX, without flags; the low half is written first.
fn mulx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (width, mask) = shape(exec);
    let [_, _, rdx, ..] = exec.regs.gpr;
    let product = u128::from(rdx & mask) * u128::from(exec.operand(2)?);
    let half = |value: u128| u64::try_from(value & u128::from(mask)).unwrap_or(0);
    exec.set_operand(1, half(product))?;
    exec.set_operand(0, half(product >> width))
}

/// Spreads low bits to where a mask has ones.
fn pdep<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, mask) = (exec.operand(1)?, exec.operand(2)?);
    let spread = ones(mask).enumerate().filter(|(index, _)| value >> index & 1 != 0);
    let value = spread.fold(0, |sum, (_, bit)| sum | bit);
    exec.set_operand(0, value)
}

/// Gathers the bits where a mask has ones.
fn pext<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, mask) = (exec.operand(1)?, exec.operand(2)?);
    let gathered = ones(mask).enumerate().filter(|(_, bit)| value & bit != 0);
    let value = gathered.fold(0, |sum, (index, _)| sum | 1 << index);
    exec.set_operand(0, value)
}

/// The set bits of a mask, from the lowest on.
fn ones(mask: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|index| 1u64 << index).filter(move |bit| mask & bit != 0)
}

fn rorx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    let (width, mask) = shape(exec);
    let count = u32::from(exec.insn.immediate8()) % width;
    let doubled = u128::from(value) << width | u128::from(value);
    let rotated = doubled >> count & u128::from(mask);
    exec.set_operand(0, u64::try_from(rotated).unwrap_or(0))
}

/// The value to shift and by how much.
fn shift<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(u64, u64), Stop> {
    let (width, _) = shape(exec);
    Ok((exec.operand(1)?, exec.operand(2)? & u64::from(width - 1)))
}

fn sarx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, count) = shift(exec)?;
    let (width, mask) = shape(exec);
    let unused = 64 - width;
    let signed = (value << unused).cast_signed() >> unused >> count;
    exec.set_operand(0, signed.cast_unsigned() & mask)
}

fn shlx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, count) = shift(exec)?;
    let (_, mask) = shape(exec);
    exec.set_operand(0, value << count & mask)
}

fn shrx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (value, count) = shift(exec)?;
    exec.set_operand(0, value >> count)
}
