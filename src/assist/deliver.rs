//! A software interrupt through the guest's interrupt descriptor table (Intel SDM vol. 3, sections
//! 7.11 to 7.14; vol. 2, INT n): 16- and 32-bit gates and those of IA-32e mode, with the switch of
//! stacks when the privilege level changes or an IST entry asks for one.
//!
//! Faults of a delivery are the guest's, and are raised as such. Task gates and virtual-8086 mode
//! are not known here; in real mode KVM itself knows all of this.

use super::cpu::{Cpu, Exception, SystemRegisters, attributes, bits, gpr};
use super::descriptor::{self, Descriptor};
use super::exec::Exec;
use super::segment::{self, Access, SegmentName};
use super::stop::Stop;
use crate::boot::state::Segment;

/// Bits of a selector's error code.
const EXTERNAL: u32 = 1;
const IN_IDT: u32 = 2;

/// Types of gates (section 3.5): bit 0 says trap gate, bit 3 says 32- or 64-bit.
const GATE_16: u16 = 6;
const GATE: u16 = 14;
const GATE_IS_TRAP: u16 = 1;

/// Where a TSS has the first stack pointer, and a 64-bit one its IST (sections 9.2.1 and 9.7).
const TSS64_RSP0: u64 = 4;
const TSS64_IST1: u64 = 0x24;
const TSS32_ESP0: u64 = 4;
const TSS16_SP0: u64 = 2;

/// A writable 32-bit data segment, for SS after a change to an inner level of IA-32e mode.
const FLAT_STACK: u16 = 0xc093;

/// What raises the interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// INT n, INT3 or INTO: the gate's DPL counts.
    Software,
    /// INT1: it does not, and error codes say "external".
    Privileged,
}

/// A gate that has passed its checks.
struct Gate {
    trap: bool,
    /// The width of what is pushed, in bytes: 2, 4 or 8.
    width: usize,
    selector: u16,
    offset: u64,
    stack: u8,
}

/// The stack to push to.
struct Stack {
    segment: Segment,
    pointer: u64,
    /// It is another than before, and the old one is pushed.
    switched: bool,
    /// The privilege level has changed.
    inner: bool,
}

/// Goes through the gate of `vector`: RIP, as it is, is where the handler returns to.
///
/// # Errors
///
/// A fault of the delivery.
pub fn interrupt<C: Cpu>(exec: &mut Exec<'_, C>, vector: u8, cause: Cause) -> Result<(), Stop> {
    if !exec.system.is_protected() || exec.regs.rflags & bits::VM != 0 {
        return Err(Stop::Unknown);
    }
    let external = if cause == Cause::Privileged { EXTERNAL } else { 0 };
    let gate = read_gate(exec, vector, cause, external)?;
    let code = read_code(exec, gate.selector, external)?;
    let cpl = exec.system.cpl();
    let conforming = code.has(attributes::CONFORMING);
    let inner = !conforming && code.dpl() < cpl;
    let new_cpl = if inner { code.dpl() } else { cpl };
    let stack = new_stack(exec, &gate, new_cpl, inner, external)?;
    let is_long = exec.system.is_long();
    let reachable = if is_long {
        exec.system.is_canonical(gate.offset)
    } else {
        gate.offset <= u64::from(code.limit())
    };
    if !reachable {
        return Err(Exception::gp(external).into());
    }
    let pointer = push_frame(exec, &gate, &stack, external)?;
    let code = code.mark_accessed(exec)?;
    let mut system = exec.system;
    system.cs = code.segment(gate.selector & !3 | u16::from(new_cpl));
    if stack.inner {
        system.ss = stack.segment;
    }
    exec.new_system = Some(system);
    exec.regs.gpr[gpr::RSP] = pointer;
    exec.regs.rip = gate.offset;
    let interrupts = if gate.trap { 0 } else { bits::IF };
    exec.regs.rflags &= !(bits::TF | bits::NT | bits::RF | bits::VM | interrupts);
    Ok(())
}

