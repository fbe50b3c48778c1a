//! Traces as a user makes and reads them: real guests on real KVM, the files that come of it, and
//! what `minivmm report` says of them.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use support::{Finished, Running, compile, minivmm, minivmm_in_shell, prompting, require_kvm, run};

/// A place for traces.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a demo with a trace in a file of that name.
    fn trace(&self, name: &str, line: &str) -> (PathBuf, Finished) {
        let path = self.file(name);
        let mut command = minivmm(line);
        command.arg("--trace").arg(&path);
        (path, run(command))
    }
}

fn report(path: &Path, line: &str) -> Finished {
    let mut command = minivmm("report");
    command.arg(path).args(line.split_whitespace());
    run(command)
}

fn json_report(path: &Path) -> Value {
    let finished = report(path, "--json").assert_code(0);
    serde_json::from_slice(&finished.stdout).unwrap()
}

/// The records of a trace, as the JSON lines of an export.
fn records(place: &Place, path: &Path) -> Vec<Value> {
    let lines = place.file("export.jsonl");
    let mut command = minivmm("report");
    command.arg(path).arg("--export").arg(&lines);
    run(command).assert_code(0);
    let text = fs::read_to_string(lines).unwrap();
    // The first line is about the trace itself.
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exits(records: &[Value]) -> impl Iterator<Item = &Value> {
    records.iter().filter(|record| record["kind"] == "exit")
}

#[test]
fn requests_replies_and_records_are_the_same_number() {
    if !require_kvm() {
        return;
    }
    for vcpus in [1, 2, 4, 16] {
        let place = Place::new();
        let (path, finished) =
            place.trace("t.mvt", &format!("--vcpus {vcpus} --demo uart-storm-poll"));
        let finished = finished.assert_code(0);
        let records = records(&place, &path);
        // Every byte on standard output was one exit with one service.
        let outs = exits(&records).filter(|exit| exit["port"] == "0x3f8" && exit["dir"] == "write");
        assert_eq!(outs.count(), finished.stdout.len());
        let posted = exits(&records).filter(|exit| exit["handler"] == "posted").count();
        let services = records.iter().filter(|record| record["kind"] == "service").count();
        assert_eq!(posted, services);
        // Each vCPU's exits are all there, in order.
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        for exit in exits(&records) {
            let source = exit["source"].as_str().unwrap().to_owned();
            let next = next.entry(source).or_default();
            assert_eq!(exit["seq"], *next);
            *next += 1;
        }
        assert_eq!(next.len(), vcpus);
    }
}

#[test]
fn a_filter_leaves_out_and_the_totals_stay_exact() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let (all, finished) = place.trace("all.mvt", "--demo uart-storm-poll --reg rbp=20");
    finished.assert_code(0);
    let all = exits(&records(&place, &all)).count();
    for filter in ["reason=io-in", "port=0x3f8", "every=7", "vcpu=1", "reason=hlt"] {
        let line = format!("--demo uart-storm-poll --reg rbp=20 --trace-filter {filter}");
        let (path, finished) = place.trace("some.mvt", &line);
        finished.assert_code(0);
        let records = records(&place, &path);
        let kept = exits(&records).count();
        let totals =
            records.iter().find(|record| record["kind"] == "totals" && record["source"] == "vcpu0");
        let totals = totals.unwrap();
        let number = |name: &str| usize::try_from(totals[name].as_u64().unwrap()).unwrap();
        assert_eq!(number("kept"), kept, "{filter}");
        assert_eq!(number("seen"), number("kept") + number("filtered"), "{filter}");
        // The guest polls: how often it finds the UART busy is not always the same.
        assert!(number("seen") > all / 2, "{filter}");
    }
}

#[test]
fn a_guest_steers_its_trace() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let (path, finished) = place.trace("t.mvt", "--demo trace-markers");
    finished.assert_code(0).assert_prints(b"markers ok\n");
    let records = records(&place, &path);
    let markers: Vec<_> = records.iter().filter(|record| record["kind"] == "marker").collect();
    let names: Vec<_> = markers.iter().map(|marker| marker["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["begin", "end"]);
    // 100 reads of the scratch register happened with recording off.
    assert_eq!(exits(&records).filter(|exit| exit["port"] == "0x3ff").count(), 4);
    // Without a trace the ports are there, and do nothing.
    run(minivmm("--demo trace-markers")).assert_code(0).assert_prints(b"markers ok\n");
}

#[test]
fn the_summary_of_a_file_is_that_of_the_run() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let (path, finished) = place.trace("t.mvt", "--vcpus 2 --demo smp-hello --stats=json");
    let finished = finished.assert_code(0);
    let live: Value = serde_json::from_str(&finished.stderr).unwrap();
    let offline = json_report(&path);
    for part in ["exits", "time", "reasons", "addresses", "vcpus"] {
        assert_eq!(live[part], offline[part], "{part}");
    }
}

