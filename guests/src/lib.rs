//! The demo, test and stress guests of minivmm, built with it and found by name.
//!
//! Each guest is one file, in assembly under `asm/` or, the stress guests, in C under `stress/`,
//! whose header says what it does; those under `platform/` share a program, which is in a folder
//! there. `build.rs` makes the images. What a guest is expected to print, and how it ends, is in
//! [`expect`], for tests.
//! Nothing here runs a guest.

pub mod expect;

/// The CPU mode that a guest is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit real mode.
    Real,
    /// 32-bit protected mode.
    Protected,
    /// 64-bit mode, ring 0.
    Long,
    /// 64-bit mode, ring 3.
    User,
}

/// What a guest is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To show or to test something once.
    Demo,
    /// To run many times: it reports outcomes, and fails on one that must not be.
    Stress,
    /// To test the machine: interrupt controllers, timers, the start of CPUs.
    Platform,
}

/// A guest that is part of the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    /// The name that `--demo` takes.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// The mode it is written for, or in which its format has it start.
    pub mode: Mode,
    /// The image: a flat one for guest address 0x1000, but for [`Kind::Platform`].
    pub image: &'static [u8],
}

/// The image that `build.rs` made under this name.
macro_rules! image {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bin"))
    };
}

/// A guest whose image `build.rs` made: of `asm/<name>.S`, of `stress/<name>.c`, or of
/// `platform/<name>.S`.
macro_rules! guest {
    ($mode:ident, $name:literal, $summary:literal) => {
        guest!(Demo, $mode, $name, $summary)
    };
    ($kind:ident, $mode:ident, $name:literal, $summary:literal) => {
        Guest {
            name: $name,
            summary: $summary,
            kind: Kind::$kind,
            mode: Mode::$mode,
            image: {
                // Named, so that the linker can keep it apart from what every run reads.
                static IMAGE: [u8; image!($name).len()] = *image!($name);
                &IMAGE
            },
        }
    };
}

