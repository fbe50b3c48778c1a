//! What the user gets for a command line that runs no guest: help and lists on standard output,
//! and for everything that is wrong one clear line on standard error and a documented exit code.
//!
//! What each option accepts, value by value, is tested in `src/cli/tests.rs`.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use minivmm::outcome::ExitCode;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Uid, access, mkfifo};

use support::{Finished, command_of, image, minivmm, minivmm_in_shell, require_kvm, run, skipped};

/// Runs to a refusal: `code`, nothing on standard output, and no panic, which `run` sees to.
#[track_caller]
fn refusal(line: &str, code: ExitCode) -> Finished {
    let run = run(minivmm(line)).assert_code(code as i32);
    assert_eq!(run.stdout, b"", "{line}");
    run
}

/// Runs to a refusal by minivmm itself: one line, which has all of `parts` in it.
#[track_caller]
fn refused_in_one_line(line: &str, parts: &[&str]) {
    let stderr = refusal(line, ExitCode::Host).stderr;
    assert!(stderr.starts_with("minivmm: ") && stderr.ends_with('\n'), "{line}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{line}: no {part:?} in {stderr}");
    }
}

#[test]
fn a_process_that_runs_out_of_memory_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 30).unwrap();
    let line = format!("merge {}", file.path().display());
    let run = run(minivmm_in_shell("ulimit -v 100000; exec \"$@\"", &line)).assert_code(4);
    assert!(run.stderr.starts_with("minivmm: out of memory: cannot allocate "), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn a_value_that_cannot_be_is_a_usage_error_that_shows_it() {
    for (line, parts) in [
        ("", ["required", "<GUEST|--demo <NAME>|"]),
        ("g --vcpus 0", ["'0' for '--vcpus <N>'", "at least 1 vCPU"]),
        ("g --vcpus -1", ["'-1' for '--vcpus <N>'", "not a number"]),
        ("g --vcpus 70000", ["'70000'", "more than the limit of 65535"]),
        ("g --vcpus many", ["'many'", "not a number"]),
        ("g --memory 0", ["'0' for '--memory <SIZE>'", "at least one page"]),
        ("g --memory 999999T", ["'999999T'", "more than the limit of 64 TiB"]),
        ("g --memory 1000", ["'1000'", "not a whole number of 4 KiB pages"]),
        ("g --load-addr x", ["'x' for '--load-addr <ADDR>'", "not a number"]),
        ("g --entry 0x10000000000000000", ["'0x10000000000000000'", "64 bits"]),
        ("g --reg xax=1", ["'xax=1'", "'xax' is not a register: expected rax, "]),
        ("g --reg rax=z", ["'rax=z'", "'z' is not a number"]),
        ("g --mode smm", ["'smm' for '--mode <MODE>'", "real, protected, long, user"]),
        ("--demo helo", ["'helo' for '--demo <NAME>'", "hello"]),
        ("--export-demo helo f", ["'helo' for '--export-demo <NAME> <FILE>'", "hello"]),
        ("g --serial tty", ["'tty' for '--serial <WHERE>'", "stdio, null, pty, kept or file:PATH"]),
        ("g --pin 9999", ["'9999' for '--pin <CPUS>'", "CPU 9999"]),
        ("g --timeout 5", ["'5' for '--timeout <DURATION>'", "time unit needed"]),
        ("--completions dos", ["'dos' for '--completions <SHELL>'", "bash"]),
        ("g --frobnicate", ["'--frobnicate'", "Usage: minivmm"]),
    ] {
        let stderr = refusal(line, ExitCode::Usage).stderr;
        assert!(stderr.starts_with("error: "), "{line}: {stderr}");
        assert!(stderr.ends_with("For more information, try '--help'.\n"), "{line}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{line}: no {part:?} in {stderr}");
        }
    }
}

#[test]
fn an_image_that_is_none_is_named() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    File::create(path("empty")).unwrap();
    mkfifo(path("fifo").as_str(), Mode::S_IRWXU).unwrap();
    fs::write(path("file"), [0xf4]).unwrap();
    for (path, why) in [
        (path("missing"), "No such file"),
        (path("file/below"), "Not a directory"),
        (path(""), "is not a regular file"),
        (path("empty"), "is empty"),
        (path("fifo"), "is not a regular file"),
        ("/dev/zero".into(), "is not a regular file"),
        ("/dev/null".into(), "is not a regular file"),
    ] {
        refused_in_one_line(&path, &[&format!("guest image '{path}'"), why]);
    }
}

