//! Assembles every `asm/*.S` into `OUT_DIR/<name>.bin`, a flat image linked for guest address
//! 0x1000, with the C compiler: `$CC`, or else `cc`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match assemble_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("minivmm-guests: {message}");
            ExitCode::FAILURE
        }
    }
}

fn assemble_all() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=CC");
    // A directory stands for every file below it: the sources, what they include, new ones.
    println!("cargo::rerun-if-changed=asm");
    let compiler = env::var("CC").unwrap_or_else(|_| String::from("cc"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for source in sources(Path::new("asm"))? {
        let image = out_dir.join(source.with_extension("bin").file_name().unwrap_or_default());
        assemble(&compiler, &source, &image)?;
    }
    Ok(())
}

/// The `.S` files right in this directory.
fn sources(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("cannot read {}: {error}", dir.display());
    let mut sources = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new("S")) {
            sources.push(path);
        }
    }
    Ok(sources)
}

/// Assembles and links one guest. Its code may be 16-, 32- or 64-bit: the object is always a
/// 64-bit one, so that one kind of toolchain is enough.
fn assemble(compiler: &str, source: &Path, image: &Path) -> Result<(), String> {
    // As make does, let CC hold arguments: "ccache gcc".
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().ok_or("CC is empty")?);
    command
        .args(words)
        .args(["-m64", "-nostdlib", "-static", "-no-pie", "-I", "asm/include"])
        .args(["-Wl,--oformat=binary", "-Wl,--build-id=none", "-Wl,-T,asm/include/flat.ld"])
        .arg("-o")
        .arg(image)
        .arg(source);
    let output = command.output().map_err(|error| {
        format!(
            "cannot run the C compiler: {error}\n  command: {command:?}\n  \
             gcc and binutils are needed; CC names another compiler"
        )
    })?;
    if !output.status.success() {
        return Err(format!(
            "cannot assemble {}: the C compiler ended with {}\n  command: {command:?}\n{}",
            source.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(())
}
