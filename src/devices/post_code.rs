//! Port 0x80, to which firmware and kernels write how far their power-on self-test (POST) has
//! come: the last code is kept for the report of a VM that fails. Each write is also a marker in
//! the trace, which the run loop makes (`vcpu/runner.rs`): it has the vCPU's records.

use std::fmt;

/// The port.
pub const POST_PORT: u64 = 0x80;
/// A port that Linux writes to instead, for the time that it takes (`io_delay=0xed`).
pub const IO_DELAY_PORT: u64 = 0xed;

/// A code that was written to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostCode(pub u8);

impl fmt::Display for PostCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "POST code {:#04x}", self.0)
    }
}
