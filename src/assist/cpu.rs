//! What the completion of an instruction needs of a vCPU: its registers, its memory, and a way to
//! raise an exception. KVM's vCPU is one in the program (`kvm/assist/cpu.rs`), a plain struct in
//! tests.
//!
//! A [`Cpu`] hands out copies of its state and takes them back: until an instruction has come to
//! its end nothing of the vCPU has changed but memory.

use std::io;

use crate::boot::state::{Segment, TableRegister};
use crate::exit::Gpa;

/// The general registers, by their numbers in instructions (Intel SDM vol. 2, table 3-1): RAX, RCX,
/// RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15; RIP and RFLAGS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeneralRegisters {
    /// See above.
    pub gpr: [u64; 16],
    /// The instruction pointer, an offset in CS.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
}

/// Numbers of general registers.
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
}

/// Segments, descriptor tables and control registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub struct SystemRegisters {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub tr: Segment,
    pub ldtr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// The attributes of a segment, as [`Segment::attributes`] has them.
pub mod attributes {
    /// Type bit 1: data may be written, code may be read.
    pub const WRITABLE_OR_READABLE: u16 = 1 << 1;
    /// Type bit 2 of data: the limit is the lowest offset's predecessor.
    pub const EXPAND_DOWN: u16 = 1 << 2;
    /// Type bit 2 of code: conforming.
    pub const CONFORMING: u16 = 1 << 2;
    /// Type bit 3: code.
    pub const CODE: u16 = 1 << 3;
    /// S: code or data, not a system segment.
    pub const CODE_OR_DATA: u16 = 1 << 4;
    /// Where the DPL is.
    pub const DPL_SHIFT: u32 = 5;
    /// P.
    pub const PRESENT: u16 = 1 << 7;
    /// L: 64-bit code.
    pub const LONG: u16 = 1 << 13;
    /// D/B: 32-bit code, or a 32-bit stack.
    pub const BIG: u16 = 1 << 14;
    /// G: the descriptor's limit counts pages.
    pub const PAGES: u16 = 1 << 15;

    /// The DPL.
    pub fn dpl(attributes: u16) -> u8 {
        u8::try_from(attributes >> DPL_SHIFT & 3).unwrap_or(0)
    }
}

/// The bits of control registers and flags that matter here (Intel SDM vol. 3, sections 2.3 and
/// 2.5; vol. 1, section 3.4.3).
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub mod bits {
    pub use crate::boot::state::bits::*;

    pub const CR0_EM: u64 = 1 << 2;
    pub const CR0_TS: u64 = 1 << 3;
    pub const CR0_AM: u64 = 1 << 18;
    pub const CR4_PSE: u64 = 1 << 4;
    pub const CR4_TSD: u64 = 1 << 2;
    pub const CR4_LA57: u64 = 1 << 12;
    pub const CR4_PCIDE: u64 = 1 << 17;
    pub const CR4_OSXSAVE: u64 = 1 << 18;
    pub const CR4_SMEP: u64 = 1 << 20;
    pub const CR4_SMAP: u64 = 1 << 21;
    pub const CR4_PKE: u64 = 1 << 22;
    pub const EFER_NXE: u64 = 1 << 11;
    pub const CF: u64 = 1 << 0;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
}

impl SystemRegisters {
    /// Protected mode, with or without paging, is on.
    pub fn is_protected(&self) -> bool {
        self.cr0 & bits::CR0_PE != 0
    }

    /// IA-32e mode: 64-bit or compatibility mode.
    pub fn is_long(&self) -> bool {
        self.efer & bits::EFER_LMA != 0
    }

    /// 64-bit mode.
    pub fn is_64_bit(&self) -> bool {
        self.is_long() && self.cs.attributes & attributes::LONG != 0
    }

    /// The width of code: 16, 32 or 64.
    pub fn code_bits(&self) -> u32 {
        match self.cs.attributes & attributes::BIG {
            _ if self.is_64_bit() => 64,
            0 => 16,
            _ => 32,
        }
    }

    /// The bits of RSP that count: all in 64-bit mode, else 16 or 32 by the stack segment.
    pub fn stack_mask(&self) -> u64 {
        match self.ss.attributes & attributes::BIG {
            _ if self.is_64_bit() => u64::MAX,
            0 => 0xffff,
            _ => 0xffff_ffff,
        }
    }

