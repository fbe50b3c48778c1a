//! Which options go with which format of the image. One that would do nothing is an error: a user
//! who gives it expects something of it.

use thiserror::Error;

use crate::config::{CpuMode, ImageFormat, VmConfig};

/// An option that does not go with the format of the image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// The format has nothing that the option could be about.
    #[error("{option} does not go with an image of format {format}, only with {}", names(.formats))]
    NotForFormat {
        /// The option.
        option: &'static str,
        /// The format of the image.
        format: ImageFormat,
        /// The formats it goes with.
        formats: &'static [ImageFormat],
    },
    /// The format is always entered in one mode.
    #[error("an image of format {format} starts in protected mode, and not in {mode} mode")]
    Mode {
        /// The format of the image.
        format: ImageFormat,
        /// The mode asked for.
        mode: CpuMode,
    },
}

fn names(formats: &[ImageFormat]) -> String {
    formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

const PLACED: &[ImageFormat] = &[ImageFormat::Flat];
const TOLD: &[ImageFormat] = &[ImageFormat::Multiboot, ImageFormat::Pvh, ImageFormat::Linux];
const MODULAR: &[ImageFormat] = &[ImageFormat::Multiboot, ImageFormat::Pvh];

/// Whether all options that were given go with this format.
///
/// # Errors
///
/// The first that does not.
pub(super) fn check(format: ImageFormat, config: &VmConfig) -> Result<(), OptionError> {
    let boot = &config.boot;
    let options = [
        ("--load-addr", config.load_addr.is_some(), PLACED),
        ("--entry", config.entry.is_some(), PLACED),
        ("a command line (--cmdline, or arguments after --)", boot.cmdline.is_some(), TOLD),
        ("--initrd", boot.initrd.is_some(), TOLD),
        ("--module", !boot.modules.is_empty(), MODULAR),
    ];
    for (option, is_given, formats) in options {
        if is_given && !formats.contains(&format) {
            return Err(OptionError::NotForFormat { option, format, formats });
        }
    }
    match (format, config.mode) {
        (ImageFormat::Multiboot | ImageFormat::Pvh, Some(mode)) if mode != CpuMode::Protected => {
            Err(OptionError::Mode { format, mode })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GuestSource, Module};
    use crate::exit::Gpa;

    fn refusal(format: ImageFormat, change: impl FnOnce(&mut VmConfig)) -> Option<String> {
        let mut config = VmConfig::new(GuestSource::File("guest".into()));
        change(&mut config);
        check(format, &config).err().map(|error| error.to_string())
    }

    /// Whether an option goes with each of the formats: flat, elf, multiboot, pvh, linux.
    fn goes_with(change: impl Fn(&mut VmConfig)) -> [bool; 5] {
        ImageFormat::ALL.map(|format| refusal(format, &change).is_none())
    }

    #[test]
    fn each_option_goes_with_its_formats() {
        let flat = [true, false, false, false, false];
        let told = [false, false, true, true, true];
        assert_eq!(goes_with(|_| ()), [true; 5]);
        assert_eq!(goes_with(|config| config.load_addr = Some(Gpa(0x1000))), flat);
        assert_eq!(goes_with(|config| config.entry = Some(Gpa(0x1000))), flat);
        assert_eq!(goes_with(|config| config.boot.cmdline = Some(String::new())), told);
        assert_eq!(goes_with(|config| config.boot.initrd = Some("initrd".into())), told);
        let module = Module { path: "module".into(), args: String::new() };
        let modular = goes_with(|config| config.boot.modules.push(module.clone()));
        assert_eq!(modular, [false, false, true, true, false]);
        let protected = goes_with(|config| config.mode = Some(CpuMode::Protected));
        assert_eq!(protected, [true; 5]);
        let long = goes_with(|config| config.mode = Some(CpuMode::Long));
        assert_eq!(long, [true, true, false, false, true]);
    }

    #[test]
    fn a_refusal_names_the_option_and_what_it_goes_with() {
        let load_addr = refusal(ImageFormat::Elf, |c| c.load_addr = Some(Gpa(0x1000)));
        let expected = "--load-addr does not go with an image of format elf, only with flat";
        assert_eq!(load_addr.as_deref(), Some(expected));
        let mode = refusal(ImageFormat::Pvh, |config| config.mode = Some(CpuMode::User));
        let expected = "an image of format pvh starts in protected mode, and not in user mode";
        assert_eq!(mode.as_deref(), Some(expected));
    }
}
