//! XSAVE, XRSTOR and their variants (Intel SDM vol. 1, chapter 13).
//!
//! The vCPU's own state is in the standard format. The supervisor components that IA32_XSS can
//! select are not in what the host hands out: an instruction that names one is not known here.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, Exception, bits};
use super::exec::Exec;
use super::extended::{
    AVX, Component, EXTENDED_START, Extended, FCW, FCW_INIT, FDP, FIP, HEADER_LEN, LEGACY_LEN,
    MXCSR, MXCSR_INIT, SSE, ST0, X87, XMM_END, XMM0, component,
};
use super::segment::Access;
use super::stop::Stop;

/// IA32_XSS.
const XSS: u32 = 0xda0;

/// XCOMP_BV: the format is the compacted one.
const COMPACTED: u64 = 1 << 63;

/// CPUID leaf 0xd, subleaf 1, EAX: XSAVEC and the compacted format exist.
const HAS_COMPACTION: u32 = 1 << 1;

/// The components whose later half belongs to registers that only 64-bit mode has, and the one
/// that belongs to such altogether.
const YMM: u32 = 2;
const ZMM_HI256: u32 = 6;
const HI16_ZMM: u32 = 7;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Xsave | Mnemonic::Xsave64 => xsave,
        Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => xsaveopt,
        Mnemonic::Xsavec | Mnemonic::Xsavec64 => xsavec,
        Mnemonic::Xsaves | Mnemonic::Xsaves64 => xsaves,
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => xrstor,
        Mnemonic::Xrstors | Mnemonic::Xrstors64 => xrstors,
        _ => return None,
    })
}

/// What an instruction is about.
struct Task {
    /// The linear address of the area.
    area: u64,
    /// The components that are both asked for and enabled: RFBM.
    components: u64,
    /// XCR0 and, for the privileged two, IA32_XSS.
    enabled: u64,
}

/// The checks that all have in common.
fn begin<C: Cpu>(exec: &mut Exec<'_, C>, privileged: bool, access: Access) -> Result<Task, Stop> {
    if exec.system.cr4 & bits::CR4_OSXSAVE == 0 {
        return Err(Exception::UD.into());
    }
    if exec.system.cr0 & bits::CR0_TS != 0 {
        return Err(Exception::NM.into());
    }
    if privileged {
        exec.needs_cpl0(Exception::GP0)?;
    }
    let area = exec.aligned_address(0, EXTENDED_START, 64, access)?;
    let xcr0 = exec.cpu.xcr0()?;
    let xss = if privileged { exec.cpu.msr(XSS)?.unwrap_or(0) } else { 0 };
    let enabled = xcr0 | xss;
    let components = enabled & exec.edx_eax();
    if components & xss != 0 {
        return Err(Stop::Unknown);
    }
    Ok(Task { area, components, enabled })
}

/// The components from number 2 on that are in `set`, each with where the vCPU's state has it.
fn extended_components<C: Cpu>(
    exec: &mut Exec<'_, C>,
    set: u64,
) -> Result<Vec<(u32, Component)>, Stop> {
    let len = exec.extended()?.area().len();
    let mut found = Vec::new();
    for number in (2..63).filter(|number| set >> number & 1 != 0) {
        let place = component(exec.cpu, number)?.ok_or(Stop::Unknown)?;
        if place.offset.checked_add(place.len).is_none_or(|end| end > len) {
            return Err(Stop::Unknown);
        }
        found.push((number, place));
    }
    Ok(found)
}

/// Where each of the components in `set` is in an area of the compacted format.
fn compacted_offsets(components: &[(u32, Component)]) -> Vec<usize> {
    let mut next = EXTENDED_START;
    let place = |(_, component): &(u32, Component)| {
        let offset = if component.aligned { next.next_multiple_of(64) } else { next };
        next = offset + component.len;
        offset
    };
    components.iter().map(place).collect()
}

/// How much of a component the instruction touches.
fn touched(number: u32, component: Component, is_64_bit: bool) -> usize {
    match number {
        YMM | ZMM_HI256 if !is_64_bit => component.len / 2,
        HI16_ZMM if !is_64_bit => 0,
        _ => component.len,
    }
}

fn xmm_end(is_64_bit: bool) -> usize {
    if is_64_bit { XMM_END } else { XMM0 + 128 }
}

/// Whether the pointers of the x87 state are 64 bits wide: by REX.W.
fn is_wide<C: Cpu>(exec: &Exec<'_, C>) -> bool {
    matches!(
        exec.insn.mnemonic(),
        Mnemonic::Xsave64
            | Mnemonic::Xsaveopt64
            | Mnemonic::Xsavec64
            | Mnemonic::Xsaves64
            | Mnemonic::Xrstor64
            | Mnemonic::Xrstors64
    )
}

fn xsave<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    save_standard(exec, false)
}

