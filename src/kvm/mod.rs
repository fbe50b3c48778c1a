//! The host's KVM. This is the only place that names kvm-ioctls, and the only one with
//! `unsafe`: what leaves it is plain data and safe calls.

pub mod assist;
mod call;
pub mod cpuid;
mod cpuid_probe;
pub mod entry;
mod features;
pub mod first_state;
pub mod host;
pub mod irqchip;
pub mod kick;
pub mod local_apics;
pub mod machine;
pub mod out_of_memory;
pub mod run_map;
pub mod slice;
pub mod stats;
pub mod tsc;
mod tsc_offset;
pub mod vcpu;
pub mod vcpu_setup;
pub mod vm;
mod x2apic;
