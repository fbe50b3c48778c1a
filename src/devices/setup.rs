//! From the configuration to what the devices are made of: the only file here that opens files,
//! on the main thread, before there is a VM.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::{ComPort, MemorySize, PortOutput, VcpuCount, VmConfig};
use crate::devices::fw_cfg::FwCfgFile;
use crate::devices::split_irqchip::SplitIrqChip;
use crate::memory::RamLayout;

/// The most that the files of fw_cfg may have together: they are kept in memory.
pub const MAX_FW_CFG: u64 = 64 << 20;
/// Bytes of COM1's input that wait in memory for the guest.
pub const INPUT_LIMIT: usize = 4096;

/// What the devices have to know of the machine, and which of them are there. The default is that
/// of a guest without options.
#[derive(Clone, Debug)]
pub struct DeviceSetup {
    /// How many vCPUs there are.
    pub vcpus: VcpuCount,
    /// The guest's RAM.
    pub ram: RamLayout,
    /// Bytes of input that COM1 takes in advance.
    pub input_limit: usize,
    /// COM1's output is kept for an iteration, not written.
    pub keep_output: bool,
    /// The serial ports besides COM1, and whether the device thread is to write what they send.
    pub ports: Vec<(ComPort, bool)>,
    /// The test device is there.
    pub test_device: bool,
    /// The files of fw_cfg.
    pub files: Vec<FwCfgFile>,
    /// The interrupt controllers that are not in the kernel, and to which the lines lead.
    pub irqchip: Option<Arc<SplitIrqChip>>,
}

/// A file of fw_cfg that cannot be had.
#[derive(Debug, Error)]
pub enum SetupError {
    /// It cannot be opened or read.
    #[error("cannot read the file for --fw-cfg {name}, '{}'", path.display())]
    Read {
        /// The name in fw_cfg.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A directory, a device, a FIFO or a socket.
    #[error("the file for --fw-cfg {name}, '{}', is not a regular file", path.display())]
    NotAFile {
        /// The name in fw_cfg.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// Together they are too much.
    #[error(
        "with '{}' for {name} the files for --fw-cfg are larger than {} MiB together",
        path.display(), MAX_FW_CFG >> 20
    )]
    TooLarge {
        /// The name in fw_cfg.
        name: String,
        /// The first file that has no room.
        path: PathBuf,
    },
}

impl Default for DeviceSetup {
    fn default() -> Self {
        Self {
            vcpus: VcpuCount::default(),
            ram: RamLayout::new(MemorySize::default()),
            input_limit: INPUT_LIMIT,
            keep_output: false,
            ports: Vec::new(),
            test_device: false,
            files: Vec::new(),
            irqchip: None,
        }
    }
}

impl DeviceSetup {
    /// What `config` asks for, with the contents of its files.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is too large.
    pub fn read(config: &VmConfig) -> Result<Self, SetupError> {
        let devices = &config.platform.devices;
        let writes = |output: &PortOutput| matches!(output, PortOutput::File(_));
        let mut room = MAX_FW_CFG;
        let mut files = Vec::new();
        for item in devices.files() {
            let name = item.name.as_str().to_owned();
            let contents = read_file(&name, &item.path, room)?;
            room -= contents.len() as u64;
            files.push(FwCfgFile { name, contents: contents.into() });
        }
        Ok(Self {
            vcpus: config.vcpus,
            ram: RamLayout::new(config.memory),
            ports: devices.ports().iter().map(|(port, output)| (*port, writes(output))).collect(),
            test_device: devices.test_device(),
            files,
            ..Self::default()
        })
    }
}

/// Everything in a file that has at most `room` bytes. Whether it is a regular one is asked before
/// it is opened: to open a FIFO waits for a writer, and to open a device may do something to it.
fn read_file(name: &str, path: &Path, room: u64) -> Result<Vec<u8>, SetupError> {
    let name = || name.to_owned();
    let failed = |source| SetupError::Read { name: name(), path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SetupError::NotAFile { name: name(), path: path.to_owned() });
    }
    let mut contents = Vec::new();
    // One byte more than there is room for says that there is not, whatever its length is
    // meanwhile.
    let mut file = File::open(path).map_err(failed)?.take(room + 1);
    file.read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > room {
        return Err(SetupError::TooLarge { name: name(), path: path.to_owned() });
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn files_are_read_up_to_the_room_that_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_file("opt/x", &path, 5).unwrap(), b"12345");
        let error = read_file("opt/x", &path, 4).unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(
            error,
            format!(
                "with '{shown}' for opt/x the files for --fw-cfg are larger than 64 MiB together"
            )
        );
        assert_eq!(read_file("opt/x", &path, 5).unwrap().len(), 5);
        let error = read_file("opt/x", dir.path(), 5).unwrap_err();
        assert!(error.to_string().ends_with("is not a regular file"), "{error}");
        let error = read_file("opt/x", &dir.path().join("none"), 5).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read the file for --fw-cfg opt/x"),
            "{error}"
        );
        assert!(error.source().is_some());
    }
}