/// Leaves out what is in its initial state; it might also leave out what has not changed since.
fn xsaveopt<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    save_standard(exec, true)
}

fn xsavec<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    save_compacted(exec, false)
}

fn xsaves<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    save_compacted(exec, true)
}

fn save_standard<C: Cpu>(exec: &mut Exec<'_, C>, optimize: bool) -> Result<(), Stop> {
    let Task { area, components, .. } = begin(exec, false, Access::Write)?;
    let in_use = exec.extended()?.in_use();
    let written = if optimize { components & in_use } else { components };
    save_legacy(exec, area, written, components & (SSE | AVX) != 0)?;
    for (number, place) in extended_components(exec, written)? {
        save_component(exec, area, number, place, place.offset)?;
    }
    let header = area.wrapping_add(LEGACY_LEN as u64);
    let mut old = [0; 8];
    exec.read(header, &mut old)?;
    let new = u64::from_le_bytes(old) & !components | in_use & components;
    exec.write(header, &new.to_le_bytes())
}

fn save_compacted<C: Cpu>(exec: &mut Exec<'_, C>, privileged: bool) -> Result<(), Stop> {
    let Task { area, components, .. } = begin(exec, privileged, Access::Write)?;
    let extended = exec.extended()?;
    let sse = if extended.mxcsr() == MXCSR_INIT { 0 } else { SSE };
    let written = components & (extended.in_use() | sse);
    save_legacy(exec, area, written, written & SSE != 0)?;
    let places = extended_components(exec, components)?;
    for ((number, place), offset) in places.iter().zip(compacted_offsets(&places)) {
        if written >> number & 1 != 0 {
            save_component(exec, area, *number, *place, offset)?;
        }
    }
    let header = [written, components | COMPACTED].map(u64::to_le_bytes);
    exec.write(area.wrapping_add(LEGACY_LEN as u64), header.as_flattened())
}

/// The legacy region, as far as `components` tell, and MXCSR with its mask if `mxcsr`.
fn save_legacy<C: Cpu>(
    exec: &mut Exec<'_, C>,
    area: u64,
    components: u64,
    mxcsr: bool,
) -> Result<(), Stop> {
    let (wide, is_64_bit) = (is_wide(exec), exec.system.is_64_bit());
    let mut legacy: [u8; LEGACY_LEN] = exec.extended()?.bytes(0);
    let in_use = exec.extended()?.in_use();
    if in_use & X87 == 0 {
        initialize_x87(&mut legacy);
    }
    if in_use & SSE == 0 {
        legacy[XMM0..XMM_END].fill(0);
    }
    if !wide {
        // Then the upper halves are those of the pointers' selectors.
        legacy[FIP + 4..FIP + 8].fill(0);
        legacy[FDP + 4..FDP + 8].fill(0);
    }
    let mut write =
        |from: usize, to: usize| exec.write(area.wrapping_add(from as u64), &legacy[from..to]);
    if components & X87 != 0 {
        write(FCW, MXCSR)?;
        write(ST0, XMM0)?;
    }
    if mxcsr {
        write(MXCSR, ST0)?;
    }
    if components & SSE != 0 {
        write(XMM0, xmm_end(is_64_bit))?;
    }
    Ok(())
}

fn initialize_x87(legacy: &mut [u8; LEGACY_LEN]) {
    legacy[..MXCSR].fill(0);
    legacy[ST0..XMM0].fill(0);
    legacy[FCW..FCW + 2].copy_from_slice(&FCW_INIT.to_le_bytes());
}

fn save_component<C: Cpu>(
    exec: &mut Exec<'_, C>,
    area: u64,
    number: u32,
    place: Component,
    offset: usize,
) -> Result<(), Stop> {
    let len = touched(number, place, exec.system.is_64_bit());
    let extended = exec.extended()?;
    let in_use = extended.in_use() >> number & 1 != 0;
    let bytes = extended.area().get(place.offset..place.offset + len).unwrap_or(&[]);
    let bytes = if in_use { bytes.to_vec() } else { vec![0; len] };
    exec.write(area.wrapping_add(offset as u64), &bytes)
}

fn xrstor<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    restore(exec, false)
}

fn xrstors<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    restore(exec, true)
}