#[test]
fn a_trace_that_kill_9_cut_off_is_readable_to_its_end_and_says_so() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let path = place.file("t.mvt");
    let guest = prompting("bench-in");
    let mut command = minivmm("--reg rbp=0xffffffff");
    command.arg(guest.path()).arg("--trace").arg(&path);
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(1);
    // Some batches are in the file.
    support::wait_until(|| fs::metadata(&path).is_ok_and(|file| file.len() > 64 * 1000));
    running.signal(Signal::SIGKILL);
    running.finish_as_in_a_shell().assert_code(128 + 9);
    let whole = report(&path, "").assert_code(0);
    assert!(String::from_utf8_lossy(&whole.stdout).contains("cut"), "{whole:?}");
    // Cut in the middle of a record.
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 70]).unwrap();
    report(&path, "").assert_code(0);
    let exits = json_report(&path)["exits"]["recorded"].as_u64().unwrap();
    assert!(exits > 500, "{exits}");
}

#[test]
fn a_full_disk_ends_the_vm_and_leaves_a_readable_trace() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let path = place.file("t.mvt");
    // Files of at most 64 KiB, which is what `ulimit -f` calls 128.
    let script = r#"ulimit -f 128; exec "$@""#;
    let mut command = minivmm_in_shell(script, "--demo bench-in --reg rbp=100000");
    command.arg("--trace").arg(&path);
    run(command).assert_code(6).assert_says("cannot write the trace");
    let read = report(&path, "").assert_code(0);
    assert!(String::from_utf8_lossy(&read.stdout).contains("cut"), "{read:?}");
}

#[test]
fn foreign_files_are_refused_with_the_offset() {
    let place = Place::new();
    for (content, says) in
        [(&b"#!/bin/sh\n"[..], "at byte 0: not a minivmm trace"), (b"", "at byte 0: it is empty")]
    {
        let path = place.file("foreign");
        fs::write(&path, content).unwrap();
        report(&path, "").assert_code(4).assert_says(says);
    }
    report(&place.file("missing"), "").assert_code(4).assert_says("missing");
}

#[test]
fn sigusr1_shows_the_flight_recorders_of_a_vm_that_runs_on() {
    if !require_kvm() {
        return;
    }
    let guest = prompting("spin");
    let mut command = minivmm("-q --vcpus 2");
    command.arg(guest.path());
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(2);
    running.signal(Signal::SIGUSR1);
    let said = running.wait_for_stderr("vCPU 1: 1 exit\n");
    assert!(said.contains("vCPU 0: 1 exit\n  #0"), "{said}");
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143);
}

#[test]
fn a_trace_whose_reader_stalls_ends_with_the_signal() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let path = place.file("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let guest = prompting("bench-in");
    let mut command = minivmm("--reg rbp=0xffffffff --trace-format jsonl");
    command.arg(guest.path()).arg("--trace").arg(&path);
    // Opened first, so that it is no reader that comes late; it never reads.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(1);
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143);
    drop(reader);
}

#[test]
fn exits_have_their_rip_when_it_is_asked_for() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let (path, finished) = place.trace("t.jsonl", "--demo long-hello --trace-rip");
    finished.assert_code(0);
    let text = fs::read_to_string(path).unwrap();
    let exit = text.lines().find(|line| line.contains("io-out")).unwrap();
    let exit: Value = serde_json::from_str(exit).unwrap();
    let rip = exit["rip"].as_str().and_then(|rip| rip.strip_prefix("0x")).unwrap();
    let rip = u64::from_str_radix(rip, 16).unwrap();
    assert!((0x1000..0x2000).contains(&rip), "{exit}");
}

#[test]
fn a_slow_disk_may_drop_but_counts() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let (path, finished) =
        place.trace("t.mvt", "--demo bench-in --reg rbp=20000 --trace-full drop");
    finished.assert_code(0);
    let records = records(&place, &path);
    let totals = records.iter().find(|record| record["kind"] == "totals").unwrap();
    let number = |name: &str| totals[name].as_u64().unwrap();
    assert_eq!(number("seen"), 20_001);
    assert_eq!(number("seen"), number("kept") + number("dropped"));
}

#[test]
fn statistics_count_the_kicks_that_end_a_run() {
    if !require_kvm() {
        return;
    }
    let guest = prompting("spin");
    let mut command = minivmm("-q --vcpus 3 --stats=json");
    command.arg(guest.path());
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(3);
    running.signal(Signal::SIGTERM);
    let finished = running.finish().assert_code(143);
    let stats: Value = serde_json::from_str(&finished.stderr).unwrap();
    assert_eq!(stats["kicks"], 3);
}

#[test]
fn the_flight_recorder_shows_rip_when_it_is_asked_for() {
    if !require_kvm() {
        return;
    }
    run(minivmm("--demo triple-fault --trace-rip")).assert_code(8).assert_says(" rip=0x10");
}

