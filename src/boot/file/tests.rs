//! Files that can be had, and every way in which one cannot.

use std::error::Error;
use std::io::Write;
use std::os::unix::net::UnixListener;

use minivmm_guests::{Guest, Kind, Mode};
use nix::sys::stat::Mode as FileMode;
use tempfile::NamedTempFile;

use super::*;
use crate::config::MemorySize;

const GIB: u64 = 1 << 30;

static DEMO: Guest =
    Guest { name: "demo", summary: "", kind: Kind::Demo, mode: Mode::Real, image: &[1, 2, 3] };
static EMPTY: Guest =
    Guest { name: "empty", summary: "", kind: Kind::Demo, mode: Mode::Real, image: &[] };

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(path: &Path) -> Result<GuestFile, FileError> {
    GuestFile::image(&GuestSource::File(path.to_owned()))
}

fn demo() -> GuestFile {
    GuestFile::image(&GuestSource::Demo(&DEMO)).unwrap()
}

fn memory(bytes: u64) -> GuestMemory {
    GuestMemory::new(MemorySize::from_bytes(bytes).unwrap(), &[]).unwrap()
}

fn read<const N: usize>(memory: &GuestMemory, gpa: u64) -> [u8; N] {
    let mut bytes = [0xff; N];
    memory.read_slice(Gpa(gpa), &mut bytes).unwrap();
    bytes
}

/// The error and its causes, as one line.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[test]
fn any_part_of_a_file_goes_anywhere() {
    let file = file(b"guest");
    let memory = memory(8192);
    let mut image = open(file.path()).unwrap();
    image.copy(0, 5, Gpa(0x1000), &memory).unwrap();
    image.copy(3, 2, Gpa(0xffe), &memory).unwrap();
    image.copy(1, 2, Gpa(0x1005), &memory).unwrap();
    assert_eq!(&read::<10>(&memory, 0xffd), b"\0stguestue");
}

#[test]
fn any_part_of_a_demo_goes_anywhere() {
    let memory = memory(4 * GIB);
    demo().copy(0, 3, Gpa(0x10), &memory).unwrap();
    demo().copy(1, 2, Gpa(5 * GIB - 2), &memory).unwrap();
    assert_eq!(read::<5>(&memory, 0xf), [0, 1, 2, 3, 0]);
    assert_eq!(read::<2>(&memory, 5 * GIB - 2), [2, 3]);
}

#[test]
fn the_head_is_what_there_is_up_to_its_limit() {
    assert_eq!(demo().head().unwrap(), [1, 2, 3]);
    assert_eq!(open(file(b"guest").path()).unwrap().head().unwrap(), b"guest");
    let long = file(&[7; HEAD_LEN + 1]);
    assert_eq!(open(long.path()).unwrap().head().unwrap(), [7; HEAD_LEN]);
}

#[test]
fn a_part_that_is_not_there_is_an_error() {
    let memory = memory(4096);
    for (offset, len) in [(0, 4), (3, 1), (4, 0), (u64::MAX, 1)] {
        assert!(demo().copy(offset, len, Gpa(0), &memory).is_err(), "{offset} {len}");
    }
    assert!(demo().read(1, 3).is_err());
    let error = demo().copy(0, 3, Gpa(4094), &memory).unwrap_err();
    assert_eq!(error.to_string(), "cannot read guest image 'demo'");
}

#[test]
fn a_missing_file_is_named_with_the_reason() {
    let error = open(Path::new("/nowhere/guest.bin")).unwrap_err();
    assert_eq!(
        chain(&error),
        "cannot open guest image '/nowhere/guest.bin': No such file or directory (os error 2)"
    );
    let file = file(b"guest");
    let error = open(&file.path().join("below-a-file")).unwrap_err();
    assert!(chain(&error).ends_with("below-a-file': Not a directory (os error 20)"));
}

#[test]
fn what_is_no_regular_file_is_refused_unopened() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, FileMode::S_IRWXU).unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [dir.path(), &fifo, &socket, Path::new("/dev/zero")] {
        let expected = format!("guest image '{}' is not a regular file", path.display());
        assert_eq!(open(path).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_empty_image_is_refused() {
    let file = file(&[]);
    let expected = format!("guest image '{}' is empty", file.path().display());
    assert_eq!(open(file.path()).unwrap_err().to_string(), expected);
    let error = GuestFile::image(&GuestSource::Demo(&EMPTY)).unwrap_err();
    assert_eq!(error.to_string(), "guest image 'empty' is empty");
}

#[test]
fn a_file_that_has_become_shorter_is_an_error() {
    let file = file(b"guest");
    let mut image = open(file.path()).unwrap();
    file.as_file().set_len(2).unwrap();
    let error = image.copy(0, 5, Gpa(0), &memory(4096)).unwrap_err();
    let expected = format!("cannot read guest image '{}'", file.path().display());
    assert_eq!(error.to_string(), expected);
    assert!(chain(&error).contains("failed to fill whole buffer"), "{}", chain(&error));
}
