//! minivmm: a small multi-vCPU virtual machine monitor for Linux KVM.

pub mod boot;
pub mod cli;
pub mod config;
pub mod devices;
pub mod exit;
pub mod kvm;
pub mod memory;
