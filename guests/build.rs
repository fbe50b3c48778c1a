//! Makes every `asm/*.S` and every `stress/*.c` into `OUT_DIR/<name>.bin`, a flat image linked
//! for guest address 0x1000, the BIOS in `firmware/`, and every `platform/*.S` into one in a format
//! of its own, with the C compiler: `$CC`, or else `cc`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match build_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("minivmm-guests: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Guests of one language.
struct Language {
    /// Where their sources are; `include` in there has what they share.
    dir: &'static str,
    extension: &'static str,
    /// What the compiler is told. Paths are relative to this package.
    options: &'static [&'static str],
}

/// Their code may be 16-, 32- or 64-bit: the object is always a 64-bit one, so that one kind of
/// toolchain is enough.
const ASSEMBLY: Language = Language {
    dir: "asm",
    extension: "S",
    options: &["@asm/include/asm.opts", "-Iasm/include", "-Wl,-T,asm/include/flat.ld"],
};

/// The same command as in docs/stress-guests.md, which explains the options in the file.
const STRESS: Language = Language {
    dir: "stress",
    extension: "c",
    options: &["@stress/include/stress.opts", "-Istress/include", "-Tstress/include/stress.ld"],
};

/// The BIOS, which runs in segment 0xf000.
const FIRMWARE: Language = Language {
    dir: "firmware",
    extension: "S",
    options: &["@asm/include/asm.opts", "-Wl,-Ttext=0xe000"],
};

/// The program that all guests of `platform` share: one object of what is in `program`.
const PROGRAM: Language = Language {
    dir: "platform/program",
    extension: "c",
    options: &["@platform/include/pc.opts", "-Iplatform/include", "-r"],
};

/// Their entry points, each linked with the program.
const PLATFORM: Language = Language {
    dir: "platform",
    extension: "S",
    options: &["@platform/include/pc.opts", "-Iplatform/include"],
};

/// How each of them is linked.
const FORMATS: &[(&str, &[&str])] = &[
    ("pc-multiboot", &["-Tplatform/include/pc.ld", "-Wl,-s,--oformat=elf32-i386"]),
    ("pc-elf64", &["-Tplatform/include/pc.ld", "-Wl,-s"]),
    ("pc-pvh", &["-Tplatform/include/pc.ld", "-Wl,-s"]),
    ("pc-linux", &["-Tplatform/include/linux.ld", "-Wl,--oformat=binary"]),
];

fn build_all() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = env::var("CC").unwrap_or_else(|_| String::from("cc"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for language in [ASSEMBLY, STRESS, FIRMWARE] {
        // A directory stands for every file below it: the sources, what they include, new ones.
        println!("cargo::rerun-if-changed={}", language.dir);
        for source in sources(&language)? {
            let image = out_dir.join(source.with_extension("bin").file_name().unwrap_or_default());
            build(&compiler, &language, &[&source], &[], &image)?;
        }
    }
    build_platform(&compiler, &out_dir)
}

/// Compiles the program once, and links it with each entry point.
fn build_platform(compiler: &str, out_dir: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", PLATFORM.dir);
    let program = out_dir.join("pc.o");
    let assembly = Language { extension: "S", ..PROGRAM };
    let parts = [sources(&PROGRAM)?, sources(&assembly)?].concat();
    let parts: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    build(compiler, &PROGRAM, &parts, &[], &program)?;
    for (name, options) in FORMATS {
        let entry = Path::new(PLATFORM.dir).join(name).with_extension(PLATFORM.extension);
        let image = out_dir.join(name).with_extension("bin");
        build(compiler, &PLATFORM, &[&entry, &program], options, &image)?;
    }
    Ok(())
}

/// The sources of a language, right in its directory.
fn sources(language: &Language) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("cannot read {}: {error}", language.dir);
    let mut sources = Vec::new();
    for entry in fs::read_dir(language.dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new(language.extension)) {
            sources.push(path);
        }
    }
    Ok(sources)
}

/// Compiles and links one guest, or a part of one.
fn build(
    compiler: &str,
    language: &Language,
    sources: &[&Path],
    options: &[&str],
    image: &Path,
) -> Result<(), String> {
    // As make does, let CC hold arguments: "ccache gcc".
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().ok_or("CC is empty")?);
    command.args(words).args(language.options).args(options).arg("-o").arg(image).args(sources);
    let output = command.output().map_err(|error| {
        format!(
            "cannot run the C compiler: {error}\n  command: {command:?}\n  \
             gcc and binutils are needed; CC names another compiler"
        )
    })?;
    if !output.status.success() {
        return Err(format!(
            "cannot build {}: the C compiler ended with {}\n  command: {command:?}\n{}",
            image.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(())
}
