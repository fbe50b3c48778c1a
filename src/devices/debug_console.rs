//! The debug console of Bochs and QEMU: a port without a status, each byte written to which is
//! output. It has no buffer of its own: what is written goes where COM1 sends, after all that
//! COM1 has sent, and like there a vCPU waits while there is no room.

/// The port.
pub const DEBUG_CONSOLE: u64 = 0xe9;

/// What it reads as, by which a guest knows that it is there.
pub const PRESENT: u8 = 0xe9;
