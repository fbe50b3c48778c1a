//! Command lines and what becomes of them.

use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::config::{
    Assist, CpuList, DeviceConfig, DeviceRequest, FwCfgItem, IrqChip, PlatformConfig, StartVcpus,
};
use crate::stress::chaos::ChaosRate;
use crate::stress::seed::Seed;
use crate::stress::shard::Shard;
use crate::stress::start::StartMode;
use crate::trace::config::{StatsFormat, TraceConfig, TraceDestination};
use crate::trace::format::TraceFormat;
use crate::trace::stream::WhenFull;

/// Splits at spaces: no argument here has one.
fn parse_line(line: &str) -> Result<Command, clap::Error> {
    parse(std::iter::once("minivmm").chain(line.split_whitespace()))
}

#[track_caller]
fn error_of(line: &str) -> clap::Error {
    match parse_line(line) {
        Ok(command) => panic!("{line:?} was accepted as {command:?}"),
        Err(error) => error,
    }
}

#[track_caller]
fn run_of(line: &str) -> (VmConfig, LevelFilter) {
    match parse_line(line) {
        Ok(Command::Run { config, log_level }) => (*config, log_level),
        other => panic!("{line:?} gave {other:?}"),
    }
}

fn defaults() -> VmConfig {
    VmConfig::new(GuestSource::File("g".into()))
}

fn without_assistance() -> VmConfig {
    let mut config = with_platform(None, None);
    config.platform.assist = Assist::Off;
    config
}

fn with_platform(irqchip: Option<IrqChip>, start: Option<StartVcpus>) -> VmConfig {
    let mut config = defaults();
    config.platform.irqchip = irqchip;
    config.platform.start = start;
    config
}

