//! An initramfs made on the spot, in cpio's "newc" format (Linux's
//! Documentation/driver-api/early-userspace/buffer-format.rst): busybox, and an /init that is its
//! shell.

use std::fs;
use std::path::Path;

/// What the modes of files say (inode(7)).
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that becomes longer.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    /// A file, a directory or a device node, with its contents or its major and minor number.
    fn add(&mut self, name: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        let number = u32::try_from(self.0.len()).unwrap() + 1;
        let len = |bytes: usize| u32::try_from(bytes).unwrap();
        let (size, name_size) = (len(contents.len()), len(name.len() + 1));
        let (major, minor) = device;
        // inode, mode, uid, gid, links, mtime, size, device, device of the node, name's size, sum.
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.0.extend(b"070701");
        self.0.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self.align();
        self.0.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// An initramfs with this busybox, and a shell on the console as its /init.
pub fn with_shell(busybox: &Path) -> Vec<u8> {
    let busybox = fs::read(busybox).unwrap();
    let mut archive = Archive::default();
    for name in ["bin", "dev"] {
        archive.add(name, DIRECTORY | 0o755, &[], (0, 0));
    }
    // Character device 5:1: Linux's Documentation/admin-guide/devices.txt.
    archive.add("dev/console", CHARACTER_DEVICE | 0o600, &[], (5, 1));
    archive.add("bin/busybox", REGULAR | 0o755, &busybox, (0, 0));
    archive.add("init", REGULAR | 0o755, b"#!/bin/busybox sh\nexec /bin/busybox sh -i\n", (0, 0));
    archive.add(TRAILER, 0, &[], (0, 0));
    archive.0
}

#[test]
fn an_archive_is_what_cpio_reads() {
    let mut archive = Archive::default();
    archive.add("ab", REGULAR | 0o644, b"hello", (0, 0));
    let text = String::from_utf8(archive.0).unwrap();
    let (header, rest) = text.split_at(110);
    assert_eq!(&header[..6], "070701");
    let field = |index: usize| u32::from_str_radix(&header[6 + 8 * index..][..8], 16).unwrap();
    assert_eq!((field(1), field(6), field(11)), (0o100_644, 5, 3));
    // The name ends at a multiple of 4, counted from the header; so do the contents.
    assert_eq!(rest, "ab\0\0\0\0hello\0\0\0");
}
