//! A new pseudo-terminal for the UART: the VMM holds the master, the user attaches a terminal
//! program to the slave by its path. Nothing here reads or writes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{cfmakeraw, tcgetattr};

use super::terminal::set_mode;

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(super) struct Pty {
    /// The VMM's end: what is written here is read from the slave, and the other way round.
    pub(super) master: OwnedFd,
    /// The user's end, held open only so that the master works while no user has it open: on a
    /// master whose slave nobody has, read and write fail with EIO.
    pub(super) slave: OwnedFd,
    /// The path of the slave.
    pub(super) path: PathBuf,
}

impl Pty {
    /// Opens a pseudo-terminal (pty(7)) that passes every byte unchanged and does not echo.
    pub(super) fn open() -> io::Result<Self> {
        // O_NOCTTY here and below: a VMM started as a session leader without a terminal (by a
        // service manager) must not get this one as its controlling terminal.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        let slave: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&path)?
            .into();

        // Before the path is known to anyone: with echo on, the guest's own output would come
        // back to it as input.
        let mut mode = tcgetattr(&slave)?;
        cfmakeraw(&mut mode);
        set_mode(slave.as_fd(), &mode)?;

        Ok(Self { master: master.into(), slave, path })
    }
}
