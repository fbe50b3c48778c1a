//! From the host to the guest: what the user types or pipes in. The main thread owns the
//! [`ConsoleInput`] and polls its descriptor with its others; where the bytes go from here, and
//! what is done about an [`Action`], is up to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::escape::{Action, EscapeParser};
use super::terminal::in_foreground;

/// How many bytes typed at a terminal are kept for a guest that does not take them.
///
/// A terminal is read whether or not the guest has room, because Ctrl-A x has to end also a guest
/// that does not read. Once this much waits, the terminal is left to hold the rest, and nothing is
/// lost; it is more than anyone types, and a paste of this size is rare.
const READ_AHEAD: usize = 64 * 1024;

/// The most that one call reads.
const CHUNK: usize = 256;

/// The source of the UART's input.
#[derive(Debug)]
pub struct ConsoleInput {
    /// `None` when there is no input, or no more.
    source: Option<OwnedFd>,
    /// `Some` if a person sits at the source, a terminal; other input passes unparsed.
    escapes: Option<EscapeParser>,
    /// Read and parsed, but not yet given out. Empty unless the source is a terminal.
    ahead: VecDeque<u8>,
    /// What the last `read` gave out, kept for its allocation.
    given: Vec<u8>,
    /// See `Pty::slave`.
    _pty_slave: Option<OwnedFd>,
}

/// What one [`ConsoleInput::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// For the guest.
    pub bytes: &'a [u8],
    /// For the VMM.
    pub action: Option<Action>,
}

impl ConsoleInput {
    /// No input.
    pub(super) fn none() -> Self {
        Self {
            source: None,
            escapes: None,
            ahead: VecDeque::new(),
            given: Vec::new(),
            _pty_slave: None,
        }
    }

    /// Every byte of `fd`.
    pub(super) fn plain(fd: OwnedFd) -> Self {
        Self { source: Some(fd), ..Self::none() }
    }

    /// What a person types at the terminal `fd`, without the key sequences.
    pub(super) fn terminal(fd: OwnedFd) -> Self {
        Self { escapes: Some(EscapeParser::default()), ..Self::plain(fd) }
    }

    /// Every byte of a pseudo-terminal's master, whose slave stays open as long.
    pub(super) fn pty(master: OwnedFd, slave: OwnedFd) -> Self {
        Self { _pty_slave: Some(slave), ..Self::plain(master) }
    }

    /// The descriptor to poll for POLLIN while the guest has room for `room` bytes.
    ///
    /// `None` if there is nothing to wait for: no input, the end of it, nowhere to put it, or
    /// a terminal at which this process is in the background, where what is typed is for
    /// someone else. The last is looked up anew by each call.
    pub fn fd(&self, room: usize) -> Option<BorrowedFd<'_>> {
        let source = self.source.as_ref()?.as_fd();
        let wanted = match self.escapes {
            Some(_) => self.ahead.len() < READ_AHEAD && in_foreground(source),
            None => room > 0,
        };
        wanted.then_some(source)
    }

    /// Reads what is there, and gives out at most `room` bytes. Never waits.
    ///
    /// Call it whenever poll reports anything about the descriptor, hang-up and error included,
    /// and when the guest has made room, which bytes from earlier may be waiting for: best on
    /// every turn of the loop. The end of input and a terminal that hangs up are no errors; after
    /// an error, too, there is no more to read.
    pub fn read(&mut self, room: usize) -> io::Result<Input<'_>> {
        let mut action = None;
        if let Some(fd) = self.fd(room)
            && is_readable(fd)
        {
            let mut chunk = [0; CHUNK];
            let limit = if self.escapes.is_some() { CHUNK } else { CHUNK.min(room) };
            match unistd::read(fd, &mut chunk[..limit]) {
                Ok(0) => self.source = None,
                // How the read of a terminal that has hung up fails.
                Err(Errno::EIO) if self.escapes.is_some() => self.source = None,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    self.source = None;
                    return Err(error.into());
                }
                Ok(len) => match &mut self.escapes {
                    Some(parser) => action = parser.feed(&chunk[..len], &mut self.ahead),
                    None => self.ahead.extend(&chunk[..len]),
                },
            }
        }
        let len = room.min(self.ahead.len());
        self.given.clear();
        self.given.extend(self.ahead.drain(..len));
        Ok(Input { bytes: &self.given, action })
    }
}

/// Whether a read of `fd` will return at once. Looking again right before the read keeps the main
/// thread from hanging in it when another process, sharing the descriptor, was faster.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}
