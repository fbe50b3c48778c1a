//! Instructions on general registers beyond the first processors': counts, checksums, byte order,
//! carries, the 16-byte compare-and-exchange, stores past the caches, ENTER with nesting, and the
//! decimal adjustments that 64-bit mode has dropped.

use iced_x86::{Code, Mnemonic};

use super::Handler;
use super::cpu::{Cpu, Exception, bits, gpr};
use super::exec::Exec;
use super::segment::{self, Access, SegmentName};
use super::stop::Stop;

/// CF, PF, AF, ZF, SF and OF.
pub const ARITHMETIC: u64 = bits::CF | bits::PF | bits::AF | bits::ZF | bits::SF | bits::OF;

/// CRC-32C's polynomial, bits reversed (RFC 3720, section 12.1).
const CRC32C: u32 = 0x82f6_3b78;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Popcnt => popcnt,
        Mnemonic::Lzcnt => lzcnt,
        Mnemonic::Tzcnt => tzcnt,
        Mnemonic::Movbe => movbe,
        Mnemonic::Crc32 => crc32,
        Mnemonic::Adcx => adcx,
        Mnemonic::Adox => adox,
        Mnemonic::Cmpxchg16b => cmpxchg16b,
        Mnemonic::Movnti | Mnemonic::Movdiri => store,
        Mnemonic::Movdir64b => movdir64b,
        Mnemonic::Enter => enter,
        Mnemonic::Aaa => aaa,
        Mnemonic::Aas => aas,
        Mnemonic::Daa => daa,
        _ => return None,
    })
}

/// The number of set bits. ZF tells of zero; the other arithmetic flags are cleared.
fn popcnt<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    exec.set_flags(ARITHMETIC, if value == 0 { bits::ZF } else { 0 });
    exec.set_operand(0, u64::from(value.count_ones()))
}

/// Zeros above the first set bit. CF tells of a zero operand, ZF of a zero result.
fn lzcnt<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    let unused = 64 - width(exec);
    count(exec, value, value.leading_zeros() - unused)
}

/// Zeros below the first set bit.
fn tzcnt<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    let width = width(exec);
    count(exec, value, value.trailing_zeros().min(width))
}

/// The width of the first operand, in bits.
fn width<C: Cpu>(exec: &Exec<'_, C>) -> u32 {
    u32::try_from(8 * exec.operand_size(0)).unwrap_or(64)
}

fn count<C: Cpu>(exec: &mut Exec<'_, C>, value: u64, zeros: u32) -> Result<(), Stop> {
    let carry = if value == 0 { bits::CF } else { 0 };
    let zero = if zeros == 0 { bits::ZF } else { 0 };
    exec.set_flags(bits::CF | bits::ZF, carry | zero);
    exec.set_operand(0, u64::from(zeros))
}

/// A move that reverses the order of the bytes.
fn movbe<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    let unused = 8 * (8 - exec.operand_size(0));
    exec.set_operand(0, value.swap_bytes() >> unused)
}

/// CRC-32C of the first operand and the bytes of the second.
fn crc32<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let bytes = exec.operand(1)?.to_le_bytes();
    let len = exec.operand_size(1);
    let first = exec.operand(0)?;
    let mut crc = u32::try_from(first & u64::from(u32::MAX)).unwrap_or(0);
    for byte in &bytes[..len] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { CRC32C } else { 0 };
        }
    }
    exec.set_operand(0, u64::from(crc))
}

/// Addition with a carry that is CF and no other flag.
fn adcx<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    add_with(exec, bits::CF)
}

/// The same with OF.
fn adox<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    add_with(exec, bits::OF)
}

fn add_with<C: Cpu>(exec: &mut Exec<'_, C>, flag: u64) -> Result<(), Stop> {
    let carry = u128::from(exec.regs.rflags & flag != 0);
    let sum = u128::from(exec.operand(0)?) + u128::from(exec.operand(1)?) + carry;
    let carry = sum >> width(exec) != 0;
    exec.set_flags(flag, if carry { flag } else { 0 });
    exec.set_operand(0, u64::try_from(sum & u128::from(u64::MAX)).unwrap_or(0))
}

/// Atomic whether it is locked or not: nobody can tell.
fn cmpxchg16b<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    const LEN: usize = 16;
    let linear = exec.aligned_address(0, LEN, 16, Access::Write)?;
    let gpa = exec.translate(linear, Access::Write, false)?;
    let pair = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let [rax, rcx, rdx, rbx, ..] = exec.regs.gpr;
    let expected = pair(rdx, rax);
    let found = exec.cpu.compare_exchange(gpa, LEN, expected, pair(rcx, rbx))?;
    let equal = found == expected;
    exec.set_flags(bits::ZF, if equal { bits::ZF } else { 0 });
    if !equal {
        exec.regs.gpr[gpr::RAX] = u64::try_from(found & u128::from(u64::MAX)).unwrap_or(0);
        exec.regs.gpr[gpr::RDX] = u64::try_from(found >> 64).unwrap_or(0);
    }
    Ok(())
}

