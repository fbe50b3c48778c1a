//! One instruction in execution: its operands, and the guest's memory as it sees it. The families
//! of instructions are built on this; nothing here knows any of them.

use iced_x86::{Instruction, OpKind, Register};

use super::cpu::{Cpu, Exception, GeneralRegisters, SystemRegisters, bits, gpr};
use super::extended::Extended;
use super::segment::{self, Access, SegmentName};
use super::stop::Stop;
use super::walk::{self, Request};
use crate::exit::Gpa;

/// The length of the smallest page.
const PAGE: u64 = 4096;

/// See the module's text.
#[derive(Debug)]
pub struct Exec<'a, C> {
    /// The vCPU. Its registers are as they were before the instruction.
    pub cpu: &'a mut C,
    /// The instruction.
    pub insn: Instruction,
    /// The registers as they will be; RIP is already that of the next instruction.
    pub regs: GeneralRegisters,
    /// Segments and control registers, as they were.
    pub system: SystemRegisters,
    /// What [`system`](Self::system) becomes, if it changes.
    pub new_system: Option<SystemRegisters>,
    /// The x87, SSE and further state, once it was asked for.
    extended: Option<Box<Extended>>,
}

/// Where some bytes at a linear address are: the parts, each within a page.
type Places = Vec<(Gpa, usize)>;

impl<'a, C: Cpu> Exec<'a, C> {
    /// `insn` about to be executed.
    pub fn new(
        cpu: &'a mut C,
        insn: Instruction,
        regs: GeneralRegisters,
        system: SystemRegisters,
    ) -> Self {
        Self { cpu, insn, regs, system, new_system: None, extended: None }
    }

    /// Hands back what has changed of the extended state.
    pub fn into_extended(self) -> Option<Vec<u8>> {
        self.extended.and_then(|extended| extended.into_changed())
    }

    /// The x87, SSE and further state.
    pub fn extended(&mut self) -> Result<&mut Extended, Stop> {
        let extended = match self.extended.take() {
            Some(extended) => extended,
            None => Box::new(Extended::of(self.cpu)?),
        };
        Ok(self.extended.insert(extended))
    }

    /// #UD unless at CPL 0.
    pub fn needs_cpl0(&self, otherwise: Exception) -> Result<(), Stop> {
        if self.system.cpl() == 0 { Ok(()) } else { Err(otherwise.into()) }
    }

    /// The width of an operand, in bytes: of its register, or of its memory.
    pub fn operand_size(&self, operand: u32) -> usize {
        match self.insn.op_kind(operand) {
            OpKind::Register => self.insn.op_register(operand).size(),
            _ => self.insn.memory_size().size(),
        }
    }

