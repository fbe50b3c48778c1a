//! The x87 instructions that keep its state in order: what an operating system does with it, not
//! arithmetic (Intel SDM vol. 1, section 8.1 and chapter 10; vol. 2).

use iced_x86::{Code, Mnemonic};

use super::Handler;
use super::cpu::{Cpu, Exception, bits};
use super::exec::Exec;
use super::extended::{Extended, FCW, FCW_INIT, FDP, FIP, FOP, FSW, FTW, MXCSR, SSE, ST0, X87};
use super::segment::Access;
use super::stop::Stop;

/// FSW: the exception flags, stack fault included; the summary; TOP's place; busy.
const FSW_FLAGS: u16 = 0x7f;
const FSW_SUMMARY: u16 = 1 << 7;
const FSW_TOP_SHIFT: u32 = 11;
const FSW_BUSY: u16 = 1 << 15;

/// FCW: the exception masks.
const FCW_MASKS: u16 = 0x3f;

/// Bit 6 of FCW reads as one, and bits 7, 13, 14 and 15 as zero.
const FCW_FIXED: u16 = 1 << 6;
const FCW_USED: u16 = 0x1f7f;

/// The environment of FNSTENV in protected mode: 16- and 32-bit formats.
const ENV16_LEN: usize = 14;
const ENV32_LEN: usize = 28;

/// A register as FNSAVE stores it.
const REGISTER_LEN: usize = 10;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Wait => fwait,
        Mnemonic::Fninit => fninit,
        Mnemonic::Fnclex => fnclex,
        Mnemonic::Fnop => fnop,
        Mnemonic::Fnstcw => fnstcw,
        Mnemonic::Fnstsw => fnstsw,
        Mnemonic::Fldcw => fldcw,
        Mnemonic::Fnstenv => fnstenv,
        Mnemonic::Fldenv => fldenv,
        Mnemonic::Fnsave => fnsave,
        Mnemonic::Frstor => frstor,
        Mnemonic::Emms => emms,
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => ldmxcsr,
        Mnemonic::Stmxcsr | Mnemonic::Vstmxcsr => stmxcsr,
        _ => return None,
    })
}

/// #NM where there is to be no x87 for now.
fn needs_x87<C: Cpu>(exec: &Exec<'_, C>) -> Result<(), Stop> {
    let off = exec.system.cr0 & (bits::CR0_EM | bits::CR0_TS) != 0;
    if off { Err(Exception::NM.into()) } else { Ok(()) }
}

/// #MF for an unmasked exception that is pending. Without CR0.NE it would be the interrupt of an
/// external wire, which is not known here.
fn needs_no_exception<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let pending = status(exec.extended()?) & FSW_SUMMARY != 0;
    match (pending, exec.system.cr0 & bits::CR0_NE != 0) {
        (false, _) => Ok(()),
        (true, true) => Err(Exception::MF.into()),
        (true, false) => Err(Stop::Unknown),
    }
}

/// FWAIT: #NM if both CR0.MP and CR0.TS are set.
fn fwait<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let both = bits::CR0_MP | bits::CR0_TS;
    if exec.system.cr0 & both == both {
        return Err(Exception::NM.into());
    }
    needs_no_exception(exec)
}

fn fnop<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_no_exception(exec)
}

/// The control word of a state that may be the initial one.
fn control(extended: &Extended) -> u16 {
    if extended.in_use() & X87 == 0 { FCW_INIT } else { extended.word(FCW) }
}

fn status(extended: &Extended) -> u16 {
    if extended.in_use() & X87 == 0 { 0 } else { extended.word(FSW) }
}

/// Sets the control and status words; the summary and busy bits follow from the two.
fn set_control_and_status(extended: &mut Extended, control: u16, status: u16) {
    let control = control & FCW_USED | FCW_FIXED;
    let pending = status & !control & FCW_MASKS != 0;
    let summary = if pending { FSW_SUMMARY | FSW_BUSY } else { 0 };
    let status = status & !(FSW_SUMMARY | FSW_BUSY) | summary;
    extended.touch(X87);
    extended.set(FCW, &control.to_le_bytes());
    extended.set(FSW, &status.to_le_bytes());
}

fn fninit<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    initialize(exec.extended()?);
    Ok(())
}

