//! A campaign: one guest, run many times, in one VM or several. The iterations themselves go on
//! between the vCPU threads of each VM (`vcpu/repeat.rs`), which ask the ledger for the next
//! one; here, on the main thread, is the campaign from its beginning to its end.

mod command;
mod fleet;
mod kicks;
mod ledger;
mod progress;
mod settings;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::affinity::AffinityError;
use crate::boot::BootError;
use crate::config::VmConfig;
use crate::console::ConsoleError;
use crate::devices::setup::SetupError;
use crate::host::Signals;
use crate::kvm::vm::KvmError;
use crate::report::VmReport;
use crate::stress::config::StressConfig;
use crate::stress::result::CampaignResult;
use crate::stress::seed::Seed;
use crate::trace::tracer::TraceSetup;
use crate::vmm::VmmError;
pub use command::ReplayCommand;
use fleet::Fleet;
use ledger::{Ledger, Rules};
use progress::Teller;
use watch::Watch;

/// Why there is no campaign.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The host CPUs asked for.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// KVM, or the guest.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The devices, or the events.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The files for the devices.
    #[error(transparent)]
    Devices(#[from] SetupError),
    /// Where the guest's output goes.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The guest's image.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The same, for the result.
    #[error("cannot read guest image '{path}': {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Signals or threads.
    #[error("{what}: {source}")]
    Host {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A campaign that is over.
#[derive(Debug)]
pub struct Campaigned {
    /// What has come out.
    pub result: CampaignResult,
    /// How each VM has come to its end.
    pub vms: Vec<VmReport>,
}

/// Runs a campaign. `setup` is what its VM is to trace, if there is only one; `command` runs an
/// iteration again; without `quiet` it is shown how far it is.
///
/// # Errors
///
/// The VMs cannot be made. What happens to them later is in the result.
pub fn run(
    config: &VmConfig,
    stress: &StressConfig,
    setup: TraceSetup,
    command: ReplayCommand,
    quiet: bool,
) -> Result<Campaigned, CampaignError> {
    let jobs = usize::try_from(stress.jobs).unwrap_or(usize::MAX);
    let seed = stress.seed.unwrap_or_else(drawn_seed);
    let result = settings::empty_result(config, stress, seed)?;
    let total = stress.iterations.map(|_| result.due());
    let rules = Rules {
        numbers: numbers(stress),
        seed,
        keep_going: stress.keep_going,
        forbid: stress.forbid.clone(),
        command,
    };
    let ledger = Arc::new(Ledger::new(rules, result, jobs));
    let mut vms = Fleet::make(config, stress, &ledger, setup)?;
    let signals = Signals::take().map_err(host_error("cannot take signals"))?;
    let began = Instant::now();
    let teller = Teller::start(Arc::clone(&ledger), total, quiet)
        .map_err(host_error("cannot start a thread"))?;
    if let Err(error) = vms.start(config, stress, &ledger) {
        vms.finish(&ledger);
        return Err(error);
    }
    let watch = Watch { ledger: &ledger, stress, signals: &signals, limit: config.timeout };
    let cut = watch.run(&mut vms, began);
    let is_cut = cut.is_some();
    let cut = cut.or_else(|| vms.cut());
    vms.finish(&ledger);
    // From here on a signal ends us, should nobody read standard error.
    drop(signals);
    teller.finish(is_cut);
    let result = ledger.take_result(|result| {
        result.add_elapsed(began.elapsed());
        if stress.iterations.is_none() {
            result.end_here();
        }
        if let Some(cut) = cut {
            result.add_cut(cut);
        }
    });
    Ok(Campaigned { result, vms: vms.into_reports() })
}

/// A seed that nobody has chosen.
fn drawn_seed() -> Seed {
    use std::hash::{BuildHasher, Hasher, RandomState};

    // The keys of a new hasher come from the host's random numbers.
    Seed(RandomState::new().build_hasher().finish())
}

fn numbers(stress: &StressConfig) -> Box<dyn Iterator<Item = u64> + Send> {
    match (stress.iterations, stress.shard) {
        (Some(total), Some(shard)) => Box::new(shard.iterations(total)),
        (Some(total), None) => Box::new(0..total),
        (None, _) => Box::new(0..u64::MAX),
    }
}

fn host_error(what: &'static str) -> impl FnOnce(io::Error) -> CampaignError {
    move |source| CampaignError::Host { what, source }
}
