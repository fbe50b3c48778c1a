//! minivmm: a small multi-vCPU virtual machine monitor for Linux KVM.

pub mod config;
pub mod console;
pub mod exit;
