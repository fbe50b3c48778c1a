//! Whether the vCPUs' time-stamp counters agree; a warning if not. KVM means them to: it gives those
//! vCPUs the same offset that are made together. Where the host's own counters do not agree it may
//! not be able to.

use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::tsc;
use crate::exit::VcpuId;

/// `_IOW(KVMIO, 0xe2, struct kvm_device_attr)`; kvm-ioctls has it for devices only.
const KVM_GET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee2;

/// IA32_TIME_STAMP_COUNTER.
const IA32_TSC: u32 = 0x10;

/// The offset of the first vCPU that was looked at; any thread may be the one.
#[derive(Debug, Default)]
pub struct TscOffsets {
    first: OnceLock<(VcpuId, Offset)>,
    /// One that does not agree is told of, and not each.
    warned: AtomicBool,
}

/// How far a vCPU's counter is before the host's, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    least: i64,
    most: i64,
}

impl Offset {
    /// Whether both may be the same.
    fn agrees(self, other: Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

impl TscOffsets {
    /// Looks at a new vCPU.
    pub fn check(&self, fd: &VcpuFd, id: VcpuId) {
        let Some(offset) = exact(fd).or_else(|| measured(fd)) else {
            log::debug!(target: "minivmm::tsc", "{id}: KVM does not tell its TSC");
            return;
        };
        self.tell(id, offset);
    }

    fn tell(&self, id: VcpuId, offset: Offset) {
        let (first, firsts) = self.first.get_or_init(|| (id, offset));
        let Offset { least, most } = offset;
        log::debug!(
            target: "minivmm::tsc",
            "{id}: its TSC is {least} to {most} ticks before the host's"
        );
        if !offset.agrees(*firsts) && !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                target: "minivmm::tsc",
                "{id}: its TSC does not agree with that of {first}, which is {} to {} ticks \
                 before the host's",
                firsts.least,
                firsts.most
            );
        }
    }
}

/// What KVM adds to the host's counter (KVM API document, KVM_VCPU_TSC_OFFSET; since Linux 5.16).
fn exact(fd: &VcpuFd) -> Option<Offset> {
    let mut offset = 0_i64;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: ptr::from_mut(&mut offset).expose_provenance() as u64,
        ..kvm_device_attr::default()
    };
    // SAFETY: the descriptor is open, being borrowed, and KVM's; `attr` is read, and KVM writes the
    // 8 bytes of this attribute to `offset`, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_DEVICE_ATTR, &raw const attr) };
    (result == 0).then_some(Offset { least: offset, most: offset })
}

/// The vCPU's counter, read between two readings of the host's.
fn measured(fd: &VcpuFd) -> Option<Offset> {
    let mut msrs =
        Msrs::from_entries(&[kvm_msr_entry { index: IA32_TSC, ..kvm_msr_entry::default() }])
            .ok()?;
    let before = tsc::read();
    let read = fd.get_msrs(&mut msrs).ok()?;
    let after = tsc::read();
    let guest = msrs.as_slice().first().filter(|_| read == 1)?.data;
    let minus = |host: u64| guest.wrapping_sub(host).cast_signed();
    Some(Offset { least: minus(after), most: minus(before) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_agree_where_they_may_be_the_same() {
        let offset = |least, most| Offset { least, most };
        assert!(offset(-5, -5).agrees(offset(-5, -5)));
        assert!(!offset(-5, -5).agrees(offset(-4, -4)));
        assert!(offset(0, 10).agrees(offset(10, 20)) && offset(10, 20).agrees(offset(0, 10)));
        assert!(offset(0, 30).agrees(offset(10, 20)));
        assert!(!offset(0, 9).agrees(offset(10, 20)));
    }

    #[test]
    fn the_first_vcpu_is_what_the_others_are_compared_with() {
        let offsets = TscOffsets::default();
        offsets.tell(VcpuId(3), Offset { least: 7, most: 7 });
        offsets.tell(VcpuId(0), Offset { least: 8, most: 8 });
        assert_eq!(offsets.first.get(), Some(&(VcpuId(3), Offset { least: 7, most: 7 })));
    }
}
