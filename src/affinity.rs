//! What the process needs of the host for its vCPUs: which CPU each one's thread is bound to,
//! and enough file descriptors.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::config::Pinning;
use crate::exit::VcpuId;

/// A host CPU that was asked for and that this process may not use.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// The CPUs of the process cannot be found out.
    #[error("cannot find out which CPUs this process may use: {0}")]
    Unknown(io::Error),
    /// This one is not among them.
    #[error("CPU {cpu} cannot be used: this process may use {available:?}")]
    Unavailable {
        /// What was asked for.
        cpu: usize,
        /// What there is.
        available: Vec<usize>,
    },
}

/// For each vCPU the CPU to bind its thread to, if any.
///
/// # Errors
///
/// [`AffinityError`] if that is impossible.
pub fn plan(
    pinning: Option<&Pinning>,
) -> Result<impl Fn(VcpuId) -> Option<usize> + use<>, AffinityError> {
    let available = match pinning {
        Some(_) => available_cpus().map_err(AffinityError::Unknown)?,
        None => Vec::new(),
    };
    if let Some(Pinning::Cpus(list)) = pinning
        && let Some(&cpu) = list.as_slice().iter().find(|cpu| !available.contains(cpu))
    {
        return Err(AffinityError::Unavailable { cpu, available });
    }
    let pinning = pinning.cloned();
    Ok(move |id| pinning.as_ref()?.cpu_for(id, &available))
}

/// Raises the limit on open files, as far as it may be, to what this many VMs with so many vCPUs
/// each need: one for each vCPU, some for each VM and some for the rest. Where that is not far
/// enough, making the VMs and the vCPUs says so.
pub fn allow_open_files(vms: u32, vcpus: u32) {
    /// KVM's of the VM, the bell of its events, and its output.
    const EACH_VM: u64 = 3;
    const REST: u64 = 64;
    let wanted = u64::from(vms) * (u64::from(vcpus) + EACH_VM) + REST;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

/// How many host CPUs this process may use; 1 if that cannot be found out.
pub fn cpus() -> usize {
    available_cpus().map_or(1, |cpus| cpus.len().max(1))
}

fn available_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}
