//! The minivmm command: parse, start logging, run, map the outcome to an exit code.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process;

use log::LevelFilter;
use minivmm::affinity;
use minivmm::campaign::{self, CampaignError, Campaigned, ReplayCommand};
use minivmm::cli::{self, Command};
use minivmm::config::{SameFileError, SerialConfig, VmConfig};
use minivmm::console::{self, Console};
use minivmm::devices::setup::DeviceSetup;
use minivmm::host::{Host, Signals};
use minivmm::kvm::kick;
use minivmm::kvm::out_of_memory::OrExit;
use minivmm::kvm::vm::{KVM_DEVICE, KvmError, KvmVm};
use minivmm::outcome::{ExitCode, VmOutcome};
use minivmm::report::VmReport;
use minivmm::stress::config::StressConfig;
use minivmm::stress::merge;
use minivmm::trace::config::{StatsFormat, TraceConfig};
use minivmm::trace::summary::{Summary, TextOptions};
use minivmm::trace::symbols::Symbols;
use minivmm::trace::tracer::Tracer;
use minivmm::trace::{report, setup};
use minivmm::vmm::Vmm;
use minivmm_guests::GUESTS;

#[global_allocator]
static ALLOCATOR: OrExit = OrExit::new();

fn main() -> process::ExitCode {
    ALLOCATOR.at_end(console::restore_at_once);
    ALLOCATOR.also_on_panic();
    let code = match cli::parse(std::env::args_os()) {
        Ok(command) => execute(command).unwrap_or_else(|error| {
            print_error(&*error);
            exit_code_of(&*error) as u8
        }),
        Err(error) => {
            let printed = error.print();
            match printed {
                _ if error.use_stderr() => ExitCode::Usage as u8,
                // --help and --version, to a reader that may have seen enough.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    say(&format!("cannot write to standard output: {error}"));
                    ExitCode::Host as u8
                }
                _ => ExitCode::Success as u8,
            }
        }
    };
    process::ExitCode::from(code)
}

