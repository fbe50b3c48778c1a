//! The exit port 0xf4: a guest writes a value and the VM ends with it. The convention is that
//! of QEMU's `isa-debug-exit`: the process exits with `(value << 1) | 1`.

use crate::devices::GuestEnd;

/// The port.
pub const EXIT_PORT: u64 = 0xf4;

/// The guest writes `value`.
pub fn write(value: u64) -> GuestEnd {
    // A port access has at most four bytes, so nothing is cut off.
    GuestEnd::Exit(u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX))
}
