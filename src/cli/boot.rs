//! The options about the guest's image and what is loaded beside it.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::config::{BootConfig, ImageFormat, Module};

#[derive(Debug, Args)]
#[command(next_help_heading = "Start of the guest")]
pub(super) struct BootArgs {
    /// Format of the image: flat, elf, multiboot, pvh or linux [default: by its content]
    #[arg(long, value_name = "FORMAT")]
    format: Option<ImageFormat>,

    /// The guest's command line, which may also be given as arguments after `--`
    #[arg(long, value_name = "TEXT", conflicts_with = "guest_args")]
    cmdline: Option<String>,

    /// File with the initial RAM disk; for Multiboot and PVH the first module
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    initrd: Option<PathBuf>,

    /// Further file for the guest, and what the guest is told with it; may be repeated
    #[arg(long = "module", value_name = "FILE[=ARGS]")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|s| Module::from_os_str(&s)))]
    modules: Vec<Module>,

    /// The guest's command line
    #[arg(last = true, value_name = "GUEST ARGS")]
    guest_args: Vec<String>,
}

impl BootArgs {
    pub(super) fn into_config(self) -> BootConfig {
        let args = (!self.guest_args.is_empty()).then(|| self.guest_args.join(" "));
        BootConfig {
            format: self.format,
            cmdline: self.cmdline.or(args),
            initrd: self.initrd,
            modules: self.modules,
        }
    }
}
