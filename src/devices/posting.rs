//! Which writes a vCPU need not wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::devices::COM1_BASE;
use crate::devices::debug_console::DEBUG_CONSOLE;
use crate::exit::{Access, AddressSpace, Direction};

/// Which writes need not be waited for: a byte to send, to COM1 while it has no interrupt enabled
/// that this could change, or to the debug console, which has none. Read on the vCPU threads,
/// without the devices.
#[derive(Clone, Debug)]
pub struct PostPolicy {
    pub(super) com1_interrupts: Arc<AtomicBool>,
    /// The debug console is there.
    pub(super) debug_console: bool,
}

impl PostPolicy {
    /// Whether `access` may be posted. If another vCPU is just enabling an interrupt either
    /// answer is right: the guest has not ordered the two. If it has, through memory, then the
    /// store of the flag came before the guest's own and x86 keeps the two in order.
    pub fn may_post(&self, access: &Access) -> bool {
        access.size == 1
            && access.direction == Direction::Write
            && access.space == AddressSpace::Pio
            && match access.addr {
                COM1_BASE => !self.com1_interrupts.load(Ordering::Relaxed),
                DEBUG_CONSOLE => self.debug_console,
                _ => false,
            }
    }
}