/// The offset that the gate of `vector` leads to, for an interrupt that is not a software one.
///
/// # Errors
///
/// The fault that its delivery would begin with.
pub fn target<C: Cpu>(exec: &mut Exec<'_, C>, vector: u8) -> Result<u64, Stop> {
    read_gate(exec, vector, Cause::Privileged, EXTERNAL).map(|gate| gate.offset)
}

fn read_gate<C: Cpu>(
    exec: &mut Exec<'_, C>,
    vector: u8,
    cause: Cause,
    external: u32,
) -> Result<Gate, Stop> {
    let is_long = exec.system.is_long();
    let entry_len = if is_long { 16 } else { 8 };
    let first = u64::from(vector) * entry_len;
    let error = u32::from(vector) << 3 | IN_IDT | external;
    if first + entry_len - 1 > u64::from(exec.system.idtr.limit) {
        return Err(Exception::gp(error).into());
    }
    let mut bytes = [0; 16];
    let at = exec.system.idtr.base.wrapping_add(first);
    let len = if is_long { 16 } else { 8 };
    exec.read_as_system(at, &mut bytes[..len])?;
    let both = u128::from_le_bytes(bytes);
    let low = u64::try_from(both & u128::from(u64::MAX)).unwrap_or(0);
    let descriptor = Descriptor::of(low);
    let kind = descriptor.kind();
    let known = kind & !GATE_IS_TRAP == GATE || !is_long && kind & !GATE_IS_TRAP == GATE_16;
    if descriptor.has(attributes::CODE_OR_DATA) || !known {
        // Type 5 is a task gate.
        let task = !is_long && kind == 5 && !descriptor.has(attributes::CODE_OR_DATA);
        return Err(if task { Stop::Unknown } else { Exception::gp(error).into() });
    }
    if cause == Cause::Software && descriptor.dpl() < exec.system.cpl() {
        return Err(Exception::gp(error).into());
    }
    if !descriptor.has(attributes::PRESENT) {
        return Err(Exception::np(error).into());
    }
    let wide = kind & GATE == GATE;
    let high = u64::try_from(both >> 64 & u128::from(u32::MAX)).unwrap_or(0);
    let offset = low & 0xffff | if wide { low >> 32 & 0xffff_0000 } else { 0 } | high << 32;
    Ok(Gate {
        trap: kind & GATE_IS_TRAP != 0,
        width: if is_long {
            8
        } else if wide {
            4
        } else {
            2
        },
        selector: u16::try_from(low >> 16 & 0xffff).unwrap_or(0),
        offset,
        stack: if is_long { u8::try_from(low >> 32 & 7).unwrap_or(0) } else { 0 },
    })
}

/// The code segment that a gate names, checked against the CPL.
fn read_code<C: Cpu>(
    exec: &mut Exec<'_, C>,
    selector: u16,
    external: u32,
) -> Result<Descriptor, Stop> {
    let (is_long, cpl) = (exec.system.is_long(), exec.system.cpl());
    descriptor::load_code(exec, selector, external, |code| {
        let width = code.attributes() & (attributes::LONG | attributes::BIG);
        code.dpl() <= cpl && (!is_long || width == attributes::LONG)
    })
}