#[test]
fn statistics_name_the_code() {
    if !require_kvm() {
        return;
    }
    // The guest's code is what the file says: one function from 0x1000 on.
    let place = Place::new();
    let source = place.file("guest.S");
    let text = ".code16\n.globl shout\n.type shout, @function\nshout: mov $0x3f8, %dx\n\
                mov $0x21, %al\nout %al, %dx\nhlt\n.size shout, . - shout\n";
    fs::write(&source, text).unwrap();
    let (elf, image) = (place.file("guest.elf"), place.file("guest.bin"));
    let cc = |args: &[&str]| {
        let own = ["-m32", "-nostdlib", "-static", "-Wl,-Ttext=0x1000,-e,shout,--build-id=none"];
        compile(own.iter().chain(args));
    };
    cc(&[source.to_str().unwrap(), "-o", elf.to_str().unwrap()]);
    cc(&["-Wl,--oformat=binary", source.to_str().unwrap(), "-o", image.to_str().unwrap()]);
    let mut command = minivmm("--stats=json --symbols");
    command.arg(&elf).arg(&image);
    let finished = run(command).assert_code(0);
    assert_eq!(finished.stdout, b"!");
    let stats: Value = serde_json::from_str(&finished.stderr).unwrap();
    // RIP may be at the instruction or after it; after the last one the function has ended.
    let names = stats["symbols"].as_array().unwrap().iter().map(|row| &row["symbol"]);
    assert!(names.into_iter().any(|name| name == "shout"), "{stats:#}");
}

/// A FIFO with a reader that never reads, and what becomes of a guest whose trace goes there.
fn stalled(line: &str) -> (Place, fs::File, Running) {
    let place = Place::new();
    let path = place.file("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened first, so that it is no reader that comes late.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let guest = prompting("bench-in");
    let mut command = minivmm(line);
    command.arg(guest.path()).arg("--trace-format").arg("jsonl").arg("--trace").arg(&path);
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(1);
    (place, reader, running)
}

#[test]
fn a_time_out_ends_the_wait_for_a_trace_that_nobody_reads() {
    if !require_kvm() {
        return;
    }
    // The guest has ended long before; its trace is what is waited for.
    let (_place, _reader, running) = stalled("--reg rbp=3000 --timeout 2s");
    running.finish().assert_code(6).assert_says("cannot write the trace: given up");
}

#[test]
fn a_signal_ends_that_wait_and_it_is_said() {
    if !require_kvm() {
        return;
    }
    let (_place, reader, running) = stalled("--reg rbp=3000");
    // The pipe is full, so there is more than it takes.
    support::wait_until(|| {
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 0
    });
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143).assert_says("the trace is cut off");
}

#[test]
fn a_guests_own_end_waits_for_a_slow_reader_and_loses_nothing() {
    if !require_kvm() {
        return;
    }
    let (_place, mut reader, running) = stalled("--reg rbp=30000");
    // Only the writer is not done by now, or a vCPU waits for it.
    let drain = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut chunk = [0; 65536];
        while !text.ends_with(b"\"kind\":\"end\"}\n") {
            let count = std::io::Read::read(&mut reader, &mut chunk).unwrap();
            text.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8(text).unwrap()
    });
    running.finish().assert_code(0);
    let text = drain.join().unwrap();
    let exits = text.lines().filter(|line| line.contains("\"kind\":\"exit\"")).count();
    assert_eq!(exits, 30_002);
}

#[test]
fn what_a_trace_loses_is_said() {
    if !require_kvm() {
        return;
    }
    let (_place, _reader, running) = stalled("--reg rbp=40000 --trace-full drop --timeout 3s");
    let finished = running.finish();
    assert!(finished.stderr.contains("the trace lost "), "{}", finished.stderr);
}

#[test]
fn sigusr1_does_not_stop_the_supervisor_when_nobody_reads_standard_error() {
    if !require_kvm() {
        return;
    }
    let (_reader, pipe, _) = support::full_pipe();
    let full = format!("/proc/{}/fd/{}", std::process::id(), pipe.as_raw_fd());
    let guest = prompting("spin");
    let mut command = minivmm_in_shell(r#"exec "$@" 2>"$FULL""#, "-qq --vcpus 2");
    command.env("FULL", full).arg(guest.path());
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(2);
    for _ in 0..3 {
        running.signal(Signal::SIGUSR1);
    }
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143);
}

#[test]
fn a_trace_overwrites_nothing_that_is_needed() {
    if !require_kvm() {
        return;
    }
    let place = Place::new();
    let image = place.file("guest.bin");
    fs::write(&image, [0xf4]).unwrap();
    let link = place.file("link");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    for trace in [&image, &link] {
        let mut command = minivmm("--trace");
        command.arg(trace).arg(&image);
        run(command).assert_code(2).assert_says("is also the guest's image");
    }
    assert_eq!(fs::read(&image).unwrap(), [0xf4]);
    let out = place.file("out");
    let mut command = minivmm("--demo hello --trace");
    command.arg(&out).arg("--serial").arg(format!("file:{}", out.display()));
    run(command).assert_code(2).assert_says("is also the file of the serial port");
}