/// Control and status words, tags and pointers; the registers keep what they have.
fn initialize(extended: &mut Extended) {
    extended.touch(X87);
    extended.set(FCW, &[0; MXCSR]);
    extended.set(FCW, &FCW_INIT.to_le_bytes());
}

fn fnclex<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    let extended = exec.extended()?;
    let cleared = status(extended) & !(FSW_FLAGS | FSW_SUMMARY | FSW_BUSY);
    set_control_and_status(extended, control(extended), cleared);
    Ok(())
}

fn fnstcw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    let value = control(exec.extended()?);
    exec.set_operand(0, u64::from(value))
}

fn fnstsw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    let value = status(exec.extended()?);
    exec.set_operand(0, u64::from(value))
}

fn fldcw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_no_exception(exec)?;
    let value = word_of(exec.operand(0)?);
    let extended = exec.extended()?;
    set_control_and_status(extended, value, status(extended));
    Ok(())
}

fn word_of(value: u64) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

/// All tags empty, TOP 0.
fn emms<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    if exec.system.cr0 & bits::CR0_EM != 0 {
        return Err(Exception::UD.into());
    }
    needs_x87(exec)?;
    needs_no_exception(exec)?;
    let extended = exec.extended()?;
    let status = status(extended) & !(7 << FSW_TOP_SHIFT);
    set_control_and_status(extended, control(extended), status);
    extended.set(FTW, &[0]);
    Ok(())
}

/// Whether an environment is in the 32-bit format.
fn is_wide<C: Cpu>(exec: &Exec<'_, C>) -> bool {
    matches!(
        exec.insn.code(),
        Code::Fnstenv_m28byte
            | Code::Fldenv_m28byte
            | Code::Fnsave_m108byte
            | Code::Frstor_m108byte
    )
}

/// The environment in its protected-mode formats; real mode's, which KVM does not leave to us, are
/// not known here.
fn needs_protected_mode<C: Cpu>(exec: &Exec<'_, C>) -> Result<(), Stop> {
    let good = exec.system.is_protected() && exec.regs.rflags & bits::VM == 0;
    if good { Ok(()) } else { Err(Stop::Unknown) }
}

/// Control, status, full tags, instruction pointer and opcode, data pointer. The selectors of the
/// pointers are zero, as on processors that have deprecated them (section 8.1.8): the state that
/// the host keeps has none.
fn environment(extended: &Extended, wide: bool) -> Vec<u8> {
    let used = extended.in_use() & X87 != 0;
    let dword = |offset| if used { extended.dword(offset) } else { 0 };
    let opcode = (dword(FOP) & 0x7ff) << 16;
    let (ip, dp) = (dword(FIP), dword(FDP));
    let words = [control(extended), status(extended), full_tags(extended)];
    if wide {
        let words = words.map(|word| 0xffff_0000 | u32::from(word));
        let rest = [ip, opcode, dp, 0xffff_0000];
        return words.into_iter().chain(rest).flat_map(u32::to_le_bytes).collect();
    }
    let [ip, dp] = [ip, dp].map(|pointer| word_of(u64::from(pointer)));
    words.into_iter().chain([ip, 0, dp, 0]).flat_map(u16::to_le_bytes).collect()
}

/// Two bits a register: valid, zero, special or empty, from the one bit that FXSAVE keeps and the
/// register's contents (Intel SDM vol. 1, table 10-2).
fn full_tags(extended: &Extended) -> u16 {
    const EMPTY: u16 = 3;
    if extended.in_use() & X87 == 0 {
        return u16::MAX;
    }
    let [used] = extended.bytes(FTW);
    let top = usize::from(extended.word(FSW) >> FSW_TOP_SHIFT & 7);
    (0..8).fold(0, |tags, physical: usize| {
        let tag = if used >> physical & 1 == 0 {
            EMPTY
        } else {
            let place = ST0 + 16 * (physical.wrapping_sub(top) & 7);
            tag_of(u64::from_le_bytes(extended.bytes(place)), extended.word(place + 8))
        };
        tags | tag << (2 * physical)
    })
}

fn tag_of(significand: u64, sign_and_exponent: u16) -> u16 {
    let (valid, zero, special) = (0, 1, 2);
    match sign_and_exponent & 0x7fff {
        0 if significand == 0 => zero,
        0 | 0x7fff => special,
        _ if significand >> 63 == 0 => special,
        _ => valid,
    }
}

