//! Instructions about the processor itself: its flags for paging, extended state, clocks and
//! translations.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, Exception, bits, gpr};
use super::exec::Exec;
use super::extended::{AVX, SSE, X87};
use super::segment::Access;
use super::stop::Stop;

/// IA32_TIME_STAMP_COUNTER and IA32_TSC_AUX.
const TSC: u32 = 0x10;
const TSC_AUX: u32 = 0xc000_0103;

/// The length of an INVPCID descriptor.
const INVPCID_LEN: usize = 16;

pub(super) fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Clac => clac,
        Mnemonic::Stac => stac,
        Mnemonic::Xgetbv => xgetbv,
        Mnemonic::Xsetbv => xsetbv,
        Mnemonic::Rdpkru => rdpkru,
        Mnemonic::Wrpkru => wrpkru,
        Mnemonic::Invpcid => invpcid,
        Mnemonic::Rdtscp => rdtscp,
        Mnemonic::Rdpid => rdpid,
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => flush_line,
        Mnemonic::Endbr32 | Mnemonic::Endbr64 | Mnemonic::Cldemote | Mnemonic::Serialize => nothing,
        _ => return None,
    })
}

fn clac<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    exec.needs_cpl0(Exception::UD)?;
    exec.set_flags(bits::AC, 0);
    Ok(())
}

fn stac<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    exec.needs_cpl0(Exception::UD)?;
    exec.set_flags(bits::AC, bits::AC);
    Ok(())
}

/// #UD while CR4.OSXSAVE is clear.
fn needs_osxsave<C: Cpu>(exec: &Exec<'_, C>) -> Result<(), Stop> {
    let on = exec.system.cr4 & bits::CR4_OSXSAVE != 0;
    if on { Ok(()) } else { Err(Exception::UD.into()) }
}

/// XCR0, or with ECX = 1 those of its components that are in use.
fn xgetbv<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_osxsave(exec)?;
    let xcr0 = exec.cpu.xcr0()?;
    let value = match exec.ecx() {
        0 => xcr0,
        1 => xcr0 & exec.extended()?.in_use(),
        _ => return Err(Exception::GP0.into()),
    };
    exec.set_edx_eax(value);
    Ok(())
}

/// The combinations that the architecture refuses are refused here, those that this CPU does by the
/// host (Intel SDM vol. 1, section 13.3).
fn xsetbv<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_osxsave(exec)?;
    exec.needs_cpl0(Exception::GP0)?;
    let value = exec.edx_eax();
    let [low, _, _, high] = exec.cpu.cpuid(0xd, 0)?;
    let supported = u64::from(high) << 32 | u64::from(low);
    let avx_without_sse = value & (AVX | SSE) == AVX;
    if exec.ecx() != 0 || value & X87 == 0 || value & !supported != 0 || avx_without_sse {
        return Err(Exception::GP0.into());
    }
    match exec.cpu.set_xcr0(value) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(Exception::GP0.into())
        }
        result => Ok(result?),
    }
}

/// ECX must be 0, and protection keys on.
fn needs_pkru<C: Cpu>(exec: &Exec<'_, C>) -> Result<(), Stop> {
    if exec.system.cr4 & bits::CR4_PKE == 0 {
        return Err(Exception::UD.into());
    }
    if exec.ecx() == 0 { Ok(()) } else { Err(Exception::GP0.into()) }
}

fn rdpkru<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_pkru(exec)?;
    let value = exec.extended()?.pkru();
    exec.set_edx_eax(u64::from(value));
    Ok(())
}

fn wrpkru<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    needs_pkru(exec)?;
    let value = exec.edx_eax();
    let Ok(value) = u32::try_from(value) else { return Err(Exception::GP0.into()) };
    exec.extended()?.set_pkru(value);
    Ok(())
}

/// All translations go, whichever the type asks for: a processor may drop more than it must.
fn invpcid<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    const ADDRESS: u64 = 0;
    const CONTEXT: u64 = 1;
    const ALL_NOT_GLOBAL: u64 = 3;
    exec.needs_cpl0(Exception::GP0)?;
    let linear = exec.address(1, INVPCID_LEN, Access::Read)?;
    let mut bytes = [0; INVPCID_LEN];
    exec.read(linear, &mut bytes)?;
    let kind = exec.register(exec.insn.op0_register());
    let descriptor = u128::from_le_bytes(bytes);
    let reserved = descriptor >> 12 & ((1 << 52) - 1);
    let address = u64::try_from(descriptor >> 64).unwrap_or(0);
    let needs_zero_pcid = matches!(kind, ADDRESS | CONTEXT)
        && exec.system.cr4 & bits::CR4_PCIDE == 0
        && descriptor & 0xfff != 0;
    let strange = kind == ADDRESS && !exec.system.is_canonical(address);
    if kind > ALL_NOT_GLOBAL || reserved != 0 || needs_zero_pcid || strange {
        return Err(Exception::GP0.into());
    }
    Ok(exec.cpu.flush_translations()?)
}

fn rdtscp<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    if exec.system.cr4 & bits::CR4_TSD != 0 {
        exec.needs_cpl0(Exception::GP0)?;
    }
    let tsc = exec.cpu.msr(TSC)?.ok_or(Stop::Unknown)?;
    let aux = exec.cpu.msr(TSC_AUX)?.ok_or(Exception::UD)?;
    exec.set_edx_eax(tsc);
    exec.regs.gpr[gpr::RCX] = aux & 0xffff_ffff;
    Ok(())
}

fn rdpid<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let aux = exec.cpu.msr(TSC_AUX)?.ok_or(Exception::UD)?;
    exec.set_operand(0, aux & 0xffff_ffff)
}

/// Caches are coherent with all that can be seen from here: what is left of writing a line back is
/// the check that the address can be read.
fn flush_line<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let linear = exec.address(0, 1, Access::Read)?;
    exec.translate(linear, Access::Read, false)?;
    Ok(())
}

/// What changes nothing that can be seen; coming here has serialized the vCPU.
fn nothing<C: Cpu>(_: &mut Exec<'_, C>) -> Result<(), Stop> {
    Ok(())
}