/// All guests, in the order in which `--list-demos` prints them.
pub const GUESTS: &[Guest] = &[
    guest!(Real, "hello", "print 2 + 2 and Hello, as the first KVM tutorials do"),
    guest!(Real, "smp-hello", "a line from every vCPU, under a spin lock"),
    guest!(Protected, "protected-hello", "a line from every vCPU in 32-bit protected mode"),
    guest!(Long, "long-hello", "a line from every vCPU in 64-bit mode"),
    guest!(User, "user-hello", "a line from every vCPU in 64-bit mode, ring 3"),
    guest!(Real, "echo", "send back what is typed, until Ctrl-D"),
    guest!(Real, "counter", "count in shared memory on every vCPU (rbp times) and lose no count"),
    guest!(User, "counter-user", "counter in ring 3"),
    guest!(Real, "exit-code", "end with exit code 43 through port 0xf4"),
    guest!(Real, "power-off", "power off through port 0x604"),
    guest!(Real, "power-off-8900", "power off with \"Shutdown\" to port 0x8900"),
    guest!(Real, "reset-8042", "reset through port 0x64"),
    guest!(Real, "reset-cf9", "reset through port 0xcf9"),
    guest!(Protected, "triple-fault", "an invalid opcode without an interrupt table"),
    guest!(Real, "spin", "spin for ever on every vCPU, without an exit"),
    guest!(User, "spin-user", "spin in ring 3"),
    guest!(Real, "rep-outs", "string I/O: rep outs and rep ins"),
    guest!(Real, "wide-io", "2- and 4-byte accesses to the UART's registers"),
    guest!(Long, "mmio-probe", "loads and stores where no memory and no device is"),
    guest!(Real, "unknown-ports", "ports without a device, in every size"),
    guest!(Long, "devices", "a PC's legacy devices, one by one, and those of --device"),
    guest!(Real, "trace-markers", "markers in its own trace, and a part that is left out"),
    guest!(Real, "uart-selftest", "the UART's registers, interrupts, FIFO and loopback"),
    guest!(Real, "uart-lines", "numbered lines from every vCPU (rbp each), under a spin lock"),
    guest!(Real, "uart-storm", "bytes from every vCPU (rbp each), unlocked and unpolled"),
    guest!(Real, "uart-storm-poll", "uart-storm, waiting for THRE before each byte"),
    guest!(Real, "irq-pic", "interrupts by the 8259s: timer, UART, RTC; wants --irqchip"),
    guest!(Long, "irq-ioapic", "interrupts by the IOAPIC: level, edge, NMI; wants --irqchip"),
    guest!(Protected, "irq-probe", "a script for the interrupt controllers; wants --irqchip"),
    guest!(Long, "reset-probe", "look for what an iteration has left for the next"),
    guest!(Long, "assist-check", "instructions in ring 0 against the same in ring 3 (rbp inputs)"),
    guest!(Long, "assist-system", "software interrupts, faults and system instructions in ring 0"),
    guest!(Long, "assist-syscall", "SYSCALL of ring 3 to a kernel that keeps its pages to itself"),
    guest!(Real, "bench-out", "OUT to the UART rbp times on every vCPU"),
    guest!(Real, "bench-in", "IN from the UART rbp times on every vCPU"),
    guest!(Real, "bench-poll", "poll THRE, then OUT, rbp times on every vCPU"),
    guest!(Stress, User, "counter-racy", "stress: increments without a lock, some of them lost"),
    guest!(Stress, User, "lock-tas", "stress: a test-and-set lock"),
    guest!(Stress, User, "lock-ticket", "stress: a ticket lock"),
    guest!(Stress, User, "lock-mcs", "stress: the queue lock of Mellor-Crummey and Scott"),
    guest!(Stress, User, "lock-rw", "stress: a readers-writer lock"),
    guest!(Stress, User, "seqlock", "stress: a sequence lock"),
    guest!(Stress, User, "lock-broken", "stress: a lock that lets two in, to be caught"),
    guest!(Stress, User, "barrier", "stress: a sense-reversing barrier"),
    guest!(Stress, User, "queue-spsc", "stress: a bounded queue, one producer and one consumer"),
    guest!(Stress, User, "queue-mpmc", "stress: a bounded queue, many producers and consumers"),
    guest!(Stress, User, "stack-treiber", "stress: a lock-free stack with a tag against ABA"),
    guest!(Stress, User, "litmus-sb", "stress: SB: store buffering, x86's relaxed outcome"),
    guest!(Stress, User, "litmus-sb-mfence", "stress: SB+mfences: store buffering with fences"),
    guest!(Stress, User, "litmus-mp", "stress: MP: message passing"),
    guest!(Stress, User, "litmus-lb", "stress: LB: load buffering"),
    guest!(Stress, User, "litmus-iriw", "stress: IRIW: independent reads of independent writes"),
    guest!(Stress, User, "litmus-n6", "stress: n6: a vCPU sees its own write early"),
    guest!(Stress, User, "litmus-r", "stress: R: a read passes a write"),
    guest!(Stress, User, "litmus-2-2w", "stress: 2+2W: two writes each, in opposite order"),
    guest!(Stress, User, "smc", "stress: cross-modifying code"),
    guest!(Stress, User, "reset-paging", "stress: translations that an iteration has left"),
    guest!(
        Stress,
        Long,
        "reset-interrupts",
        "stress: interrupts and controllers that an iteration has left"
    ),
    guest!(Stress, Long, "tlb", "stress: a page mapped elsewhere, and INVLPG"),
    guest!(Stress, User, "io-storm", "stress: ports and MMIO of every size at random"),
    guest!(Platform, Protected, "pc-multiboot", "test the machine as a Multiboot kernel"),
    guest!(Platform, Long, "pc-elf64", "test the machine as a 64-bit ELF file; wants --irqchip"),
    guest!(Platform, Protected, "pc-pvh", "test the machine as a PVH guest"),
    guest!(Platform, Long, "pc-linux", "test the machine as a Linux bzImage"),
];

