//! Symbols of ELF files that the C compiler makes here, as `guests/build.rs` makes the guests,
//! and of what is left of one that is cut off or damaged.

mod support;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use minivmm::trace::symbols::Symbols;
use proptest::prelude::*;
use tempfile::TempDir;

/// Where the code of each file begins.
const TEXT: u64 = 0x1000;

/// Lines 1 to 9 are what the tests count on.
const CODE_C: &str = "\
__attribute__((always_inline)) static inline void out(unsigned char value) {
    __asm__ volatile(\"outb %0, $0xf4\" : : \"a\"(value));
}
void _start(void) {
    for (;;)
        out(1);
}
int twice(int x) {
    return 2 * x;
}
";

/// A function with a size, a label in it, labels without a size, mangled names, a section with a
/// function in another, data.
const CODE_S: &str = r#"
    .globl _start
    .type _start, @function
_start:
    nop
    nop
inner:
    nop
    .size _start, . - _start
plain:
    nop
    nop
alias:
    .globl global_alias
global_alias:
    nop
    nop
_ZN3foo3barEi:
    nop
_ZN4core3fmt5write17h0123456789abcdefE:
    nop
    .section .far, "ax"
far:
    nop
outer:
    nop
nested:
    nop
    .size nested, . - nested
    nop
    .size outer, . - outer
    .data
data:
    .long 0
"#;

/// Compiles a source, named for its language, with the flags given, and links it to [`TEXT`].
fn compile(dir: &TempDir, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let source_path = dir.path().join(name);
    fs::write(&source_path, source).unwrap();
    let path = dir.path().join("guest.elf");
    let at = format!("-Wl,-Ttext={TEXT:#x}");
    let own = ["-nostdlib", "-static", "-no-pie", "-fno-pie", "-ffreestanding"];
    let own = own.into_iter().chain(["-fno-stack-protector", "-Wl,--build-id=none", &at]);
    let flags = own.chain(flags.iter().copied()).chain(["-o"]).map(OsStr::new);
    support::compile(flags.chain([path.as_os_str(), source_path.as_os_str()]));
    path
}

fn names(path: &Path, addresses: impl IntoIterator<Item = u64>) -> Vec<Option<String>> {
    let mut symbols = Symbols::load(path).unwrap();
    addresses.into_iter().map(|address| symbols.name(address)).collect()
}

/// What loading ends with, and its source: with PATH for the path.
fn error(path: &Path) -> String {
    let error = Symbols::load(path).unwrap_err();
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}").replace(&path.display().to_string(), "PATH")
}

#[track_caller]
fn check_c(word_size: &str) {
    let dir = TempDir::new().unwrap();
    let path = compile(&dir, "code.c", CODE_C, &["-g", "-O1", word_size]);
    let names: Vec<String> = names(&path, TEXT..TEXT + 0x40).into_iter().flatten().collect();
    let has = |start: &str, end: &str| {
        names.iter().any(|name| name.starts_with(start) && name.ends_with(end))
    };
    assert!(names[0].starts_with("_start+0x0 (code.c:"), "{names:#?}");
    assert!(has("_start+0x", " (code.c:2)"), "{names:#?}");
    assert!(has("twice+0x0 (code.c:", ")"), "{names:#?}");
    assert!(has("twice+0x", " (code.c:9)"), "{names:#?}");
}

#[test]
fn c_has_functions_and_lines_in_64_bits() {
    check_c("-m64");
}

#[test]
fn c_has_functions_and_lines_in_32_bits() {
    check_c("-m32");
}

#[test]
fn without_debug_information_there_are_no_lines() {
    let dir = TempDir::new().unwrap();
    let path = compile(&dir, "code.c", CODE_C, &["-O1"]);
    assert_eq!(names(&path, [TEXT])[0].as_deref(), Some("_start+0x0"));
}

#[track_caller]
fn check_assembly(flags: &[&str], line: impl Fn(u32) -> String) {
    let dir = TempDir::new().unwrap();
    let far = [flags, &["-Wl,--section-start=.far=0x2000", "-Wl,-Tdata=0x3000"]].concat();
    let path = compile(&dir, "code.S", CODE_S, &far);
    let at = |name: &str, number| Some(format!("{name}{}", line(number)));
    let expected = [
        (TEXT - 1, None),
        (TEXT, at("_start+0x0", 5)),
        (TEXT + 1, at("_start+0x1", 6)),
        (TEXT + 2, at("_start+0x2", 8)),
        (TEXT + 3, at("plain+0x0", 11)),
        (TEXT + 4, at("plain+0x1", 12)),
        (TEXT + 5, at("global_alias+0x0", 16)),
        (TEXT + 6, at("global_alias+0x1", 17)),
        (TEXT + 7, at("foo::bar(int)+0x0", 19)),
        (TEXT + 8, at("core::fmt::write+0x0", 21)),
        // The last label ends with its section, not at the next one.
        (TEXT + 9, None),
        (0x1fff, None),
        (0x2000, at("far+0x0", 24)),
        (0x2001, at("outer+0x0", 26)),
        (0x2002, at("nested+0x0", 28)),
        (0x2003, at("outer+0x2", 30)),
        (0x2004, None),
        (0x3000, None),
        (0, None),
        (u64::MAX, None),
    ];
    let names = names(&path, expected.iter().map(|(address, _)| *address));
    assert_eq!(names, expected.map(|(_, name)| name));
}

