//! The device thread is killed: its output panics, or fails, at each of its writes in turn.

use std::io;

use minivmm::outcome::VmOutcome;
use minivmm_guests::expect::Output;

use crate::draw::Draw;
use crate::theme::{INJECTED, Rounds, torture};
use crate::vm::{Ran, TestVm, assert_is_storm_cut_short, guest};

const BYTES: u16 = 300;

/// What becomes of the write of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Panic,
    Fail(io::ErrorKind),
}

#[test]
fn an_output_that_panics_or_fails_at_any_write_ends_the_vm_and_every_byte_is_counted() {
    let name = "device_thread::\
                an_output_that_panics_or_fails_at_any_write_ends_the_vm_and_every_byte_is_counted";
    torture(name, Rounds::short(3), |draw| {
        let fates = [
            Fate::Panic,
            Fate::Fail(io::ErrorKind::StorageFull),
            Fate::Fail(io::ErrorKind::BrokenPipe),
        ];
        for fate in fates {
            for write in 0..6 {
                let vcpus = draw.count(1..=4);
                let ran = run(draw, vcpus, fate, write);
                assert_is_storm_cut_short(vcpus, BYTES.into(), &ran.received);
                assert_told(&ran, vcpus, fate);
            }
        }
    });
}

fn run(draw: &mut Draw, vcpus: u32, fate: Fate, fateful: u64) -> Ran {
    let mut number = 0;
    let mut draw = draw.fork();
    let demo = draw.pick(&["uart-storm", "uart-storm-poll"]);
    TestVm::new(&guest(demo, vcpus, BYTES.into())).run_on(move |bytes| {
        let is_fateful = number == fateful;
        number += 1;
        match fate {
            Fate::Panic if is_fateful => panic!("{INJECTED}: write {fateful}"),
            Fate::Fail(kind) if is_fateful => Err(kind.into()),
            // In pieces, so that there are enough writes.
            _ => Ok(bytes.len().min(draw.number(1..=50).try_into().unwrap())),
        }
    })
}

fn assert_told(ran: &Ran, vcpus: u32, fate: Fate) {
    match (&ran.report.outcome, fate) {
        (VmOutcome::DeviceThreadFailed(message), Fate::Panic) => {
            assert!(message.starts_with(INJECTED), "{message}");
        }
        (VmOutcome::OutputClosed, Fate::Fail(io::ErrorKind::BrokenPipe)) => {}
        (VmOutcome::OutputFailed(error), Fate::Fail(kind)) => assert_eq!(error.kind(), kind),
        (VmOutcome::AllHalted, _) => {
            // There were not that many writes.
            assert_eq!(Output::Marked(BYTES.into()).check(vcpus, &ran.received), Ok(()));
        }
        (outcome, _) => panic!("{outcome} with {fate:?}"),
    }
}
