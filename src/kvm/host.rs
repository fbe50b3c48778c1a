//! The host's KVM: opening it, what it must have, and why there is no VM.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm};

use crate::boot::BootError;
use crate::config::{MemorySize, VcpuCount};
use crate::kvm::call::host_error;
use crate::kvm::features::FeatureError;
use crate::kvm::irqchip::IrqChipError;
use crate::kvm::machine::SlotError;
use crate::kvm::vcpu_setup::CpuError;
use crate::memory::RamLayout;

/// Where the host's KVM is.
pub const KVM_DEVICE: &str = "/dev/kvm";

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No such file.
    #[error(
        "{0} does not exist: this host has no KVM, or its module is not loaded \
         (try 'modprobe kvm_intel' or 'modprobe kvm_amd'; virtualization must be enabled in \
         the firmware, or nested virtualization in the hypervisor)"
    )]
    Missing(String),
    /// Not permitted.
    #[error(
        "{0}: permission denied (add yourself to the group that owns it, usually \
         'usermod -aG kvm $USER', and log in again)"
    )]
    NotPermitted(String),
    /// Another error of open(2).
    #[error("cannot open {path}: {source}")]
    Open {
        /// The device.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{0} is not a KVM device: it does not answer KVM_GET_API_VERSION")]
    NotKvm(String),
    /// A KVM of another age.
    #[error(
        "{path} has KVM API version {version}, and {KVM_API_VERSION} is needed: update the \
         host's kernel"
    )]
    Version {
        /// The device.
        path: String,
        /// What it answered.
        version: i32,
    },
    /// A KVM without something that minivmm cannot do without.
    #[error("{path} lacks {capability}, which Linux has had since {since}: update the kernel")]
    Lacks {
        /// The device.
        path: String,
        /// The capability.
        capability: &'static str,
        /// The version of Linux that brought it.
        since: &'static str,
    },
    /// More vCPUs than KVM can make.
    #[error("{wanted} vCPUs are more than this host's KVM can give a VM: at most {limit}")]
    TooManyVcpus {
        /// What was asked for.
        wanted: u32,
        /// KVM_CAP_MAX_VCPUS.
        limit: usize,
    },
    /// The guest's CPU has too few address bits.
    #[error("{ram} is more than the {bits} bits of a physical address on this host can reach")]
    TooMuchMemory {
        /// What was asked for.
        ram: RamLayout,
        /// The width of a guest-physical address.
        bits: u32,
    },
    /// KVM cannot have the memory.
    #[error(transparent)]
    Memory(#[from] SlotError),
    /// A call to KVM failed.
    #[error("{call}: {source}")]
    Call {
        /// The ioctl.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The interrupt controllers cannot be made.
    #[error(transparent)]
    IrqChip(#[from] IrqChipError),
    /// The CPU cannot be as it is to be.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The guest cannot be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
}

impl KvmError {
    /// Whether options do not go together, or with the image.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Boot(error) => error.is_usage(),
            Self::Cpu(error) => {
                matches!(error, CpuError::Feature(FeatureError::NeedsLocalApic(_)))
            }
            _ => false,
        }
    }
}

pub(super) fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Call { call, source: host_error(error) }
}

/// Opens the KVM device at `path` and makes sure of its version.
///
/// # Errors
///
/// A [`KvmError`] that says what to do.
pub(super) fn open(path: &Path) -> Result<Kvm, KvmError> {
    let name = name_of(path);
    let c_path = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| KvmError::Open { path: name.clone(), source: error.into() })?;
    let kvm = Kvm::new_with_path(c_path).map_err(|error| open_error(&name, error.errno()))?;
    check_version(name.clone(), kvm.get_api_version())?;
    // The kick cannot be done without.
    if !kvm.check_extension(Cap::ImmediateExit) {
        let (capability, since) = ("KVM_CAP_IMMEDIATE_EXIT", "4.11");
        return Err(KvmError::Lacks { path: name, capability, since });
    }
    Ok(kvm)
}

pub(super) fn name_of(path: &Path) -> String {
    path.display().to_string()
}

fn open_error(path: &str, errno: i32) -> KvmError {
    let path = path.to_owned();
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing(path),
        libc::EACCES | libc::EPERM => KvmError::NotPermitted(path),
        errno => KvmError::Open { path, source: io::Error::from_raw_os_error(errno) },
    }
}

/// KVM's API has had one version since Linux 2.6.22; the document (section 4.1) asks userspace
/// to refuse any other.
fn check_version(path: String, version: i32) -> Result<(), KvmError> {
    match u32::try_from(version) {
        Ok(KVM_API_VERSION) => Ok(()),
        Ok(_) => Err(KvmError::Version { path, version }),
        Err(_) => Err(KvmError::NotKvm(path)),
    }
}

pub(super) fn check_vcpus(kvm: &Kvm, wanted: VcpuCount) -> Result<(), KvmError> {
    let wanted = wanted.get();
    let limit = kvm.get_max_vcpus();
    let count = usize::try_from(wanted).unwrap_or(usize::MAX);
    if count > limit {
        return Err(KvmError::TooManyVcpus { wanted, limit });
    }
    let recommended = kvm.get_nr_vcpus();
    if count > recommended {
        log::warn!(
            target: "minivmm::kvm",
            "{wanted} vCPUs are more than the {recommended} that KVM recommends on this host"
        );
    }
    Ok(())
}

pub(super) fn check_memory(bits: u32, memory: MemorySize) -> Result<(), KvmError> {
    let ram = RamLayout::new(memory);
    let end = ram.low().end.max(ram.high().end);
    let fits = 1u64.checked_shl(bits).is_none_or(|limit| end <= limit);
    if fits { Ok(()) } else { Err(KvmError::TooMuchMemory { ram, bits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_in_which_kvm_is_unusable_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing = open(&dir.path().join("kvm")).unwrap_err().to_string();
        assert!(missing.contains("does not exist") && missing.contains("modprobe"), "{missing}");

        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let not_kvm = open(&file).unwrap_err().to_string();
        assert!(not_kvm.ends_with("does not answer KVM_GET_API_VERSION"), "{not_kvm}");

        let refused = open_error("/dev/kvm", libc::EACCES).to_string();
        assert!(refused.contains("permission denied") && refused.contains("usermod"), "{refused}");

        let memory = MemorySize::from_bytes(1 << 40).unwrap();
        assert!(check_memory(46, memory).is_ok());
        let too_much = check_memory(39, memory).unwrap_err().to_string();
        assert!(too_much.contains("1 TiB") && too_much.contains("39 bits"), "{too_much}");

        let version = check_version("/dev/kvm".into(), 11).unwrap_err().to_string();
        assert!(version.contains("version 11, and 12 is needed"), "{version}");
    }
}