/// A store whose way past the caches does not show.
fn store<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let value = exec.operand(1)?;
    exec.set_operand(0, value)
}

/// Moves 64 bytes to the aligned address in a register, in ES.
fn movdir64b<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    const LEN: usize = 64;
    let mut bytes = [0; LEN];
    let from = exec.address(1, LEN, Access::Read)?;
    exec.read(from, &mut bytes)?;
    let offset = exec.register(exec.insn.op0_register());
    let to = segment::linear(&exec.system, SegmentName::Es, offset, LEN, Access::Write)?;
    if !to.is_multiple_of(LEN as u64) {
        return Err(Exception::GP0.into());
    }
    exec.write(to, &bytes)
}

/// A stack frame with copies of the outer frames' pointers, which KVM leaves out.
fn enter<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    const RBP: usize = 5;
    let (size, level) = (exec.insn.immediate16(), exec.insn.immediate8_2nd() % 32);
    let len = match exec.insn.code() {
        Code::Enterw_imm16_imm8 => 2,
        Code::Enterd_imm16_imm8 => 4,
        _ => 8,
    };
    let mask = exec.system.stack_mask();
    let of_len = if len == 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
    let (old_sp, old_bp) = (exec.regs.gpr[gpr::RSP], exec.regs.gpr[RBP]);
    let step = u64::try_from(len).unwrap_or(0);
    let mut values = vec![old_bp];
    for outer in 1..u64::from(level) {
        let offset = old_bp.wrapping_sub(outer * step) & mask;
        let linear = segment::linear(&exec.system, SegmentName::Ss, offset, len, Access::Read)?;
        let mut bytes = [0; 8];
        exec.read(linear, &mut bytes[..len])?;
        values.push(u64::from_le_bytes(bytes));
    }
    let frame = old_sp.wrapping_sub(step) & mask;
    if level > 0 {
        values.push(frame);
    }
    // The last pushed is at the lowest address.
    let bytes: Vec<u8> =
        values.iter().rev().flat_map(|v| v.to_le_bytes().into_iter().take(len)).collect();
    let pushed = u64::try_from(bytes.len()).unwrap_or(0);
    let low = old_sp.wrapping_sub(pushed) & mask;
    let linear = segment::linear(&exec.system, SegmentName::Ss, low, bytes.len(), Access::Write)?;
    exec.write(linear, &bytes)?;
    let sp = low.wrapping_sub(u64::from(size)) & mask;
    // The new top must be writable as well.
    let top = segment::linear(&exec.system, SegmentName::Ss, sp, 1, Access::Write)?;
    exec.translate(top, Access::Write, false)?;
    exec.regs.gpr[gpr::RSP] = old_sp & !mask | sp;
    let full = if len == 4 { 0 } else { old_bp & !of_len };
    exec.regs.gpr[RBP] = full | frame & of_len;
    Ok(())
}

/// AL, AH and whether the low digit has to be adjusted.
fn digits<C: Cpu>(exec: &Exec<'_, C>) -> (u64, bool) {
    let ax = exec.regs.gpr[gpr::RAX] & 0xffff;
    (ax, ax & 0xf > 9 || exec.regs.rflags & bits::AF != 0)
}

fn set_ax<C: Cpu>(exec: &mut Exec<'_, C>, ax: u64) {
    let rax = &mut exec.regs.gpr[gpr::RAX];
    *rax = *rax & !0xffff | ax & 0xffff;
}

/// After an addition of unpacked digits.
fn aaa<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    adjust_unpacked(exec, 0x106);
    Ok(())
}

/// After a subtraction of unpacked digits.
fn aas<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    adjust_unpacked(exec, 0u64.wrapping_sub(0x106));
    Ok(())
}

/// Adds `carry` to AX if the low digit asks for it.
fn adjust_unpacked<C: Cpu>(exec: &mut Exec<'_, C>, carry: u64) {
    let (ax, adjust) = digits(exec);
    set_ax(exec, if adjust { ax.wrapping_add(carry) } else { ax } & 0xff0f);
    exec.set_flags(bits::AF | bits::CF, if adjust { bits::AF | bits::CF } else { 0 });
}

/// After an addition of packed digits.
fn daa<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let (ax, low) = digits(exec);
    let (high_part, old) = (ax & 0xff00, ax & 0xff);
    let high = old > 0x99 || exec.regs.rflags & bits::CF != 0;
    let adjusted = old + if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let al = adjusted & 0xff;
    set_ax(exec, high_part | al);
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    let value = flag(low, bits::AF)
        | flag(high, bits::CF)
        | flag(al == 0, bits::ZF)
        | flag(al & 0x80 != 0, bits::SF)
        | flag(al.count_ones() % 2 == 0, bits::PF);
    exec.set_flags(bits::AF | bits::CF | bits::ZF | bits::SF | bits::PF, value);
    Ok(())
}
