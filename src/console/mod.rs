//! The host's side of the UART: standard input and output, a file, a pseudo-terminal, or nothing.
//!
//! [`Console::open`] makes three parts, each with one owner. The device thread has the
//! [`ConsoleOutput`] and may wait in it; the main thread has the [`ConsoleInput`], which never
//! waits, and the [`TerminalGuard`], to be dropped last so that the terminal is restored after
//! all output. What the UART does with the bytes is `devices/uart16550.rs`.
//!
//! Descriptors shared with other processes, as standard input and output are, are used as they
//! were inherited: O_NONBLOCK is a flag of the open file, not of our descriptor, so that setting
//! it here would break the shell's, or the next command's, input and output.

mod escape;
mod input;
mod pty;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::config::{DeviceConfig, SerialConfig};
use crate::out_file;

pub use escape::{Action, HELP};
pub use input::{ConsoleInput, Input};
pub use terminal::{TerminalGuard, restore_at_once};

use pty::Pty;

/// An open console, to be taken apart.
#[derive(Debug)]
pub struct Console {
    /// From the host to the guest; for the main thread.
    pub input: ConsoleInput,
    /// From the guest to the host; for the device thread.
    pub output: ConsoleOutput,
    /// The terminal at standard input, if it is one, in raw mode; for the main thread.
    pub terminal: Option<TerminalGuard>,
    pty_path: Option<PathBuf>,
}

impl Console {
    /// Opens what `serial` asks for.
    ///
    /// With `Stdio` and a terminal at standard input this sets raw mode and installs a panic hook
    /// that restores it. Opening a FIFO with `File` waits until someone reads it, so call this
    /// while ^C still ends the process.
    pub fn open(serial: &SerialConfig) -> Result<Self, ConsoleError> {
        match serial {
            SerialConfig::Stdio => {
                let console = Self::stdio(io::stdin().as_fd(), io::stdout().as_fd())?;
                if let Some(terminal) = &console.terminal {
                    terminal.restore_on_panic();
                }
                Ok(console)
            }
            SerialConfig::Null | SerialConfig::Kept => Ok(Self::output_only(None)),
            SerialConfig::File(path) => {
                let file = out_file::create(path)
                    .map_err(|source| ConsoleError::File { path: path.clone(), source })?;
                Ok(Self::output_only(Some(file.into())))
            }
            SerialConfig::Pty => Self::pty().map_err(ConsoleError::Pty),
        }
    }

    /// Opens only what output goes to; a terminal's mode is left alone.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_output(serial: &SerialConfig) -> Result<ConsoleOutput, ConsoleError> {
        match serial {
            SerialConfig::Stdio => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                Ok(Self::output_only(Some(stdout.map_err(ConsoleError::Stdio)?)).output)
            }
            _ => Ok(Self::open(serial)?.output),
        }
    }

    /// The path of the pseudo-terminal to attach to, if that is what was opened.
    ///
    /// What the guest sends while nobody reads the pseudo-terminal waits there; when that is
    /// full (some kilobytes), writing waits. What is unread when the VM ends, the kernel drops.
    pub fn pty_path(&self) -> Option<&Path> {
        self.pty_path.as_deref()
    }

    fn stdio(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> Result<Self, ConsoleError> {
        // Duplicates, so that each part owns its descriptor and the standard library's buffers are
        // not in between. A descriptor that was closed when the process started is /dev/null by
        // now: Rust's runtime sees to it before main.
        let output = stdout.try_clone_to_owned().map_err(ConsoleError::Stdio)?;
        let input = stdin.try_clone_to_owned().map_err(ConsoleError::Stdio)?;
        let (input, terminal) = if stdin.is_terminal() {
            let fd = stdin.try_clone_to_owned().map_err(ConsoleError::Stdio)?;
            let guard = TerminalGuard::new(fd).map_err(ConsoleError::Terminal)?;
            (ConsoleInput::terminal(input), Some(guard))
        } else {
            (ConsoleInput::plain(input), None)
        };
        Ok(Self { input, terminal, ..Self::output_only(Some(output)) })
    }

    fn pty() -> io::Result<Self> {
        let Pty { master, slave, path } = Pty::open()?;
        Ok(Self {
            input: ConsoleInput::pty(master.try_clone()?, slave.try_clone()?),
            output: ConsoleOutput { sink: Some(master), pty_slave: Some(slave) },
            terminal: None,
            pty_path: Some(path),
        })
    }

    fn output_only(sink: Option<OwnedFd>) -> Self {
        Self {
            input: ConsoleInput::none(),
            output: ConsoleOutput { sink, pty_slave: None },
            terminal: None,
            pty_path: None,
        }
    }
}

