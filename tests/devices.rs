//! The devices that are there only when asked for, and what is said of those that are always
//! there, on real KVM with a guest that talks to all of them.

mod support;

use std::fs;

use support::{image, minivmm, require_kvm, run};

#[test]
fn further_devices_are_there_when_asked_for() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [com2, file] = ["com2", "file"].map(|name| dir.path().join(name));
    fs::write(&file, "a file\n").unwrap();
    let com2_option = format!("--device com2=file:{}", com2.display());
    let file_option = format!("--fw-cfg opt/file={}", file.display());
    for (options, printed, sent) in [
        ("--device com2", "devices ok\ncom2\n", None),
        (&com2_option, "devices ok\ncom2\n", Some("com2\n")),
        ("--device testdev", "devices ok\ntestdev\n", None),
        (&file_option, "a file\ndevices ok\n", None),
        ("--device com4 --device com2 --device testdev", "devices ok\ntestdev\ncom2\n", None),
    ] {
        let ran = run(minivmm(&format!("-q --vcpus 2 --demo devices {options}")));
        ran.assert_code(0).assert_prints(printed.as_bytes());
        if let Some(sent) = sent {
            assert_eq!(fs::read_to_string(&com2).unwrap(), sent);
        }
    }
}

#[test]
fn a_port_file_that_cannot_be_written_ends_the_vm() {
    if !require_kvm() {
        return;
    }
    let ran = run(minivmm("-q --demo devices --device com2=file:/dev/full"));
    ran.assert_code(6).assert_says("No space left on device");
    let ran = run(minivmm("-q --demo devices --device com2=file:/nowhere/at/all"));
    ran.assert_code(4).assert_says("/nowhere/at/all");
    let ran = run(minivmm("-q --demo devices --fw-cfg opt/x=/nowhere/at/all"));
    ran.assert_code(4).assert_says("cannot read the file for --fw-cfg opt/x, '/nowhere/at/all'");
}

#[test]
fn a_failure_tells_the_last_post_code() {
    if !require_kvm() {
        return;
    }
    // mov al, 0x42; out 0x80, al; ud2, without an interrupt table.
    let guest = image(&[0xb0, 0x42, 0xe6, 0x80, 0x0f, 0x0b]);
    for options in ["", "--repeat 1"] {
        let mut command = minivmm(&format!("-q --mode protected {options}"));
        command.arg(guest.path());
        run(command).assert_code(8).assert_says("last POST code 0x42\n");
    }
}

#[test]
fn a_campaign_finds_the_devices_as_they_were() {
    if !require_kvm() {
        return;
    }
    let line = "-q --repeat 3 --serial stdio --demo devices --device com2 --device com4";
    let ran = run(minivmm(line)).assert_code(0);
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(printed.matches("devices ok\ncom2\n").count(), 3, "{printed}");
}
