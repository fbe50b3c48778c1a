//! The command line: what the user typed, as a [`Command`].
//!
//! Pure: arguments in, a value or an error out. Nothing is opened, printed or looked up on the
//! host; `main.rs` prints what clap has to say and carries the command out, on the main
//! thread. What a single value may be is in `config.rs`, with the defaults; here are the
//! options' names, their help, and which of them go together.

mod boot;
mod merge;
mod platform;
mod report;
mod stress;
#[cfg(test)]
mod tests;
mod trace;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{
    OsStringValueParser, PossibleValue, PossibleValuesParser, StyledStr, TypedValueParser,
};
use clap::error::ErrorKind;
use clap::{ArgAction, ArgGroup, CommandFactory, Parser, ValueEnum, ValueHint};
use clap_complete::Shell;
use log::LevelFilter;
use minivmm_guests::{GUESTS, Guest};
use thiserror::Error;

use crate::config::{
    CpuMode, GuestSource, MemorySize, Pinning, PlatformConfig, Register, SerialConfig,
    UnknownRegister, VcpuCount, VmConfig,
};
use crate::exit::Gpa;
use crate::number::{NumberError, parse_bits64, parse_u64};
use crate::outcome::EXIT_CODES_HELP;
use crate::stress::config::StressConfig;
use crate::stress::merge::MergeJob;
use crate::trace::report::ReportJob;
use merge::MergeArgs;
use report::ReportArgs;

/// What the user wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run a guest.
    Run {
        /// The VM.
        config: Box<VmConfig>,
        /// How much to log, unless RUST_LOG says otherwise.
        log_level: LevelFilter,
    },
    /// Print the names and summaries of the guests that are part of the program.
    ListDemos,
    /// Write the image of a demo guest to a file.
    ExportDemo {
        /// The guest.
        demo: &'static Guest,
        /// The file.
        path: PathBuf,
    },
    /// Print a completion script; [`completions`] makes it.
    Completions(Shell),
    /// Do something with traces that were written before.
    Report(ReportJob),
    /// Add up results that were written before.
    Merge(MergeJob),
}

/// Reads a command line, whose first argument is the name of the program.
///
/// `--help` and `--version` come back as errors too, as clap does it: `main` prints the error,
/// and `clap::Error::use_stderr` says whether it is one.
pub fn parse<I, T>(args: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    // No subcommands of `Cli`: clap would take a second word after a guest for a misspelt one. A
    // guest of such a name is `./report`.
    match args.get(1).and_then(|word| word.to_str()) {
        Some(report::NAME) => {
            Ok(Command::Report(ReportArgs::try_parse_from(&args[1..])?.into_job()))
        }
        Some(merge::NAME) => Ok(Command::Merge(MergeArgs::try_parse_from(&args[1..])?.into_job())),
        _ => Cli::try_parse_from(args)?.into_command(),
    }
}

/// The completion script for a shell, to be written to standard output.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let subcommands = [ReportArgs::command(), MergeArgs::command()];
    let mut command = Cli::command().subcommands(subcommands);
    clap_complete::generate(shell, &mut command, env!("CARGO_PKG_NAME"), &mut script);
    script
}

const USAGE: &str = "minivmm [OPTIONS] <GUEST> [-- <GUEST ARGS>...]
       minivmm [OPTIONS] --demo <NAME> [-- <GUEST ARGS>...]
       minivmm report [OPTIONS] <TRACE>
       minivmm merge [OPTIONS] <RESULT>...
       minivmm --list-demos
       minivmm --export-demo <NAME> <FILE>
       minivmm --completions <SHELL>";

const EXAMPLES: &str = "\
Examples:
  minivmm guest.bin                           a flat real-mode image on one vCPU
  minivmm --vcpus 4 --mode long kernel.bin    64-bit mode on four vCPUs
  minivmm --reg rdi=0x100 --timeout 10s guest.bin
                                              with an argument, for at most 10 seconds
  minivmm --serial file:out.txt --pin 0,2-3 guest.bin
                                              UART to a file, vCPU threads on CPUs 0, 2, 3
  minivmm --memory 1G --initrd initrd.img vmlinuz -- console=ttyS0
                                              a Linux kernel, with its command line
  minivmm --stats --trace exits.mvt guest.bin
                                              every exit to a file, a summary at the end
  minivmm report exits.mvt --html page.html   the trace as a page to look at
  minivmm --vcpus 4 --repeat 1000 --chaos guest.bin
                                              a thousand times, disturbed
  minivmm merge --result all.json 1.json 2.json
                                              the results of two shards, added up
";

