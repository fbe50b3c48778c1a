//! What is known of a campaign before its first iteration: the guest, and everything that makes a
//! difference to an iteration, as the result tells it.

use std::collections::BTreeMap;
use std::fs;

use super::CampaignError;
use crate::boot::{self, BootPlan};
use crate::config::{
    Assist, CpuChanges, GuestSource, ImageFormat, IrqChip, PlatformConfig, StartVcpus, VmConfig,
};
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
    let mut add = |name: &str, value: String| drop(options.insert(name.to_owned(), value));
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
    match plan.platform().start {
        StartVcpus::All => add("start", stress.start.to_string()),
        StartVcpus::Bsp => add("start", "bsp".into()),
    };
    if let Some(entry) = config.entry {
        add("entry", entry.to_string());
    }
    add_machine(config, plan, &mut add);
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

/// The machine, as far as it is not what a flat guest finds by itself.
fn add_machine(config: &VmConfig, plan: &BootPlan, add: &mut impl FnMut(&str, String)) {
    let PlatformConfig { topology, cpu, devices, assist, irqchip: _, start: _ } = &config.platform;
    let irqchip = plan.platform().irqchip;
    if irqchip != IrqChip::None {
        add("irqchip", irqchip.to_string());
    }
    if let Some(topology) = topology {
        add("topology", topology.to_string());
    }
    if *cpu != CpuChanges::default() {
        add("cpu", cpu.to_string());
    }
    for (port, _) in devices.ports() {
        add(&format!("device {}", port.name()), "yes".into());
    }
    if devices.test_device() {
        add("device testdev", "yes".into());
    }
    for file in devices.files() {
        add(&format!("fw-cfg {}", file.name), file.path.display().to_string());
    }
    if *assist == Assist::Off {
        add("no-assist", "yes".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeviceConfig, DeviceRequest, FwCfgItem};

    fn told(change: impl FnOnce(&mut VmConfig)) -> Vec<(String, String)> {
        let hello = minivmm_guests::GUESTS.iter().find(|guest| guest.name == "hello").unwrap();
        let mut config = VmConfig::new(GuestSource::Demo(hello));
        change(&mut config);
        let plan = boot::plan(&config).unwrap();
        options(&config, &StressConfig::default(), &plan).into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_guest_alone_has_where_it_is_and_how_it_starts() {
        assert_eq!(told(|_| {}), pairs(&[("load-addr", "0x1000"), ("start", "together")]));
    }

    #[test]
    fn what_is_different_about_the_machine_is_told() {
        let told = told(|config| {
            let requests = ["com3", "testdev"];
            let requests = requests.map(|text| DeviceRequest::from_os_str(text.as_ref()).unwrap());
            let file = FwCfgItem::from_os_str("opt/x=file".as_ref()).unwrap();
            config.platform = PlatformConfig {
                irqchip: Some(IrqChip::Split),
                start: Some(StartVcpus::Bsp),
                topology: Some("1:1:1".parse().unwrap()),
                cpu: "-popcnt".parse().unwrap(),
                devices: DeviceConfig::new(requests.into(), vec![file]).unwrap(),
                assist: Assist::Off,
            };
        });
        let expected = [
            ("cpu", "-popcnt"),
            ("device com3", "yes"),
            ("device testdev", "yes"),
            ("fw-cfg opt/x", "file"),
            ("irqchip", "split"),
            ("load-addr", "0x1000"),
            ("no-assist", "yes"),
            ("start", "bsp"),
            ("topology", "1:1:1"),
        ];
        assert_eq!(told, pairs(&expected));
    }
}
