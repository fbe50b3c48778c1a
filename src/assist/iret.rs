//! The return from an interrupt in protected and IA-32e mode (Intel SDM vol. 2, IRET/IRETD/IRETQ):
//! frames of 16, 32 and 64 bits, to the same privilege level and to an outer one.
//!
//! Returns to virtual-8086 mode and to another task are not known here; real mode KVM knows itself.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, Exception, SystemRegisters, attributes, bits, gpr};
use super::descriptor::{self, Descriptor};
use super::exec::Exec;
use super::integer::ARITHMETIC;
use super::segment::{self, Access, SegmentName};
use super::stop::Stop;
use crate::boot::state::Segment;

/// The flags that every return sets, those that a return of 32 or 64 bits sets as well, and those
/// that take CPL 0 beside it.
const FLAGS: u64 = ARITHMETIC | bits::TF | bits::DF | bits::NT;
const WIDE_FLAGS: u64 = bits::RF | bits::AC | bits::ID;
const WIDE_SYSTEM_FLAGS: u64 = bits::VIF | bits::VIP;

/// Where IOPL is in the flags.
const IOPL_SHIFT: u32 = 12;

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Iret => |exec| iret(exec, 2),
        Mnemonic::Iretd => |exec| iret(exec, 4),
        Mnemonic::Iretq => |exec| iret(exec, 8),
        _ => return None,
    })
}

/// What an interrupt has pushed.
struct Frame {
    ip: u64,
    cs: u16,
    flags: u64,
    /// RSP and SS, if they are popped.
    stack: Option<(u64, u16)>,
    /// RSP behind the frame.
    end: u64,
}

fn iret<C: Cpu>(exec: &mut Exec<'_, C>, width: usize) -> Result<(), Stop> {
    let is_long = exec.system.is_long();
    if !exec.system.is_protected() || exec.regs.rflags & bits::VM != 0 {
        return Err(Stop::Unknown);
    }
    if exec.regs.rflags & bits::NT != 0 {
        // A return to the task that was interrupted, which IA-32e mode does not have.
        return Err(if is_long { Exception::GP0.into() } else { Stop::Unknown });
    }
    let cpl = exec.system.cpl();
    let frame = read_frame(exec, width)?;
    if width == 4 && !is_long && cpl == 0 && frame.flags & bits::VM != 0 {
        return Err(Stop::Unknown);
    }
    let code = read_code(exec, frame.cs, cpl)?;
    let new_cpl = rpl(frame.cs);
    let code = code.mark_accessed(exec)?;
    let mut system = SystemRegisters { cs: code.segment(frame.cs), ..exec.system };
    let reachable = if system.is_64_bit() {
        system.is_canonical(frame.ip)
    } else {
        frame.ip <= u64::from(system.cs.limit)
    };
    if !reachable {
        return Err(Exception::GP0.into());
    }
    exec.regs.gpr[gpr::RSP] = frame.end;
    if let Some((pointer, selector)) = frame.stack {
        system.ss = read_stack(exec, selector, new_cpl, system.is_64_bit())?;
        exec.regs.gpr[gpr::RSP] = merged(exec.regs.gpr[gpr::RSP], pointer, system.stack_mask());
    }
    if new_cpl > cpl {
        forget_inner_segments(&mut system, new_cpl);
    }
    exec.new_system = Some(system);
    exec.regs.rip = frame.ip;
    exec.set_flags(flags_set(exec.regs.rflags, cpl, width), frame.flags);
    // NMIs wait for this instruction since the last one (Intel SDM vol. 3, section 7.7.1).
    exec.cpu.unblock_nmis()?;
    Ok(())
}

fn rpl(selector: u16) -> u8 {
    u8::try_from(selector & 3).unwrap_or(0)
}

