//! The kick: how another thread makes a vCPU leave the guest. KVM_RUN returns EINTR when a
//! signal is pending for its thread, and at once when `kvm_run.immediate_exit` is set (KVM API
//! document, section 5); together they leave no moment at which a kick is lost.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use nix::sys::pthread::{Pthread, pthread_self};
use nix::sys::signal::Signal;

use crate::vcpu::Kick;

/// The signal that interrupts KVM_RUN and a write that the host does not take: a real-time
/// signal, which no shell or terminal sends.
pub fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Gives [`kick_signal`] a handler that does nothing, so that it interrupts system calls
/// instead of killing the process, and unblocks it for the calling thread and those that it
/// starts: whoever started us may have left it blocked, and then no kick would arrive.
pub fn install_handler() {
    static INSTALLED: Once = Once::new();

    extern "C" fn interrupt_only(_signal: libc::c_int) {}

    INSTALLED.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid value: no flags (so no SA_RESTART, which
        // is the point), an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = interrupt_only as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `action` is valid and its handler, which does nothing, is
        // async-signal-safe.
        let result =
            unsafe { libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut()) };
        // The only errors are a bad signal number and a bad pointer.
        debug_assert_eq!(result, 0);
    });
    // SAFETY: an all-zero sigset_t is valid memory for sigemptyset to fill in, the pointers are
    // to it, and the old mask is not asked for.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    debug_assert_eq!(result, 0);
}

/// Whether this process ignores `signal`.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: an all-zero sigaction is valid memory for the answer, the pointer is to it, and
    // nothing is changed.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as libc::c_int, std::ptr::null(), &raw mut action);
        action
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Ignores SIGXFSZ, which kills by default, so that a write past the file size limit fails with
/// EFBIG, an error like any other.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition and no handler is involved.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Sends the kick signal to a thread that has not been joined, as its handle shows.
///
/// # Errors
///
/// The thread has ended.
pub fn interrupt<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: the handle exists, so the thread has been neither joined nor detached.
    unsafe { send(thread.as_pthread_t()) }
}

/// # Safety
///
/// The thread must exist, or have ended without being joined or detached.
unsafe fn send(thread: Pthread) -> io::Result<()> {
    // SAFETY: the thread is valid by this function's contract; sending a signal touches no
    // memory of ours.
    match unsafe { libc::pthread_kill(thread, kick_signal()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The `immediate_exit` byte of one vCPU's `kvm_run`.
#[derive(Clone, Copy, Debug)]
pub struct ImmediateExit(NonNull<AtomicU8>);

// SAFETY: the pointer is to an atomic in a shared mapping, which any thread may use as long as
// the mapping exists: see `ImmediateExit::new`.
unsafe impl Send for ImmediateExit {}

impl ImmediateExit {
    /// The byte at `byte`.
    ///
    /// # Safety
    ///
    /// `byte` must point into the vCPU's `kvm_run` mapping, the mapping must outlive every use
    /// of the value returned, and no reference that is used to access the byte may exist.
    pub unsafe fn new(byte: NonNull<u8>) -> Self {
        Self(byte.cast())
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: by `new`'s contract the byte is mapped, and only accessed atomically: by us
        // and by the kernel, which reads it once at the start of KVM_RUN.
        unsafe { self.0.as_ref() }
    }

    /// Only by the vCPU's thread, after KVM_RUN has returned EINTR. A swap: if it takes back a
    /// kick's store, everything before that kick, its request above all, is visible after it.
    pub fn clear(&self) {
        self.byte().swap(0, Ordering::AcqRel);
    }

    fn set(&self) {
        self.byte().store(1, Ordering::Release);
    }
}

/// Kicks one KVM vCPU.
#[derive(Debug)]
pub struct KvmKick {
    immediate_exit: ImmediateExit,
    thread: Pthread,
}

impl KvmKick {
    /// A kick for the vCPU with this `immediate_exit`, which the calling thread runs.
    pub fn for_this_thread(immediate_exit: ImmediateExit) -> Self {
        Self { immediate_exit, thread: pthread_self() }
    }
}

impl Kick for KvmKick {
    fn kick(&self) {
        self.immediate_exit.set();
        // SAFETY: `vcpu/state.rs` drops this before the thread ends, and holds a lock meanwhile.
        let _ = unsafe { send(self.thread) };
    }
}
