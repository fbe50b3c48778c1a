//! Where a device's interrupt pin leads. A device computes its pin's level as a value; the
//! owner of the device passes each change on to an [`IrqLine`].

use std::fmt;

/// One interrupt line of the platform.
///
/// `set_level` is called with the devices held, so that the levels arrive in the order in
/// which they came about; it must not block, nor wait for a lock that is held across anything that
/// may.
pub trait IrqLine: fmt::Debug + Send {
    /// The pin goes to `high`.
    fn set_level(&mut self, high: bool);
}

/// A pin that is not connected: there is no interrupt controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullIrq;

impl IrqLine for NullIrq {
    fn set_level(&mut self, _high: bool) {}
}