fn with_devices(devices: &[&str], files: &[&str]) -> VmConfig {
    let device = |text: &&str| DeviceRequest::from_os_str(OsStr::new(text)).unwrap();
    let file = |text: &&str| FwCfgItem::from_os_str(OsStr::new(text)).unwrap();
    let devices = devices.iter().map(device).collect();
    let files = files.iter().map(file).collect();
    let mut config = defaults();
    config.platform.devices = DeviceConfig::new(devices, files).unwrap();
    config
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_file_alone_gives_the_defaults() {
    assert_eq!(run_of("g"), (defaults(), LevelFilter::Warn));
}

#[test]
fn arguments_after_two_dashes_are_the_guests() {
    let config = run_of("g --vcpus 2 -- console=ttyS0 --quiet -- x").0;
    assert_eq!(config.boot.cmdline.as_deref(), Some("console=ttyS0 --quiet -- x"));
    assert_eq!(config.vcpus.get(), 2);
    assert_eq!(run_of("g --").0, defaults());
}

#[test]
fn each_option_sets_its_value() {
    let mib = |n: u64| MemorySize::from_bytes(n << 20).unwrap();
    let cpus = |list: &[usize]| Some(Pinning::Cpus(CpuList::new(list.to_vec()).unwrap()));
    let file = |path: &str| SerialConfig::File(path.into());
    let millis = |n| Some(Duration::from_millis(n));
    for (line, expected) in [
        ("--vcpus 4 g", VmConfig { vcpus: VcpuCount::new(4).unwrap(), ..defaults() }),
        ("g --vcpus=65535", VmConfig { vcpus: VcpuCount::new(65_535).unwrap(), ..defaults() }),
        ("g --irqchip split", with_platform(Some(IrqChip::Split), None)),
        ("g --no-assist", without_assistance()),
        ("g --start bsp", with_platform(None, Some(StartVcpus::Bsp))),
        ("g --start=all", with_platform(None, Some(StartVcpus::All))),
        ("g --device com3 --device testdev", with_devices(&["com3", "testdev"], &[])),
        ("g --fw-cfg a=b --device com2=file:x", with_devices(&["com2=file:x"], &["a=b"])),
        ("g --memory 1G", VmConfig { memory: mib(1024), ..defaults() }),
        ("g --memory 16mib", VmConfig { memory: mib(16), ..defaults() }),
        ("g --memory 1048576", VmConfig { memory: mib(1), ..defaults() }),
        ("g --mode real", VmConfig { mode: Some(CpuMode::Real), ..defaults() }),
        ("g --mode protected", VmConfig { mode: Some(CpuMode::Protected), ..defaults() }),
        ("g --mode LONG", VmConfig { mode: Some(CpuMode::Long), ..defaults() }),
        ("g --mode user", VmConfig { mode: Some(CpuMode::User), ..defaults() }),
        ("g --load-addr 0x10_0000", VmConfig { load_addr: Some(Gpa(1 << 20)), ..defaults() }),
        ("g --load-addr 0", VmConfig { load_addr: Some(Gpa(0)), ..defaults() }),
        ("g --entry 4096", VmConfig { entry: Some(Gpa(4096)), ..defaults() }),
        ("g --timeout 10s", VmConfig { timeout: millis(10_000), ..defaults() }),
        ("g --timeout 500ms", VmConfig { timeout: millis(500), ..defaults() }),
        ("g --timeout 1m30s", VmConfig { timeout: millis(90_000), ..defaults() }),
        ("g --serial stdio", defaults()),
        ("g --serial null", VmConfig { serial: SerialConfig::Null, ..defaults() }),
        ("g --serial pty", VmConfig { serial: SerialConfig::Pty, ..defaults() }),
        ("g --serial file:a/b", VmConfig { serial: file("a/b"), ..defaults() }),
        (
            "g --vcpus 8 --topology 2:2:2",
            VmConfig {
                vcpus: VcpuCount::new(8).unwrap(),
                platform: PlatformConfig {
                    topology: Some("2:2:2".parse().unwrap()),
                    ..PlatformConfig::default()
                },
                ..defaults()
            },
        ),
        ("g --pin auto", VmConfig { pin: Some(Pinning::Auto), ..defaults() }),
        ("g --pin 0,2-3", VmConfig { pin: cpus(&[0, 2, 3]), ..defaults() }),
        (
            "g --reg rax=0x10 --reg RIP=-1 --reg=rax=1",
            VmConfig {
                regs: vec![(Register::Rax, 0x10), (Register::Rip, u64::MAX), (Register::Rax, 1)],
                ..defaults()
            },
        ),
    ] {
        assert_eq!(run_of(line).0, expected, "for {line:?}");
    }
}

#[test]
fn verbosity() {
    for (line, level) in [
        ("g -v", LevelFilter::Info),
        ("g -vv", LevelFilter::Debug),
        ("-v g --verbose -v", LevelFilter::Trace),
        ("g -vvvvv", LevelFilter::Trace),
        ("g -q", LevelFilter::Error),
        ("g -q --quiet", LevelFilter::Off),
        ("g -qqqqq", LevelFilter::Off),
    ] {
        assert_eq!(run_of(line).1, level, "for {line:?}");
    }
}

#[test]
fn bad_values_are_named_in_one_line() {
    let number = "is not a number: expected decimal, or hexadecimal after 0x";
    for (option, value, reason) in [
        ("--vcpus <N>", "0", "at least 1 vCPU is needed"),
        ("--vcpus <N>", "-1", &format!("'-1' {number}")),
        ("--vcpus <N>", "65536", "65536 vCPUs are more than the limit of 65535"),
        ("--memory <SIZE>", "0", "at least one page of 4 KiB is needed"),
        ("--memory <SIZE>", "4097", "4097 bytes are not a whole number of 4 KiB pages"),
        ("--memory <SIZE>", "65T", "71468255805440 bytes are more than the limit of 64 TiB"),
        ("--memory <SIZE>", "1X", "'X' is not a unit of memory: expected K, M, G or T"),
        (
            "--topology <SOCKETS:CORES:THREADS>",
            "4",
            "'4' is not a topology: expected SOCKETS:CORES:THREADS, such as 1:4:2",
        ),
        ("--load-addr <ADDR>", "here", &format!("'here' {number}")),
        ("--entry <ADDR>", "-4096", &format!("'-4096' {number}")),
        ("--entry <ADDR>", "0x1ffffffffffffffff", "0x1ffffffffffffffff does not fit in 64 bits"),
        ("--reg <NAME=VALUE>", "rax", "expected NAME=VALUE"),
        ("--reg <NAME=VALUE>", "rax=", &format!("'' {number}")),
        (
            "--reg <NAME=VALUE>",
            "cr3=1",
            "'cr3' is not a register: expected rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, \
             r10, r11, r12, r13, r14, r15, rip, rflags",
        ),
        ("--timeout <DURATION>", "0s", "a time-out must be longer than zero"),
        ("--timeout <DURATION>", "0", "a time-out must be longer than zero"),
        ("--timeout <DURATION>", "10", "time unit needed, for example 10sec or 10ms"),
        ("--serial <WHERE>", "file:", "file: needs a path after it"),
        (
            "--serial <WHERE>",
            "tcp",
            "'tcp' is not a serial connection: expected stdio, null, pty, kept or file:PATH",
        ),
        (
            "--device <DEVICE>",
            "com1",
            "'com1' is not a device: expected com2, com3, com4 or testdev",
        ),
        ("--fw-cfg <NAME=FILE>", "opt/x", "expected NAME=FILE"),
        ("--pin <CPUS>", "", "at least one CPU is needed"),
        ("--pin <CPUS>", "3-2", "the range 3-2 runs backwards"),
        ("--pin <CPUS>", "2000", "CPU 2000 is above the highest that can be named, 1023"),
    ] {
        let (name, _) = option.split_once(' ').unwrap();
        let error = match parse(["minivmm", "g", &format!("{name}={value}")]) {
            Ok(command) => panic!("{name}={value} was accepted as {command:?}"),
            Err(error) => error,
        };
        assert_eq!(
            error.to_string(),
            format!(
                "error: invalid value '{value}' for '{option}': {reason}\n\n\
                 For more information, try '--help'.\n"
            )
        );
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn usage_errors() {
    for (line, message) in [
        ("", "required arguments were not provided:\n  <GUEST|--demo <NAME>|--list-demos|"),
        ("--vcpus 2", "required arguments were not provided"),
        ("g h", "unexpected argument 'h' found"),
        ("g --vcpu 2", "a similar argument exists: '--vcpus'"),
        ("g --vcpus", "a value is required for '--vcpus <N>'"),
        ("g --vcpus --pin auto", "a value is required for '--vcpus <N>'"),
        ("g --vcpus -1", "invalid value '-1' for '--vcpus <N>'"),
        ("g --vcpus 1 --vcpus 2", "'--vcpus <N>' cannot be used multiple times"),
        ("g -v -q", "'--verbose...' cannot be used with '--quiet...'"),
        ("g --list-demos", "'[GUEST]' cannot be used with '--list-demos'"),
        ("g --completions bash", "'[GUEST]' cannot be used with '--completions <SHELL>'"),
        ("g --export-demo a b", "'[GUEST]' cannot be used with '--export-demo <NAME> <FILE>'"),
        ("--export-demo a", "2 values required for '--export-demo <NAME> <FILE>'"),
        ("--completions dos", "[possible values: bash, elvish, fish, powershell, zsh]"),
        ("g --mode lnog", "a similar value exists: 'long'"),
        ("g --mode x", "[possible values: real, protected, long, user]"),
    ] {
        let error = error_of(line);
        let text = error.to_string();
        assert!(text.contains(message), "{line:?} gave {text}");
        assert_eq!(error.exit_code(), 2, "for {line:?}");
        assert!(error.use_stderr(), "for {line:?}");
    }
}

#[test]
fn the_other_commands() {
    assert_eq!(parse_line("--list-demos").unwrap(), Command::ListDemos);
    assert_eq!(parse_line("--list-demos --vcpus 2").unwrap(), Command::ListDemos);
    assert_eq!(parse_line("--completions zsh").unwrap(), Command::Completions(Shell::Zsh));
}

#[test]
fn every_demo_can_be_run_and_exported() {
    for guest in GUESTS {
        let (config, _) = run_of(&format!("--demo {}", guest.name));
        let is_stress = guest.kind == minivmm_guests::Kind::Stress;
        let stress = is_stress.then(StressConfig::default);
        let expected = VmConfig { stress, ..VmConfig::new(GuestSource::Demo(guest)) };
        assert_eq!(config, expected);
        assert_eq!(config.flat_mode(), guest.mode.into());
        let (config, _) = run_of(&format!("--demo {} --mode user", guest.name));
        assert_eq!(config.flat_mode(), CpuMode::User);

        let command = parse_line(&format!("--export-demo {} out.bin", guest.name)).unwrap();
        assert_eq!(command, Command::ExportDemo { demo: guest, path: "out.bin".into() });
        let error = error_of(&format!("g --demo {}", guest.name)).to_string();
        assert!(error.contains("'[GUEST]' cannot be used with '--demo <NAME>'"), "{error}");
    }
}

#[test]
fn an_unknown_demo_is_refused_with_the_known_ones() {
    for (line, option) in [
        ("--demo no-such-demo", "--demo <NAME>"),
        ("--export-demo no-such-demo f", "--export-demo <NAME> <FILE>"),
    ] {
        let error = error_of(line);
        let text = error.to_string();
        let first = format!("error: invalid value 'no-such-demo' for '{option}'");
        assert!(text.starts_with(&first), "{line:?} gave {text}");
        for guest in GUESTS {
            assert!(text.contains(guest.name), "{} is not in {text}", guest.name);
        }
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn paths_need_not_be_utf8() {
    let path = OsStr::from_bytes(b"\xff");
    let serial = OsStr::from_bytes(b"--serial=file:\xff");
    let Command::Run { config, .. } = parse([OsStr::new("minivmm"), path, serial]).unwrap() else {
        panic!("not a run");
    };
    assert_eq!(config.guest, GuestSource::File(path.into()));
    assert_eq!(config.serial, SerialConfig::File(path.into()));
}

#[test]
fn help_is_no_error_and_shows_defaults_and_exit_codes() {
    let help = error_of("--help");
    assert_eq!(help.kind(), ErrorKind::DisplayHelp);
    assert_eq!((help.exit_code(), help.use_stderr()), (0, false));
    assert_eq!(help.to_string(), error_of("-h").to_string());
    // Where lines are broken depends on the terminal, so the text is checked at a fixed width.
    let text = Cli::command().term_width(100).render_help().to_string();
    let defaults = defaults();
    for default in [
        format!("[default: {}]", defaults.vcpus),
        format!("[default: \"{}\"]", defaults.memory),
        format!("[default: {}]", defaults.serial),
        format!("[default: {}]", defaults.flat_load_addr()),
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&text).contains(&default), "no {default} in {text}");
    }
    assert!(text.contains(EXAMPLES) && text.contains(EXIT_CODES_HELP.trim_end()), "{text}");
}

#[test]
fn version_is_no_error() {
    for line in ["--version", "-V"] {
        let version = error_of(line);
        assert_eq!(version.to_string(), concat!("minivmm ", env!("CARGO_PKG_VERSION"), "\n"));
        assert_eq!((version.exit_code(), version.use_stderr()), (0, false));
    }
}

#[test]
fn every_example_in_the_help_works() {
    let mut examples = 0;
    for line in EXAMPLES.lines() {
        if let Some(line) = line.strip_prefix("  minivmm ") {
            let arguments = line.split("  ").next().unwrap_or_default();
            parse_line(arguments).unwrap();
            examples += 1;
        }
    }
    assert_eq!(examples, 8);
}

#[test]
fn completions_name_every_option() {
    for shell in Shell::value_variants() {
        let script = String::from_utf8(completions(*shell)).unwrap();
        for option in Cli::command().get_opts() {
            let name = option.get_long().unwrap();
            assert!(script.contains(name), "no --{name} for {shell}");
        }
    }
}

#[test]
fn what_is_traced() {
    let trace = |line: &str| run_of(line).0.trace;
    assert_eq!(trace("g"), TraceConfig::default());
    let full = trace("g --trace a.csv --trace-full drop --trace-filter vcpu=1 --trace-rip --stats");
    assert_eq!(full.destination, Some(TraceDestination::File("a.csv".into())));
    assert_eq!(full.format(), TraceFormat::Csv);
    assert_eq!(full.when_full, Some(WhenFull::Drop));
    assert_eq!(full.filter.to_string(), "vcpu=1");
    assert_eq!((full.needs_rip(), full.stats), (true, Some(StatsFormat::Text)));
    assert_eq!(trace("g --stats=json").stats, Some(StatsFormat::Json));
    assert!(trace("g --symbols elf").needs_rip());
    assert!(trace("g --trace a --trace-filter rip=0x1000").needs_rip());
    let formats = [
        ("-", TraceFormat::Text),
        ("a", TraceFormat::Binary),
        ("a.mvt", TraceFormat::Binary),
        ("a.jsonl", TraceFormat::Jsonl),
        ("a.json", TraceFormat::Perfetto),
        ("a.log", TraceFormat::Text),
        ("a.mvt --trace-format csv", TraceFormat::Csv),
    ];
    for (file, format) in formats {
        assert_eq!(trace(&format!("g --trace {file}")).format(), format, "{file}");
    }
    assert_eq!(trace("g --trace -").destination, Some(TraceDestination::Stderr));
    assert_eq!(trace("g --trace ./-").destination, Some(TraceDestination::File("./-".into())));
}

#[test]
fn what_is_reported() {
    let job = |line: &str| match parse_line(line) {
        Ok(Command::Report(job)) => job,
        other => panic!("{line:?} gave {other:?}"),
    };
    let (trace, symbols) = (PathBuf::from("t.mvt"), None);
    let summary = ReportJob::Summary { trace: trace.clone(), symbols: symbols.clone(), json: true };
    assert_eq!(job("report t.mvt --json"), summary);
    let page = ReportJob::Html { trace: trace.clone(), symbols: symbols.clone(), page: "p".into() };
    assert_eq!(job("report t.mvt --html p"), page);
    let (file, format) = ("a.json".into(), TraceFormat::Perfetto);
    assert_eq!(
        job("report t.mvt --export a.json"),
        ReportJob::Export { trace, symbols, file, format }
    );
    let diff = ReportJob::Diff { before: "a".into(), after: "b".into(), json: false };
    assert_eq!(job("report --diff a b"), diff);
    for line in ["report", "report a b", "report a --diff b c", "report a --html b --export c"] {
        let refused = error_of(line);
        assert!(refused.use_stderr(), "{line}");
        assert!(refused.to_string().contains("minivmm report"), "{refused}");
    }
}

#[test]
fn what_is_added_up() {
    let job = |line: &str| match parse_line(line) {
        Ok(Command::Merge(job)) => job,
        other => panic!("{line:?} gave {other:?}"),
    };
    let more = vec!["b".into(), "c".into()];
    let all = MergeJob { first: "a".into(), more, result: Some("sum".into()) };
    assert_eq!(job("merge a b --result sum c"), all);
    let one = MergeJob { first: "a".into(), more: Vec::new(), result: None };
    assert_eq!(job("merge a"), one);
    for line in ["merge", "merge --result sum", "merge a --html b"] {
        let refused = error_of(line);
        assert!(refused.use_stderr(), "{line}");
        assert!(refused.to_string().contains("minivmm merge"), "{refused}");
    }
    assert_eq!(run_of("./merge").0.guest, GuestSource::File("./merge".into()));
    for shell in Shell::value_variants() {
        let script = String::from_utf8(completions(*shell)).unwrap();
        assert!(script.contains("merge") && script.contains("report"), "{shell}");
    }
}

#[test]
fn what_is_run_again_and_again() {
    let stress = |line: &str| run_of(line).0.stress;
    assert_eq!(stress("g"), None);
    assert_eq!(stress("g --expect 3").unwrap().expect.len(), 1);
    for line in ["g --repeat 1", "g --seed 0", "g --jobs 1", "g --fail-fast", "g --chaos=0"] {
        assert!(stress(line).is_some(), "{line}");
    }
    let full = stress(
        "g --repeat 1000 --seed 0x2a --jobs 3 --keep-going --iteration-timeout 2s --start random \
         --chaos --lockstep --expect 3,label=x --forbid 0-1 --forbid 9 --shard 2/5 --result r.json",
    );
    let expected = StressConfig {
        iterations: Some(1000),
        seed: Some(Seed(42)),
        jobs: 3,
        keep_going: true,
        iteration_timeout: Duration::from_secs(2),
        start: StartMode::Random,
        chaos: Some(ChaosRate::default()),
        lockstep: true,
        expect: vec!["3,label=x".parse().unwrap()],
        forbid: vec!["0-1".parse().unwrap(), "9".parse().unwrap()],
        shard: Some(Shard::new(2, 5).unwrap()),
        result: Some("r.json".into()),
    };
    assert_eq!(full, Some(expected));
    assert_eq!(stress("g --until-fail").unwrap().iterations, None);
    assert!(!stress("g --keep-going --fail-fast").unwrap().keep_going);
}

#[test]
fn what_does_not_go_together_in_a_campaign() {
    for (line, why) in [
        ("g --until-fail --repeat 3", "cannot be used with"),
        ("g --until-fail --keep-going", "cannot be used with"),
        ("g --shard 1/2 --repeat 3", "--seed <SEED>"),
        ("g --shard 1/2 --seed 3", "--repeat <N>"),
        ("g --jobs 2 --serial stdio", "are for one VM"),
        ("g --jobs 2 --stats", "are for one VM"),
        ("g --jobs 2 --device com2=file:x", "is for one VM"),
        ("g --device com2 --device com2=null", "--device com2 is given more than once"),
        ("g --fw-cfg a=b --fw-cfg a=c", "--fw-cfg a is given more than once"),
        ("g --repeat 2 --serial pty", "is for a single run"),
        ("g --serial kept", "is for --repeat"),
        ("g --repeat 0", "a campaign has at least one iteration"),
        ("g --jobs 0", "0 is not in 1..=1024"),
        ("g --iteration-timeout 0s", "must be longer than zero"),
        ("g --shard 3/2 --repeat 3 --seed 1", "there is no shard 3/2"),
        ("g --chaos=2", "'2' is not a rate"),
        ("g --start soon", "'soon' is not a way to start"),
        ("g --expect 1-0", "runs backwards"),
    ] {
        let error = error_of(line).to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn a_topology_is_for_all_vcpus() {
    let error = error_of("g --vcpus 3 --topology 1:2:2");
    assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
    let text = error.to_string();
    assert!(text.contains("--topology 1:2:2 is for 4 vCPUs, and --vcpus is 3"), "{text}");
}