    /// A general register, zero-extended.
    pub fn register(&self, register: Register) -> u64 {
        let value = self.regs.gpr[register.full_register().number()];
        let is_high_byte =
            matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        match register.size() {
            1 if is_high_byte => value >> 8 & 0xff,
            1 => value & 0xff,
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }

    /// Sets a general register. A 32-bit one takes the upper half with it, in 64-bit mode and,
    /// where it does not show, elsewhere.
    pub fn set_register(&mut self, register: Register, value: u64) {
        let is_high_byte =
            matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        let full = &mut self.regs.gpr[register.full_register().number()];
        *full = match register.size() {
            1 if is_high_byte => *full & !0xff00 | (value & 0xff) << 8,
            1 => *full & !0xff | value & 0xff,
            2 => *full & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// A general or memory operand of up to 8 bytes, or an immediate.
    pub fn operand(&mut self, operand: u32) -> Result<u64, Stop> {
        match self.insn.op_kind(operand) {
            OpKind::Register => Ok(self.register(self.insn.op_register(operand))),
            OpKind::Memory => {
                let mut bytes = [0; 8];
                let len = self.operand_size(operand).min(8);
                let linear = self.address(operand, len, Access::Read)?;
                self.read(linear, &mut bytes[..len])?;
                Ok(u64::from_le_bytes(bytes))
            }
            _ => Ok(self.insn.immediate(operand)),
        }
    }

    /// Sets a general or memory operand of up to 8 bytes.
    pub fn set_operand(&mut self, operand: u32, value: u64) -> Result<(), Stop> {
        if self.insn.op_kind(operand) == OpKind::Register {
            self.set_register(self.insn.op_register(operand), value);
            return Ok(());
        }
        let len = self.operand_size(operand).min(8);
        let linear = self.address(operand, len, Access::Write)?;
        self.write(linear, &value.to_le_bytes()[..len])
    }

    /// The offset in its segment of a memory operand.
    pub fn offset(&self, operand: u32) -> u64 {
        let value = |register: Register, _, _| {
            Some(if register.is_segment_register() { 0 } else { self.register(register) })
        };
        self.insn.virtual_address(operand, 0, value).unwrap_or(0)
    }

    /// The linear address of `len` bytes at a memory operand.
    pub fn address(&self, operand: u32, len: usize, access: Access) -> Result<u64, Stop> {
        let name = segment_name(self.insn.memory_segment());
        Ok(segment::linear(&self.system, name, self.offset(operand), len, access)?)
    }

    /// The same, where a multiple of `align` is demanded: #GP(0) otherwise.
    pub fn aligned_address(
        &self,
        operand: u32,
        len: usize,
        align: u64,
        access: Access,
    ) -> Result<u64, Stop> {
        let linear = self.address(operand, len, access)?;
        if linear.is_multiple_of(align) { Ok(linear) } else { Err(Exception::GP0.into()) }
    }

    /// Fills in `bytes` from a linear address.
    pub fn read(&mut self, linear: u64, bytes: &mut [u8]) -> Result<(), Stop> {
        self.check_alignment(linear, bytes.len())?;
        let places = self.places(linear, bytes.len(), Access::Read, false)?;
        self.read_places(&places, bytes)
    }

    /// The same for what the processor reads by itself, such as a descriptor.
    pub fn read_as_system(&mut self, linear: u64, bytes: &mut [u8]) -> Result<(), Stop> {
        let places = self.places(linear, bytes.len(), Access::Read, true)?;
        self.read_places(&places, bytes)
    }

    /// Writes `bytes` to a linear address: all of them or, with a fault, none.
    pub fn write(&mut self, linear: u64, bytes: &[u8]) -> Result<(), Stop> {
        self.check_alignment(linear, bytes.len())?;
        let places = self.places(linear, bytes.len(), Access::Write, false)?;
        self.write_places(&places, bytes)
    }

    /// The same for what the processor writes by itself, such as an interrupt's frame.
    pub fn write_as_system(&mut self, linear: u64, bytes: &[u8]) -> Result<(), Stop> {
        let places = self.places(linear, bytes.len(), Access::Write, true)?;
        self.write_places(&places, bytes)
    }

    /// Reads instruction bytes.
    pub fn fetch(&mut self, linear: u64, bytes: &mut [u8]) -> Result<(), Stop> {
        let places = self.places(linear, bytes.len(), Access::Fetch, false)?;
        self.read_places(&places, bytes)
    }

    /// The physical address of what is within a page.
    pub fn translate(&mut self, linear: u64, access: Access, system: bool) -> Result<Gpa, Stop> {
        let user = self.system.cpl() == 3 && !system;
        let may_touch_user = self.regs.rflags & bits::AC != 0 && !system;
        let pkru = if self.system.cr4 & bits::CR4_PKE == 0 { 0 } else { self.extended()?.pkru() };
        let request = Request { linear, access, user, may_touch_user, pkru };
        let sys = self.system;
        walk::translate(self.cpu, &sys, &request)
    }

    /// #AC for an unaligned access of CPL 3 that asks for it (Intel SDM vol. 3, table 7-7).
    fn check_alignment(&self, linear: u64, len: usize) -> Result<(), Stop> {
        let checked = self.system.cpl() == 3
            && self.system.cr0 & bits::CR0_AM != 0
            && self.regs.rflags & bits::AC != 0;
        let align = u64::try_from(len).unwrap_or(0).min(16);
        if checked && align.is_power_of_two() && !linear.is_multiple_of(align) {
            return Err(Exception::AC.into());
        }
        Ok(())
    }

    fn places(
        &mut self,
        linear: u64,
        len: usize,
        access: Access,
        system: bool,
    ) -> Result<Places, Stop> {
        let mut places = Places::new();
        let (mut linear, mut left) = (linear, len);
        while left > 0 {
            let in_page = usize::try_from(PAGE - linear % PAGE).unwrap_or(left).min(left);
            places.push((self.translate(linear, access, system)?, in_page));
            linear = linear.wrapping_add(u64::try_from(in_page).unwrap_or(0));
            if !self.system.is_long() {
                linear &= u64::from(u32::MAX);
            }
            left -= in_page;
        }
        Ok(places)
    }

    fn read_places(&mut self, places: &Places, bytes: &mut [u8]) -> Result<(), Stop> {
        let mut rest = bytes;
        for (gpa, len) in places {
            let (part, next) = rest.split_at_mut(*len);
            self.cpu.read(*gpa, part)?;
            rest = next;
        }
        Ok(())
    }

    fn write_places(&mut self, places: &Places, bytes: &[u8]) -> Result<(), Stop> {
        // Nothing is to be written unless everything can be.
        for (gpa, len) in places {
            let mut probe = [0; 1];
            self.cpu.read(*gpa, &mut probe)?;
            self.cpu.read(Gpa(gpa.0 + (*len as u64) - 1), &mut probe)?;
        }
        let mut rest = bytes;
        for (gpa, len) in places {
            let (part, next) = rest.split_at(*len);
            self.cpu.write(*gpa, part)?;
            rest = next;
        }
        Ok(())
    }

    /// EDX:EAX.
    pub fn edx_eax(&self) -> u64 {
        let [rax, _, rdx, ..] = self.regs.gpr;
        rdx << 32 | rax & 0xffff_ffff
    }

    /// Sets EDX:EAX, and with it the upper halves of RDX and RAX to zero.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.regs.gpr[gpr::RAX] = value & 0xffff_ffff;
        self.regs.gpr[gpr::RDX] = value >> 32;
    }

    /// ECX.
    pub fn ecx(&self) -> u32 {
        u32::try_from(self.regs.gpr[gpr::RCX] & 0xffff_ffff).unwrap_or(0)
    }

    /// Makes the flags in `mask` what they are in `value`.
    pub fn set_flags(&mut self, mask: u64, value: u64) {
        self.regs.rflags = self.regs.rflags & !mask | value & mask;
    }
}

/// The segment register of an operand.
fn segment_name(register: Register) -> SegmentName {
    match register {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => SegmentName::Ds,
    }
}
