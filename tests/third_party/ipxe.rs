//! iPXE's kernel image, which starts in real mode and calls a BIOS, up to its command line.

use crate::console::Console;
use crate::packages::require;
use crate::support::{minivmm, run_code, skipped};

const PATHS: &[&str] = &["/boot/ipxe.lkrn", "/usr/lib/ipxe/ipxe.lkrn"];

/// Ctrl-B, which stops iPXE from booting by itself.
const COMMAND_LINE_KEY: &str = "\x02";

/// A flat guest in protected mode: SS with a base of 0x1_0000, and #UD. Its handler prints whether
/// what was pushed is there. (The data is what a debugger shows as code; the interrupt table is at
/// 0x4000.)
#[rustfmt::skip]
const STACK_BASE_GUEST: [u8; 0x80] = [
    // lgdt; lidt
    0x0f, 0x01, 0x15, 0x54, 0x10, 0x00, 0x00, 0x0f, 0x01, 0x1d, 0x5a, 0x10, 0x00, 0x00,
    // mov ax, 0x18; mov ss, ax; mov esp, 0x8000
    0x66, 0xb8, 0x18, 0x00, 0x8e, 0xd0, 0xbc, 0x00, 0x80, 0x00, 0x00,
    // mov eax, handler; mov [idt + 6 * 8], ax
    0xb8, 0x41, 0x10, 0x00, 0x00, 0x66, 0xa3, 0x30, 0x40, 0x00, 0x00,
    // mov word [idt + 6 * 8 + 2], 8
    0x66, 0xc7, 0x05, 0x32, 0x40, 0x00, 0x00, 0x08, 0x00,
    // mov word [idt + 6 * 8 + 4], 0x8e00
    0x66, 0xc7, 0x05, 0x34, 0x40, 0x00, 0x00, 0x00, 0x8e,
    // shr eax, 16; mov [idt + 6 * 8 + 6], ax; ud2
    0xc1, 0xe8, 0x10, 0x66, 0xa3, 0x36, 0x40, 0x00, 0x00, 0x0f, 0x0b,
    // handler: mov dx, COM1; mov al, 'n'; cmp dword [0x1_7ff4], 0
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x6e, 0x83, 0x3d, 0xf4, 0x7f, 0x01, 0x00, 0x00,
    // je; mov al, 'y'; out dx, al; hlt
    0x74, 0x02, 0xb0, 0x79, 0xee, 0xf4,
    // the limits and addresses of both tables
    0x1f, 0x00, 0x60, 0x10, 0x00, 0x00, 0xff, 0x07, 0x00, 0x40, 0x00, 0x00,
    // null; code
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00,
    // data; data with the base 0x1_0000
    0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x01, 0x93, 0xcf, 0x00,
];

/// Whether an interrupt of 32-bit code pushes where SS says. Where it does not, iPXE, whose
/// segments have bases, returns from its first interrupt to anywhere, and that is said.
fn can_take_interrupts() -> bool {
    match &*run_code(&STACK_BASE_GUEST, "-q --mode protected").assert_code(0).stdout {
        b"y" => true,
        b"n" => {
            skipped("past its start: this host's interrupts do not heed the base of SS");
            false
        }
        other => panic!("neither y nor n: {other:x?}"),
    }
}

#[test]
fn ipxe_comes_to_its_prompt_and_obeys() {
    let Some(file) = require("ipxe", PATHS) else { return };
    let mut command = minivmm("-q --memory 64M");
    command.arg(file);
    let mut console = Console::start(command);
    // It is not there yet: the key waits for it.
    console.type_in(COMMAND_LINE_KEY);
    let behind = console.wait_for_text(0, "iPXE initialising devices...");
    if !can_take_interrupts() {
        return;
    }
    let banner = console.wait_for_text(behind, "Open Source Network Boot Firmware");
    let prompt = console.wait_for_text(banner, "iPXE> ");
    console.type_in("echo ${buildarch}\r");
    let echoed = console.wait_for_text(prompt, "i386");
    console.wait_for_text(echoed, "iPXE> ");
    // It jumps to the BIOS's reset vector.
    console.type_in("reboot\r");
    console.finish().assert_code(16);
}
