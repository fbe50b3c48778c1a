//! A vCPU's registers as plain data, for reports.

use std::fmt;

/// A segment register's visible part and its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// The base address.
    pub base: u64,
    /// The limit, in bytes.
    pub limit: u32,
}

/// The registers that a report shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15.
    pub general: [u64; 16],
    /// The instruction pointer, an offset in CS.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// CS, DS, ES, FS, GS, SS.
    pub segments: [Segment; 6],
    /// CR0, CR2, CR3, CR4.
    pub control: [u64; 4],
    /// The extended feature enable register.
    pub efer: u64,
    /// The base and limit of the interrupt descriptor table.
    pub idt: (u64, u16),
    /// The base and limit of the global descriptor table.
    pub gdt: (u64, u16),
    /// The width of the code in bits, by CS: 16, 32 or 64.
    pub code_bits: u32,
}

const GENERAL: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [&str; 6] = ["cs", "ds", "es", "fs", "gs", "ss"];
const CONTROL: [&str; 4] = ["cr0", "cr2", "cr3", "cr4"];

impl Registers {
    /// The linear address of the next instruction.
    pub fn linear_rip(&self) -> u64 {
        self.segments[0].base.wrapping_add(self.rip)
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  rip {:016x}  rflags {:08x}  efer {:x}", self.rip, self.rflags, self.efer)?;
        for (names, values) in GENERAL.chunks(4).zip(self.general.chunks(4)) {
            for (name, value) in names.iter().zip(values) {
                write!(f, "  {name:<3} {value:016x}")?;
            }
            writeln!(f)?;
        }
        for (name, value) in CONTROL.iter().zip(self.control) {
            write!(f, "  {name} {value:016x}")?;
        }
        writeln!(f)?;
        for (name, segment) in SEGMENTS.iter().zip(self.segments) {
            let Segment { selector, base, limit } = segment;
            write!(f, "  {name} {selector:04x} base {base:x} limit {limit:x}")?;
            if *name == "es" {
                writeln!(f)?;
            }
        }
        writeln!(f)?;
        write!(
            f,
            "  idt base {:x} limit {:x}  gdt base {:x} limit {:x}",
            self.idt.0, self.idt.1, self.gdt.0, self.gdt.1
        )
    }
}
