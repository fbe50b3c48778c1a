//! A vCPU's `kvm_run`, mapped (KVM API document, section 4.5, KVM_GET_VCPU_MMAP_SIZE). The
//! mapping is our own, beside the one that kvm-ioctls has of the same pages: so a kick can keep
//! it alive by itself, and no reference that kvm-ioctls makes covers what a kick writes.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{KVM_SYNC_X86_REGS, kvm_run, kvm_run__bindgen_ty_1};
use kvm_ioctls::VcpuFd;

/// The part of `kvm_run` that says more about an exit; which member counts, its reason says.
pub type Detail = kvm_run__bindgen_ty_1;

/// See the module's text. All but [`kick`](Self::kick) is for the vCPU's own thread.
#[derive(Debug)]
pub struct RunMap {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread. What `&self` allows any thread is an atomic access
// to one byte; the rest is `unsafe` to call.
unsafe impl Send for RunMap {}
// SAFETY: as above.
unsafe impl Sync for RunMap {}

impl RunMap {
    /// Maps the `len` bytes of the vCPU `fd`.
    ///
    /// # Errors
    ///
    /// What mmap(2) says.
    pub fn new(fd: &VcpuFd, len: usize) -> io::Result<Self> {
        if len < size_of::<kvm_run>() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; it is ours alone.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the byte is inside the mapping, which lives as long as `self`, and it is
        // accessed only here, and by the kernel, which reads it at the start of KVM_RUN.
        unsafe { self.base.add(offset_of!(kvm_run, immediate_exit)).cast::<AtomicU8>().as_ref() }
    }

    /// Makes the next KVM_RUN return at once. For any thread.
    pub fn kick(&self) {
        self.immediate_exit().store(1, Ordering::Release);
    }

    /// Takes a kick back, after KVM_RUN has returned for it. A swap: if it takes back a kick's
    /// store, everything before that kick, its request above all, is visible after it.
    pub fn take_back_kick(&self) {
        self.immediate_exit().swap(0, Ordering::AcqRel);
    }

    /// Why KVM_RUN returned, and the detail of it.
    ///
    /// # Safety
    ///
    /// Only by the vCPU's thread, which must not call KVM_RUN while it uses the result.
    pub unsafe fn exit(&self) -> (u32, &Detail) {
        let run = self.base.cast::<kvm_run>().as_ptr();
        // SAFETY: the mapping is page-aligned, holds a whole `kvm_run` and lives as long as
        // `self`. The kernel writes these fields only in KVM_RUN, which the caller is not in; the
        // references do not cover `immediate_exit`.
        unsafe { ((*run).exit_reason, &(*run).__bindgen_anon_1) }
    }

    /// Has KVM_RUN store the general registers in `kvm_run` at every exit (KVM API document,
    /// section 5, KVM_CAP_SYNC_REGS). For the vCPU's own thread, outside KVM_RUN.
    pub fn sync_registers(&self) {
        // SAFETY: the field is inside the mapping, aligned as in `kvm_run`; the kernel reads it
        // only in KVM_RUN, and nothing of ours refers to it.
        let valid = unsafe { self.base.add(offset_of!(kvm_run, kvm_valid_regs)).cast::<u64>() };
        // SAFETY: as above.
        unsafe { valid.write(u64::from(KVM_SYNC_X86_REGS)) };
    }

    /// RIP at the last exit, if [`sync_registers`](Self::sync_registers) was asked for. For the
    /// vCPU's own thread.
    pub fn synced_rip(&self) -> Option<u64> {
        let run = self.base.cast::<kvm_run>().as_ptr();
        // SAFETY: the mapping holds a whole `kvm_run` and lives as long as `self`; the kernel
        // writes these fields only in KVM_RUN, which the vCPU's thread is not in.
        unsafe {
            let asked = (*run).kvm_valid_regs & u64::from(KVM_SYNC_X86_REGS) != 0;
            // The union has one member for each architecture's registers and its padding.
            asked.then(|| (*run).s.regs.regs.rip)
        }
    }

    /// Whether the guest could take an external interrupt when KVM_RUN returned. For the vCPU's own
    /// thread.
    pub fn is_ready_for_interrupt(&self) -> bool {
        let run = self.base.cast::<kvm_run>().as_ptr();
        // SAFETY: the mapping holds a whole `kvm_run` and lives as long as `self`; the kernel
        // writes this field only in KVM_RUN, which the vCPU's thread is not in.
        unsafe { (*run).ready_for_interrupt_injection != 0 }
    }

    /// KVM_RUN is to return as soon as the guest can take an external interrupt, or is not. For the
    /// vCPU's own thread.
    pub fn request_window(&self, wanted: bool) {
        // SAFETY: the byte is inside the mapping, which lives as long as `self`; the kernel reads
        // it only in KVM_RUN, and nothing of ours refers to it.
        unsafe {
            self.base.add(offset_of!(kvm_run, request_interrupt_window)).write(wanted.into())
        };
    }

    /// The `len` bytes at `offset`; none if they are not all inside.
    ///
    /// # Safety
    ///
    /// As [`exit`](Self::exit); and `offset` must be that of an exit's data, so that nothing
    /// else refers to these bytes.
    #[expect(clippy::mut_from_ref, reason = "by its contract one slice at a time exists")]
    pub unsafe fn data(&self, offset: usize, len: usize) -> &mut [u8] {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return &mut [];
        }
        // SAFETY: inside the mapping, as just checked, and used by nobody else by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(offset).as_ptr(), len) }
    }
}

impl Drop for RunMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whatever refers to it borrows `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
