//! Segment descriptors (Intel SDM vol. 3, sections 3.4.5 and 6.2): how they are loaded for code and
//! for stacks, and the instructions that only look at them: VERR, VERW, LAR and LSL.

use iced_x86::Mnemonic;

use super::Handler;
use super::cpu::{Cpu, Exception, attributes, bits};
use super::exec::Exec;
use super::stop::Stop;
use crate::boot::state::{Segment, TableRegister};

/// The selector's bit that says LDT, and the bits of its index.
const TABLE_LOCAL: u16 = 1 << 2;
const INDEX: u16 = !7;

/// A segment's descriptor, or a gate's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Where its second half is, which has its access rights.
    rights_at: u64,
    value: u64,
}

impl Descriptor {
    /// One of this value, out of any table.
    pub fn of(value: u64) -> Self {
        Self { rights_at: 0, value }
    }

    /// As [`Segment::attributes`].
    pub fn attributes(self) -> u16 {
        u16::try_from(self.value >> 40 & 0xf0ff).unwrap_or(0)
    }

    /// Whether all of these attributes are set.
    pub fn has(self, attributes: u16) -> bool {
        self.attributes() & attributes == attributes
    }

    /// The DPL.
    pub fn dpl(self) -> u8 {
        attributes::dpl(self.attributes())
    }

    /// The type.
    pub fn kind(self) -> u16 {
        self.attributes() & 0xf
    }

    /// The base of a code or data segment.
    pub fn base(self) -> u64 {
        self.value >> 16 & 0xff_ffff | self.value >> 32 & 0xff00_0000
    }

    /// The limit in bytes.
    pub fn limit(self) -> u32 {
        let raw = self.value & 0xffff | self.value >> 32 & 0xf_0000;
        let bytes = if self.has(attributes::PAGES) { raw << 12 | 0xfff } else { raw };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// A segment register that has been loaded with it.
    pub fn segment(self, selector: u16) -> Segment {
        let (base, limit) = (self.base(), self.limit());
        Segment { selector, base, limit, attributes: self.attributes() }
    }

    fn is_conforming_code(self) -> bool {
        self.has(attributes::CODE_OR_DATA | attributes::CODE | attributes::CONFORMING)
    }

    /// Sets the accessed bit, here and in its table.
    pub fn mark_accessed<C: Cpu>(self, exec: &mut Exec<'_, C>) -> Result<Self, Stop> {
        const ACCESSED: u64 = 1 << 40;
        if self.value & ACCESSED == 0 {
            let [_, _, _, _, half @ ..] = (self.value | ACCESSED).to_le_bytes();
            exec.write_as_system(self.rights_at, &half)?;
        }
        Ok(Self { value: self.value | ACCESSED, ..self })
    }
}

/// The descriptor that a selector names; none for a null selector or one beyond its table.
pub fn load<C: Cpu>(exec: &mut Exec<'_, C>, selector: u16) -> Result<Option<Descriptor>, Stop> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let system = exec.system;
    let (base, limit) = if selector & TABLE_LOCAL == 0 {
        let TableRegister { base, limit } = system.gdtr;
        (base, u32::from(limit))
    } else if system.ldtr.attributes & attributes::PRESENT == 0 {
        return Ok(None);
    } else {
        (system.ldtr.base, system.ldtr.limit)
    };
    let offset = selector & INDEX;
    if u32::from(offset) + 7 > limit {
        return Ok(None);
    }
    let at = base.wrapping_add(u64::from(offset));
    let mut bytes = [0; 8];
    exec.read_as_system(at, &mut bytes)?;
    let value = u64::from_le_bytes(bytes);
    Ok(Some(Descriptor { rights_at: at.wrapping_add(4), value }))
}

/// The descriptor of a code segment that is to be run, if it is one and `fits`: #GP otherwise, and
/// #NP if it is absent. The error code is the selector and `external`.
pub fn load_code<C: Cpu>(
    exec: &mut Exec<'_, C>,
    selector: u16,
    external: u32,
    fits: impl FnOnce(Descriptor) -> bool,
) -> Result<Descriptor, Stop> {
    let error = u32::from(selector & !3) | external;
    let refused = Exception::gp(error);
    let code = load(exec, selector)?.ok_or(refused)?;
    if !code.has(attributes::CODE_OR_DATA | attributes::CODE) || !fits(code) {
        return Err(refused.into());
    }
    if !code.has(attributes::PRESENT) {
        return Err(Exception::np(error).into());
    }
    Ok(code)
}

/// The segment of a stack for `cpl`, marked as accessed: what is none is `refused`, and an absent
/// one #SS. The error code is the selector and `external`.
pub fn load_stack<C: Cpu>(
    exec: &mut Exec<'_, C>,
    selector: u16,
    cpl: u8,
    refused: fn(u32) -> Exception,
    external: u32,
) -> Result<Segment, Stop> {
    let error = u32::from(selector & !3) | external;
    let stack = load(exec, selector)?.ok_or(refused(error))?;
    let writable = attributes::CODE_OR_DATA | attributes::WRITABLE_OR_READABLE;
    let is_stack = stack.has(writable) && !stack.has(attributes::CODE);
    if selector & 3 != u16::from(cpl) || stack.dpl() != cpl || !is_stack {
        return Err(refused(error).into());
    }
    if !stack.has(attributes::PRESENT) {
        return Err(Exception::ss(error).into());
    }
    Ok(stack.mark_accessed(exec)?.segment(selector))
}

pub fn handler<C: Cpu>(mnemonic: Mnemonic) -> Option<Handler<C>> {
    Some(match mnemonic {
        Mnemonic::Verr => verr,
        Mnemonic::Verw => verw,
        Mnemonic::Lar => lar,
        Mnemonic::Lsl => lsl,
        _ => return None,
    })
}

/// The selector in an operand. These instructions are there in protected mode only.
fn selector<C: Cpu>(exec: &mut Exec<'_, C>, operand: u32) -> Result<u16, Stop> {
    if !exec.system.is_protected() || exec.regs.rflags & bits::VM != 0 {
        return Err(Exception::UD.into());
    }
    let value = exec.operand(operand)?;
    Ok(u16::try_from(value & 0xffff).unwrap_or(0))
}

/// Whether the privilege of CPL and RPL reaches a segment.
fn is_visible<C: Cpu>(exec: &Exec<'_, C>, selector: u16, descriptor: Descriptor) -> bool {
    let rpl = u8::try_from(selector & 3).unwrap_or(3);
    descriptor.is_conforming_code() || exec.system.cpl().max(rpl) <= descriptor.dpl()
}

fn verr<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let readable = |descriptor: Descriptor| {
        !descriptor.has(attributes::CODE) || descriptor.has(attributes::WRITABLE_OR_READABLE)
    };
    verify(exec, readable)
}

