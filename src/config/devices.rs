//! The devices that are there only when asked for, and the files of fw_cfg, as users write them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What a user asks of the devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    ports: Vec<(ComPort, PortOutput)>,
    test_device: bool,
    files: Vec<FwCfgItem>,
}

/// A serial port besides COM1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComPort {
    /// 0x2f8, IRQ 3.
    Com2,
    /// 0x3e8, IRQ 4.
    Com3,
    /// 0x2e8, IRQ 3.
    Com4,
}

/// Where such a port sends. It has no input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PortOutput {
    /// Nowhere.
    #[default]
    Null,
    /// To this file, which is created or emptied.
    File(PathBuf),
}

/// One value of `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// A serial port.
    Com(ComPort, PortOutput),
    /// The test device of kvm-unit-tests.
    Test,
}

/// Why a text is no [`DeviceRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceRequestError {
    /// None of the known words.
    #[error("'{0}' is not a device: expected com2, com3, com4 or testdev")]
    Unknown(String),
    /// Something else after the `=`.
    #[error("'{0}' is not where a serial port sends to: expected null or file:PATH")]
    UnknownOutput(String),
    /// `file:` and nothing after it.
    #[error("file: needs a path after it")]
    EmptyPath,
}

/// A file that the guest finds in fw_cfg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgItem {
    /// The name in fw_cfg's directory.
    pub name: FwCfgName,
    /// The file on the host.
    pub path: PathBuf,
}

/// A name in fw_cfg's directory: 1 to 55 characters of printable ASCII, without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FwCfgName(String);

/// Why a text is no [`FwCfgItem`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FwCfgItemError {
    /// No `=` in it, or nothing on one side.
    #[error("expected NAME=FILE")]
    NoFile,
    /// A name that does not fit in the directory.
    #[error("the name '{name}' has {len} bytes, and fw_cfg allows {}", FwCfgName::MAX)]
    LongName {
        /// The name.
        name: String,
        /// Its length.
        len: usize,
    },
    /// A name that a guest could not be expected to read.
    #[error("the name '{0}' has characters other than printable ASCII without spaces")]
    BadName(String),
}

/// What does not go together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceConfigError {
    /// A device that is there once was asked for twice.
    #[error("--device {0} is given more than once")]
    Twice(&'static str),
    /// Two files of one name.
    #[error("--fw-cfg {0} is given more than once")]
    SameName(FwCfgName),
    /// More files than there are places.
    #[error("--fw-cfg is given {count} times, and at most {} are allowed", DeviceConfig::MAX_FILES)]
    TooManyFiles {
        /// How many there are.
        count: usize,
    },
}

impl DeviceConfig {
    /// The most files of fw_cfg, as many as QEMU has places for by default.
    pub const MAX_FILES: usize = 32;

    /// These devices and these files.
    ///
    /// # Errors
    ///
    /// See [`DeviceConfigError`].
    pub fn new(
        requests: Vec<DeviceRequest>,
        files: Vec<FwCfgItem>,
    ) -> Result<Self, DeviceConfigError> {
        let mut config = Self::default();
        for request in requests {
            match request {
                DeviceRequest::Com(port, output) => {
                    if config.ports.iter().any(|(other, _)| *other == port) {
                        return Err(DeviceConfigError::Twice(port.name()));
                    }
                    config.ports.push((port, output));
                }
                DeviceRequest::Test if config.test_device => {
                    return Err(DeviceConfigError::Twice(TEST_DEVICE));
                }
                DeviceRequest::Test => config.test_device = true,
            }
        }
        if files.len() > Self::MAX_FILES {
            return Err(DeviceConfigError::TooManyFiles { count: files.len() });
        }
        let mut names = BTreeSet::new();
        for file in &files {
            if !names.insert(&file.name) {
                return Err(DeviceConfigError::SameName(file.name.clone()));
            }
        }
        Ok(Self { files, ..config })
    }

    /// The serial ports besides COM1, and where they send.
    pub fn ports(&self) -> &[(ComPort, PortOutput)] {
        &self.ports
    }

    /// The files that those ports send to.
    pub fn port_files(&self) -> impl Iterator<Item = (ComPort, &Path)> {
        self.ports.iter().filter_map(|(port, output)| match output {
            PortOutput::Null => None,
            PortOutput::File(path) => Some((*port, path.as_path())),
        })
    }

    /// Whether any of them does.
    pub fn writes_files(&self) -> bool {
        self.port_files().next().is_some()
    }

    /// Whether the test device is there.
    pub fn test_device(&self) -> bool {
        self.test_device
    }

    /// The files of fw_cfg.
    pub fn files(&self) -> &[FwCfgItem] {
        &self.files
    }
}

const TEST_DEVICE: &str = "testdev";

impl ComPort {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Com2, Self::Com3, Self::Com4];

    /// The name that `--device` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Com2 => "com2",
            Self::Com3 => "com3",
            Self::Com4 => "com4",
        }
    }
}

