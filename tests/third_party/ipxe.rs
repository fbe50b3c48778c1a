//! iPXE's kernel image, which starts in real mode and calls a BIOS, up to its command line.

use crate::console::Console;
use crate::packages::require;
use crate::support::minivmm;

const PATHS: &[&str] = &["/boot/ipxe.lkrn", "/usr/lib/ipxe/ipxe.lkrn"];

/// Ctrl-B, which stops iPXE from booting by itself.
const COMMAND_LINE_KEY: &str = "\x02";

#[test]
fn ipxe_comes_to_its_prompt_and_obeys() {
    let Some(file) = require("ipxe", PATHS) else { return };
    let mut command = minivmm("-q --memory 64M");
    command.arg(file);
    let mut console = Console::start(command);
    // It is not there yet: the key waits for it.
    console.type_in(COMMAND_LINE_KEY);
    let banner = console.wait_for_text(0, "Open Source Network Boot Firmware");
    let prompt = console.wait_for_text(banner, "iPXE> ");
    console.type_in("echo ${buildarch}\r");
    let echoed = console.wait_for_text(prompt, "i386");
    console.wait_for_text(echoed, "iPXE> ");
    // It jumps to the BIOS's reset vector.
    console.type_in("reboot\r");
    console.finish().assert_code(16);
}