/// Run a bare-metal x86-64 guest on Linux KVM, each vCPU on its own thread.
#[derive(Debug, Parser)]
#[command(
    name = "minivmm",
    version,
    override_usage = USAGE,
    after_help = after_help(),
    group = ArgGroup::new("action")
        .args(["guest", "demo", "list_demos", "export_demo", "completions"])
        .required(true),
)]
struct Cli {
    /// File with the guest's image
    #[arg(value_hint = ValueHint::FilePath)]
    guest: Option<PathBuf>,

    /// Run a guest that is part of minivmm
    #[arg(long, help_heading = "Demos", value_name = "NAME", value_parser = demo_parser())]
    #[arg(hide_possible_values = true)]
    demo: Option<&'static Guest>,

    /// List the guests that are part of minivmm
    #[arg(long, help_heading = "Demos")]
    list_demos: bool,

    /// Write the image of a demo guest to a file
    #[arg(long, help_heading = "Demos", value_names = ["NAME", "FILE"])]
    #[arg(num_args = 2, action = ArgAction::Set)]
    export_demo: Option<Vec<OsString>>,

    /// Number of vCPUs
    #[arg(long, help_heading = "Machine", value_name = "N")]
    #[arg(default_value_t, allow_negative_numbers = true)]
    vcpus: VcpuCount,

    /// Guest memory: bytes, or a number with K, M, G or T (powers of 1024)
    #[arg(long, help_heading = "Machine", value_name = "SIZE")]
    #[arg(default_value_t, allow_negative_numbers = true)]
    memory: MemorySize,

    /// Where the UART is connected: stdio, null, pty, file:PATH, or kept: shown only if the
    /// iteration fails, which is the default with --repeat [default: stdio]
    #[arg(long, help_heading = "Machine", value_name = "WHERE")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|s| SerialConfig::from_os_str(&s)))]
    serial: Option<SerialConfig>,

    /// Bind vCPU threads to host CPUs, round and round: a list such as 0,2-3, or auto for all
    #[arg(long, help_heading = "Machine", value_name = "CPUS")]
    pin: Option<Pinning>,

    /// CPU mode in which the guest starts [default: what the image's format has; for a flat one
    /// real, or the demo's own]
    #[arg(long, help_heading = "Start of the guest", ignore_case = true)]
    mode: Option<CpuMode>,

    /// Guest-physical address at which a flat image is loaded [default: 0x1000]
    #[arg(long, help_heading = "Start of the guest", value_name = "ADDR")]
    #[arg(value_parser = gpa, allow_negative_numbers = true)]
    load_addr: Option<Gpa>,

    /// Address at which a flat image starts [default: the load address]
    #[arg(long, help_heading = "Start of the guest", value_name = "ADDR")]
    #[arg(value_parser = gpa, allow_negative_numbers = true)]
    entry: Option<Gpa>,

    /// Value of a register at the start, on every vCPU; may be repeated
    #[arg(long = "reg", help_heading = "Start of the guest", value_name = "NAME=VALUE")]
    #[arg(value_parser = register_value)]
    regs: Vec<(Register, u64)>,

    /// The longest the guest may run, for example 10s, 500ms or 1m30s
    #[arg(long, help_heading = "Run", value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,

    /// Log more: -v info, -vv debug, -vvv trace; RUST_LOG has the last word
    #[arg(short, long, help_heading = "Run", action = ArgAction::Count)]
    verbose: u8,

    /// Log less: -q errors only, -qq nothing
    #[arg(short, long, help_heading = "Run", action = ArgAction::Count)]
    #[arg(conflicts_with = "verbose")]
    quiet: u8,

    #[command(flatten)]
    boot: boot::BootArgs,

    #[command(flatten)]
    platform: platform::PlatformArgs,

    #[command(flatten)]
    trace: trace::TraceArgs,

    #[command(flatten)]
    stress: stress::StressArgs,

    /// Print a completion script for a shell
    #[arg(long, help_heading = "Other", value_name = "SHELL")]
    completions: Option<Shell>,
}

