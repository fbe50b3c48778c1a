//! Guests on real KVM, run as a user runs them: every demo against what `expect` says of it, and
//! tiny guests made here, byte by byte, for the options that place and start a guest.

mod support;

use std::fs;
use std::io;

use kvm_ioctls::Kvm;
use minivmm_guests::expect::{EXPECTS, End, Expect, VCPU_COUNTS, expectation};
use nix::sys::signal::Signal;

use support::{
    Finished, Running, minivmm, minivmm_in_shell, prompting, require_kvm, run, run_code,
};

/// Exit codes that the guest ABI leaves to minivmm: see `minivmm --help`.
const TRIPLE_FAULT: i32 = 8;
const INTERNAL_ERROR: i32 = 12;
const TIMED_OUT: i32 = 124;

/// Runs a demo with the input that is expected for it.
fn run_demo(expect: &Expect, line: &str) -> Finished {
    let limit = if expect.end == End::Never { "--timeout 200ms" } else { "" };
    let mut command =
        minivmm(&format!("-q --demo {} {} {limit} {line}", expect.name, expect.options));
    if !expect.input.is_empty() {
        // It fits in the pipe, so that nobody has to read it for us to go on.
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, expect.input).unwrap();
        command.stdin(reader);
    }
    run(command)
}

/// What is wrong with how a demo ran.
fn fault_in(expect: &Expect, vcpus: u32, run: &Finished) -> Option<String> {
    let code = match expect.end {
        End::TripleFault => TRIPLE_FAULT,
        End::Never => TIMED_OUT,
        other => other.exit_code().unwrap().into(),
    };
    if run.code != code {
        return Some(format!("exit code {} instead of {code}: {}", run.code, run.stderr));
    }
    let said: &[&str] = match expect.end {
        End::TripleFault => &["vCPU 0: triple fault", "rip 0", "cr0 0", "#0", " shutdown "],
        End::Never => &["time-out", "after 200ms", "vCPU 0: ", "stopped at cs:rip 0x"],
        _ if !run.stderr.is_empty() => return Some(format!("stderr: {}", run.stderr)),
        _ => &[],
    };
    if let Some(missing) = said.iter().find(|text| !run.stderr.contains(**text)) {
        return Some(format!("no {missing:?} in {}", run.stderr));
    }
    expect.output.check(vcpus, &run.stdout).err()
}

