//! How a VM's run came out, and the exit code that each outcome maps to. What a guest does
//! wrong is an outcome, a value like any other; it is no `Err`.

use std::fmt;
use std::io;
use std::time::Duration;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use crate::devices::GuestEnd;
use crate::exit::{InsnBytes, VcpuId, VmExit};
use crate::vcpu::registers::Registers;
use crate::vcpu::{VcpuEnd, VcpuError};

/// The exit codes of the minivmm command. A guest's own codes are odd, see [`VmOutcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All vCPUs halted, the guest powered off, or the user ended the VM with `Ctrl-A x`.
    Success = 0,
    /// A command line that makes no sense.
    Usage = 2,
    /// The host does not let us: KVM, memory, files, threads.
    Host = 4,
    /// The guest's output, or its trace, could not be written.
    Output = 6,
    /// A triple fault.
    TripleFault = 8,
    /// The hardware refused to enter the guest.
    FailedEntry = 10,
    /// An internal error of KVM, such as an instruction that it cannot emulate.
    InternalError = 12,
    /// An exit that minivmm does not handle.
    Unhandled = 14,
    /// The guest asked for a reset.
    Reset = 16,
    /// A thread of minivmm panicked or got stuck.
    Thread = 18,
    /// An assertion of the guest failed.
    Assertion = 20,
    /// A condition of `--expect` or `--forbid` does not hold.
    Condition = 22,
    /// The time given with `--timeout` is over.
    TimedOut = 124,
    /// SIGHUP, as a shell shows it: 128 and the signal's number.
    Hangup = 129,
    /// SIGINT.
    Interrupted = 130,
    /// The reader of the guest's output closed it: 128 and the number of SIGPIPE.
    OutputClosed = 141,
    /// SIGQUIT.
    Quit = 131,
    /// SIGTERM.
    Terminated = 143,
}

/// The table of exit codes as `--help` shows it.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0             all vCPUs halted, the guest powered off, or Ctrl-A x
  (v << 1) | 1  the guest wrote v to port 0xf4
  2             usage error
  4             host error: KVM, memory, files, threads
  6             output or trace could not be written
  8             triple fault
  10            VM entry failed
  12            KVM internal error, for example an emulation failure
  14            unhandled exit
  16            the guest asked for a reset
  18            a thread of minivmm failed
  20            an assertion of the guest failed
  22            a condition of --expect or --forbid does not hold
  124           time-out
  129, 130      SIGHUP, SIGINT
  131, 143      SIGQUIT, SIGTERM
  141           the reader of the output closed it
";

/// A signal that ends the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Terminate,
}

/// How a run came out.
#[derive(Debug)]
pub enum VmOutcome {
    /// Every vCPU halted.
    AllHalted,
    /// The guest ended the VM through a device.
    Guest {
        /// Which vCPU did it.
        vcpu: VcpuId,
        /// What it did.
        end: GuestEnd,
    },
    /// The guest cannot go on.
    Fault {
        /// Which vCPU it happened to.
        vcpu: VcpuId,
        /// The exit that says so.
        exit: VmExit,
        /// Its registers, where KVM still had them.
        registers: Option<Box<Registers>>,
    },
    /// The guest has found an error in what it is there to check.
    Assertion {
        /// Which vCPU says so.
        vcpu: VcpuId,
        /// What it says.
        text: String,
        /// Its registers at that point.
        registers: Option<Box<Registers>>,
    },
    /// The guest ran for longer than it may.
    TimedOut(Duration),
    /// A signal.
    Signal(EndSignal),
    /// The user's `Ctrl-A x`.
    Quit,
    /// A stop that the program asked for.
    Stopped,
    /// The reader of the guest's output is gone.
    OutputClosed,
    /// The guest's output could not be written.
    OutputFailed(io::Error),
    /// The trace could not be written, and was not to lose anything.
    TraceFailed(io::Error),
    /// The host failed a vCPU.
    VcpuFailed {
        /// Which.
        vcpu: VcpuId,
        /// Why.
        error: VcpuError,
    },
    /// A vCPU's thread panicked.
    VcpuPanicked {
        /// Which.
        vcpu: VcpuId,
        /// The panic's message.
        message: String,
    },
    /// The device thread panicked.
    DeviceThreadFailed(String),
    /// One of the threads that a VM has besides its vCPUs' could not be started.
    ThreadNotStarted {
        /// Which.
        thread: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The supervisor cannot wait for what happens.
    SupervisorFailed(io::Error),
    /// Threads that did not end in time.
    Stuck(Vec<String>),
}

impl VmOutcome {
    /// What the end of one vCPU means for the whole VM, if it is an end of that.
    pub fn of_end(vcpu: VcpuId, end: VcpuEnd) -> Self {
        match end {
            VcpuEnd::Halted => Self::AllHalted,
            VcpuEnd::Stopped { .. } => Self::Stopped,
            VcpuEnd::Guest(end) => Self::Guest { vcpu, end },
            VcpuEnd::Fault { exit, registers } => Self::Fault { vcpu, exit, registers },
            VcpuEnd::Assertion { text, registers } => Self::Assertion { vcpu, text, registers },
            VcpuEnd::Failed { error, .. } => Self::VcpuFailed { vcpu, error },
            VcpuEnd::Panicked(message) => Self::VcpuPanicked { vcpu, message },
        }
    }