impl Cli {
    fn into_command(self) -> Result<Command, clap::Error> {
        if self.list_demos {
            return Ok(Command::ListDemos);
        }
        if let Some(shell) = self.completions {
            return Ok(Command::Completions(shell));
        }
        if let Some([name, file]) = self.export_demo.as_deref() {
            return Ok(Command::ExportDemo { demo: exported_demo(name)?, path: file.into() });
        }
        let file = self.guest.map(GuestSource::File);
        // The group "action" lets nothing through without a guest, but only clap knows that.
        let guest = file.or(self.demo.map(GuestSource::Demo)).ok_or_else(|| {
            Cli::command().error(ErrorKind::MissingRequiredArgument, "a guest is needed")
        })?;
        let asked = self.stress.into_config(self.platform.start_mode());
        // The output of a run that did not ask for many is for the user.
        let keeps_output = asked.is_some();
        let stress = asked.or_else(|| guest.reports_outcomes().then(StressConfig::default));
        let refuse = |conflict: &dyn std::fmt::Display| {
            Cli::command().error(ErrorKind::ArgumentConflict, conflict)
        };
        let platform = self.platform.into_config().map_err(|error| refuse(&error))?;
        let traced = self.trace.is_recording();
        if let Some(conflict) = conflict(stress.as_ref(), self.serial.as_ref(), traced, &platform) {
            return Err(refuse(&conflict));
        }
        let config = VmConfig {
            mode: self.mode,
            guest,
            boot: self.boot.into_config(),
            platform,
            vcpus: self.vcpus,
            memory: self.memory,
            load_addr: self.load_addr,
            entry: self.entry,
            regs: self.regs,
            timeout: self.timeout,
            serial: self.serial.unwrap_or(match keeps_output {
                true => SerialConfig::Kept,
                false => SerialConfig::default(),
            }),
            pin: self.pin,
            trace: self.trace.into_config(),
            stress,
        };
        if let Err(mismatch) = config.topology() {
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, mismatch));
        }
        Ok(Command::Run { config: config.into(), log_level: log_level(self.verbose, self.quiet) })
    }
}

/// What does not go together, if anything.
fn conflict(
    stress: Option<&StressConfig>,
    serial: Option<&SerialConfig>,
    traced: bool,
    platform: &PlatformConfig,
) -> Option<&'static str> {
    let Some(stress) = stress else {
        return (serial == Some(&SerialConfig::Kept))
            .then_some("--serial kept is for --repeat: a single run would show nothing");
    };
    match serial {
        Some(SerialConfig::Pty) => Some("--serial pty is for a single run, and not for --repeat"),
        Some(SerialConfig::Stdio | SerialConfig::File(_)) if stress.jobs > 1 => {
            Some("--serial stdio and file: are for one VM, and not for several --jobs")
        }
        _ if stress.jobs > 1 && platform.devices.writes_files() => {
            Some("--device with file: is for one VM, and not for several --jobs")
        }
        _ if stress.jobs > 1 && traced => {
            Some("--trace and --stats are for one VM, and not for several --jobs")
        }
        _ => None,
    }
}

fn after_help() -> StyledStr {
    format!("{EXAMPLES}\n{EXIT_CODES_HELP}").into()
}

fn log_level(verbose: u8, quiet: u8) -> LevelFilter {
    match (verbose, quiet) {
        (0, 0) => LevelFilter::Warn,
        (0, 1) => LevelFilter::Error,
        (0, _) => LevelFilter::Off,
        (1, _) => LevelFilter::Info,
        (2, _) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

impl ValueEnum for CpuMode {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Why a demo guest cannot be had. clap has refused an unknown name already, with the known
/// ones and the most similar.
#[derive(Debug, Error)]
#[error("there is no demo guest '{0}'; --list-demos lists them")]
struct UnknownDemo(String);

fn demo_parser() -> impl TypedValueParser<Value = &'static Guest> {
    let names = GUESTS.iter().map(|guest| PossibleValue::new(guest.name).help(guest.summary));
    PossibleValuesParser::new(names)
        .try_map(|name| minivmm_guests::find(&name).ok_or(UnknownDemo(name)))
}

/// The guest that `--export-demo` names, refused in the same words as one of `--demo`.
fn exported_demo(name: &OsStr) -> Result<&'static Guest, clap::Error> {
    let command = Cli::command();
    let arg = command.get_arguments().find(|arg| arg.get_id() == "export_demo");
    demo_parser().parse_ref(&command, arg, name)
}

fn gpa(text: &str) -> Result<Gpa, NumberError> {
    parse_u64(text).map(Gpa)
}

#[derive(Debug, Error)]
enum RegisterValueError {
    #[error("expected NAME=VALUE")]
    NoEquals,
    #[error(transparent)]
    Register(#[from] UnknownRegister),
    #[error(transparent)]
    Value(#[from] NumberError),
}

fn register_value(text: &str) -> Result<(Register, u64), RegisterValueError> {
    let (name, value) = text.split_once('=').ok_or(RegisterValueError::NoEquals)?;
    Ok((name.parse()?, parse_bits64(value)?))
}

#[derive(Debug, Error)]
enum TimeoutError {
    #[error("a time-out must be longer than zero")]
    Zero,
    #[error(transparent)]
    Duration(#[from] humantime::DurationError),
}

fn timeout(text: &str) -> Result<Duration, TimeoutError> {
    let timeout = humantime::parse_duration(text)?;
    if timeout.is_zero() { Err(TimeoutError::Zero) } else { Ok(timeout) }
}
