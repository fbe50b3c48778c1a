//! VM exits as plain data: what a vCPU reports each time KVM_RUN returns to userspace.
//!
//! Nothing here names KVM or does anything; `kvm/vcpu.rs` makes these values from `kvm_run`
//! and `vcpu/runner.rs` acts on them. The bytes of an access stay where the vCPU has them
//! (`VcpuRun::data`), so that an exit is small and nothing is copied.

use std::fmt;

/// The index of a vCPU: 0 to the number of vCPUs minus one. KVM's `vcpu_id` is another number, the
/// APIC id (`config/topology.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId(pub u32);

impl VcpuId {
    /// The vCPU with this index, of which a VM has at most 65,535.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index as an array index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {}", self.0)
    }
}

/// An address in the 16-bit port I/O space (Intel SDM vol. 1, chapter 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PioAddr(pub u16);

/// A guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(pub u64);

impl fmt::Display for PioAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Which way the data of an access goes, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The guest reads: IN, or a load from MMIO.
    Read,
    /// The guest writes: OUT, or a store to MMIO.
    Write,
}

/// A port I/O exit: `count` accesses of `size` bytes each, one after the other, to one port.
/// The count is above one only for `rep ins` and `rep outs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PioExit {
    /// The port.
    pub port: PioAddr,
    /// IN or OUT.
    pub direction: Direction,
    /// Bytes an access: 1, 2 or 4.
    pub size: u8,
    /// Number of accesses: at least 1.
    pub count: u32,
}

/// A memory-mapped I/O exit: one access to a guest-physical address without memory behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioExit {
    /// The guest-physical address.
    pub gpa: Gpa,
    /// Load or store.
    pub direction: Direction,
    /// Bytes: 1 to 8.
    pub size: u8,
}

/// The bytes of an instruction that KVM could not emulate, as far as KVM knew them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsnBytes {
    bytes: [u8; 15],
    len: u8,
}

impl InsnBytes {
    /// Keeps the first `len` of `bytes`; a length above 15, the longest instruction of x86,
    /// counts as 15.
    pub fn new(bytes: [u8; 15], len: u8) -> Self {
        Self { bytes, len: len.min(15) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Why KVM_RUN returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmExit {
    /// KVM_EXIT_IO.
    Pio(PioExit),
    /// KVM_EXIT_MMIO.
    Mmio(MmioExit),
    /// KVM_EXIT_HLT: the guest halted and no in-kernel interrupt controller will wake it.
    Hlt,
    /// KVM_EXIT_SHUTDOWN: a triple fault.
    Shutdown,
    /// KVM_EXIT_FAIL_ENTRY: the hardware refused the guest's state.
    FailEntry {
        /// The hardware's own reason code.
        reason: u64,
        /// The host CPU on which it happened.
        cpu: u32,
    },
    /// KVM_EXIT_INTERNAL_ERROR.
    InternalError {
        /// KVM_INTERNAL_ERROR_*: 1 is a failed instruction emulation.
        suberror: u32,
        /// The instruction, when KVM gives its bytes.
        insn: Option<InsnBytes>,
    },
    /// KVM_EXIT_SYSTEM_EVENT.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*: 1 shutdown, 2 reset, 3 crash.
        kind: u32,
    },
    /// KVM_EXIT_SET_TPR: the guest lowered CR8, which only an interrupt controller would heed.
    SetTpr,
    /// KVM_EXIT_IRQ_WINDOW_OPEN: the guest can take an external interrupt, as was asked.
    IrqWindowOpen,
    /// KVM_EXIT_IOAPIC_EOI: the guest has ended an interrupt that a level of the IOAPIC had made.
    IoapicEoi {
        /// Which.
        vector: u8,
    },
    /// KVM_EXIT_DEBUG: the vCPU is where it was told to stop, or has made the one step that it was
    /// to.
    Debug,
    /// KVM_RUN returned EINTR or EAGAIN: a kick, or a signal that was not for us.
    Interrupted,
    /// An exit reason this VMM does not know.
    Unhandled {
        /// KVM_EXIT_*.
        reason: u32,
    },
}

impl VmExit {
    /// Whether the guest waits for data: an IN, or a load from MMIO.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Pio(pio) => pio.direction == Direction::Read,
            Self::Mmio(mmio) => mmio.direction == Direction::Read,
            _ => false,
        }
    }
}

/// The two address spaces of an x86 bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressSpace {
    /// The 16-bit space of IN and OUT.
    Pio,
    /// The guest-physical space.
    Mmio,
}

/// One access to a device: what a PIO exit holds `count` of, and an MMIO exit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which space `addr` is in.
    pub space: AddressSpace,
    /// The address of the first byte.
    pub addr: u64,
    /// Read or write.
    pub direction: Direction,
    /// Bytes: 1 to 8.
    pub size: u8,
    /// A write's value, little-endian, zero above `size`; 0 for a read.
    pub data: u64,
}

impl Access {
    /// The same access as one-byte accesses to consecutive addresses, which is how a bus
    /// presents it to a device that is one byte wide. Addresses past the end of the 64-bit
    /// space wrap.
    pub fn bytes(self) -> impl Iterator<Item = Access> {
        let data = self.data.to_le_bytes();
        (0..self.size).zip(data).map(move |(offset, byte)| Access {
            addr: self.addr.wrapping_add(u64::from(offset)),
            size: 1,
            data: u64::from(byte),
            ..self
        })
    }
}
