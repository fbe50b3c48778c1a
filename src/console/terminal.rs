//! The mode of the user's terminal: raw while the VM has it, as it was before at every other
//! moment. That covers the end of the VM, a stop by SIGTSTP, and a panic on any thread. Bytes are
//! not this file's business, and neither are signals: the main thread, which owns the
//! [`TerminalGuard`], calls [`suspend`](TerminalGuard::suspend) and
//! [`resume`](TerminalGuard::resume) when it takes SIGTSTP and SIGCONT from its signalfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::{Arc, Once, Weak};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use parking_lot::Mutex;

/// The terminal that the panic hook restores. A panic hook is one for the whole process and
/// cannot be taken off again safely, so it finds its terminal here, and finds none once the guard
/// is gone. Never held together with `Terminal::saved`.
static PANIC_TERMINAL: Mutex<Weak<Terminal>> = Mutex::new(Weak::new());

/// Restores the terminal that a panic restores, if there is one: for a process that is to end on
/// the spot, whatever its threads are at. Neither allocates nor waits.
pub fn restore_at_once() {
    let terminal = PANIC_TERMINAL.try_lock().and_then(|terminal| terminal.upgrade());
    if let Some(terminal) = terminal
        && let Some(mut saved) = terminal.saved.try_lock()
    {
        terminal.restore_to(&mut saved);
    }
}

/// Keeps a terminal in raw mode, and restores it when dropped.
#[derive(Debug)]
pub struct TerminalGuard {
    pub(super) terminal: Arc<Terminal>,
}

impl TerminalGuard {
    /// Takes the terminal `fd`: puts it in raw mode, unless this process is in the background,
    /// where the terminal is not its to change (`resume` does it later).
    ///
    /// Fails if `fd` is no terminal.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // The guard first: should setting the mode fail half-way, dropping it restores.
        let guard = Self { terminal: Arc::new(Terminal { fd, saved: Mutex::new(None) }) };
        guard.resume()?;
        Ok(guard)
    }

    /// Has the terminal restored when any thread panics, *before* the panic's message is printed,
    /// so that the message is readable and the shell usable however the process ends. What was
    /// the hook before then prints the message. One terminal of the process can have this: the
    /// last to ask.
    pub fn restore_on_panic(&self) {
        static INSTALL: Once = Once::new();

        *PANIC_TERMINAL.lock() = Arc::downgrade(&self.terminal);
        INSTALL.call_once(|| {
            let previous = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                let terminal = PANIC_TERMINAL.lock().upgrade();
                if let Some(terminal) = terminal {
                    terminal.restore();
                }
                previous(info);
            }));
        });
    }

    /// Whether raw mode is set. It is not in the background.
    pub fn is_raw(&self) -> bool {
        self.terminal.saved.lock().is_some()
    }

    /// Restores the terminal for the time that this process is stopped. Call it before stopping;
    /// calling it again does nothing.
    pub fn suspend(&self) {
        self.terminal.restore();
    }

    /// Puts the terminal in raw mode again if this process is in the foreground. Call it after
    /// every SIGCONT: also a SIGSTOP, of which no process is told, lets the shell change the mode.
    pub fn resume(&self) -> io::Result<()> {
        self.terminal.make_raw()
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        self.terminal.restore();
    }
}

/// A terminal and the mode to go back to; shared by the guard and the panic hook.
#[derive(Debug)]
pub(super) struct Terminal {
    fd: OwnedFd,
    /// The user's mode, from when raw mode is set to when this is restored. Locked while the mode
    /// changes, so that a panic on one thread and a `resume` on another do not mix; nothing that
    /// is done under it waits.
    pub(super) saved: Mutex<Option<Termios>>,
}

impl Terminal {
    fn make_raw(&self) -> io::Result<()> {
        let mut saved = self.saved.lock();
        if !in_foreground(self.fd.as_fd()) {
            return Ok(());
        }
        // After a SIGSTOP the mode saved earlier is still the one to go back to.
        let user = match saved.take() {
            Some(user) => user,
            None => tcgetattr(&self.fd)?,
        };
        let raw = raw_mode(&user);
        *saved = Some(user);
        set_mode(self.fd.as_fd(), &raw)
    }

    /// Goes back to the user's mode if raw mode is set. A failure means that the terminal has
    /// gone, and then there is nothing to restore and nobody to tell.
    fn restore(&self) {
        self.restore_to(&mut self.saved.lock());
    }

    fn restore_to(&self, saved: &mut Option<Termios>) {
        // In the background the shell, or another job, has set the mode that it needs.
        if !in_foreground(self.fd.as_fd()) {
            return;
        }
        if let Some(user) = saved.take() {
            let _ = set_mode(self.fd.as_fd(), &user);
        }
    }
}

/// The mode for the guest: every key arrives at once and unchanged, ^C, ^Z and ^S included, and
/// is not echoed.
///
/// Output stays as the user had it, usually OPOST and ONLCR, unlike with cfmakeraw(3): the mode
/// is the terminal's, not the descriptor's, and so also holds for log lines on standard error,
/// which would otherwise run down the screen in stairs. A guest's "\r\n" looks the same either way.
fn raw_mode(user: &Termios) -> Termios {
    let mut raw = user.clone();
    cfmakeraw(&mut raw);
    raw.output_flags = user.output_flags;
    raw
}

/// Sets the mode, neither waiting nor stopping.
pub(super) fn set_mode(fd: BorrowedFd<'_>, mode: &Termios) -> io::Result<()> {
    // SIGTTOU stops a background process that sets the mode. We have just looked whether we are
    // one, but that can have changed since; with the signal blocked the call succeeds instead.
    let mask = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // TCSANOW: TCSADRAIN and TCSAFLUSH wait until all output is out, which on a terminal that the
    // user has stopped, or a link that stalls, is never, and the VMM could not end.
    let set = tcsetattr(fd, SetArg::TCSANOW, mode);
    mask.thread_set_mask()?;
    Ok(set?)
}

/// Whether this process may read the terminal and set its mode: it is in the foreground process
/// group, or the terminal is not its controlling terminal, to which job control does not apply.
pub(super) fn in_foreground(fd: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(fd) {
        Ok(group) => group == getpgrp(),
        Err(error) => error == Errno::ENOTTY,
    }
}
