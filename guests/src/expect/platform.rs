//! What each guest that tests the machine prints, as data. It ends by a power-off.
//!
//! The facts are those of docs/platform-guests.md. Nothing here runs a guest.

/// What to expect of a guest.
#[derive(Clone, Copy, Debug)]
pub struct PlatformExpect {
    /// The guest's name.
    pub name: &'static str,
    /// The options that it needs; its format has the others.
    pub options: &'static str,
    /// What it calls its format.
    pub format: &'static str,
    /// KiB of RAM that it is told of, of 128 MiB.
    pub ram_kib: u32,
}

/// What all but the plain ELF file are told of: without video memory and the BIOS.
const RAM_OF_A_MAP: u32 = (128 << 10) - 1024 + 639;

/// What to expect of each guest, one entry a guest.
pub const PLATFORM_EXPECTS: &[PlatformExpect] = &[
    guest("pc-multiboot", "multiboot"),
    PlatformExpect {
        options: "--irqchip kernel",
        ram_kib: 128 << 10,
        ..guest("pc-elf64", "elf64")
    },
    guest("pc-pvh", "pvh"),
    guest("pc-linux", "linux"),
];

const fn guest(name: &'static str, format: &'static str) -> PlatformExpect {
    PlatformExpect { name, options: "", format, ram_kib: RAM_OF_A_MAP }
}

/// A line of output: these texts are possible; at a `*` any text may follow.
type Line = Vec<String>;

impl PlatformExpect {
    /// The lines that all tests print, on `vcpus` vCPUs, up to 16.
    fn lines(&self, vcpus: u32) -> Vec<Line> {
        let line = |text: String| vec![text];
        let either = |ok: String, skipped: &str| vec![ok, skipped.to_owned()];
        let alphabet: String = ('a'..='z').cycle().take(256).collect();
        vec![
            line(format!("pc: {}, command line \"*", self.format)),
            line(format!("boot: ok, {} KiB of RAM, 0 modules", self.ram_kib)),
            line(format!("cpus: ok, {vcpus} in the MADT, {vcpus} in the MP table")),
            line(format!("smp: ok, {vcpus} CPUs up")),
            line("pit: ok, 20 ticks by IOAPIC pin 2".into()),
            line("pic: ok, 20 ticks by LINT0".into()),
            line(format!("ioapic: ok, {} routes", 4 * vcpus)),
            line("lapic: ok, 20 one-shots, 20 ticks".into()),
            either(
                "deadline: ok, 20 deadlines".into(),
                "deadline: skipped, CPUID has no TSC-deadline timer",
            ),
            line(format!("ipi: ok, {} sent in xAPIC mode", ipis(vcpus))),
            line(format!("hlt: ok, 20 rounds on {vcpus} CPUs")),
            either(
                format!("x2apic: ok, {} sent", x2apic_ipis(vcpus)),
                "x2apic: skipped, CPUID has no x2APIC",
            ),
            line(format!("uart: {alphabet}")),
            line("uart: ok, 256 bytes sent in bursts".into()),
            line("clock: ok, PM timer, RTC, TSC*".into()),
            line(format!("fw-cfg: ok, {vcpus} CPUs, 0 files")),
            line("pc: all passed, 14 tests".into()),
        ]
    }

    /// Whether `actual` is what all tests print on `vcpus` vCPUs; if not, why.
    ///
    /// # Errors
    ///
    /// The first line that differs.
    pub fn check(&self, vcpus: u32, actual: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(actual);
        let mut actual = text.lines();
        for (number, expected) in self.lines(vcpus).iter().enumerate() {
            match actual.next() {
                Some(line) if expected.iter().any(|text| matches(text, line)) => {}
                other => {
                    return Err(format!(
                        "line {number}: {other:?} instead of {expected:?}:\n{text}"
                    ));
                }
            }
        }
        actual.next().map_or(Ok(()), |line| Err(format!("more than is due: {line:?}")))
    }
}

fn matches(expected: &str, line: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(start) => line.starts_with(start),
        None => line == expected,
    }
}

/// IPIs of the test: each CPU sends to each other one in six modes, and then by itself: two to
/// itself, to all in two ways, to all others in two, where there are any; and, as long as there
/// are logical ids of one bit each, one to any CPU.
fn ipis(vcpus: u32) -> u32 {
    let to_others = if vcpus > 1 { 2 } else { 0 };
    vcpus * (6 * (vcpus - 1) + 4 + to_others + u32::from(vcpus <= 8))
}

/// The same in x2APIC mode, which has no lowest priority, and a register to send to itself.
fn x2apic_ipis(vcpus: u32) -> u32 {
    let to_others = if vcpus > 1 { 2 } else { 0 };
    vcpus * (4 * (vcpus - 1) + 5 + to_others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipis_are_those_that_were_counted_by_hand() {
        assert_eq!([1, 2, 4, 16].map(ipis), [5, 26, 100, 1536]);
        assert_eq!([1, 2].map(x2apic_ipis), [5, 22]);
    }

    #[test]
    fn each_line_has_to_be_there_and_no_other() {
        let expect = &PLATFORM_EXPECTS[0];
        let lines: Vec<String> = expect
            .lines(2)
            .iter()
            .map(|line| line.last().unwrap().replace('*', " and more"))
            .collect();
        let check = |lines: &[String]| expect.check(2, lines.join("\n").as_bytes());
        assert_eq!(check(&lines), Ok(()));
        for gone in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(gone);
            assert!(check(&fewer).is_err(), "without {:?}", lines[gone]);
        }
        assert!(check(&[&lines[..], &["x".into()]].concat()).is_err());
        assert!(expect.check(4, lines.join("\n").as_bytes()).is_err());
    }
}
