//! The state a vCPU starts in, as plain data.
//!
//! Nothing here knows KVM, a CPU mode or a guest: `real.rs`, `protected.rs` and `long.rs` fill
//! these structs in, and `kvm/entry.rs` turns them into what KVM takes.

use crate::config::Register;

/// Everything about a vCPU that is set before it first runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub struct EntryState {
    pub regs: Registers,
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldtr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// The general-purpose registers, the instruction pointer and the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

impl Registers {
    /// Sets one register.
    pub fn set(&mut self, register: Register, value: u64) {
        let field = match register {
            Register::Rax => &mut self.rax,
            Register::Rbx => &mut self.rbx,
            Register::Rcx => &mut self.rcx,
            Register::Rdx => &mut self.rdx,
            Register::Rsi => &mut self.rsi,
            Register::Rdi => &mut self.rdi,
            Register::Rsp => &mut self.rsp,
            Register::Rbp => &mut self.rbp,
            Register::R8 => &mut self.r8,
            Register::R9 => &mut self.r9,
            Register::R10 => &mut self.r10,
            Register::R11 => &mut self.r11,
            Register::R12 => &mut self.r12,
            Register::R13 => &mut self.r13,
            Register::R14 => &mut self.r14,
            Register::R15 => &mut self.r15,
            Register::Rip => &mut self.rip,
            Register::Rflags => &mut self.rflags,
        };
        *field = value;
    }
}

/// A segment register with its hidden part (Intel SDM vol. 3, section 3.4.3). The default is
/// an unusable one: it is not present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// What the guest reads back.
    pub selector: u16,
    /// The linear address of the segment's first byte.
    pub base: u64,
    /// The offset of the last byte, in bytes whatever the granularity.
    pub limit: u32,
    /// Type, S, DPL and P in bits 0 to 7, AVL, L, D/B and G in bits 12 to 15: the order of a
    /// descriptor and of the VMX access rights (Intel SDM vol. 3, table 26-2).
    pub attributes: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// The linear address of the table.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u16,
}

/// The bits of the control registers that the entry states use (Intel SDM vol. 3, section
/// 2.5, and section 2.2.1 for EFER).
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub mod bits {
    pub const CR0_PE: u64 = 1 << 0;
    pub const CR0_MP: u64 = 1 << 1;
    pub const CR0_ET: u64 = 1 << 4;
    pub const CR0_NE: u64 = 1 << 5;
    pub const CR0_WP: u64 = 1 << 16;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const CR4_OSFXSR: u64 = 1 << 9;
    pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub const EFER_LME: u64 = 1 << 8;
    pub const EFER_LMA: u64 = 1 << 10;
    pub const RFLAGS_FIXED: u64 = 1 << 1;
    pub const RFLAGS_IOPL_3: u64 = 3 << 12;
}
