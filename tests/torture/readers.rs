//! The reader of the binary's output closes it, stalls, or is slow, at random moments.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use minivmm_guests::expect::Output;
use nix::fcntl::{FcntlArg, fcntl};

use crate::support::{Running, minivmm};
use crate::theme::{Rounds, torture};
use crate::vm::assert_is_storm_cut_short;

const BYTES: u16 = 4000;

#[test]
fn a_reader_gets_everything_however_it_reads_and_its_end_is_the_guests() {
    let name = "readers::a_reader_gets_everything_however_it_reads_and_its_end_is_the_guests";
    torture(name, Rounds::short(12), |draw| {
        let vcpus = draw.count(1..=4);
        let due = u64::from(BYTES) * u64::from(vcpus);
        let line = format!("-q --demo uart-storm --vcpus {vcpus} --reg rbp={BYTES}");
        let (mut reader, writer) = io::pipe().unwrap();
        if draw.number(0..=1) == 0 {
            // The smallest there is, so that the reader sets the pace.
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        }
        let mut command = minivmm(&line);
        command.stdout(writer);
        let running = Running::start(command);
        // Where it closes; half of them never do.
        let end = draw.number(0..=2 * due);
        let mut bytes = Vec::new();
        while u64::try_from(bytes.len()).unwrap() < end {
            let left = end - u64::try_from(bytes.len()).unwrap();
            let mut chunk = vec![0; draw.number(1..=left.min(3000)).try_into().unwrap()];
            match reader.read(&mut chunk).unwrap() {
                0 => break,
                len => bytes.extend(&chunk[..len]),
            }
            if draw.number(0..=9) == 0 {
                thread::sleep(draw.time(Duration::from_millis(20)));
            }
        }
        drop(reader);
        let run = running.finish();
        if end >= due {
            assert_eq!(Output::Marked(BYTES.into()).check(vcpus, &bytes), Ok(()));
            assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        } else {
            assert_is_storm_cut_short(vcpus, BYTES.into(), &bytes);
            // All of it may have been in the pipe by then.
            assert!([0, 141].contains(&run.code), "{}: {}", run.code, run.stderr);
            assert_eq!(run.stderr, "");
        }
    });
}

#[test]
fn a_signal_ends_the_wait_for_a_reader_that_stalls_anywhere() {
    let name = "readers::a_signal_ends_the_wait_for_a_reader_that_stalls_anywhere";
    torture(name, Rounds::short(4), |draw| {
        let (mut reader, writer) = io::pipe().unwrap();
        let capacity = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let mut command = minivmm("-q --demo uart-storm --vcpus 2 --reg rbp=0xffffffff");
        command.stdout(writer);
        let running = Running::start(command);
        let stalls_at = usize::try_from(draw.number(1..=20_000)).unwrap();
        let mut bytes = vec![0; stalls_at];
        reader.read_exact(&mut bytes).unwrap();
        thread::sleep(draw.time(Duration::from_millis(100)));
        running.signal(nix::sys::signal::Signal::SIGTERM);
        let run = running.finish().assert_code(143);
        // What it did not say is lost is in the pipe, and no more than that fits.
        let rest = reader.read_to_end(&mut bytes).unwrap();
        assert!(rest <= usize::try_from(capacity).unwrap());
        assert_is_storm_cut_short(2, usize::MAX, &bytes);
        let said = run.stderr.lines().all(|line| line.ends_with("output were not written"));
        assert!(said, "{}", run.stderr);
    });
}