#[test]
fn assembly_has_functions_and_labels() {
    check_assembly(&["-m64"], |_| String::new());
    check_assembly(&["-m32"], |_| String::new());
}

#[test]
fn assembly_has_lines() {
    check_assembly(&["-g"], |line| format!(" (code.S:{line})"));
}

#[test]
fn what_compressed_debug_sections_say_is_left_out() {
    let dir = TempDir::new().unwrap();
    let path = compile(&dir, "code.c", CODE_C, &["-g", "-gz", "-O1"]);
    assert!(names(&path, [TEXT])[0].as_deref().unwrap().starts_with("_start+0x0"));
}

#[test]
fn the_same_address_has_the_same_name_again() {
    let dir = TempDir::new().unwrap();
    let path = compile(&dir, "code.S", CODE_S, &[]);
    // More addresses than are remembered, then the first once more.
    let addresses = (0..100_000).chain([TEXT]);
    let last = names(&path, addresses).pop();
    assert_eq!(last, Some(Some("_start+0x0".to_owned())));
}

#[test]
fn symbols_may_go_to_another_thread() {
    let dir = TempDir::new().unwrap();
    let path = compile(&dir, "code.S", CODE_S, &["-g"]);
    let mut symbolize = Symbols::load(&path).unwrap().into_symbolize();
    let name = std::thread::spawn(move || symbolize(TEXT)).join().unwrap();
    assert_eq!(name.as_deref(), Some("_start+0x0 (code.S:5)"));
}

#[test]
fn what_has_no_symbols_is_refused() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    assert_eq!(
        error(&missing),
        "cannot read symbols from 'PATH': No such file or directory (os error 2)"
    );
    assert_eq!(error(dir.path()), "cannot read symbols from 'PATH': not a regular file");

    let stripped = compile(&dir, "code.S", CODE_S, &["-s"]);
    assert_eq!(error(&stripped), "'PATH' has no symbols: it may have been stripped");
    let object = compile(&dir, "code.S", CODE_S, &["-c"]);
    assert_eq!(error(&object), "'PATH' is not linked, so its addresses are not known");
    let flat = compile(&dir, "code.S", CODE_S, &["-Wl,--oformat=binary"]);
    assert_eq!(error(&flat), "'PATH' is not an ELF file, and only they have symbols");

    let elf = fs::read(compile(&dir, "code.S", CODE_S, &[])).unwrap();
    let other = dir.path().join("other");
    fs::write(&other, b"").unwrap();
    assert_eq!(error(&other), "'PATH' is not an ELF file, and only they have symbols");
    fs::write(&other, &elf[..40]).unwrap();
    assert!(error(&other).starts_with("'PATH' is not a valid ELF file: "), "{}", error(&other));
    let mut arm = elf;
    arm[18] = 183; // e_machine: EM_AARCH64
    fs::write(&other, arm).unwrap();
    assert_eq!(error(&other), "'PATH' is an ELF file for another machine than x86");
}

/// Asks for names in a file with these bytes. That none makes it panic is the test.
fn ask(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    if let Ok(mut symbols) = Symbols::load(path) {
        for address in (TEXT - 1..TEXT + 0x40).chain([0, u64::MAX]) {
            let _ = symbols.name(address);
        }
    }
}

#[test]
fn a_truncated_file_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let elf = fs::read(compile(&dir, "code.c", CODE_C, &["-g", "-O1"])).unwrap();
    let path = dir.path().join("cut");
    for len in (0..elf.len()).step_by(7).chain(0..200.min(elf.len())) {
        ask(&path, &elf[..len]);
    }
}

#[test]
fn a_damaged_file_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let flags: &[&[&str]] = &[&["-g", "-O1", "-m64"], &["-g", "-O1", "-m32"]];
    let elves: Vec<Vec<u8>> = flags
        .iter()
        .map(|flags| fs::read(compile(&dir, "code.c", CODE_C, flags)).unwrap())
        .collect();
    let path = dir.path().join("damaged");
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 1..5);
    proptest!(ProptestConfig::with_cases(2000), |(elf in 0..elves.len(), changes in changes)| {
        let mut bytes = elves[elf].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        ask(&path, &bytes);
    });
}