/// Opens the files that the serial ports besides COM1 send to, in their order. Waits for the reader
/// of a FIFO, as [`Console::open`] does.
///
/// # Errors
///
/// One of them cannot be created.
pub fn open_ports(devices: &DeviceConfig) -> Result<Vec<ConsoleOutput>, ConsoleError> {
    let open = |path: &Path| Console::open_output(&SerialConfig::File(path.to_owned()));
    devices.port_files().map(|(_, path)| open(path)).collect()
}

/// The sink of the UART's output. Buffers nothing.
#[derive(Debug)]
pub struct ConsoleOutput {
    /// `None` discards.
    sink: Option<OwnedFd>,
    /// See `Pty::slave`.
    pty_slave: Option<OwnedFd>,
}

/// Where the guest's output goes: one write(2) a call. The console's in the program, others in
/// tests.
pub trait Output: Send {
    /// Writes the first bytes of `bytes`, waiting for the reader if need be, and returns how many.
    ///
    /// # Errors
    ///
    /// What write(2) says; [`io::ErrorKind::Interrupted`] if a signal ended the waiting.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// False while the host holds bytes that it would drop if the output were closed now.
    fn is_taken(&self) -> bool {
        true
    }

    /// Takes those bytes back, for good, and returns how many they were.
    fn take_back(&mut self) -> u64 {
        0
    }
}

/// What became of the guest's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputReport {
    /// Bytes written.
    pub written: u64,
    /// Calls of write(2).
    pub writes: u64,
    /// Bytes that the guest wrote and the host did not take.
    pub lost: u64,
}

impl Output for ConsoleOutput {
    /// A signal ends the waiting with [`io::ErrorKind::Interrupted`], which is not retried here:
    /// this is how the caller is got out of a write to a reader that never reads. A signal just
    /// before the waiting starts is missed, so whoever sends it repeats it until it has worked.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(sink) = &self.sink else {
            return Ok(bytes.len());
        };
        loop {
            match unistd::write(sink, bytes) {
                // Someone else with this open file has set O_NONBLOCK, and is entitled to.
                Err(Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                }
                written => return Ok(written?),
            }
        }
    }

    /// A pseudo-terminal drops what its user has not read when it is closed; what is unread can
    /// be seen from its other side.
    fn is_taken(&self) -> bool {
        let Some(slave) = &self.pty_slave else { return true };
        let mut fds = [PollFd::new(slave.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
    }

    fn take_back(&mut self) -> u64 {
        let mut count = 0;
        let mut chunk = [0; 4096];
        while !self.is_taken()
            && let Some(slave) = &self.pty_slave
            && let Ok(len @ 1..) = unistd::read(slave, &mut chunk)
        {
            count += u64::try_from(len).unwrap_or(0);
        }
        count
    }
}

/// Why a console could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The file for output.
    #[error("cannot open serial output file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The pseudo-terminal.
    #[error("cannot open a pseudo-terminal: {0}")]
    Pty(#[source] io::Error),
    /// Standard input or output.
    #[error("cannot use standard input and output: {0}")]
    Stdio(#[source] io::Error),
    /// The terminal at standard input.
    #[error("cannot set the mode of the terminal at standard input: {0}")]
    Terminal(#[source] io::Error),
}
