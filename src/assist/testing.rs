//! A vCPU that is a plain struct, for the tests of this folder.

use std::collections::BTreeMap;
use std::io;

use super::Completed;
use super::cpu::{Cpu, Exception, GeneralRegisters, NoMemory, SystemRegisters, bits, gpr};
use crate::boot::state::{Segment, TableRegister};
use crate::exit::Gpa;

/// How much memory there is, from 0 on.
pub const MEMORY: usize = 1 << 20;

/// Where the code is, its stack, and data at the beginning of a page.
pub const CODE: u64 = 0x1000;
pub const STACK: u64 = 0x7000;
pub const DATA: u64 = 0x8000;

/// Where a test's page tables and system tables may be.
pub const TABLES: u64 = 0x2_0000;
pub const GDT: u64 = 0x3_0000;
pub const IDT: u64 = 0x3_1000;
pub const TSS: u64 = 0x3_2000;

/// The number of RSI, where tests have the address of an operand.
pub const RSI: usize = 6;

/// Where a gate leads to.
pub const TARGET: u64 = 0x7f_9876_5432;

/// See the module's text.
pub struct TestCpu {
    pub regs: GeneralRegisters,
    pub system: SystemRegisters,
    pub xcr0: u64,
    pub extended: Vec<u8>,
    pub msrs: BTreeMap<u32, u64>,
    pub memory: Vec<u8>,
    pub raised: Option<Exception>,
    pub shadow: bool,
    pub nmis_blocked: bool,
    pub flushes: usize,
    /// Addresses at which compare-and-exchange loses a race this many times.
    pub races: usize,
}

impl TestCpu {
    /// In ring 0 of 64-bit mode, without paging, which no processor could be: the linear addresses
    /// are the physical ones.
    pub fn long() -> Self {
        let mut regs = GeneralRegisters { rip: CODE, rflags: 2, ..Default::default() };
        regs.gpr[gpr::RSP] = STACK;
        let system = SystemRegisters {
            cs: Segment { selector: 8, base: 0, limit: u32::MAX, attributes: 0xa09b },
            ss: Segment { selector: 16, base: 0, limit: u32::MAX, attributes: 0xc093 },
            ds: Segment { selector: 16, base: 0, limit: u32::MAX, attributes: 0xc093 },
            es: Segment { selector: 16, base: 0, limit: u32::MAX, attributes: 0xc093 },
            cr0: bits::CR0_PE | bits::CR0_NE,
            cr4: bits::CR4_PAE | bits::CR4_OSFXSR | bits::CR4_OSXSAVE,
            efer: bits::EFER_LME | bits::EFER_LMA,
            ..Default::default()
        };
        let mut extended = vec![0; 4096];
        extended[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        extended[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        extended[28..32].copy_from_slice(&0xffffu32.to_le_bytes());
        Self {
            regs,
            system,
            xcr0: 7,
            extended,
            msrs: BTreeMap::new(),
            memory: vec![0; MEMORY],
            raised: None,
            shadow: false,
            nmis_blocked: false,
            flushes: 0,
            races: 0,
        }
    }

    /// In ring 0 of 32-bit protected mode without paging.
    pub fn protected() -> Self {
        let mut cpu = Self::long();
        cpu.system.cs.attributes = 0xc09b;
        cpu.system.efer = 0;
        cpu
    }

    /// At CPL 3.
    pub fn user(mut self) -> Self {
        self.system.cs.attributes |= 0x60;
        self.system.ss.attributes |= 0x60;
        self.system.cs.selector |= 3;
        self.system.ss.selector |= 3;
        self
    }

    /// Completes the instruction that these bytes are.
    pub fn complete(&mut self, bytes: &[u8]) -> Option<Completed> {
        super::complete(self, bytes).unwrap()
    }

    /// Completes an instruction that must be known and must not fault.
    #[track_caller]
    pub fn run(&mut self, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).unwrap();
        let rip = self.regs.rip;
        assert!(self.complete(bytes).is_some(), "{bytes:x?}");
        assert_eq!(self.raised, None, "{bytes:x?}");
        assert_eq!(self.regs.rip, rip + len, "{bytes:x?}");
    }

    /// Completes an instruction that must fault, and returns the fault. Nothing else may change.
    #[track_caller]
    pub fn fault(&mut self, bytes: &[u8]) -> Exception {
        let (regs, system, extended) = (self.regs, self.system, self.extended.clone());
        assert!(self.complete(bytes).is_some(), "{bytes:x?}");
        let fault = self.raised.take().unwrap_or_else(|| panic!("{bytes:x?}"));
        assert_eq!(self.regs, GeneralRegisters { rflags: regs.rflags | bits::RF, ..regs });
        assert!(self.system == system && self.extended == extended, "{bytes:x?}");
        self.regs = regs;
        fault
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        let start = usize::try_from(address).unwrap();
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        let start = usize::try_from(address).unwrap();
        self.memory[start..start + N].try_into().unwrap()
    }

    pub fn put_u64(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    pub fn get_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.get(address))
    }

