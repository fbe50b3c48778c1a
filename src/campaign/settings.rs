//! What is known of a campaign before its first iteration: the guest, and everything that makes a
//! difference to an iteration, as the result tells it.

use std::collections::BTreeMap;
use std::fs;

use super::CampaignError;
use crate::boot::{self, BootPlan};
use crate::config::{GuestSource, ImageFormat, VmConfig};
use crate::stress::config::StressConfig;
use crate::stress::requirement::Requirement;
use crate::stress::result::{CampaignResult, Guest, Settings};
use crate::stress::seed::Seed;

/// The result of the campaign, without any iteration.
///
/// # Errors
///
/// The guest's image cannot be read, or is none.
pub(super) fn empty_result(
    config: &VmConfig,
    stress: &StressConfig,
    seed: Seed,
) -> Result<CampaignResult, CampaignError> {
    // Before the file is read: it is one then, and has an end.
    let plan = boot::plan(config)?;
    let guest = match &config.guest {
        GuestSource::Demo(demo) => Guest::new(&config.guest, demo.image),
        GuestSource::File(path) => {
            let image = fs::read(path).map_err(|source| CampaignError::Read {
                path: path.display().to_string(),
                source,
            })?;
            Guest::new(&config.guest, &image)
        }
    };
    let settings = Settings {
        minivmm: env!("CARGO_PKG_VERSION").into(),
        seed,
        vcpus: config.vcpus.get(),
        memory_bytes: config.memory.bytes(),
        mode: plan.mode(),
        options: options(config, stress, &plan),
    };
    let expect = stress.expect.iter().cloned().map(Requirement::Expect);
    let forbid = stress.forbid.iter().cloned().map(Requirement::Forbid);
    let asked = stress.iterations.unwrap_or(u64::MAX);
    Ok(CampaignResult::new(guest, settings, asked, stress.shard, expect.chain(forbid)))
}

/// What else makes a difference to an iteration, as the user writes it.
fn options(config: &VmConfig, stress: &StressConfig, plan: &BootPlan) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut add = |name: &str, value: String| options.insert(name.to_owned(), value);
    match plan.format() {
        ImageFormat::Flat => add("load-addr", config.flat_load_addr().to_string()),
        format => add("format", format.to_string()),
    };
    if let Some(cmdline) = &config.boot.cmdline {
        add("cmdline", cmdline.clone());
    }
    if let Some(initrd) = &config.boot.initrd {
        add("initrd", initrd.display().to_string());
    }
    for (index, module) in config.boot.modules.iter().enumerate() {
        add(&format!("module {index}"), format!("{}={}", module.path.display(), module.args));
    }
    add("start", stress.start.to_string());
    if let Some(entry) = config.entry {
        add("entry", entry.to_string());
    }
    for (register, value) in &config.regs {
        add(&format!("reg {register}"), format!("{value:#x}"));
    }
    if let Some(rate) = stress.chaos {
        add("chaos", rate.to_string());
    }
    if stress.lockstep {
        add("lockstep", "yes".into());
    }
    options
}
