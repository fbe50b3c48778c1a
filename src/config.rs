//! What a user asks of a VM, as values that cannot be wrong: a bad number of vCPUs, size or
//! CPU list has no representation here, so no later code checks again.

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Gpa;

/// Everything `Vmm` needs to know to build and run one VM.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// The guest image.
    pub guest: GuestSource,
    /// How many vCPUs.
    pub vcpus: VcpuCount,
    /// How much guest memory.
    pub memory: MemorySize,
    /// The CPU mode in which every vCPU starts.
    pub mode: CpuMode,
    /// Where a flat image goes.
    pub load_addr: Gpa,
    /// Where every vCPU starts; the load address if not given.
    pub entry: Option<Gpa>,
    /// Register values that replace the defaults, on every vCPU, in the order given.
    pub regs: Vec<(Register, u64)>,
    /// The longest the guest may run.
    pub timeout: Option<Duration>,
    /// Where the UART is connected.
    pub serial: SerialConfig,
    /// Which host CPUs the vCPU threads are bound to.
    pub pin: Option<Pinning>,
}

/// Where the guest image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestSource {
    /// A file.
    File(PathBuf),
    /// A guest that is part of the program.
    Demo(&'static minivmm_guests::Guest),
}

/// A number of vCPUs: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuCount(u32);

/// A size of guest memory in bytes: at least one 4 KiB page, and whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// The CPU mode at entry; docs/guest-abi.md has each one's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuMode {
    /// 16-bit real mode.
    Real,
    /// 32-bit protected mode with flat segments and no paging.
    Protected,
    /// 64-bit mode, ring 0, all memory identity-mapped.
    Long,
    /// 64-bit mode, ring 3 with IOPL 3, all memory identity-mapped.
    User,
}

/// A register that `--reg` can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub enum Register {
    Rax,
    Rbx,
    Rcx,
    Rdx,
    Rsi,
    Rdi,
    Rsp,
    Rbp,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    Rip,
    Rflags,
}

/// Where the UART's bytes go and come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialConfig {
    /// Standard output and standard input.
    Stdio,
    /// Nowhere: output is discarded, there is no input.
    Null,
    /// Output to this file, which is created or emptied; there is no input.
    File(PathBuf),
    /// A new pseudo-terminal, whose path is printed on standard error.
    Pty,
}

/// Which host CPUs the vCPU threads are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// vCPU i on the i-th CPU that the process may use, round and round.
    Auto,
    /// vCPU i on the i-th CPU of this list, round and round; never empty.
    Cpus(Vec<usize>),
}