    /// With a GDT: code at 8 and data at 16 of ring 0, a TSS at 32, code at 48 and data at 56 of
    /// ring 3; a TSS with stacks, and an empty IDT of 256 entries.
    pub fn with_tables(mut self) -> Self {
        let long = self.system.is_long();
        let code = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
        let data = 0x00cf_9300_0000_ffff;
        let ring3 = 3 << 45;
        let tss = 0x0000_8b00_0000_0067 | TSS << 16;
        for (offset, value) in
            [(8, code), (16, data), (32, tss), (48, code | ring3), (56, data | ring3)]
        {
            self.put_u64(GDT + offset, value);
        }
        self.system.gdtr = TableRegister { base: GDT, limit: 63 };
        let limit = if long { 256 * 16 - 1 } else { 256 * 8 - 1 };
        self.system.idtr = TableRegister { base: IDT, limit };
        self.system.tr = Segment { selector: 32, base: TSS, limit: 0x67, attributes: 0x8b };
        if long {
            self.put_u64(TSS + 4, STACK - 0x800);
            // IST 2.
            self.put_u64(TSS + 0x2c, STACK - 0xc00);
        } else {
            self.put(TSS + 4, &0x6800u32.to_le_bytes());
            self.put(TSS + 8, &16u16.to_le_bytes());
        }
        self
    }

    /// Adds a gate of type and DPL `access` to [`TARGET`] (its low half or quarter if it is not of
    /// 64 bits) in segment 8.
    pub fn put_gate(&mut self, vector: u64, access: u64, ist: u64) {
        let low = 0x9876_0000_0008_5432 | access << 40 | ist << 32;
        let len = if self.system.is_long() { 16 } else { 8 };
        self.put_u64(IDT + vector * len, low);
        if len == 16 {
            self.put_u64(IDT + vector * len + 8, 0x7f);
        }
    }

    /// Puts a frame on the stack, in words of `width` bytes.
    pub fn put_frame(&mut self, width: usize, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            let at = self.regs.gpr[gpr::RSP] + u64::try_from(width * index).unwrap();
            self.put(at, &word.to_le_bytes()[..width]);
        }
    }

    pub fn has_flag(&self, flag: u64) -> bool {
        self.regs.rflags & flag != 0
    }

    fn range(gpa: Gpa, len: usize) -> Result<std::ops::Range<usize>, NoMemory> {
        let start = usize::try_from(gpa.0).map_err(|_| NoMemory)?;
        let end = start.checked_add(len).filter(|end| *end <= MEMORY).ok_or(NoMemory)?;
        Ok(start..end)
    }
}

impl Cpu for TestCpu {
    fn registers(&mut self) -> io::Result<GeneralRegisters> {
        Ok(self.regs)
    }

    fn set_registers(&mut self, registers: &GeneralRegisters) -> io::Result<()> {
        self.regs = *registers;
        Ok(())
    }

    fn system(&mut self) -> io::Result<SystemRegisters> {
        Ok(self.system)
    }

    fn set_system(&mut self, system: &SystemRegisters) -> io::Result<()> {
        self.system = *system;
        Ok(())
    }

    fn xcr0(&mut self) -> io::Result<u64> {
        Ok(self.xcr0)
    }

    fn set_xcr0(&mut self, value: u64) -> io::Result<()> {
        self.xcr0 = value;
        Ok(())
    }

    fn extended(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.extended.clone())
    }

    fn set_extended(&mut self, area: &[u8]) -> io::Result<()> {
        self.extended = area.to_vec();
        Ok(())
    }

    fn msr(&mut self, index: u32) -> io::Result<Option<u64>> {
        Ok(self.msrs.get(&index).copied())
    }

    /// 40 bits of physical address; AVX at 576; PKRU at 2688, and aligned in the compacted format.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> io::Result<[u32; 4]> {
        Ok(match (leaf, subleaf) {
            (0x8000_0008, _) => [40, 0, 0, 0],
            (0xd, 0) => [0x207, 0, 0, 0],
            (0xd, 1) => [0xf, 0, 0, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0xd, 9) => [8, 2688, 2, 0],
            _ => [0; 4],
        })
    }

    fn raise(&mut self, exception: Exception) -> io::Result<()> {
        self.raised = Some(exception);
        Ok(())
    }

    fn end_shadow(&mut self) -> io::Result<()> {
        self.shadow = false;
        Ok(())
    }

    fn unblock_nmis(&mut self) -> io::Result<()> {
        self.nmis_blocked = false;
        Ok(())
    }

    fn flush_translations(&mut self) -> io::Result<()> {
        self.flushes += 1;
        Ok(())
    }

    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), NoMemory> {
        bytes.copy_from_slice(&self.memory[Self::range(gpa, bytes.len())?]);
        Ok(())
    }

    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoMemory> {
        self.memory[Self::range(gpa, bytes.len())?].copy_from_slice(bytes);
        Ok(())
    }

    fn compare_exchange(
        &mut self,
        gpa: Gpa,
        len: usize,
        old: u128,
        new: u128,
    ) -> Result<u128, NoMemory> {
        let place = Self::range(gpa, len)?;
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&self.memory[place.clone()]);
        let found = u128::from_le_bytes(bytes);
        if self.races > 0 {
            self.races -= 1;
            return Ok(!old);
        }
        if found == old {
            self.memory[place].copy_from_slice(&new.to_le_bytes()[..len]);
        }
        Ok(found)
    }
}
