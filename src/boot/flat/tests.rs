//! Images that load, and every way in which one does not.

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

fn open(path: &Path) -> Result<FlatImage, ImageError> {
    FlatImage::open(&GuestSource::File(path.to_owned()))
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

/// What is wrong with loading `len` bytes at `gpa` into RAM of `size` bytes.
fn misplaced(len: usize, gpa: u64, size: u64) -> String {
    let file = file(&vec![0; len]);
    let ram = RamLayout::new(MemorySize::from_bytes(size).unwrap());
    open(file.path()).unwrap().place(Gpa(gpa), ram).unwrap_err().to_string()
}

#[test]
fn a_file_goes_where_it_was_placed() {
    let file = file(b"guest");
    let memory = memory(8192);
    let image = open(file.path()).unwrap();
    assert_eq!(image.place(Gpa(0x1000), memory.layout()).unwrap(), 0x1000..0x1005);
    image.load(Gpa(0x1000), &memory).unwrap();
    assert_eq!(&read::<7>(&memory, 0xfff), b"\0guest\0");
}

#[test]
fn a_demo_goes_where_it_was_placed() {
    let memory = memory(8192);
    FlatImage::open(&GuestSource::Demo(&DEMO)).unwrap().load(Gpa(0x10), &memory).unwrap();
    assert_eq!(read::<5>(&memory, 0xf), [0, 1, 2, 3, 0]);
}

#[test]
fn an_image_may_fill_all_memory() {
    let file = file(&[0x90; 8192]);
    let memory = memory(8192);
    open(file.path()).unwrap().load(Gpa(0), &memory).unwrap();
    assert!(read::<8192>(&memory, 0).iter().all(|byte| *byte == 0x90));
}

#[test]
fn an_image_may_lie_above_the_hole() {
    let memory = memory(4 * GIB);
    FlatImage::open(&GuestSource::Demo(&DEMO)).unwrap().load(Gpa(5 * GIB - 3), &memory).unwrap();
    assert_eq!(read::<3>(&memory, 5 * GIB - 3), [1, 2, 3]);
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
    let error = FlatImage::open(&GuestSource::Demo(&EMPTY)).unwrap_err();
    assert_eq!(error.to_string(), "guest image 'empty' is empty");
}

#[test]
fn an_image_that_does_not_fit_is_refused_with_the_numbers() {
    assert_eq!(
        misplaced(5000, 0x1000, 4096),
        "image of 5000 bytes at 0x1000 does not fit in 4 KiB of memory (0x0-0xfff)"
    );
    assert_eq!(
        misplaced(1, 0x2000, 8192),
        "image of 1 bytes at 0x2000 does not fit in 8 KiB of memory (0x0-0x1fff)"
    );
    let around_the_hole = "4 GiB of memory (0x0-0xbfffffff and 0x100000000-0x13fffffff)";
    for gpa in [0xbfff_ffff, 0xd000_0000, 0xf000_0000, 0x1_3fff_ffff, u64::MAX] {
        assert_eq!(
            misplaced(2, gpa, 4 * GIB),
            format!("image of 2 bytes at {gpa:#x} does not fit in {around_the_hole}")
        );
    }
}

#[test]
fn a_file_that_has_become_shorter_is_an_error() {
    let file = file(b"guest");
    let image = open(file.path()).unwrap();
    file.as_file().set_len(2).unwrap();
    let error = image.load(Gpa(0), &memory(4096)).unwrap_err();
    let expected = format!("cannot read guest image '{}'", file.path().display());
    assert_eq!(error.to_string(), expected);
    assert!(chain(&error).contains("failed to fill whole buffer"), "{}", chain(&error));
}
