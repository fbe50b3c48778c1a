//! The files that a run uses, under the names that a user knows them by, and the check that none of
//! those that it writes is another of them: it would overwrite what it needs, or have two things
//! written over each other.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{GuestSource, SerialConfig, VmConfig};
use crate::trace::config::TraceDestination;

/// A file that is to be written is also another one.
#[derive(Debug, Error)]
#[error("{what} {path} is also {other}", path = path.display())]
pub struct SameFileError {
    /// What it is.
    what: &'static str,
    path: PathBuf,
    /// What else it is.
    other: &'static str,
}

type Named<'a> = (&'static str, &'a Path);

impl VmConfig {
    /// Looks whether each file that is to be written is that only. To be called before one is opened.
    ///
    /// # Errors
    ///
    /// For the first that is not.
    pub fn check_files(&self) -> Result<(), SameFileError> {
        let written = self.written_files();
        let read = self.read_files();
        for (index, (what, path)) in written.iter().enumerate() {
            let others = written[index + 1..].iter().chain(&read);
            if let Some((other, _)) = others.copied().find(|(_, other)| is_same_file(path, other)) {
                return Err(SameFileError { what, path: path.to_path_buf(), other });
            }
        }
        Ok(())
    }

    fn written_files(&self) -> Vec<Named<'_>> {
        let mut files: Vec<Named<'_>> = Vec::new();
        if let Some(stress) = &self.stress {
            files.extend(stress.result.iter().map(|path| named("the file for the results", path)));
        }
        if let Some(TraceDestination::File(path)) = &self.trace.destination {
            files.push(("the trace", path));
        }
        let stats = self.trace.stats_file.iter();
        files.extend(stats.map(|path| named("the file of the statistics", path)));
        if let SerialConfig::File(path) = &self.serial {
            files.push(("the file of the serial port", path));
        }
        let ports = self.platform.devices.port_files();
        files.extend(ports.map(|(_, path)| ("the file of another serial port", path)));
        files
    }

    fn read_files(&self) -> Vec<Named<'_>> {
        let mut files: Vec<Named<'_>> = Vec::new();
        if let GuestSource::File(path) = &self.guest {
            files.push(("the guest's image", path));
        }
        files.extend(self.boot.initrd.iter().map(|path| named("the initial RAM disk", path)));
        files.extend(self.boot.modules.iter().map(|module| named("a module", &module.path)));
        let items = self.platform.devices.files().iter();
        files.extend(items.map(|item| named("a file for fw_cfg", &item.path)));
        let symbols = self.trace.symbols.iter();
        files.extend(symbols.map(|path| named("the file with the symbols", path)));
        files
    }
}

fn named<'a>(what: &'static str, path: &'a Path) -> Named<'a> {
    (what, path)
}

/// Whether two paths lead to one file, be it by a link, or would once it is made. Devices and
/// pipes may well be used twice.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(one), Ok(other)) => {
            one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
        }
        (Err(_), Err(_)) => place_of(a) == place_of(b),
        _ => false,
    }
}

/// Where a file that is not there would be made.
fn place_of(path: &Path) -> PathBuf {
    let path = path.read_link().map_or(path.to_owned(), |to| path.with_file_name(to));
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (dir.canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeviceConfig, DeviceRequest};

    fn error_of(change: impl FnOnce(&mut VmConfig)) -> String {
        let mut config = VmConfig::new(GuestSource::File("guest".into()));
        change(&mut config);
        config.check_files().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_written_is_nothing_else() {
        assert_eq!(error_of(|_| {}), "");
        let serial = || SerialConfig::File("out".into());
        assert_eq!(error_of(|config| config.serial = serial()), "");
        assert_eq!(
            error_of(|config| config.serial = SerialConfig::File("guest".into())),
            "the file of the serial port guest is also the guest's image"
        );
        assert_eq!(
            error_of(|config| config.trace.stats_file = Some("guest".into())),
            "the file of the statistics guest is also the guest's image"
        );
        let with_initrd = |config: &mut VmConfig| {
            config.serial = serial();
            config.boot.initrd = Some("out".into());
        };
        assert_eq!(
            error_of(with_initrd),
            "the file of the serial port out is also the initial RAM disk"
        );
    }

    #[test]
    fn two_ports_do_not_write_over_each_other_and_may_share_a_device() {
        let to = |path: &str| {
            let requests = ["com2", "com3"].map(|com| format!("{com}=file:{path}"));
            let requests =
                requests.iter().map(|text| DeviceRequest::from_os_str(text.as_ref()).unwrap());
            error_of(|config| {
                config.platform.devices =
                    DeviceConfig::new(requests.collect(), Vec::new()).unwrap();
            })
        };
        let port = "the file of another serial port";
        assert_eq!(to("out"), format!("{port} out is also {port}"));
        assert_eq!(to("/dev/null"), "");
    }

    #[test]
    fn a_file_that_is_not_there_is_known_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        std::os::unix::fs::symlink("file", &link).unwrap();
        assert!(is_same_file(&file, &dir.path().join("./file")));
        assert!(is_same_file(&file, &link));
        assert!(!is_same_file(&file, &dir.path().join("other")));
        std::fs::write(&file, "").unwrap();
        assert!(is_same_file(&file, &link));
        assert!(!is_same_file(&file, &dir.path().join("other")));
        assert!(is_same_file(Path::new("nothing"), Path::new("./nothing")));
    }

    #[test]
    fn what_is_only_read_may_be_read_twice() {
        let twice = |config: &mut VmConfig| {
            config.boot.initrd = Some("file".into());
            config.trace.symbols = Some("file".into());
        };
        assert_eq!(error_of(twice), "");
    }
}