/// Some processors also flush their buffers when VERW has a memory operand; a trip through the host
/// does no less.
fn verw<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    let writable = |descriptor: Descriptor| {
        !descriptor.has(attributes::CODE) && descriptor.has(attributes::WRITABLE_OR_READABLE)
    };
    verify(exec, writable)
}

fn verify<C: Cpu>(exec: &mut Exec<'_, C>, allows: fn(Descriptor) -> bool) -> Result<(), Stop> {
    let selector = selector(exec, 0)?;
    let descriptor = load(exec, selector)?;
    let good = descriptor.is_some_and(|descriptor| {
        descriptor.has(attributes::CODE_OR_DATA)
            && allows(descriptor)
            && is_visible(exec, selector, descriptor)
    });
    exec.set_flags(bits::ZF, if good { bits::ZF } else { 0 });
    Ok(())
}

fn lar<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    // Types of system segments that have access rights to show, in IA-32e mode and outside.
    const LONG: u16 = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
    const LEGACY: u16 = LONG | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5;
    look(exec, LONG, LEGACY, |descriptor| descriptor.value >> 32 & 0x00ff_ff00)
}

fn lsl<C: Cpu>(exec: &mut Exec<'_, C>) -> Result<(), Stop> {
    const LONG: u16 = 1 << 2 | 1 << 9 | 1 << 11;
    const LEGACY: u16 = LONG | 1 << 1 | 1 << 3;
    look(exec, LONG, LEGACY, |descriptor| u64::from(descriptor.limit()))
}

/// Puts what `show` makes of a descriptor into the first operand and sets ZF, if CPL, RPL and type
/// allow a look.
fn look<C: Cpu>(
    exec: &mut Exec<'_, C>,
    long: u16,
    legacy: u16,
    show: fn(Descriptor) -> u64,
) -> Result<(), Stop> {
    let selector = selector(exec, 1)?;
    let types = if exec.system.is_long() { long } else { legacy };
    let descriptor = load(exec, selector)?.filter(|descriptor| {
        let known = descriptor.has(attributes::CODE_OR_DATA) || types >> descriptor.kind() & 1 != 0;
        known && is_visible(exec, selector, *descriptor)
    });
    exec.set_flags(bits::ZF, if descriptor.is_some() { bits::ZF } else { 0 });
    match descriptor {
        Some(descriptor) => exec.set_operand(0, show(descriptor)),
        None => Ok(()),
    }
}
