//! Opens a file that output goes to, which may be a FIFO: then its reader is waited for, and if
//! nobody reads it yet that is said, since it looks like a hang.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
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
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => {
            log::warn!(target: "minivmm", "{} waits for a reader", path.display());
            options.open(path)
        }
        Err(error) => Err(error),
    }
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn a_fifo_is_waited_for_and_written_to_with_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        // More than a pipe holds.
        let bytes = vec![b'x'; 1 << 20];
        let read = thread::scope(|scope| {
            scope.spawn(|| create(&path).unwrap().write_all(&bytes).unwrap());
            let mut read = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut read).unwrap();
            read
        });
        assert_eq!(read.len(), bytes.len());
    }

    #[test]
    fn a_file_is_emptied_and_a_socket_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "before").unwrap();
        create(&path).unwrap().write_all(b"now").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"now");
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(create(&socket).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }
}