/// Runs every demo on this many vCPUs.
fn check_all(vcpus: u32) {
    if !require_kvm() {
        return;
    }
    let line = format!("--vcpus {vcpus}");
    let faults: Vec<String> = EXPECTS
        .iter()
        .filter_map(|expect| {
            let fault = fault_in(expect, vcpus, &run_demo(expect, &line))?;
            Some(format!("{} on {vcpus} vCPUs: {fault}", expect.name))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[track_caller]
fn check_one(name: &str, vcpus: u32) {
    if !require_kvm() {
        return;
    }
    let expect = expectation(name).unwrap();
    let run = run_demo(expect, &format!("--vcpus {vcpus}"));
    assert_eq!(fault_in(expect, vcpus, &run), None, "{name} on {vcpus} vCPUs");
}

#[test]
fn every_demo_does_what_it_promises_on_1_vcpu() {
    check_all(VCPU_COUNTS[0]);
}

#[test]
fn every_demo_does_what_it_promises_on_2_vcpus() {
    check_all(VCPU_COUNTS[1]);
}

#[test]
fn every_demo_does_what_it_promises_on_4_vcpus() {
    check_all(VCPU_COUNTS[2]);
}

#[test]
fn every_demo_does_what_it_promises_on_16_vcpus() {
    check_all(VCPU_COUNTS[3]);
}

#[test]
fn smp_hello_greets_from_64_vcpus() {
    check_one("smp-hello", 64);
}

#[test]
fn hello_prints_on_254_vcpus() {
    check_one("hello", 254);
}

/// KVM_CAP_MAX_VCPUS.
fn max_vcpus() -> u32 {
    Kvm::new().unwrap().get_max_vcpus().try_into().unwrap()
}

#[test]
fn as_many_vcpus_run_as_kvm_has_up_to_1024() {
    if require_kvm() {
        check_one("hello", max_vcpus().min(1024));
    }
}

#[test]
fn a_low_limit_on_open_files_is_raised_for_many_vcpus() {
    if require_kvm() {
        let command = minivmm_in_shell("ulimit -Sn 64; exec \"$@\"", "-q --demo hello --vcpus 100");
        run(command).assert_code(0);
    }
}

#[test]
fn one_vcpu_more_than_kvm_has_is_refused_with_the_limit() {
    if !require_kvm() {
        return;
    }
    let (limit, wanted) = (max_vcpus(), max_vcpus() + 1);
    let run = run(minivmm(&format!("-q --demo hello --vcpus {wanted}"))).assert_code(4);
    let line = format!(
        "minivmm: {wanted} vCPUs are more than this host's KVM can give a VM: at most {limit}\n"
    );
    assert_eq!((run.stdout.as_slice(), run.stderr), (&b""[..], line));
}

/// The guest of kvmtest.c, from the article "Using the KVM API": it adds al and bl, prints the
/// sum as a digit and then `text`, and halts.
fn kvmtest(text: &[u8]) -> Vec<u8> {
    let mut code = vec![
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x00, 0xd8, // add al, bl
        0x04, b'0', // add al, '0'
        0xee, // out dx, al
    ];
    for &byte in text {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code.push(0xf4); // hlt
    code
}

#[test]
fn kvmtest_prints_4_and_hello() {
    if require_kvm() {
        run_code(&kvmtest(b"\nHello\n"), "").assert_code(0).assert_prints(b"4\nHello\n");
    }
}

#[test]
fn an_exported_demo_runs_as_the_demo_does() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, mode) in [("smp-hello", "real"), ("long-hello", "long"), ("user-hello", "user")] {
        let path = dir.path().join(name);
        let mut export = minivmm(&format!("--export-demo {name}"));
        export.arg(&path);
        run(export).assert_code(0).assert_prints(b"");
        assert_eq!(fs::read(&path).unwrap(), minivmm_guests::find(name).unwrap().image);

        let mut command = minivmm(&format!("--vcpus 2 --mode {mode}"));
        command.arg(&path);
        let run = run(command);
        assert_eq!(fault_in(expectation(name).unwrap(), 2, &run), None, "{name}");
    }
}

mod memory {
    use super::*;

    #[test]
    fn a_guest_of_64_gib_starts() {
        for demo in ["hello", "protected-hello", "long-hello"] {
            if require_kvm() {
                let run = run_demo(expectation(demo).unwrap(), "--memory 64G");
                assert_eq!(fault_in(expectation(demo).unwrap(), 1, &run), None);
            }
        }
    }

    #[test]
    fn one_page_is_enough_for_a_guest_at_address_0() {
        if require_kvm() {
            run_code(&kvmtest(b"!"), "--memory 4K --load-addr 0")
                .assert_code(0)
                .assert_prints(b"4!");
        }
    }

    #[test]
    fn one_page_has_no_room_at_the_default_address_and_that_is_said() {
        if !require_kvm() {
            return;
        }
        let run = run_code(&kvmtest(b"!"), "--memory 4K").assert_code(4);
        assert_eq!(
            run.stderr,
            "minivmm: image of 12 bytes at 0x1000 does not fit in 4 KiB of memory (0x0-0xfff)\n"
        );
    }

    #[test]
    fn long_mode_reaches_memory_above_4_gib() {
        if !require_kvm() {
            return;
        }
        let code = [
            0x48, 0xb8, 0xf0, 0xff, 0xff, 0x3f, 0x01, 0, 0, 0, // mov rax, 0x1_3fff_fff0
            0xc6, 0x00, b'K', // mov byte [rax], 'K'
            0x8a, 0x00, // mov al, [rax]
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xee, // out dx, al
            0xf4, // hlt
        ];
        run_code(&code, "--mode long --memory 5G").assert_code(0).assert_prints(b"K");
    }
}

mod start {
    use super::*;

    /// Real mode: prints al.
    const PRINT_AL: [u8; 5] = [
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xf4, // hlt
    ];

    #[test]
    fn reg_sets_a_register_on_every_vcpu() {
        if require_kvm() {
            let line = "-q --reg rax=0x2a --vcpus 3 --reg rax=0x52";
            run_code(&PRINT_AL, line).assert_code(0).assert_prints(b"RRR");
        }
    }

    #[test]
    fn reg_sets_all_64_bits() {
        if !require_kvm() {
            return;
        }
        let code = [
            0x4c, 0x89, 0xf8, // mov rax, r15
            0x48, 0xc1, 0xe8, 0x38, // shr rax, 56
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xee, // out dx, al
            0xf4, // hlt
        ];
        let line = "--mode long --reg r15=0x5100000000000000";
        run_code(&code, line).assert_code(0).assert_prints(b"Q");
    }

    #[test]
    fn the_guest_is_told_its_index_and_how_many_vcpus_there_are() {
        if !require_kvm() {
            return;
        }
        let code = [
            0x89, 0xf8, // mov ax, di
            0xc1, 0xe0, 0x04, // shl ax, 4
            0x01, 0xf0, // add ax, si
            0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xee, // out dx, al
            0xf4, // hlt
        ];
        let mut run = run_code(&code, "-q --vcpus 3").assert_code(0);
        run.stdout.sort_unstable();
        run.assert_prints(&[0x03, 0x13, 0x23]);
    }

    #[test]
    fn entry_chooses_where_the_image_starts() {
        if !require_kvm() {
            return;
        }
        // hlt where it would start otherwise.
        let code = [&[0xf4; 4][..], &PRINT_AL].concat();
        let line = "--reg rax=69 --entry 0x1004";
        run_code(&code, line).assert_code(0).assert_prints(b"E");
        run_code(&code, "--reg rax=69").assert_code(0).assert_prints(b"");
    }

    #[test]
    fn load_addr_moves_the_image_and_the_start_with_it() {
        if !require_kvm() {
            return;
        }
        for (mode, address) in [
            ("real", "0x7c00"),
            ("real", "0xf0000"),
            ("protected", "0x100000"),
            ("long", "16777216"),
        ] {
            let code = [
                0xe4,
                0x80, // in al, 0x80: all ones, there is nothing
                0x04,
                b'L' + 1, // add al, 'L' + 1
                0xe6,
                0xf4, // out 0xf4, al: ends with exit code 2 * 'L' + 1
            ];
            let line = format!("-q --mode {mode} --load-addr {address}");
            run_code(&code, &line).assert_code(2 * i32::from(b'L') + 1);
        }
    }

    #[test]
    fn vcpu_threads_run_on_the_cpus_asked_for() {
        if !require_kvm() {
            return;
        }
        let allowed = cpus_allowed("/proc/self/status");
        let first = allowed.split(['-', ',']).next().unwrap();
        for (pin, expected) in [(first, Some(first)), ("auto", None)] {
            let mut command = minivmm(&format!("-q --vcpus 3 --pin {pin}"));
            let guest = prompting("spin");
            command.arg(guest.path());
            let mut running = Running::start(command);
            let _stdout = running.wait_for_prompts(3);

            let mut pinned = 0;
            for task in fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap() {
                let task = task.unwrap().path();
                let name = fs::read_to_string(task.join("comm")).unwrap();
                let cpus = cpus_allowed(task.join("status").to_str().unwrap());
                if name.starts_with("vcpu") {
                    assert!(cpus.parse::<usize>().is_ok(), "{name} may use {cpus}: one CPU");
                    assert!(expected.is_none_or(|cpu| cpu == cpus), "{name} is on {cpus}");
                    pinned += 1;
                } else if ["minivmm", "devices"].contains(&name.trim()) {
                    assert_eq!(cpus, allowed, "{name} is not a vCPU");
                }
            }
            assert_eq!(pinned, 3);
            running.signal(Signal::SIGTERM);
            running.finish().assert_code(143);
        }
    }

    /// The CPUs that a thread may use, as its status lists them.
    fn cpus_allowed(status: &str) -> String {
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    }
}

mod truth {
    use super::*;

    #[test]
    fn every_exit_is_one_line_at_trace_level() {
        if !require_kvm() {
            return;
        }
        let mut commands = [minivmm("-v -v -v --demo hello"), minivmm("--demo hello")];
        commands[1].env("RUST_LOG", "minivmm::exit=trace");
        for command in commands {
            let run = run(command).assert_code(0);
            assert_eq!(run.stdout, b"4\nHello\n");
            let lines: Vec<_> =
                run.stderr.lines().filter(|line| line.contains("::exit]")).collect();
            let exits = lines.iter().map(|line| line.split_once("] ").unwrap().1);
            let outs = b"4\nHello\n".iter().zip(0..).map(|(byte, seq)| {
                format!(
                    "vcpu=0 seq={seq} io-out port=0x3f8 size=1 count=1 data={byte:#x} \
                     handler=posted"
                )
            });
            let expected: Vec<_> =
                outs.chain(["vcpu=0 seq=8 hlt handler=run-loop".into()]).collect();
            assert_eq!(exits.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_triple_fault_shows_registers_and_the_last_exits_of_every_vcpu() {
        if !require_kvm() {
            return;
        }
        let code = [
            0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
            0x00, 0xd8, // add al, bl: 2 + 2
            0x04, b'0', // add al, '0'
            0xee, // out dx, al
            0x0f, 0x01, 0x1d, 0x00, 0x08, 0x00, 0x00, // lidt [0x800]: zeroes, so no table
            0x0f, 0x0b, // ud2, at 0x1011
        ];
        let run = run_code(&code, "--mode protected --reg rdi=0xabcd").assert_code(TRIPLE_FAULT);
        assert_eq!(run.stdout, b"4");
        run.assert_says("minivmm: vCPU 0: triple fault (KVM_EXIT_SHUTDOWN)\nvCPU 0 registers:\n")
            .assert_says("rip 0000000000001011")
            .assert_says("rdi 000000000000abcd")
            .assert_says("idt base 0 limit 0")
            .assert_says("vCPU 0: 2 exits\n")
            .assert_says("  #0 ")
            .assert_says("us io-out port=0x3f8 size=1 count=1 data=0x34 handler=posted\n")
            .assert_says("us shutdown handler=run-loop\n");
    }

    /// What a host makes of an instruction that some KVM back ends cannot emulate: the guest
    /// goes on, as `elsewhere` checks, or the report shows the instruction.
    fn check_instruction(code: &[u8], shown: &str, elsewhere: impl Fn(Finished)) {
        if !require_kvm() {
            return;
        }
        let run = run_code(code, "--mode long --no-assist");
        if run.code != INTERNAL_ERROR {
            return elsewhere(run);
        }
        assert_eq!(run.stdout, b"");
        run.assert_says("vCPU 0: KVM internal error, suberror 1 (instruction emulation failed)")
            .assert_says(shown)
            .assert_says("rip 0000000000001000")
            .assert_says("vCPU 0: 1 exit\n")
            .assert_says("internal-error suberror=1");
    }

    #[test]
    fn int3_without_a_table_is_a_triple_fault_or_shown_as_not_emulated() {
        let code = [
            0xcc, // int3
            0xf4, // hlt
        ];
        check_instruction(&code, "at 0x1000: cc (int3, 64-bit)", |run| {
            run.assert_code(TRIPLE_FAULT).assert_says("vCPU 0: triple fault");
        });
    }

    #[test]
    fn popcnt_counts_or_is_shown_as_not_emulated() {
        let code = [
            0xf3, 0x0f, 0xb8, 0xc3, // popcnt eax, ebx
            0x04, b'0', // add al, '0'
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xee, // out dx, al
            0xf4, // hlt
        ];
        check_instruction(&code, "at 0x1000: f3 0f b8 c3 (popcnt eax,ebx, 64-bit)", |run| {
            run.assert_code(0).assert_prints(b"1");
        });
    }
}