fn load_environment(extended: &mut Extended, bytes: &[u8], wide: bool) {
    let unit = if wide { 4 } else { 2 };
    let word = |index: usize| match bytes.get(unit * index..) {
        Some([low, high, ..]) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    extended.touch(X87);
    let tags = word(2);
    let used =
        (0..8).fold(
            0u8,
            |used, register| {
                if tags >> (2 * register) & 3 == 3 { used } else { used | 1 << register }
            },
        );
    extended.set(FTW, &[used]);
    extended.set(FIP, &[0; 16]);
    let pointer = |index: usize| bytes.get(unit * index..unit * (index + 1)).unwrap_or(&[]);
    extended.set(FIP, pointer(3));
    extended.set(FDP, pointer(5));
    if wide {
        let opcode = match pointer(4) {
            [_, _, low, high] => u16::from_le_bytes([*low, *high]) & 0x7ff,
            _ => 0,
        };
        extended.set(FOP, &opcode.to_le_bytes());
    }
    set_control_and_status(extended, word(0), word(1));
}

fn environment_len(wide: bool) -> usize {
    if wide { ENV32_LEN } else { ENV16_LEN }
}

/// Stores the environment and masks all exceptions.
fn fnstenv<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_protected_mode(exec)?;
    let wide = is_wide(exec);
    let bytes = environment(exec.extended()?, wide);
    let linear = exec.address(0, bytes.len(), Access::Write)?;
    exec.write(linear, &bytes)?;
    let extended = exec.extended()?;
    set_control_and_status(extended, control(extended) | FCW_MASKS, status(extended));
    Ok(())
}

fn fldenv<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_protected_mode(exec)?;
    needs_no_exception(exec)?;
    let wide = is_wide(exec);
    let mut bytes = vec![0; environment_len(wide)];
    let linear = exec.address(0, bytes.len(), Access::Read)?;
    exec.read(linear, &mut bytes)?;
    load_environment(exec.extended()?, &bytes, wide);
    Ok(())
}

/// Stores the environment and the registers, and initializes.
fn fnsave<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_protected_mode(exec)?;
    let wide = is_wide(exec);
    let extended = exec.extended()?;
    let mut bytes = environment(extended, wide);
    let used = extended.in_use() & X87 != 0;
    for register in 0..8 {
        let value: [u8; REGISTER_LEN] = extended.bytes(ST0 + 16 * register);
        bytes.extend(if used { value } else { [0; REGISTER_LEN] });
    }
    let linear = exec.address(0, bytes.len(), Access::Write)?;
    exec.write(linear, &bytes)?;
    initialize(exec.extended()?);
    Ok(())
}

fn frstor<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_x87(exec)?;
    needs_protected_mode(exec)?;
    needs_no_exception(exec)?;
    let wide = is_wide(exec);
    let environment_len = environment_len(wide);
    let mut bytes = vec![0; environment_len + 8 * REGISTER_LEN];
    let linear = exec.address(0, bytes.len(), Access::Read)?;
    exec.read(linear, &mut bytes)?;
    let (environment, registers) = bytes.split_at(environment_len);
    let extended = exec.extended()?;
    load_environment(extended, environment, wide);
    for (register, value) in registers.chunks_exact(REGISTER_LEN).enumerate() {
        extended.set(ST0 + 16 * register, value);
    }
    Ok(())
}

/// #UD or #NM where there is to be no SSE for now.
pub fn needs_sse<C: Cpu>(exec: &Exec<'_, C>) -> Result<(), Stop> {
    let system = &exec.system;
    if system.cr0 & bits::CR0_EM != 0 || system.cr4 & bits::CR4_OSFXSR == 0 {
        return Err(Exception::UD.into());
    }
    if system.cr0 & bits::CR0_TS != 0 { Err(Exception::NM.into()) } else { Ok(()) }
}

/// #GP(0) for a bit that MXCSR does not have.
fn ldmxcsr<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_sse(exec)?;
    let value = u32::try_from(exec.operand(0)?).unwrap_or(u32::MAX);
    let extended = exec.extended()?;
    if value & !extended.mxcsr_mask() != 0 {
        return Err(Exception::GP0.into());
    }
    extended.touch(SSE);
    extended.set(MXCSR, &value.to_le_bytes());
    Ok(())
}

fn stmxcsr<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_sse(exec)?;
    let value = exec.extended()?.mxcsr();
    exec.set_operand(0, u64::from(value))
}
