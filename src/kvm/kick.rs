//! The kick: how another thread makes a vCPU leave the guest. KVM_RUN returns EINTR when a
//! signal is pending for its thread, and at once when `kvm_run.immediate_exit` is set (KVM API
//! document, section 5); together they leave no moment at which a kick is lost.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, gettid};

use crate::kvm::run_map::RunMap;
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
    change_mask(libc::SIG_UNBLOCK);
}

/// Blocks [`kick_signal`] for the calling thread, or unblocks it.
fn change_mask(how: libc::c_int) {
    // SAFETY: an all-zero sigset_t is valid memory for sigemptyset to fill in, the pointers are
    // to it, and the old mask is not asked for.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    // The only errors are a bad `how` and a bad pointer.
    debug_assert_eq!(result, 0);
}

/// While this exists, a [`kick_signal`] is pending for the calling thread, and blocked. Those that
/// are sent to it meanwhile arrive afterwards, where they interrupt nothing: who sends one sets
/// `immediate_exit`, too.
#[derive(Debug)]
pub struct PendingSignal(());

impl PendingSignal {
    /// Sends it.
    ///
    /// # Errors
    ///
    /// As many signals wait as the host allows.
    pub fn send() -> io::Result<Self> {
        change_mask(libc::SIG_BLOCK);
        let pending = Self(());
        send_to(gettid())?;
        Ok(pending)
    }
}

impl Drop for PendingSignal {
    fn drop(&mut self) {
        change_mask(libc::SIG_UNBLOCK);
    }
}

/// Sends [`kick_signal`] to a thread of this process.
fn send_to(thread: Pid) -> io::Result<()> {
    let process = std::process::id();
    // SAFETY: tgkill(2) takes numbers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, thread.as_raw(), kick_signal()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
    // SAFETY: the handle exists, so the thread has been neither joined nor detached, and its
    // pthread_t is valid; sending a signal touches no memory of ours.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Kicks one KVM vCPU. It keeps the vCPU's `kvm_run` mapped, and a signal to a thread that has
/// ended is no more than an error.
#[derive(Debug)]
pub struct KvmKick {
    run: Arc<RunMap>,
    thread: Pid,
}

impl KvmKick {
    /// A kick for the vCPU with this `kvm_run`, which the calling thread runs.
    pub fn for_this_thread(run: Arc<RunMap>) -> Self {
        Self { run, thread: gettid() }
    }
}

impl Kick for KvmKick {
    fn kick(&self) {
        self.run.kick();
        // It may have ended.
        let _ = send_to(self.thread);
    }

    fn take_back(&self) {
        self.run.take_back_kick();
    }
}