/// Pops the frame. Of a word that is a selector only the lower half counts.
fn read_frame<C: Cpu>(exec: &mut Exec<'_, C>, width: usize) -> Result<Frame, Stop> {
    let [ip, cs, flags] = pop(exec, width, 0)?;
    let cs = low_word(cs);
    let outer = rpl(cs) > exec.system.cpl();
    let mask = exec.system.stack_mask();
    let rsp = exec.regs.gpr[gpr::RSP];
    let popped = |words: u64| merged(rsp, rsp.wrapping_add(words * width as u64), mask);
    let mut frame = Frame { ip, cs, flags, stack: None, end: popped(3) };
    if outer || exec.system.is_64_bit() {
        let [pointer, ss] = pop(exec, width, 3)?;
        frame.stack = Some((pointer, low_word(ss)));
        frame.end = popped(5);
    }
    Ok(frame)
}

fn low_word(value: u64) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The words of the stack from the one numbered `first` on.
fn pop<C: Cpu, const N: usize>(
    exec: &mut Exec<'_, C>,
    width: usize,
    first: u64,
) -> Result<[u64; N], Stop> {
    let mask = exec.system.stack_mask();
    let mut words = [0; N];
    let mut at = exec.regs.gpr[gpr::RSP].wrapping_add(first * width as u64);
    for word in &mut words {
        let linear =
            segment::linear(&exec.system, SegmentName::Ss, at & mask, width, Access::Read)?;
        let mut bytes = [0; 8];
        exec.read(linear, &mut bytes[..width])?;
        *word = u64::from_le_bytes(bytes);
        at = at.wrapping_add(width as u64);
    }
    Ok(words)
}

fn merged(old: u64, new: u64, mask: u64) -> u64 {
    old & !mask | new & mask
}

/// The code segment to return to, checked.
fn read_code<C: Cpu>(exec: &mut Exec<'_, C>, selector: u16, cpl: u8) -> Result<Descriptor, Stop> {
    let (is_long, rpl) = (exec.system.is_long(), rpl(selector));
    descriptor::load_code(exec, selector, 0, |code| {
        let conforming = code.has(attributes::CONFORMING);
        let level_fits = if conforming { code.dpl() <= rpl } else { code.dpl() == rpl };
        let both = code.has(attributes::LONG | attributes::BIG);
        rpl >= cpl && level_fits && !(is_long && both)
    })
}

/// The stack segment to return to, checked. To 64-bit code below CPL 3 it may be null.
fn read_stack<C: Cpu>(
    exec: &mut Exec<'_, C>,
    selector: u16,
    cpl: u8,
    to_64_bit: bool,
) -> Result<Segment, Stop> {
    if selector & !3 == 0 && to_64_bit && cpl < 3 && rpl(selector) == cpl {
        let attributes = u16::from(cpl) << attributes::DPL_SHIFT;
        return Ok(Segment { selector, attributes, ..Segment::default() });
    }
    descriptor::load_stack(exec, selector, cpl, Exception::gp, 0)
}

/// What an outer level must not have: ES, FS, GS and DS that are data or nonconforming code of an
/// inner one become null.
fn forget_inner_segments(system: &mut SystemRegisters, cpl: u8) {
    for segment in [&mut system.es, &mut system.fs, &mut system.gs, &mut system.ds] {
        let conforming = attributes::CODE | attributes::CONFORMING;
        let inner = attributes::dpl(segment.attributes) < cpl;
        if inner && segment.attributes & conforming != conforming {
            *segment = Segment { base: segment.base, ..Segment::default() };
        }
    }
}

/// The flags that the return takes from the frame.
fn flags_set(now: u64, cpl: u8, width: usize) -> u64 {
    let iopl = u8::try_from(now >> IOPL_SHIFT & 3).unwrap_or(0);
    let wide = width > 2;
    let mut set = FLAGS;
    set |= if wide { WIDE_FLAGS } else { 0 };
    set |= if cpl <= iopl { bits::IF } else { 0 };
    set |= if cpl == 0 { bits::RFLAGS_IOPL_3 } else { 0 };
    set |= if cpl == 0 && wide { WIDE_SYSTEM_FLAGS } else { 0 };
    set
}