fn new_stack<C: Cpu>(
    exec: &mut Exec<'_, C>,
    gate: &Gate,
    cpl: u8,
    inner: bool,
    external: u32,
) -> Result<Stack, Stop> {
    let pointer = exec.regs.gpr[gpr::RSP];
    let same = Stack { segment: exec.system.ss, pointer, switched: false, inner: false };
    if exec.system.is_long() {
        // In IA-32e mode SS and RSP are always pushed.
        let switched = Stack { switched: true, ..same };
        let at = match gate.stack {
            0 if !inner => {
                return Ok(Stack { pointer: pointer & !0xf, ..switched });
            }
            0 => TSS64_RSP0 + 8 * u64::from(cpl),
            entry => TSS64_IST1 + 8 * u64::from(entry - 1),
        };
        let pointer = u64::from_le_bytes(read_tss(exec, at, external)?);
        let selector = u16::from(cpl);
        let attributes = FLAT_STACK | selector << 5;
        let flat = Segment { selector, base: 0, limit: u32::MAX, attributes };
        let segment = if inner { flat } else { same.segment };
        return Ok(Stack { segment, pointer: pointer & !0xf, switched: true, inner });
    }
    if !inner {
        return Ok(same);
    }
    // Bit 3 of the type says 32-bit.
    let (selector, pointer) = if exec.system.tr.attributes & 8 != 0 {
        let bytes: [u8; 6] = read_tss(exec, TSS32_ESP0 + 8 * u64::from(cpl), external)?;
        let [a, b, c, d, e, f] = bytes;
        (u16::from_le_bytes([e, f]), u64::from(u32::from_le_bytes([a, b, c, d])))
    } else {
        let [a, b, c, d] = read_tss(exec, TSS16_SP0 + 4 * u64::from(cpl), external)?;
        (u16::from_le_bytes([c, d]), u64::from(u16::from_le_bytes([a, b])))
    };
    let segment = descriptor::load_stack(exec, selector, cpl, Exception::ts, external)?;
    Ok(Stack { segment, pointer, switched: true, inner: true })
}

/// Bytes of the TSS.
fn read_tss<C: Cpu, const N: usize>(
    exec: &mut Exec<'_, C>,
    at: u64,
    external: u32,
) -> Result<[u8; N], Stop> {
    let tr = exec.system.tr;
    if at + (N as u64) - 1 > u64::from(tr.limit) {
        return Err(Exception::ts(u32::from(tr.selector & !3) | external).into());
    }
    let mut bytes = [0; N];
    exec.read_as_system(tr.base.wrapping_add(at), &mut bytes)?;
    Ok(bytes)
}

/// Pushes what the handler returns to. Returns the stack pointer as it is then.
fn push_frame<C: Cpu>(
    exec: &mut Exec<'_, C>,
    gate: &Gate,
    stack: &Stack,
    external: u32,
) -> Result<u64, Stop> {
    let system = exec.system;
    let old = &exec.regs;
    let mut frame = vec![old.rip, u64::from(system.cs.selector), old.rflags & !bits::RF];
    if stack.switched {
        frame.extend([old.gpr[gpr::RSP], u64::from(system.ss.selector)]);
    }
    let bytes: Vec<u8> =
        frame.iter().flat_map(|value| value.to_le_bytes().into_iter().take(gate.width)).collect();
    let len = u64::try_from(bytes.len()).unwrap_or(0);
    let seen = SystemRegisters { ss: stack.segment, ..system };
    // A 16-bit stack has a 16-bit pointer, and keeps the rest of ESP. The handler's code is of 64
    // bits in IA-32e mode, whatever was interrupted.
    let mask = if system.is_long() { u64::MAX } else { seen.stack_mask() };
    let offset = stack.pointer.wrapping_sub(len) & mask;
    let linear = if system.is_long() {
        let last = offset.wrapping_add(len - 1);
        let good = system.is_canonical(offset) && system.is_canonical(last);
        good.then_some(offset).ok_or(Exception::ss(external))?
    } else {
        let error = if stack.inner { u32::from(stack.segment.selector & !3) } else { 0 };
        segment::linear(&seen, SegmentName::Ss, offset, bytes.len(), Access::Write)
            .map_err(|_| Exception::ss(error | external))?
    };
    if stack.inner {
        exec.write_as_system(linear, &bytes)?
    } else {
        exec.write(linear, &bytes)?
    }
    Ok(stack.pointer & !mask | offset)
}