    /// The exit code, as the process's parent sees it.
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            Self::Guest { end: GuestEnd::Exit(value), .. } => {
                let [low, ..] = value.to_le_bytes();
                return low << 1 | 1;
            }
            Self::AllHalted
            | Self::Quit
            | Self::Stopped
            | Self::Guest { end: GuestEnd::PowerOff, .. } => ExitCode::Success,
            Self::Guest { end: GuestEnd::Reset, .. } => ExitCode::Reset,
            Self::Fault { exit, .. } => match exit {
                VmExit::Shutdown => ExitCode::TripleFault,
                VmExit::FailEntry { .. } => ExitCode::FailedEntry,
                VmExit::InternalError { .. } => ExitCode::InternalError,
                _ => ExitCode::Unhandled,
            },
            Self::Assertion { .. } => ExitCode::Assertion,
            Self::TimedOut(_) => ExitCode::TimedOut,
            Self::Signal(EndSignal::Hangup) => ExitCode::Hangup,
            Self::Signal(EndSignal::Interrupt) => ExitCode::Interrupted,
            Self::Signal(EndSignal::Quit) => ExitCode::Quit,
            Self::Signal(EndSignal::Terminate) => ExitCode::Terminated,
            Self::OutputClosed => ExitCode::OutputClosed,
            Self::OutputFailed(_) | Self::TraceFailed(_) => ExitCode::Output,
            Self::VcpuFailed { .. } | Self::ThreadNotStarted { .. } | Self::SupervisorFailed(_) => {
                ExitCode::Host
            }
            Self::VcpuPanicked { .. } | Self::DeviceThreadFailed(_) | Self::Stuck(_) => {
                ExitCode::Thread
            }
        };
        code as u8
    }

    /// Whether the run failed, so that a report is due and any success queued with it yields.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::AllHalted
            | Self::Guest { .. }
            | Self::Quit
            | Self::Stopped
            | Self::Signal(_)
            | Self::OutputClosed => false,
            Self::Fault { .. }
            | Self::Assertion { .. }
            | Self::TimedOut(_)
            | Self::OutputFailed(_)
            | Self::TraceFailed(_)
            | Self::VcpuFailed { .. }
            | Self::VcpuPanicked { .. }
            | Self::DeviceThreadFailed(_)
            | Self::ThreadNotStarted { .. }
            | Self::SupervisorFailed(_)
            | Self::Stuck(_) => true,
        }
    }

    /// Whether the last of the output waits for its reader; the other ends come from outside
    /// and give it a short grace.
    pub fn waits_for_reader(&self) -> bool {
        !matches!(
            self,
            Self::TimedOut(_) | Self::Signal(_) | Self::Quit | Self::Stopped | Self::Stuck(_)
        )
    }
}

impl fmt::Display for VmOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllHalted => write!(f, "all vCPUs halted"),
            Self::Guest { vcpu, end: GuestEnd::Exit(value) } => {
                write!(f, "{vcpu} wrote {value:#x} to the exit port")
            }
            Self::Guest { vcpu, end: GuestEnd::PowerOff } => write!(f, "{vcpu} powered off"),
            Self::Guest { vcpu, end: GuestEnd::Reset } => write!(f, "{vcpu} asked for a reset"),
            Self::Fault { vcpu, exit, registers } => {
                write!(f, "{vcpu}: ")?;
                write_fault(f, exit, registers.as_deref())
            }
            Self::Assertion { vcpu, text, .. } => write!(f, "{vcpu}: assertion failed: {text}"),
            Self::TimedOut(after) => {
                write!(
                    f,
                    "time-out: the guest still ran after {}",
                    humantime::format_duration(*after)
                )
            }
            Self::Signal(EndSignal::Hangup) => write!(f, "ended by SIGHUP"),
            Self::Signal(EndSignal::Interrupt) => write!(f, "ended by SIGINT"),
            Self::Signal(EndSignal::Quit) => write!(f, "ended by SIGQUIT"),
            Self::Signal(EndSignal::Terminate) => write!(f, "ended by SIGTERM"),
            Self::Quit => write!(f, "ended from the terminal"),
            Self::Stopped => write!(f, "stopped"),
            Self::OutputClosed => write!(f, "the reader of the guest's output closed it"),
            Self::OutputFailed(error) => write!(f, "cannot write the guest's output: {error}"),
            Self::TraceFailed(error) => write!(f, "cannot write the trace: {error}"),
            Self::VcpuFailed { vcpu, error } => write!(f, "{vcpu}: {error}"),
            Self::VcpuPanicked { vcpu, message } => {
                write!(f, "{vcpu}'s thread panicked: {message}")
            }
            Self::DeviceThreadFailed(message) => write!(f, "the device thread failed: {message}"),
            Self::ThreadNotStarted { thread, error } => {
                write!(f, "cannot start the {thread}: {error}")
            }
            Self::SupervisorFailed(error) => write!(f, "poll: {error}"),
            Self::Stuck(threads) => write!(f, "did not stop in time: {}", threads.join(", ")),
        }
    }
}