    /// The current privilege level: SS's DPL, and 0 in real mode (Intel SDM vol. 3, section 5.5).
    pub fn cpl(&self) -> u8 {
        if self.is_protected() { attributes::dpl(self.ss.attributes) } else { 0 }
    }
}

/// An exception of the guest's (Intel SDM vol. 3, chapter 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code, for those that have one.
    pub error_code: Option<u32>,
    /// What CR2 becomes.
    pub cr2: Option<u64>,
}

#[expect(missing_docs, reason = "the names are those of the architecture")]
impl Exception {
    pub const DB: Self = Self::plain(1);
    pub const UD: Self = Self::plain(6);
    pub const NM: Self = Self::plain(7);
    pub const MF: Self = Self::plain(16);
    pub const AC: Self = Self::coded(17, 0);
    pub const XM: Self = Self::plain(19);
    /// #GP(0).
    pub const GP0: Self = Self::coded(13, 0);
    /// #SS(0).
    pub const SS0: Self = Self::coded(12, 0);

    /// An exception without an error code.
    pub const fn plain(vector: u8) -> Self {
        Self { vector, error_code: None, cr2: None }
    }

    /// An exception with an error code.
    pub const fn coded(vector: u8, code: u32) -> Self {
        Self { vector, error_code: Some(code), cr2: None }
    }

    pub const fn ts(code: u32) -> Self {
        Self::coded(10, code)
    }

    pub const fn np(code: u32) -> Self {
        Self::coded(11, code)
    }

    pub const fn ss(code: u32) -> Self {
        Self::coded(12, code)
    }

    pub const fn gp(code: u32) -> Self {
        Self::coded(13, code)
    }

    /// A page fault at a linear address.
    pub const fn pf(address: u64, code: u32) -> Self {
        Self { vector: 14, error_code: Some(code), cr2: Some(address) }
    }
}

/// Nothing is known to be at a guest-physical address: no RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// See the module's text. Every error is the host's.
#[expect(clippy::missing_errors_doc, reason = "the trait's text says it of all")]
pub trait Cpu {
    /// The general registers.
    fn registers(&mut self) -> io::Result<GeneralRegisters>;
    /// Sets the general registers. It also takes back an exception that is pending.
    fn set_registers(&mut self, registers: &GeneralRegisters) -> io::Result<()>;
    /// Segments, tables and control registers.
    fn system(&mut self) -> io::Result<SystemRegisters>;
    /// Sets segments, tables and control registers.
    fn set_system(&mut self, system: &SystemRegisters) -> io::Result<()>;
    /// XCR0.
    fn xcr0(&mut self) -> io::Result<u64>;
    /// Sets XCR0.
    fn set_xcr0(&mut self, value: u64) -> io::Result<()>;
    /// The x87, SSE and further state, as XSAVE's standard format has it, with its header.
    fn extended(&mut self) -> io::Result<Vec<u8>>;
    /// Sets it.
    fn set_extended(&mut self, area: &[u8]) -> io::Result<()>;
    /// A model-specific register; none if there is none of this number.
    fn msr(&mut self, index: u32) -> io::Result<Option<u64>>;
    /// EAX, EBX, ECX and EDX of CPUID, zero if the leaf is not there.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> io::Result<[u32; 4]>;
    /// Raises an exception, after everything else is set. For #DB the reason is single-step.
    fn raise(&mut self, exception: Exception) -> io::Result<()>;
    /// The instruction after STI or MOV SS is over.
    fn end_shadow(&mut self) -> io::Result<()>;
    /// NMIs no longer wait for the end of one.
    fn unblock_nmis(&mut self) -> io::Result<()>;
    /// Forgets all translations of this vCPU.
    fn flush_translations(&mut self) -> io::Result<()>;
    /// Reads memory; an aligned read of 8 bytes or fewer is atomic.
    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), NoMemory>;
    /// Writes memory; an aligned write of 8 bytes or fewer is atomic.
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoMemory>;
    /// Atomically, to all vCPUs: if the 4, 8 or 16 (`len`) bytes at `gpa`, which must be a multiple
    /// of `len`, are `old`, makes them `new`. Returns what was there.
    fn compare_exchange(
        &mut self,
        gpa: Gpa,
        len: usize,
        old: u128,
        new: u128,
    ) -> Result<u128, NoMemory>;
}
