//! Opens a file that output goes to, which may be a FIFO: then its reader is waited for, and if
//! nobody reads it yet that is said, since it looks like a hang.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Opens it empty, and makes it if it is not there. To be called while ^C still ends the process.
///
/// # Errors
///
/// What open(2) says.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    match options.clone().custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => {
            fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
            Ok(file)
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            log::warn!(target: "minivmm", "{} waits for a reader", path.display());
            options.open(path)
        }
        Err(error) => Err(error),
    }
}