/// A small BIOS for images that call one: 8 KiB for guest address 0xfe000. Its header and `boot/`
/// in minivmm say what must be filled in.
pub static BIOS: [u8; 0x2000] = *image!("bios");

/// The guest of this name.
pub fn find(name: &str) -> Option<&'static Guest> {
    GUESTS.iter().find(|guest| guest.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn hello_is_the_tutorial_guest_byte_for_byte() {
        let mut image = vec![0xba, 0xf8, 0x03, 0x00, 0xd8, 0x04, 0x30, 0xee, 0xb0, 0x0a, 0xee];
        for byte in *b"Hello\n" {
            image.extend([0xb0, byte, 0xee]);
        }
        image.push(0xf4);
        assert_eq!(find("hello").unwrap().image, image);
    }

    #[test]
    fn images_fit_between_their_address_and_64_kib() {
        for guest in GUESTS {
            assert!(!guest.image.is_empty(), "{}", guest.name);
            assert!(guest.image.len() <= 60 << 10, "{}", guest.name);
        }
    }

    #[test]
    fn names_are_unique_words_with_dashes() {
        let mut seen = BTreeSet::new();
        for Guest { name, .. } in GUESTS {
            assert!(seen.insert(name), "{name} twice");
            assert!(
                name.split('-').all(|word| {
                    !word.is_empty()
                        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                }),
                "{name}"
            );
        }
    }

    /// The directory and the extension of the sources of a kind.
    fn place(kind: Kind) -> (PathBuf, &'static str) {
        let (dir, extension) = match kind {
            Kind::Demo => ("asm", "S"),
            Kind::Stress => ("stress", "c"),
            Kind::Platform => ("platform", "S"),
        };
        (Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), extension)
    }

    #[test]
    fn the_table_has_every_source_file() {
        for kind in [Kind::Demo, Kind::Stress, Kind::Platform] {
            let (dir, extension) = place(kind);
            let sources: BTreeSet<PathBuf> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|found| found == extension))
                .map(|path| path.file_stem().unwrap().into())
                .collect();
            let guests = GUESTS.iter().filter(|guest| guest.kind == kind);
            let names: BTreeSet<PathBuf> = guests.map(|guest| guest.name.into()).collect();
            assert_eq!(sources, names);
        }
    }

    #[test]
    fn the_header_of_each_source_agrees_with_the_table() {
        for guest in GUESTS {
            let (dir, extension) = place(guest.kind);
            let path = dir.join(guest.name).with_extension(extension);
            let source = fs::read_to_string(path).unwrap();
            let field = |name: &str| {
                let line =
                    source.lines().find_map(|line| line.strip_prefix(&format!("// {name}:")));
                line.unwrap_or_else(|| panic!("{}: no {name}", guest.name)).trim().to_owned()
            };
            assert!(source.starts_with(&format!("// {}: ", guest.name)), "{}", guest.name);
            assert_eq!(field("Mode"), format!("{:?}", guest.mode).to_lowercase(), "{}", guest.name);
            for name in ["vCPUs", "Output", "Exit"] {
                assert!(!field(name).is_empty(), "{}", guest.name);
            }
            let summarised = guest.summary.starts_with("stress: ");
            assert_eq!(summarised, guest.kind == Kind::Stress, "{}", guest.name);
        }
    }

    #[test]
    fn every_guest_is_found_by_its_name_and_nothing_else_is() {
        for guest in GUESTS {
            assert_eq!(find(guest.name), Some(guest));
        }
        assert_eq!(find(""), None);
        assert_eq!(find("hell"), None);
        assert_eq!(find("Hello"), None);
    }
}