fn restore<C: Cpu>(exec: &mut Exec<'_, C>, privileged: bool) -> Result<(), Stop> {
    let task = begin(exec, privileged, Access::Read)?;
    let Task { area, components, enabled } = task;
    let mut header = [0; HEADER_LEN];
    exec.read(area.wrapping_add(LEGACY_LEN as u64), &mut header)?;
    let (in_area, format) = check_header(exec, &header, enabled, privileged)?;
    let compacted = format & COMPACTED != 0;
    // In the standard format MXCSR is loaded with AVX as well, and whatever XSTATE_BV says.
    let mxcsr = if compacted {
        (components & SSE != 0).then_some(in_area & SSE != 0)
    } else {
        (components & (SSE | AVX) != 0).then_some(true)
    };
    restore_legacy(exec, area, components, in_area, mxcsr)?;
    let all = if compacted { format & !COMPACTED } else { components };
    let places = extended_components(exec, all)?;
    let offsets = if compacted {
        compacted_offsets(&places)
    } else {
        places.iter().map(|(_, place)| place.offset).collect()
    };
    for ((number, place), offset) in places.into_iter().zip(offsets) {
        if components >> number & 1 != 0 && in_area >> number & 1 != 0 {
            restore_component(exec, area, number, place, offset)?;
        }
    }
    let extended = exec.extended()?;
    // An MXCSR that is not the initial one makes SSE be in use.
    let sse = if extended.mxcsr() == MXCSR_INIT { 0 } else { SSE };
    let in_use = extended.in_use() & !components | in_area & components;
    if sse & !in_use != 0 {
        extended.set(XMM0, &[0; XMM_END - XMM0]);
    }
    extended.set_in_use(in_use | sse);
    Ok(())
}

/// XSTATE_BV and XCOMP_BV of a header that is as it must be; #GP(0) for any other (sections 13.8
/// and 13.12).
fn check_header<C: Cpu>(
    exec: &mut Exec<'_, C>,
    header: &[u8; HEADER_LEN],
    enabled: u64,
    privileged: bool,
) -> Result<(u64, u64), Stop> {
    let (words, _) = header.as_chunks::<8>();
    let [in_area, format, third, rest @ ..] = words else { return Err(Stop::Unknown) };
    let (in_area, format) = (u64::from_le_bytes(*in_area), u64::from_le_bytes(*format));
    let zero = |word: &[u8; 8]| *word == [0; 8];
    let compacted = format & COMPACTED != 0;
    let good = if compacted {
        let [features, ..] = exec.cpu.cpuid(0xd, 1)?;
        features & HAS_COMPACTION != 0
            && format & !COMPACTED & !enabled == 0
            && in_area & !format == 0
            && in_area & COMPACTED == 0
            && zero(third)
            && rest.iter().all(zero)
    } else {
        !privileged && format == 0 && zero(third) && in_area & !enabled == 0
    };
    if good { Ok((in_area, format)) } else { Err(Exception::GP0.into()) }
}

/// x87 and SSE. `mxcsr`: none if it stays; whether it is loaded, or initialized.
fn restore_legacy<C: Cpu>(
    exec: &mut Exec<'_, C>,
    area: u64,
    components: u64,
    in_area: u64,
    mxcsr: Option<bool>,
) -> Result<(), Stop> {
    let (wide, is_64_bit) = (is_wide(exec), exec.system.is_64_bit());
    let mut legacy = [0; LEGACY_LEN];
    exec.read(area, &mut legacy)?;
    if !wide {
        legacy[FIP + 4..FIP + 8].fill(0);
        legacy[FDP + 4..FDP + 8].fill(0);
    }
    let mut new_mxcsr = [0; 4];
    new_mxcsr.copy_from_slice(&legacy[MXCSR..MXCSR + 4]);
    let new_mxcsr = u32::from_le_bytes(new_mxcsr);
    let extended = exec.extended()?;
    if mxcsr == Some(true) && new_mxcsr & !extended.mxcsr_mask() != 0 {
        return Err(Exception::GP0.into());
    }
    if components & X87 != 0 {
        if in_area & X87 == 0 {
            initialize_x87(&mut legacy);
        }
        extended.set(FCW, &legacy[FCW..MXCSR]);
        extended.set(ST0, &legacy[ST0..XMM0]);
    }
    if let Some(load) = mxcsr {
        let value = if load { new_mxcsr } else { MXCSR_INIT };
        extended.set(MXCSR, &value.to_le_bytes());
    }
    if components & SSE != 0 {
        if extended.in_use() & SSE == 0 {
            extended.set(XMM0, &[0; XMM_END - XMM0]);
        }
        if in_area & SSE == 0 {
            legacy[XMM0..XMM_END].fill(0);
        }
        extended.set(XMM0, &legacy[XMM0..xmm_end(is_64_bit)]);
    }
    Ok(())
}

fn restore_component<C: Cpu>(
    exec: &mut Exec<'_, C>,
    area: u64,
    number: u32,
    place: Component,
    offset: usize,
) -> Result<(), Stop> {
    let len = touched(number, place, exec.system.is_64_bit());
    let mut bytes = vec![0; len];
    exec.read(area.wrapping_add(offset as u64), &mut bytes)?;
    let extended = exec.extended()?;
    let was_in_use = extended.in_use() >> number & 1 != 0;
    if !was_in_use {
        clear(extended, place);
    }
    extended.set(place.offset, &bytes);
    Ok(())
}

fn clear(extended: &mut Extended, place: Component) {
    extended.set(place.offset, &vec![0; place.len]);
}
