//! What every benchmark needs: its options, the machine it runs on, and the comparison of
//! cases with a baseline.
//!
//! A time by itself says little about a program: it changes with the host, its kernel and what
//! else it does. So every case is measured next to a baseline, in turn (A B C A B C ...), and
//! the figure to quote is the median of the ratios of the rounds. Where the host does other
//! things meanwhile, the ratio of the minima says more. Runs on the main thread.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

/// How long a benchmark works, from its command line: `--quick`, `--rounds N`, `--iterations N`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often every case is measured.
    pub rounds: u32,
    /// How often a case does what it measures, in one round; each benchmark says what that is.
    pub iterations: u32,
    /// One short round of everything, to see that it works.
    pub quick: bool,
}

impl Options {
    /// The options of this process, or these defaults.
    ///
    /// # Errors
    ///
    /// The command line has something else on it.
    fn parse(rounds: u32, iterations: u32) -> Result<Self, String> {
        let mut options = Self { rounds, iterations, quick: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || {
                let number = args.next().and_then(|text| text.parse().ok());
                number.filter(|&n| n > 0).ok_or(format!("{arg}: a number above 0 is needed"))
            };
            match arg.as_str() {
                // What cargo tells every benchmark that it is.
                "--bench" => {}
                "--quick" => {
                    options.quick = true;
                    options.rounds = 1;
                    options.iterations = iterations.div_ceil(20);
                }
                "--rounds" => options.rounds = number()?,
                "--iterations" => options.iterations = number()?,
                _ => return Err(format!("{arg}: use --quick, --rounds N, --iterations N")),
            }
        }
        Ok(options)
    }
}

/// What a benchmark's body comes back with.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a benchmark and says on what machine it was.
pub fn bench(rounds: u32, iterations: u32, body: impl FnOnce(Options) -> Outcome) -> ExitCode {
    let run = || {
        let options = Options::parse(rounds, iterations)?;
        println!("{}; rounds {}, iterations {}", machine(), options.rounds, options.iterations);
        body(options)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there is KVM to measure; if not, it is said.
///
/// # Errors
///
/// There is none, and MINIVMM_REQUIRE_KVM=1 asks for it.
#[allow(dead_code, reason = "not every benchmark runs guests")]
pub fn has_kvm() -> Result<bool, String> {
    let found = Path::new(minivmm::kvm::vm::KVM_DEVICE).exists();
    match std::env::var("MINIVMM_REQUIRE_KVM") {
        _ if found => Ok(true),
        Ok(value) if value == "1" => Err("no /dev/kvm, and MINIVMM_REQUIRE_KVM=1".into()),
        _ => {
            println!("SKIPPED: no /dev/kvm, so nothing was measured");
            Ok(false)
        }
    }
}

/// The CPUs and the kernel, in a line.
fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.map(|line| line.trim_start_matches(['\t', ' ', ':']).trim().to_owned())
    };
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_default();
    let kernel = field("/proc/sys/kernel/osrelease", "").unwrap_or_default();
    format!("{cpus} CPUs ({model}), Linux {kernel}")
}

/// One thing that is measured.
pub struct Case<'a> {
    name: String,
    aim: Option<f64>,
    measure: Box<dyn FnMut() -> Result<f64, Box<dyn std::error::Error>> + 'a>,
}

impl<'a> Case<'a> {
    /// A case whose `measure` does one round.
    pub fn new(
        name: impl Display,
        measure: impl FnMut() -> Result<f64, Box<dyn std::error::Error>> + 'a,
    ) -> Self {
        Self { name: name.to_string(), aim: None, measure: Box::new(measure) }
    }

    /// The case with the ratio to the baseline that it ought to stay below.
    #[allow(dead_code, reason = "not every benchmark has such an aim")]
    pub fn aim(self, ratio: f64) -> Self {
        Self { aim: Some(ratio), ..self }
    }
}

/// Measures all cases in turn and prints a table in which every case is compared with the first.
/// Before the rounds that count each has one that does not.
pub fn compare(title: &str, unit: &str, options: Options, mut cases: Vec<Case<'_>>) -> Outcome {
    let mut samples = vec![Vec::new(); cases.len()];
    if !options.quick {
        for case in &mut cases {
            (case.measure)()?;
        }
    }
    for _ in 0..options.rounds {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            samples.push((case.measure)()?);
        }
    }
    let Some((baseline, _)) = samples.split_first() else { return Ok(()) };
    println!("\n{title}, {unit}");
    let [base_min, ..] = spread(baseline.clone());
    let columns = ["min", "median", "max"].map(|name| format!("{name:>10}")).join(" ");
    println!("{:<28} {columns} {:>7} {:>7} {:>6}", "", "ratio", "of min", "aim");
    for (case, samples) in cases.iter().zip(&samples) {
        let [min, median, max] = spread(samples.clone());
        let ratios = samples.iter().zip(baseline).map(|(sample, base)| sample / base).collect();
        let [_, ratio, _] = spread(ratios);
        let aim = case.aim.map_or_else(String::new, |aim| format!("{aim:.2}"));
        let columns = [min, median, max].map(number).join(" ");
        let of_min = min / base_min;
        println!("{:<28} {columns} {ratio:>7.3} {of_min:>7.3} {aim:>6}", case.name);
    }
    Ok(())
}

/// A number of things: `1 vCPU`, `8 vCPUs`.
pub fn count(number: u32, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The minimum, median and maximum.
fn spread(mut samples: Vec<f64>) -> [f64; 3] {
    samples.sort_by(f64::total_cmp);
    let at = |index: usize| samples.get(index).copied().unwrap_or(f64::NAN);
    let last = samples.len().saturating_sub(1);
    [at(0), (at(last / 2) + at(last.div_ceil(2))) / 2.0, at(last)]
}

/// A number in a column, with as many decimals as it deserves.
fn number(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 1000.0) };
    format!("{value:>10.decimals$}")
}
