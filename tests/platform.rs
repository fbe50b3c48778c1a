//! The guests that test the machine, on real KVM: interrupt controllers, timers, bring-up of the
//! other vCPUs, IPIs and the UART by interrupt, each image format by its own guest.

mod support;

use std::io::Write;
use std::process::Stdio;

use minivmm_guests::expect::platform::{PLATFORM_EXPECTS, PlatformExpect};
use tempfile::NamedTempFile;

use support::{Finished, Running, minivmm, require_kvm, run};

/// More vCPUs than an xAPIC has logical ids for, and than an MP table or an xAPIC's ids reach.
const MANY: u32 = 64;
const BEYOND_XAPIC: u32 = 260;

/// Runs a guest with all its tests.
#[track_caller]
fn run_guest(expect: &PlatformExpect, line: &str) -> Finished {
    let PlatformExpect { name, options, .. } = expect;
    run(minivmm(&format!("-q --demo {name} {options} {line}")))
}

#[track_caller]
fn check_all(vcpus: u32) {
    if !require_kvm() {
        return;
    }
    for expect in PLATFORM_EXPECTS {
        let run = run_guest(expect, &format!("--vcpus {vcpus}"));
        let checked = expect.check(vcpus, &run.stdout);
        assert_eq!(checked, Ok(()), "{} on {vcpus} vCPUs", expect.name);
        run.assert_code(0);
    }
}

#[test]
fn every_format_passes_all_tests_on_1_vcpu() {
    check_all(1);
}

#[test]
fn every_format_passes_all_tests_on_2_vcpus() {
    check_all(2);
}

#[test]
fn every_format_passes_all_tests_on_4_vcpus() {
    check_all(4);
}

#[test]
fn every_format_passes_all_tests_on_16_vcpus() {
    check_all(16);
}

/// Runs one guest with these tests of it; the lines that it prints.
#[track_caller]
fn lines_of(guest: &str, options: &str, words: &str) -> Vec<String> {
    let run = run(minivmm(&format!("-q --demo {guest} {options} -- {words}"))).assert_code(0);
    String::from_utf8(run.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn vcpus_of_an_elf_file_that_all_start_are_taken_down_and_up_again() {
    if !require_kvm() {
        return;
    }
    let expect = PLATFORM_EXPECTS.iter().find(|expect| expect.name == "pc-elf64").unwrap();
    for start in ["all", "bsp"] {
        let run = run_guest(expect, &format!("--vcpus 2 --start {start}"));
        assert_eq!(expect.check(2, &run.stdout), Ok(()), "--start {start}");
    }
}

#[test]
fn ipis_reach_64_vcpus() {
    if !require_kvm() {
        return;
    }
    let lines = lines_of("pc-pvh", &format!("--vcpus {MANY}"), "tests=smp,ipi");
    assert_eq!(lines[1], format!("smp: ok, {MANY} CPUs up"));
    assert!(lines[2].starts_with("ipi: ok, "), "{lines:?}");
}

#[test]
fn more_vcpus_than_xapic_ids_come_up_in_x2apic_mode() {
    if !require_kvm() {
        return;
    }
    let lines = lines_of("pc-linux", &format!("--vcpus {BEYOND_XAPIC}"), "tests=cpus,smp");
    assert_eq!(lines[1], format!("cpus: ok, {BEYOND_XAPIC} in the MADT, 255 in the MP table"));
    assert_eq!(lines[2], format!("smp: ok, {BEYOND_XAPIC} CPUs up"));
}

#[test]
fn the_uart_receives_by_interrupt() {
    if !require_kvm() {
        return;
    }
    let text = "the quick brown fox jumps over the lazy dog";
    for vcpus in [1, 4] {
        let mut command =
            minivmm(&format!("-q --demo pc-multiboot --vcpus {vcpus} -- tests=smp,uart-rx"));
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        running.stdin().write_all(format!("{text}\n").as_bytes()).unwrap();
        let run = running.finish().assert_code(0);
        let output = String::from_utf8(run.stdout).unwrap();
        let line = output.lines().find(|line| line.starts_with("uart-rx: ")).unwrap();
        let expected = format!("uart-rx: ok, {} bytes by ", text.len() + 1);
        assert!(line.starts_with(&expected), "{line}");
        assert!(line.ends_with(&format!(" interrupts: \"{text}\"")), "{line}");
    }
}

/// A file of `len` bytes, and their sum.
fn module(len: usize) -> (NamedTempFile, u32) {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).map(|n| n.wrapping_mul(7)).collect();
    let sum = bytes.iter().map(|byte| u32::from(*byte)).sum();
    (support::image(&bytes), sum)
}

#[test]
fn modules_and_initrd_reach_the_guest_whole() {
    if !require_kvm() {
        return;
    }
    let ((first, first_sum), (second, second_sum)) = (module(5000), module(1));
    let (first_path, second_path) = (first.path().display(), second.path().display());
    let initrd = format!("--initrd {first_path}");
    for guest in ["pc-multiboot", "pc-pvh", "pc-linux"] {
        let lines = lines_of(guest, &initrd, "tests=boot");
        assert!(
            lines[1].starts_with(&format!("module: 5000 bytes, sum {first_sum}, \"")),
            "{lines:?}"
        );
        assert!(lines[2].ends_with(" 1 modules"), "{lines:?}");
    }
    let modules = format!("{initrd} --module {second_path}=name");
    for guest in ["pc-multiboot", "pc-pvh"] {
        let lines = lines_of(guest, &modules, "tests=boot");
        assert!(lines[1].starts_with("module: 5000 bytes"), "{lines:?}");
        assert!(
            lines[2].starts_with(&format!("module: 1 bytes, sum {second_sum}, \"")),
            "{lines:?}"
        );
        assert!(lines[2].ends_with("name\""), "{lines:?}");
    }
}

#[test]
fn benches_print_their_line() {
    if !require_kvm() {
        return;
    }
    let words = "tests=bench-smp,bench-timer,bench-ipi,bench-uart samples=5 bytes=100";
    let lines = lines_of("pc-pvh", "--vcpus 2", words);
    for bench in ["bench-smp", "bench-timer", "bench-ipi", "bench-uart"] {
        let line = lines.iter().find(|line| line.starts_with(&format!("{bench}: khz=")));
        let line = line.unwrap_or_else(|| panic!("no {bench} in {lines:?}"));
        let expected = if bench == "bench-uart" { " bytes=100 " } else { " cpus=2 " };
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn an_elf_file_finds_its_words_in_fw_cfg() {
    if !require_kvm() {
        return;
    }
    let words = support::image(b"tests=boot,cpus\n");
    let line = format!(
        "-q --demo pc-elf64 --irqchip kernel --fw-cfg opt/cmdline={}",
        words.path().display()
    );
    let run = run(minivmm(&line)).assert_code(0);
    let output = String::from_utf8(run.stdout).unwrap();
    assert!(output.starts_with("pc: elf64, command line \"tests=boot,cpus \"\n"), "{output}");
    assert!(output.ends_with("pc: all passed, 2 tests\n"), "{output}");
}

#[test]
fn a_test_that_fails_says_so_and_ends_with_its_exit_code() {
    if !require_kvm() {
        return;
    }
    // Nothing to find the CPUs by.
    let run = run(minivmm("-q --demo pc-elf64")).assert_code(3);
    let output = String::from_utf8(run.stdout).unwrap();
    assert!(output.contains("\npc: FAILED: there is no RSDP in the BIOS area"), "{output}");
}