impl DeviceRequest {
    /// Reads `testdev`, or `com2`, `com3` or `com4` with `=null` or `=file:PATH` after it or not;
    /// the path need not be UTF-8.
    ///
    /// # Errors
    ///
    /// See [`DeviceRequestError`].
    pub fn from_os_str(text: &OsStr) -> Result<Self, DeviceRequestError> {
        let bytes = text.as_bytes();
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, output) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        if name == TEST_DEVICE.as_bytes() && output.is_none() {
            return Ok(Self::Test);
        }
        let named = |port: &ComPort| port.name().as_bytes() == name;
        let Some(port) = ComPort::ALL.into_iter().find(named) else {
            return Err(DeviceRequestError::Unknown(lossy(bytes)));
        };
        let output = match output {
            None | Some(b"null") => PortOutput::Null,
            Some(b"file:") => return Err(DeviceRequestError::EmptyPath),
            Some(output) => match output.strip_prefix(b"file:") {
                Some(path) => PortOutput::File(OsStr::from_bytes(path).into()),
                None => return Err(DeviceRequestError::UnknownOutput(lossy(output))),
            },
        };
        Ok(Self::Com(port, output))
    }
}

impl FwCfgName {
    /// The longest name in bytes: the directory has 56 for it, and a NUL ends it.
    pub const MAX: usize = 55;

    /// The name, if it is one.
    ///
    /// # Errors
    ///
    /// It is too long, or not printable.
    pub fn new(name: String) -> Result<Self, FwCfgItemError> {
        let len = name.len();
        match len {
            0 => Err(FwCfgItemError::NoFile),
            _ if !name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(FwCfgItemError::BadName(name))
            }
            1..=Self::MAX => Ok(Self(name)),
            _ => Err(FwCfgItemError::LongName { name, len }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FwCfgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FwCfgItem {
    /// Reads `NAME=FILE`; the path need not be UTF-8, and may have more of `=`.
    ///
    /// # Errors
    ///
    /// See [`FwCfgItemError`].
    pub fn from_os_str(text: &OsStr) -> Result<Self, FwCfgItemError> {
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or(FwCfgItemError::NoFile)?;
        let name = FwCfgName::new(String::from_utf8_lossy(&bytes[..at]).into_owned())?;
        match &bytes[at + 1..] {
            [] => Err(FwCfgItemError::NoFile),
            path => Ok(Self { name, path: OsString::from_vec(path.to_vec()).into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<DeviceRequest, String> {
        DeviceRequest::from_os_str(OsStr::new(text)).map_err(|error| error.to_string())
    }

    fn item(text: &str) -> Result<FwCfgItem, String> {
        FwCfgItem::from_os_str(OsStr::new(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn devices_by_name() {
        let com = |port, output| Ok(DeviceRequest::Com(port, output));
        assert_eq!(request("testdev"), Ok(DeviceRequest::Test));
        assert_eq!(request("com2"), com(ComPort::Com2, PortOutput::Null));
        assert_eq!(request("com3=null"), com(ComPort::Com3, PortOutput::Null));
        let file = PortOutput::File("a=b".into());
        assert_eq!(request("com4=file:a=b"), com(ComPort::Com4, file));
        for (text, error) in [
            ("com1", "'com1' is not a device: expected com2, com3, com4 or testdev"),
            ("", "'' is not a device: expected com2, com3, com4 or testdev"),
            ("testdev=x", "'testdev=x' is not a device: expected com2, com3, com4 or testdev"),
            ("com2=pty", "'pty' is not where a serial port sends to: expected null or file:PATH"),
            ("com2=", "'' is not where a serial port sends to: expected null or file:PATH"),
            ("com2=file:", "file: needs a path after it"),
        ] {
            assert_eq!(request(text), Err(error.into()));
        }
    }

    #[test]
    fn files_by_name() {
        let file = item("opt/x=/tmp/a=b").unwrap();
        assert_eq!((file.name.as_str(), file.path), ("opt/x", "/tmp/a=b".into()));
        let (longest, too_long) = ("n".repeat(55), "n".repeat(56));
        assert!(item(&format!("{longest}=f")).is_ok());
        let error = format!("the name '{too_long}' has 56 bytes, and fw_cfg allows 55");
        assert_eq!(item(&format!("{too_long}=f")), Err(error));
        for text in ["", "opt/x", "=f", "opt/x="] {
            assert_eq!(item(text), Err("expected NAME=FILE".into()), "{text}");
        }
        let error = "the name 'a b' has characters other than printable ASCII without spaces";
        assert_eq!(item("a b=f"), Err(error.into()));
    }

    #[test]
    fn nothing_is_there_twice() {
        let new = |devices: &[&str], files: &[&str]| {
            let devices = devices.iter().map(|text| request(text).unwrap()).collect();
            let files = files.iter().map(|text| item(text).unwrap()).collect();
            DeviceConfig::new(devices, files).map_err(|error| error.to_string())
        };
        assert!(new(&["com2", "com3", "com4", "testdev"], &["a=f", "b=f"]).is_ok());
        let twice = new(&["com2", "com3", "com2=file:x"], &[]);
        assert_eq!(twice, Err("--device com2 is given more than once".into()));
        let twice = new(&["testdev", "testdev"], &[]);
        assert_eq!(twice, Err("--device testdev is given more than once".into()));
        let twice = new(&[], &["a=f", "b=f", "a=g"]);
        assert_eq!(twice, Err("--fw-cfg a is given more than once".into()));
        let many: Vec<_> = (0..33).map(|number| format!("{number}=f")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let error = "--fw-cfg is given 33 times, and at most 32 are allowed";
        assert_eq!(new(&[], &many), Err(error.into()));
    }
}