/// Options that do not go together, or with the image, which is known only once it was looked at,
/// are a mistake of the user's like any other.
fn exit_code_of(error: &(dyn Error + 'static)) -> ExitCode {
    let is_usage = match (error.downcast_ref::<KvmError>(), error.downcast_ref()) {
        (Some(error), _) | (_, Some(CampaignError::Kvm(error))) => error.is_usage(),
        (_, Some(CampaignError::Boot(error))) => error.is_usage(),
        _ => error.is::<SameFileError>(),
    };
    if is_usage { ExitCode::Usage } else { ExitCode::Host }
}

fn execute(command: Command) -> Result<u8, Box<dyn Error>> {
    match command {
        Command::Run { config, log_level } => {
            start_logging(log_level);
            kick::ignore_file_size_signal();
            config.check_files()?;
            return match &config.stress {
                None => run(&config),
                Some(stress) => run_campaign(&config, stress, log_level < LevelFilter::Warn),
            };
        }
        Command::ListDemos => {
            let mut list = String::new();
            for guest in GUESTS {
                list += &format!("{:<18} {}\n", guest.name, guest.summary);
            }
            print_out(list.as_bytes())?;
        }
        Command::ExportDemo { demo, path } => fs::write(&path, demo.image)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?,
        Command::Completions(shell) => print_out(&cli::completions(shell))?,
        Command::Report(job) => print_out(&report::run(&job)?)?,
        Command::Merge(job) => {
            let sum = merge::run(&job)?;
            print_out(sum.report().as_bytes())?;
            return Ok(sum.exit_code());
        }
    }
    Ok(ExitCode::Success as u8)
}

/// Runs one VM. Whatever it opens is closed in the reverse order, on every path: the console's
/// terminal is restored after the last output and before the memory goes.
fn run(config: &VmConfig) -> Result<u8, Box<dyn Error>> {
    let cpu_for = affinity::plan(config.pin.as_ref())?;
    affinity::allow_open_files(1, config.vcpus.get());
    let devices = DeviceSetup::read(config)?;
    let vm = KvmVm::new(Path::new(KVM_DEVICE), config)?;
    // Waits for the reader of a FIFO, which ^C ends, as below.
    let vcpus = config.vcpus.get();
    let setup = setup::open(&config.trace, vcpus, config.guest.to_string())?;
    let tracer = Tracer::new(setup, vcpus);
    let mut vmm = Vmm::new(vm, config.vcpus, cpu_for, tracer, devices)?;
    // Signals are taken before the terminal's mode is changed, but after a FIFO was waited for,
    // which ^C ends.
    let waits =
        matches!(config.serial, SerialConfig::File(_)) || config.platform.devices.writes_files();
    let early = if waits { None } else { Some(take_signals()?) };
    let console = Console::open(&config.serial)?;
    vmm.connect_ports(console::open_ports(&config.platform.devices)?);
    if let Some(path) = console.pty_path() {
        say(&format!("serial port at {}", path.display()));
    }
    let Console { input, output, terminal, .. } = console;
    let signals = early.map_or_else(take_signals, Ok)?;
    let mut host = Host { terminal, input: Some(input), signals: Some(signals) };
    let report = vmm.run(Box::new(output), &mut host, config.timeout);
    drop(host);

    tell_of(&report);
    if let Some(stats) = &report.stats {
        print_stats(stats, &config.trace)?;
    }
    Ok(report.outcome.exit_code())
}

/// Says how a VM came out, if that is a failure, and what was lost.
fn tell_of(report: &VmReport) {
    let is_closed = matches!(report.outcome, VmOutcome::OutputClosed);
    if report.outcome.is_failure() {
        say(format!("{}\n{}", report.outcome, report.details()).trim_end());
    } else if !is_closed {
        log::info!(target: "minivmm", "{}", report.outcome);
    }
    if report.output.lost > 0 && !is_closed {
        say(&format!("{} bytes of the guest's output were not written", report.output.lost));
    }
    for (source, lost) in &report.lost_records {
        say(&format!("the trace lost {lost} records of {source}"));
    }
}

fn take_signals() -> Result<Signals, String> {
    Signals::take().map_err(|error| format!("cannot take signals: {error}"))
}

/// Runs a guest again and again. Not a part of `execute`, so that a single run does without it.
#[cold]
#[inline(never)]
fn run_campaign(
    config: &VmConfig,
    stress: &StressConfig,
    quiet: bool,
) -> Result<u8, Box<dyn Error>> {
    let vcpus = config.vcpus.get();
    let setup = setup::open(&config.trace, vcpus, config.guest.to_string())?;
    let result_file = create_result(stress)?;
    let command = ReplayCommand::of(std::env::args_os());
    let Campaigned { result, vms } = campaign::run(config, stress, setup, command, quiet)?;
    vms.iter().for_each(tell_of);
    // First of all that may fail.
    let written = match (result_file, &stress.result) {
        (Some(mut file), Some(path)) => {
            // A pipe or a device has no length to set.
            let _ = file.set_len(0);
            let written = result.write_json(&mut file);
            written
                .map_err(|error| format!("cannot write the results to {}: {error}", path.display()))
        }
        _ => Ok(()),
    };
    // Standard output is the guest's if it was asked for.
    if config.serial == SerialConfig::Stdio {
        let _ = io::stderr().write_all(result.report().as_bytes());
    } else {
        print_out(result.report().as_bytes())?;
    }
    written?;
    for stats in vms.iter().filter_map(|report| report.stats.as_ref()) {
        print_stats(stats, &config.trace)?;
    }
    Ok(result.exit_code())
}

/// Before the first iteration: a campaign of hours must not end without its results.
fn create_result(stress: &StressConfig) -> Result<Option<fs::File>, String> {
    let Some(path) = &stress.result else { return Ok(None) };
    // What is there from before stays until there is something new.
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(Some(file))
}

fn print_stats(stats: &Summary, config: &TraceConfig) -> Result<(), String> {
    // They could be read before the guest ran.
    let mut symbols = config.symbols.as_ref().and_then(|path| Symbols::load(path).ok());
    let name = |rip| symbols.as_mut().and_then(|symbols| symbols.name(rip));
    let report = stats.report_with_symbols(name);
    let mut text = Vec::new();
    let written = match config.stats {
        Some(StatsFormat::Json) => report.write_json(&mut text),
        _ => write!(text, "{}", report.text(TextOptions::default())),
    };
    let (written, place) = match &config.stats_file {
        Some(path) => (written.and_then(|()| fs::write(path, &text)), path.display().to_string()),
        None => (written.and_then(|()| io::stderr().write_all(&text)), "standard error".into()),
    };
    written.map_err(|error| format!("cannot write the statistics to {place}: {error}"))
}

fn start_logging(level: LevelFilter) {
    env_logger::Builder::new().filter_level(level).parse_default_env().init();
}

fn print_out(bytes: &[u8]) -> Result<(), String> {
    match io::stdout().write_all(bytes) {
        // A reader such as `head` that has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("cannot write to standard output: {error}")),
    }
}

/// One line: the error and its causes.
fn print_error(error: &dyn Error) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause in their own text.
        if !line.ends_with(&text) {
            line += &format!(": {text}");
        }
        cause = error.source();
    }
    say(&line);
}

/// Tells the user on standard error. If that fails too there is nobody left to tell.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "minivmm: {message}");
}
