//! The emulated devices, each a pure register machine: bytes in, bytes and a pin level out.

pub mod uart16550;
