//! Where the packages' files are: at the paths at which the packages install them or, of a package
//! that was only unpacked, in the directory that `MINIVMM_THIRD_PARTY` names.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{require_kvm, skipped};

/// The names of the kernels of linux-image-cloud-amd64 are made of these and their version.
const KERNEL_PREFIX: &str = "vmlinuz-";
const KERNEL_SUFFIX: &str = "-cloud-amd64";

/// The first of the paths that is a file, if the test can run. If not, that has been said.
pub fn require(package: &str, paths: &[&str]) -> Option<PathBuf> {
    let found = || paths.iter().map(PathBuf::from).find(|path| path.is_file());
    require_kvm().then(|| found().or_else(|| absent(package, &paths.join(" or "))))?
}

/// The stock kernel that is last by its name, if the test can run. If not, that has been said.
pub fn require_kernel() -> Option<PathBuf> {
    let unpacked = env::var_os("MINIVMM_THIRD_PARTY").map(|dir| Path::new(&dir).join("boot"));
    let boots = unpacked.into_iter().chain([PathBuf::from("/boot")]);
    let found = || boots.filter_map(|boot| last_kernel(&boot)).next();
    let wanted = format!("{KERNEL_PREFIX}*{KERNEL_SUFFIX} in $MINIVMM_THIRD_PARTY/boot or /boot");
    require_kvm().then(|| found().or_else(|| absent("linux-image-cloud-amd64", &wanted)))?
}

fn last_kernel(boot: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(boot).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_kernel = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with(KERNEL_PREFIX) && name.ends_with(KERNEL_SUFFIX)
    };
    files.filter(is_kernel).max()
}

fn absent(package: &str, wanted: &str) -> Option<PathBuf> {
    let required = env::var_os("MINIVMM_REQUIRE_THIRD_PARTY").is_some_and(|value| value == "1");
    assert!(!required, "MINIVMM_REQUIRE_THIRD_PARTY=1, but of {package} there is no {wanted}");
    skipped(&format!("of the package {package} there is no {wanted}"));
    None
}

/// Whether what takes many minutes on a host without hardware virtualization is to run, too.
pub fn full() -> bool {
    env::var_os("MINIVMM_THIRD_PARTY_FULL").is_some_and(|value| value == "1")
}