#[test]
fn what_does_not_fit_in_memory_is_shown_with_the_memory() {
    if !require_kvm() {
        return;
    }
    // Its end is after that of the memory; it takes no room on disk.
    let large = image(&[]);
    large.as_file().set_len(2 << 20).unwrap();
    let path = large.path().display();
    let memory = "1 MiB of memory (0x0-0xfffff)";
    for (line, what) in [
        (format!("--memory 1M {path}"), "image of 2097152 bytes at 0x1000 does not fit in"),
        ("--memory 1M --demo hello --load-addr 0xffff0".into(), "image of 30 bytes at 0xffff0"),
        ("--memory 1M --demo hello --load-addr 1048576".into(), "image of 30 bytes at 0x100000"),
        ("--memory 1M --demo hello --load-addr 0xffffffffffffffff".into(), "0xffffffffffffffff"),
        ("--memory 1M --demo hello --entry 0x100000".into(), "entry point 0x100000 is outside"),
    ] {
        refused_in_one_line(&line, &[what, memory]);
    }
    refused_in_one_line(
        "--demo hello --entry 0x200000",
        &["entry point 0x200000 is out of reach in real mode"],
    );
}

#[test]
fn more_vcpus_than_kvm_has_are_a_host_error() {
    if require_kvm() {
        refused_in_one_line("--demo hello --vcpus 65535", &["65535 vCPUs", "at most "]);
    }
}

#[test]
fn more_memory_than_the_host_can_map_is_a_host_error_that_shows_it() {
    if require_kvm() {
        refused_in_one_line("--demo hello --memory 64T", &["64 TiB"]);
    }
}

#[test]
fn output_that_cannot_be_created_is_named() {
    refused_in_one_line("--export-demo hello /missing/file", &["/missing/file", "No such file"]);
    refused_in_one_line("--export-demo hello /", &["cannot write /", "Is a directory"]);
    if require_kvm() {
        let line = "--demo hello --serial file:/missing/file";
        refused_in_one_line(line, &["/missing/file", "No such file"]);
        refused_in_one_line("--demo hello --serial file:/", &["file /:", "Is a directory"]);
    }
}

#[test]
fn a_host_cpu_that_is_not_there_is_named() {
    if require_kvm() {
        refused_in_one_line("--demo hello --pin 1023", &["CPU 1023 cannot be used", "may use"]);
    }
}

#[test]
fn kvm_that_is_not_permitted_is_said_with_what_to_do() {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return skipped("no /dev/kvm that could be forbidden");
    }
    let may = fs::metadata(kvm).unwrap().permissions().mode();
    let all = 0o006;
    let root = Uid::effective().is_root();
    if may & all == all || !root && access(kvm, AccessFlags::R_OK | AccessFlags::W_OK).is_ok() {
        return skipped("everyone may use /dev/kvm, or this user may and cannot become another");
    }

    // Where the user can reach it, unlike perhaps the directory it was built in.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("minivmm");
    // Not by this process: what another test starts meanwhile would inherit the copy, open for
    // writing, until its exec, and a file that is open for writing cannot be started.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_minivmm")).arg(&path).status();
    assert!(copied.unwrap().success());
    let mut command = command_of(&path, "--demo hello");
    if root {
        let nobody = 65_534;
        command.uid(nobody).gid(nobody);
    }
    let run = run(command).assert_code(ExitCode::Host as i32);
    assert_eq!(run.stdout, b"");
    assert!(run.stderr.starts_with("minivmm: /dev/kvm: permission denied ("), "{}", run.stderr);
    run.assert_says("usermod -aG kvm");
}

/// Command lines that only print, each with something that it prints.
const PRINTING: [(&str, &str); 7] = [
    ("--help", "Usage: minivmm [OPTIONS] <GUEST>"),
    ("--help", "Exit codes:"),
    ("--version", env!("CARGO_PKG_VERSION")),
    ("--list-demos", "hello"),
    ("--completions bash", "complete -F _minivmm"),
    ("--completions zsh", "#compdef minivmm"),
    ("--completions fish", "complete -c minivmm"),
];

#[test]
fn what_was_asked_for_is_printed_on_standard_output() {
    for (line, part) in PRINTING {
        let run = run(minivmm(line)).assert_code(0);
        let text = String::from_utf8(run.stdout).unwrap();
        assert!(text.contains(part), "{line}: no {part:?} in {text}");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn list_demos_has_a_line_for_every_guest() {
    let run = run(minivmm("--list-demos")).assert_code(0);
    let text = String::from_utf8(run.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    let listed: Vec<_> = lines.map(|(name, summary)| (name, summary.trim_start())).collect();
    let guests = minivmm_guests::GUESTS.iter().map(|guest| (guest.name, guest.summary));
    assert_eq!(listed, guests.collect::<Vec<_>>());
}

#[test]
fn a_reader_that_has_gone_or_never_was_is_no_error() {
    for (line, _) in PRINTING {
        run(minivmm_in_shell(r#"exec "$@" >&-"#, line)).assert_code(0).assert_prints(b"");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = minivmm(line);
        command.stdout(writer);
        run(command).assert_code(0).assert_prints(b"");
    }
}

#[test]
fn a_full_disk_is_an_error_that_says_what_could_not_be_written() {
    for line in ["--list-demos", "--completions bash"] {
        let mut command = minivmm(line);
        command.stdout(File::create("/dev/full").unwrap());
        run(command)
            .assert_code(ExitCode::Host as i32)
            .assert_says("minivmm: cannot write to standard output: No space left on device");
    }
}
