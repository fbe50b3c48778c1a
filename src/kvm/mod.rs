//! KVM: the only part of the program that names kvm_ioctls.

pub mod cpuid;
pub mod entry;
