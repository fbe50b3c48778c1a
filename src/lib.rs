//! minivmm: a small multi-vCPU virtual machine monitor for Linux KVM.
//!
//! The way of one OUT from the guest to the host: `kvm/vcpu.rs` makes an exit of it,
//! `vcpu/runner.rs` an access, `devices/queue.rs` brings it to the devices in order,
//! `bus.rs` finds `devices/uart16550.rs`, and `devices/thread.rs` writes the byte to the
//! `console`. docs/architecture.md has the map.

pub mod affinity;
pub mod assist;
pub mod boot;
pub mod bus;
pub mod campaign;
pub mod cli;
pub mod config;
pub mod console;
pub mod devices;
pub mod events;
pub mod exit;
pub mod host;
pub mod irq;
pub mod kvm;
pub mod memory;
pub mod number;
mod out_file;
pub mod outcome;
pub mod panics;
pub mod report;
pub mod stress;
pub mod sync;
#[cfg(all(test, not(loom)))]
mod testing;
pub mod trace;
pub mod vcpu;
pub mod vmm;
