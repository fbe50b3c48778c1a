//! memtest86+ on several vCPUs: the kernel boots in 64-bit mode, starts its other CPUs by INIT and
//! SIPI, has them meet at barriers between tests, and shows its screen on COM1.

use crate::console::Console;
use crate::packages::require;
use crate::screen::Screen;
use crate::support::minivmm;

const PATHS: &[&str] = &["/boot/memtest86+x64.bin"];

/// Where on its screen the number of the test is, and how many CPUs there are.
const TEST_ROW: usize = 4;
const CPUS_ROW: usize = 8;
const COUNTS_ROW: usize = 9;

/// The number of the test that runs, from `Test #3  [...]`.
fn test_number(screen: &Screen) -> Option<u32> {
    let row = screen.row(TEST_ROW);
    let (_, behind) = row.split_once("Test #")?;
    behind.split_whitespace().next()?.parse().ok()
}

/// Runs it until it is behind its first test.
#[track_caller]
fn check(vcpus: u32) {
    let Some(file) = require("memtest86+", PATHS) else { return };
    let line = format!("-q --memory 8M --vcpus {vcpus}");
    let mut command = minivmm(&line);
    command.arg(file).args(["--", "console=ttyS0,115200"]);
    let mut console = Console::start(command);
    let screen = console.wait_for("second test", |sent| {
        let screen = Screen::after(sent);
        test_number(&screen).is_some_and(|test| test > 0).then_some(screen)
    });
    let cpus = screen.row(CPUS_ROW);
    assert!(cpus.contains(&format!("SMP: {vcpus}T (PAR)")), "{cpus}");
    let counts = screen.row(COUNTS_ROW);
    assert!(counts.contains("Errors: 0 "), "{counts}");
    console.terminate().assert_code(143);
}

#[test]
fn memtest86_passes_its_first_test_on_2_vcpus() {
    check(2);
}

#[test]
fn memtest86_passes_its_first_test_on_4_vcpus() {
    check(4);
}
