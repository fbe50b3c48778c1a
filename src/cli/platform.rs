//! The options about the machine around the vCPUs.

use std::str::FromStr;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use thiserror::Error;

use crate::config::{
    Assist, CpuChanges, DeviceConfig, DeviceConfigError, DeviceRequest, FwCfgItem, IrqChip,
    PlatformConfig, StartVcpus, Topology,
};
use crate::stress::start::StartMode;

#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(super) struct PlatformArgs {
    /// Where the interrupt controllers are: none, kernel or split
    /// [default: what the image's format expects]
    #[arg(long, value_name = "WHERE")]
    irqchip: Option<IrqChip>,

    /// Which vCPUs start: all, or bsp for the boot vCPU alone; or how all of them start in a
    /// campaign: together, stagger=DURATION, random or one-by-one
    #[arg(long, value_name = "HOW")]
    start: Option<Start>,

    /// How the vCPUs are arranged [default: one socket, and a core for each]
    #[arg(long, value_name = "SOCKETS:CORES:THREADS")]
    topology: Option<Topology>,

    /// Features for the CPU to have or not to have, by their names in /proc/cpuinfo
    #[arg(long, value_name = "-FEATURE,+FEATURE", allow_hyphen_values = true)]
    cpu: Option<CpuChanges>,

    /// A device that is not there by itself: com2, com3 or com4, with =null or =file:PATH for where
    /// it sends to [default: null], or testdev, that of kvm-unit-tests; may be repeated
    #[arg(long = "device", value_name = "DEVICE")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|s| DeviceRequest::from_os_str(&s)))]
    devices: Vec<DeviceRequest>,

    /// A file for the guest to find in fw_cfg by this name; may be repeated
    #[arg(long, value_name = "NAME=FILE")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|s| FwCfgItem::from_os_str(&s)))]
    fw_cfg: Vec<FwCfgItem>,

    /// Do not complete instructions that the host's KVM cannot emulate
    #[arg(long)]
    no_assist: bool,
}

/// What `--start` takes.
#[derive(Clone, Copy, Debug)]
enum Start {
    Vcpus(StartVcpus),
    Mode(StartMode),
}

#[derive(Debug, Error)]
#[error(
    "'{0}' is not a way to start: expected all, bsp, together, stagger=DURATION, random or \
     one-by-one"
)]
struct UnknownStart(String);

impl FromStr for Start {
    type Err = UnknownStart;

    fn from_str(text: &str) -> Result<Self, UnknownStart> {
        match text {
            "all" => Ok(Self::Vcpus(StartVcpus::All)),
            "bsp" => Ok(Self::Vcpus(StartVcpus::Bsp)),
            mode => mode.parse().map(Self::Mode).map_err(|_| UnknownStart(text.to_owned())),
        }
    }
}

impl PlatformArgs {
    /// How the vCPUs start into an iteration, if that is asked for.
    pub(super) fn start_mode(&self) -> Option<StartMode> {
        match self.start {
            Some(Start::Mode(mode)) => Some(mode),
            _ => None,
        }
    }

    /// What is asked for, if it goes together.
    pub(super) fn into_config(self) -> Result<PlatformConfig, DeviceConfigError> {
        let start = self.start.map(|start| match start {
            Start::Vcpus(vcpus) => vcpus,
            Start::Mode(_) => StartVcpus::All,
        });
        let assist = if self.no_assist { Assist::Off } else { Assist::On };
        Ok(PlatformConfig {
            irqchip: self.irqchip,
            start,
            topology: self.topology,
            cpu: self.cpu.unwrap_or_default(),
            assist,
            devices: DeviceConfig::new(self.devices, self.fw_cfg)?,
        })
    }
}