fn write_fault(
    f: &mut fmt::Formatter<'_>,
    exit: &VmExit,
    registers: Option<&Registers>,
) -> fmt::Result {
    match exit {
        VmExit::Shutdown => write!(f, "triple fault (KVM_EXIT_SHUTDOWN)"),
        VmExit::FailEntry { reason, cpu } => {
            write!(f, "VM entry failed on host CPU {cpu}, hardware reason {reason:#x}")
        }
        VmExit::InternalError { suberror, insn } => {
            let what = match suberror {
                1 => "instruction emulation failed",
                2 => "simultaneous exceptions",
                3 => "exit while delivering an event",
                4 => "unexpected exit reason",
                _ => "unknown suberror",
            };
            write!(f, "KVM internal error, suberror {suberror} ({what})")?;
            match insn {
                Some(insn) => write!(f, " at {}", Instruction { insn, registers }),
                None => Ok(()),
            }
        }
        VmExit::SystemEvent { kind: 3 } => write!(f, "the guest reported that it crashed"),
        VmExit::SystemEvent { kind } => write!(f, "system event of unknown type {kind}"),
        VmExit::Unhandled { reason } => write!(f, "unhandled exit, KVM exit reason {reason}"),
        // The run loop ends a vCPU with a fault only for the exits above.
        other => write!(f, "unhandled exit {other:?}"),
    }
}

/// The first of some instruction bytes, disassembled in the mode that the registers show.
struct Instruction<'a> {
    insn: &'a InsnBytes,
    registers: Option<&'a Registers>,
}

impl fmt::Display for Instruction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.insn.as_slice();
        let (bits, rip) = self.registers.map_or((16, 0), |regs| (regs.code_bits, regs.rip));
        let mut decoder = Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE);
        let decoded = decoder.decode();
        if let Some(registers) = self.registers {
            write!(f, "{:#x}: ", registers.linear_rip())?;
        }
        // KVM gives all the bytes it fetched; those after the first instruction say nothing.
        let len = if decoded.is_invalid() { bytes.len() } else { decoded.len() };
        for byte in &bytes[..len] {
            write!(f, "{byte:02x} ")?;
        }
        let mut text = String::new();
        IntelFormatter::new().format(&decoded, &mut text);
        write!(f, "({text}, {bits}-bit)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(exit: VmExit) -> VmOutcome {
        VmOutcome::Fault { vcpu: VcpuId(2), exit, registers: None }
    }

    #[test]
    fn exit_codes_are_those_documented() {
        let guest = |end| VmOutcome::Guest { vcpu: VcpuId(0), end };
        let table = [
            (VmOutcome::AllHalted, 0),
            (guest(GuestEnd::PowerOff), 0),
            (guest(GuestEnd::Exit(0)), 1),
            (guest(GuestEnd::Exit(0x15)), 43),
            (guest(GuestEnd::Exit(0x1ff)), 255),
            (guest(GuestEnd::Reset), 16),
            (fault(VmExit::Shutdown), 8),
            (fault(VmExit::FailEntry { reason: 1, cpu: 0 }), 10),
            (fault(VmExit::InternalError { suberror: 1, insn: None }), 12),
            (fault(VmExit::Unhandled { reason: 77 }), 14),
            (VmOutcome::TimedOut(Duration::from_secs(1)), 124),
            (VmOutcome::Signal(EndSignal::Interrupt), 130),
            (VmOutcome::Signal(EndSignal::Terminate), 143),
            (VmOutcome::Signal(EndSignal::Hangup), 129),
            (VmOutcome::OutputClosed, 141),
            (VmOutcome::OutputFailed(io::Error::other("full")), 6),
            (VmOutcome::Stuck(vec![]), 18),
        ];
        for (outcome, code) in table {
            assert_eq!(outcome.exit_code(), code, "{outcome}");
        }
    }

    #[test]
    fn a_failed_emulation_shows_the_instruction() {
        let mut bytes = [0x90; 15];
        bytes[..2].copy_from_slice(&[0xcd, 0x80]);
        let insn = Some(InsnBytes::new(bytes, 15));
        let registers =
            Some(Box::new(Registers { rip: 0x1234, code_bits: 64, ..Registers::default() }));
        let exit = VmExit::InternalError { suberror: 1, insn };
        let text = VmOutcome::Fault { vcpu: VcpuId(2), exit, registers }.to_string();
        assert_eq!(
            text,
            "vCPU 2: KVM internal error, suberror 1 (instruction emulation failed) \
             at 0x1234: cd 80 (int 80h, 64-bit)"
        );
    }
}
