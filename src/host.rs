//! What the host sends a running VM: signals, console input, time. All of it is waited for in
//! one place, the supervisor's poll(2), together with the bell of the VM's own events. Runs on
//! the main thread.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::console::{Action, ConsoleInput, HELP, TerminalGuard};
use crate::devices::DeviceSet;
use crate::devices::queue::DeviceQueue;
use crate::events::EventReceiver;
use crate::kvm::kick;
use crate::outcome::EndSignal;

/// The signals that a VM run from the command line takes, through a descriptor, while this
/// exists. A signal that comes later ends the process, whatever it is waiting for.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Drop for Signals {
    fn drop(&mut self) {
        // More of what has ended the VM already.
        while self.next().is_some() {}
        let _ = self.before.thread_set_mask();
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The end.
    End(EndSignal),
    /// SIGUSR1: a look at the flight recorders.
    Look,
    /// SIGTSTP; see [`suspend`].
    Suspend,
    /// SIGCONT.
    Continue,
}

/// Stops every thread, and so the guest, until SIGCONT.
pub fn suspend() {
    let _ = raise(Signal::SIGSTOP);
}

/// How often a VM in the background looks whether its terminal has become its own.
const BACKGROUND_LOOK: Duration = Duration::from_millis(500);

const TAKEN: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGUSR1,
];

impl Signals {
    /// Blocks the signals for the calling thread and all that it starts from now on, so that
    /// they arrive nowhere but here.
    ///
    /// # Errors
    ///
    /// What sigprocmask(2) and signalfd(2) say.
    pub fn take() -> io::Result<Self> {
        // One that our parent had us ignore, as `nohup` does, stays ignored; blocked it would be
        // queued.
        let set: SigSet = TAKEN.into_iter().filter(|signal| !kick::is_ignored(*signal)).collect();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { fd: SignalFd::with_flags(&set, flags)?, before })
    }

    /// A signal that has come, if any has: what it means.
    pub fn try_next(&self) -> Option<Taken> {
        match self.next()? {
            Signal::SIGHUP => Some(Taken::End(EndSignal::Hangup)),
            Signal::SIGINT => Some(Taken::End(EndSignal::Interrupt)),
            Signal::SIGTERM => Some(Taken::End(EndSignal::Terminate)),
            Signal::SIGQUIT => Some(Taken::End(EndSignal::Quit)),
            Signal::SIGUSR1 => Some(Taken::Look),
            Signal::SIGTSTP => Some(Taken::Suspend),
            Signal::SIGCONT => Some(Taken::Continue),
            _ => None,
        }
    }

    fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

/// The host's side of a VM's supervisor. Every part may be absent: a VM that a program runs
/// has no signals and need have no input.
#[derive(Debug, Default)]
pub struct Host {
    // Dropped in this order: a signal that is pending at the end may kill the process, and the
    // terminal must be as it was by then.
    /// The user's terminal.
    pub terminal: Option<TerminalGuard>,
    /// What the guest's UART receives.
    pub input: Option<ConsoleInput>,
    /// Signals that end or stop the VM.
    pub signals: Option<Signals>,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The VM's own events; look at them.
    Events,
    /// A signal that ends the VM.
    Signal(EndSignal),
    /// The user's `Ctrl-A x`.
    Quit,
    /// The deadline has passed.
    Deadline,
    /// SIGUSR1: somebody wants to see the flight recorders.
    Look,
}

impl Host {
    /// Waits until something is to be done about the VM, moving input to its serial port
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// poll(2) fails, for want of memory.
    pub fn wait(
        &mut self,
        events: &EventReceiver,
        queue: &DeviceQueue<DeviceSet>,
        deadline: Option<Instant>,
    ) -> io::Result<Wake> {
        loop {
            if self.move_input(queue) == Some(Action::Quit) {
                return Ok(Wake::Quit);
            }
            // A shell that fetches a running job into the foreground tells nobody.
            let look = self.is_in_background().then(|| Instant::now() + BACKGROUND_LOOK);
            let until = match (deadline, look) {
                (Some(deadline), Some(look)) => Some(deadline.min(look)),
                (deadline, look) => deadline.or(look),
            };
            let Some(limit) = time_left(until) else {
                return Ok(Wake::Deadline);
            };
            let ready = self.poll(events, queue, limit)?;
            if let Some(wake) = ready.signal.then(|| self.take_signal()).flatten() {
                return Ok(wake);
            }
            if ready.events {
                events.silence();
                return Ok(Wake::Events);
            }
        }
    }

    /// Whether there is a terminal that is not ours now; takes it if it has become ours.
    fn is_in_background(&self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        if !terminal.is_raw() {
            self.resume_terminal();
        }
        !terminal.is_raw()
    }

    fn poll(
        &self,
        events: &EventReceiver,
        queue: &DeviceQueue<DeviceSet>,
        limit: PollTimeout,
    ) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(events.bell(), PollFlags::POLLIN)];
        if let Some(signals) = &self.signals {
            fds.push(PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN));
        }
        // Without room the device thread rings the bell once there is some.
        let room = || queue.visit(|devices| devices.com1().wanted_input());
        if let Some(fd) = self.input.as_ref().and_then(|input| input.fd(room())) {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready { events: is_ready(0), signal: self.signals.is_some() && is_ready(1) })
    }

    /// Reads what input there is room for and hands it to the serial port.
    fn move_input(&mut self, queue: &DeviceQueue<DeviceSet>) -> Option<Action> {
        let input = self.input.as_mut()?;
        let room = queue.visit(|devices| devices.com1().input_room());
        match input.read(room) {
            Ok(read) => {
                if !read.bytes.is_empty() {
                    queue.visit(|devices| devices.com1().push_input(read.bytes));
                }
                if read.action == Some(Action::Help) {
                    let _ = io::stderr().write_all(HELP.as_bytes());
                }
                read.action
            }
            Err(error) => {
                log::warn!(target: "minivmm::console", "no more input: {error}");
                None
            }
        }
    }

    /// Takes a signal; acts on those that only concern the terminal.
    fn take_signal(&mut self) -> Option<Wake> {
        match self.signals.as_ref()?.try_next()? {
            Taken::End(signal) => Some(Wake::Signal(signal)),
            Taken::Look => Some(Wake::Look),
            Taken::Suspend => {
                if let Some(terminal) = &self.terminal {
                    terminal.suspend();
                }
                suspend();
                self.resume_terminal();
                None
            }
            Taken::Continue => {
                self.resume_terminal();
                None
            }
        }
    }

    fn resume_terminal(&self) {
        if let Some(Err(error)) = self.terminal.as_ref().map(TerminalGuard::resume) {
            log::warn!(target: "minivmm::console", "cannot set the terminal's mode: {error}");
        }
    }
}

struct Ready {
    events: bool,
    signal: bool,
}

/// The time until `deadline` in poll(2)'s terms, rounded up; `None` if it has passed.
fn time_left(deadline: Option<Instant>) -> Option<PollTimeout> {
    let Some(deadline) = deadline else {
        return Some(PollTimeout::NONE);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return None;
    }
    let rounded = left + Duration::from_micros(999);
    Some(PollTimeout::try_from(rounded).unwrap_or(PollTimeout::MAX))
}
