use std::collections::BTreeSet;

use super::platform::PLATFORM_EXPECTS;
use super::stress::STRESS_EXPECTS;
use super::*;
use crate::{GUESTS, Kind};

fn check(name: &str, vcpus: u32, actual: &[u8]) -> Result<(), String> {
    expectation(name).unwrap().output.check(vcpus, actual)
}

#[test]
fn every_guest_has_one_expectation_in_the_order_of_the_guests() {
    let guests = |kind| {
        let guests = GUESTS.iter().filter(move |guest| guest.kind == kind);
        guests.map(|guest| guest.name).collect::<Vec<_>>()
    };
    let demos: Vec<&str> = EXPECTS.iter().map(|expect| expect.name).collect();
    let stress: Vec<&str> = STRESS_EXPECTS.iter().map(|expect| expect.name).collect();
    let platform: Vec<&str> = PLATFORM_EXPECTS.iter().map(|expect| expect.name).collect();
    assert_eq!(guests(Kind::Demo), demos);
    assert_eq!(guests(Kind::Stress), stress);
    assert_eq!(guests(Kind::Platform), platform);
    let all = [demos, stress, platform].concat();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert!(expectation("").is_none());
}

#[test]
fn exit_codes_are_those_of_the_abi() {
    assert_eq!(End::Halted.exit_code(), Some(0));
    assert_eq!(End::PowerOff.exit_code(), Some(0));
    assert_eq!(End::Reset.exit_code(), Some(16));
    assert_eq!(expectation("exit-code").unwrap().end.exit_code(), Some(43));
    assert_eq!(End::ExitPort(0).exit_code(), Some(1));
    assert_eq!(End::ExitPort(0xff).exit_code(), Some(0xff));
    assert_eq!(End::ExitPort(0x80).exit_code(), Some(1));
    assert_eq!(End::Never.exit_code(), None);
}

#[test]
fn exact_output_may_depend_on_the_number_of_vcpus() {
    assert_eq!(check("counter", 1, b"counter ok: 1000\n"), Ok(()));
    assert_eq!(check("counter", 16, b"counter ok: 16000\n"), Ok(()));
    assert_eq!(
        check("counter", 2, b"counter BAD\n"),
        Err(r"expected counter ok: 2000\n, got counter BAD\n".into())
    );
    assert_eq!(check("triple-fault", 4, b""), Ok(()));
    assert!(check("triple-fault", 4, b"x").is_err());
}

#[test]
fn lines_come_in_any_order_but_whole_and_each_once() {
    let [a, b] = ["vCPU 0 of 2 says hello\n", "vCPU 1 of 2 says hello\n"];
    let check = |text: String| check("smp-hello", 2, text.as_bytes());
    assert_eq!(check(format!("{a}{b}")), Ok(()));
    assert_eq!(check(format!("{b}{a}")), Ok(()));
    assert_eq!(check(b.to_owned()), Err(r#"vCPU 0: "vCPU 0 of 2 says hello\n" is missing"#.into()));
    assert_eq!(
        check(format!("{a}{b}{a}")),
        Err(r#"line 2, "vCPU 0 of 2 says hello\n", is not due from any vCPU"#.into())
    );
    assert!(check(format!("vCPU {a}{b}")).is_err());
    assert!(check(format!("{a}{}", b.trim_end())).is_err());
    assert!(check(String::new()).is_err());
}

#[test]
fn equal_lines_are_counted() {
    let line = "Hello from long mode\n";
    assert_eq!(check("long-hello", 4, line.repeat(4).as_bytes()), Ok(()));
    assert!(check("long-hello", 4, line.repeat(3).as_bytes()).is_err());
    assert!(check("long-hello", 4, line.repeat(5).as_bytes()).is_err());
}

#[test]
fn lines_of_one_vcpu_keep_their_order() {
    let lines = |vcpu: u32| (0..50).map(move |line| format!("v{vcpu} l{line}\n"));
    let zipped: String = lines(0).zip(lines(1)).map(|(a, b)| a + &b).collect();
    assert_eq!(check("uart-lines", 2, zipped.as_bytes()), Ok(()));
    let swapped =
        zipped.replace("v1 l7\n", "#").replace("v1 l8\n", "v1 l7\n").replace('#', "v1 l8\n");
    assert_eq!(
        check("uart-lines", 2, swapped.as_bytes()),
        Err(r#"line 15, "v1 l8\n", is not due from any vCPU"#.into())
    );
}

#[test]
fn mixed_bytes_are_counted() {
    assert_eq!(check("hello", 2, b"44\n\nHHeelllloo\n\n"), Ok(()));
    assert_eq!(check("hello", 1, b"4\nHelo\n"), Err("byte 0x6c: 1 missing".into()));
    assert_eq!(check("hello", 1, b"4\nHello\n?"), Err("byte 0x3f: 1 too many".into()));
}

/// What `uart-storm` sends on this many vCPUs, when they take turns.
fn storm(vcpus: u8) -> Vec<u8> {
    (0..4096u16)
        .flat_map(|n| (0..vcpus).map(move |vcpu| vcpu << 4 | n.to_le_bytes()[0] & 15))
        .collect()
}

#[test]
fn marked_bytes_show_loss_doubling_and_order() {
    assert_eq!(check("uart-storm", 16, &storm(16)), Ok(()));
    let whole = storm(2);
    assert_eq!(check("uart-storm", 2, &whole), Ok(()));
    assert!(check("uart-storm", 1, &whole).is_err(), "bytes of a vCPU that is not there");
    assert!(check("uart-storm", 3, &whole).is_err(), "no bytes of a vCPU that is there");

    let mut lost = whole.clone();
    lost.remove(100);
    assert_eq!(
        check("uart-storm", 2, &lost),
        Err("byte 101, 0x03, is not number 50 of vCPU 0".into())
    );
    let mut doubled = whole.clone();
    doubled.insert(100, doubled[100]);
    assert!(check("uart-storm", 2, &doubled).is_err());
    let mut swapped = whole.clone();
    swapped.swap(100, 102);
    assert!(check("uart-storm", 2, &swapped).is_err());

    // A loss that the numbers alone do not show.
    let mut sixteen = whole;
    sixteen.drain(..32);
    assert_eq!(check("uart-storm", 2, &sixteen), Err("vCPU 0: 4080 bytes instead of 4096".into()));
}
