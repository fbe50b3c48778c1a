//! What is recognised as what.

use super::*;
use crate::boot::synthetic::{BzImage, ElfImage, multiboot_header, multiboot_image};
use crate::config::GuestSource;

fn guest_file(bytes: &[u8]) -> GuestFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GuestFile::image(&GuestSource::File(file.path().to_owned())).unwrap()
}

fn recognised(bytes: &[u8]) -> Result<Recognised, BootError> {
    let file = guest_file(bytes);
    recognise(&file, &file.head().unwrap())
}

fn expected(format: ImageFormat, bytes: &[u8]) -> Result<Recognised, BootError> {
    let file = guest_file(bytes);
    expect(format, &file, &file.head().unwrap())
}

/// An image of each format, with the name of the variant that it is.
fn images() -> Vec<(&'static str, Vec<u8>)> {
    let elf = ElfImage::of_code(64, 0x10_0000, &[0xf4]);
    let mut vmlinux = elf.clone();
    vmlinux.notes = vec![(b"GNU\0", 3, vec![0; 4]), (b"Linux\0", 0x100, vec![0; 4])];
    let mut both = vmlinux.clone();
    both.notes.push((b"Xen\0", 18, vec![0; 8]));
    let mut other_note = elf.clone();
    other_note.notes = vec![(b"Xen\0", 17, vec![0; 4]), (b"Xin\0", 18, vec![0; 4])];
    vec![
        ("Flat", vec![0xf4]),
        ("Flat", b"\x7fEL".to_vec()),
        ("Elf", elf.build()),
        ("Elf", ElfImage::of_code(32, 0x10_0000, &[0xf4]).build()),
        ("Elf", other_note.build()),
        ("Multiboot", multiboot_image(0x10_0000, &[0xf4])),
        ("Multiboot", ElfImage::of_code(32, 0x10_0000, &multiboot_header(0, &[])).build()),
        ("Pvh", ElfImage::pvh(64, 0x10_0000, &[0xf4]).build()),
        ("Pvh", ElfImage::pvh(32, 0x10_0000, &[0xf4]).build()),
        ("Pvh", both.build()),
        ("BzImage", BzImage::new(&[0xf4], &[0xf4]).build()),
        ("Vmlinux", vmlinux.build()),
    ]
}

fn name(image: &Recognised) -> String {
    format!("{image:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[test]
fn each_format_is_recognised_by_its_content() {
    for (expected, bytes) in images() {
        assert_eq!(name(&recognised(&bytes).unwrap()), expected);
    }
}

#[test]
fn every_demo_is_what_its_name_says_or_flat() {
    for guest in minivmm_guests::GUESTS {
        let expected = match guest.name {
            "pc-multiboot" => "Multiboot",
            "pc-elf64" => "Elf",
            "pc-pvh" => "Pvh",
            "pc-linux" => "BzImage",
            _ => "Flat",
        };
        let file = GuestFile::image(&GuestSource::Demo(guest)).unwrap();
        let image = recognise(&file, &file.head().unwrap()).unwrap();
        assert_eq!(name(&image), expected, "{}", guest.name);
    }
}

#[test]
fn an_image_may_be_taken_for_anything_that_it_is() {
    for (variant, bytes) in images() {
        assert_eq!(name(&expected(ImageFormat::Flat, &bytes).unwrap()), "Flat");
        let format = recognised(&bytes).unwrap().format();
        assert_eq!(name(&expected(format, &bytes).unwrap()), variant);
    }
    let elf = ElfImage::pvh(64, 0x10_0000, &[0xf4]).build();
    assert_eq!(name(&expected(ImageFormat::Elf, &elf).unwrap()), "Elf");
    assert_eq!(name(&expected(ImageFormat::Linux, &elf).unwrap()), "Vmlinux");
}

#[test]
fn an_image_is_not_taken_for_what_it_is_not() {
    let error = |format| expected(format, &[0xf4; 600]).unwrap_err().to_string();
    assert_eq!(
        error(ImageFormat::Elf),
        "the image is not an ELF file: it does not begin with 0x7f 'ELF'"
    );
    assert_eq!(error(ImageFormat::Pvh), error(ImageFormat::Elf));
    assert_eq!(
        error(ImageFormat::Multiboot),
        "the image has no Multiboot header in its first 8192 bytes: expected 0x1badb002 at a \
         multiple of 4, with a checksum"
    );
    assert_eq!(
        error(ImageFormat::Linux),
        "the image is no Linux kernel: expected 'HdrS' at 0x202 (bzImage), or an ELF file (vmlinux)"
    );
}
