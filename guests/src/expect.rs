//! What each guest prints and how it ends, as data: for tests that run the guests.
//!
//! The facts are those in the header of each guest's source. Nothing here runs a guest, and
//! the program itself does not use it. The number of iterations is the default (`rbp` = 0).

pub mod platform;
pub mod stress;

use std::collections::BTreeMap;

/// The numbers of vCPUs that every guest is to be run with.
pub const VCPU_COUNTS: [u32; 4] = [1, 2, 4, 16];

/// The exit code of a VM that its guest resets.
const RESET_EXIT_CODE: u8 = 16;

/// What to expect of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The guest's name.
    pub name: &'static str,
    /// The options that it needs.
    pub options: &'static str,
    /// What to send to its UART, all of it; empty for nothing at all.
    pub input: &'static [u8],
    /// What it sends.
    pub output: Output,
    /// How it ends.
    pub end: End,
}

/// How a guest ends the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All vCPUs halt.
    Halted,
    /// Through the exit port, with this value.
    ExitPort(u8),
    /// Through a power-off port.
    PowerOff,
    /// Through a reset port.
    Reset,
    /// A triple fault.
    TripleFault,
    /// Not by itself.
    Never,
}

impl End {
    /// The exit code of the process, where the guest ABI fixes it.
    pub fn exit_code(self) -> Option<u8> {
        match self {
            Self::Halted | Self::PowerOff => Some(0),
            Self::ExitPort(value) => Some(value.wrapping_shl(1) | 1),
            Self::Reset => Some(RESET_EXIT_CODE),
            Self::TripleFault | Self::Never => None,
        }
    }
}

/// What a guest sends to its UART. The functions take the number of vCPUs.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// These bytes.
    Exact(fn(vcpus: u32) -> Vec<u8>),
    /// These lines from each vCPU (index, number): whole, and those of one vCPU in order.
    Lines(fn(vcpu: u32, vcpus: u32) -> Vec<String>),
    /// These bytes from each vCPU, mixed, so that only how often each occurs can be told.
    Mixed(fn() -> Vec<u8>),
    /// This many bytes from each vCPU, mixed but marked: byte n of vCPU v is
    /// `v << 4 | n & 15`. Up to 16 vCPUs.
    Marked(usize),
}

impl Output {
    /// Whether `actual` is what `vcpus` vCPUs should have sent; if not, why.
    pub fn check(&self, vcpus: u32, actual: &[u8]) -> Result<(), String> {
        match self {
            Self::Exact(expected) => {
                let expected = expected(vcpus);
                if actual == expected {
                    return Ok(());
                }
                Err(format!("expected {}, got {}", expected.escape_ascii(), actual.escape_ascii()))
            }
            Self::Lines(lines) => check_lines(*lines, vcpus, actual),
            Self::Mixed(bytes) => check_mixed(&bytes(), vcpus, actual),
            Self::Marked(bytes_each) => check_marked(*bytes_each, vcpus, actual),
        }
    }
}

/// Takes each line of the output from the front of the lines of some vCPU. Which one does not
/// matter if several have the same line in front: the lines of a guest that prints more than
/// one name their vCPU.
fn check_lines(
    lines: fn(u32, u32) -> Vec<String>,
    vcpus: u32,
    actual: &[u8],
) -> Result<(), String> {
    let mut expected: Vec<_> =
        (0..vcpus).map(|vcpu| lines(vcpu, vcpus).into_iter().peekable()).collect();
    let text = String::from_utf8_lossy(actual);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if !expected.iter_mut().any(|lines| lines.next_if(|next| next == line).is_some()) {
            return Err(format!("line {number}, {line:?}, is not due from any vCPU"));
        }
    }
    for (vcpu, lines) in expected.iter_mut().enumerate() {
        if let Some(line) = lines.peek() {
            return Err(format!("vCPU {vcpu}: {line:?} is missing"));
        }
    }
    Ok(())
}

fn check_mixed(bytes: &[u8], vcpus: u32, actual: &[u8]) -> Result<(), String> {
    let mut due: BTreeMap<u8, i64> = BTreeMap::new();
    for byte in bytes {
        *due.entry(*byte).or_default() += i64::from(vcpus);
    }
    for byte in actual {
        *due.entry(*byte).or_default() -= 1;
    }
    match due.iter().find(|(_, count)| **count != 0) {
        None => Ok(()),
        Some((byte, count)) if *count > 0 => Err(format!("byte {byte:#04x}: {count} missing")),
        Some((byte, count)) => Err(format!("byte {byte:#04x}: {} too many", -count)),
    }
}

fn check_marked(bytes_each: usize, vcpus: u32, actual: &[u8]) -> Result<(), String> {
    let mut sent = [0; 16];
    for (position, byte) in actual.iter().enumerate() {
        let vcpu = usize::from(byte >> 4);
        let number = &mut sent[vcpu];
        if usize::from(byte & 15) != *number % 16 {
            return Err(format!(
                "byte {position}, {byte:#04x}, is not number {number} of vCPU {vcpu}"
            ));
        }
        *number += 1;
    }
    for (vcpu, sent) in (0..).zip(sent) {
        let due = if vcpu < vcpus { bytes_each } else { 0 };
        if sent != due {
            return Err(format!("vCPU {vcpu}: {sent} bytes instead of {due}"));
        }
    }
    Ok(())
}

/// For guests that want interrupt controllers, wherever they are.
const IRQCHIP: &str = "--irqchip kernel";

/// What to expect of each guest, one entry a guest.
pub const EXPECTS: &[Expect] = &[
    halts("hello", Output::Mixed(|| b"4\nHello\n".to_vec())),
    halts(
        "smp-hello",
        Output::Lines(|vcpu, vcpus| vec![format!("vCPU {vcpu} of {vcpus} says hello\n")]),
    ),
    halts("protected-hello", Output::Lines(|_, _| vec!["Hello from protected mode\n".into()])),
    halts("long-hello", Output::Lines(|_, _| vec!["Hello from long mode\n".into()])),
    Expect {
        end: End::PowerOff,
        ..halts("user-hello", Output::Lines(|_, _| vec!["Hello from user mode\n".into()]))
    },
    Expect {
        input: b"abc\r\n\x00\xff \x1b[31m 16550\n\x04not this",
        ..halts("echo", Output::Exact(|_| b"abc\r\n\x00\xff \x1b[31m 16550\n".into()))
    },
    halts("counter", Output::Exact(counter_ok)),
    Expect { end: End::PowerOff, ..halts("counter-user", Output::Exact(counter_ok)) },
    Expect { end: End::ExitPort(0x15), ..says_bye("exit-code") },
    Expect { end: End::PowerOff, ..says_bye("power-off") },
    Expect { end: End::PowerOff, ..says_bye("power-off-8900") },
    Expect { end: End::Reset, ..says_bye("reset-8042") },
    Expect { end: End::Reset, ..says_bye("reset-cf9") },
    Expect { end: End::TripleFault, ..silent("triple-fault") },
    Expect { end: End::Never, ..silent("spin") },
    Expect { end: End::Never, ..silent("spin-user") },
    halts("rep-outs", Output::Exact(|_| b"rep ok\n".into())),
    halts("wide-io", Output::Exact(|_| b"wide ok\n".into())),
    halts("mmio-probe", Output::Exact(|_| b"mmio ok\n".into())),
    halts("unknown-ports", Output::Exact(|_| b"ports ok\n".into())),
    halts("devices", Output::Exact(|_| b"devices ok\n".into())),
    halts("trace-markers", Output::Exact(|_| b"markers ok\n".into())),
    halts("uart-selftest", Output::Exact(|_| b"uart ok\n".into())),
    halts(
        "uart-lines",
        Output::Lines(|vcpu, _| (0..50).map(|line| format!("v{vcpu} l{line}\n")).collect()),
    ),
    halts("uart-storm", Output::Marked(4096)),
    halts("uart-storm-poll", Output::Marked(4096)),
    Expect {
        end: End::PowerOff,
        options: IRQCHIP,
        ..halts("irq-pic", Output::Exact(|_| b"..........UUUUUcccc\n".into()))
    },
    Expect {
        end: End::PowerOff,
        options: IRQCHIP,
        ..halts("irq-ioapic", Output::Exact(|_| b"LLLLLEEEEEMGGGN..........\n".into()))
    },
    Expect { end: End::PowerOff, options: IRQCHIP, ..silent("irq-probe") },
    halts("reset-probe", Output::Exact(|_| b".".into())),
    halts("assist-check", Output::Exact(|_| b"assist ok\n".into())),
    halts("assist-system", Output::Exact(|_| b"system ok\n".into())),
    halts("assist-syscall", Output::Exact(|_| b"syscall, gate, table ok\n".into())),
    halts("bench-out", Output::Mixed(|| vec![b'x'; 1000])),
    silent("bench-in"),
    halts("bench-poll", Output::Mixed(|| vec![b'x'; 1000])),
];

/// What to expect of the guest of this name.
pub fn expectation(name: &str) -> Option<&'static Expect> {
    EXPECTS.iter().find(|expect| expect.name == name)
}

const fn halts(name: &'static str, output: Output) -> Expect {
    Expect { name, options: "", input: b"", output, end: End::Halted }
}

const fn says_bye(name: &'static str) -> Expect {
    halts(name, Output::Exact(|_| b"bye\n".into()))
}

const fn silent(name: &'static str) -> Expect {
    halts(name, Output::Exact(|_| Vec::new()))
}

fn counter_ok(vcpus: u32) -> Vec<u8> {
    format!("counter ok: {}\n", 1000 * vcpus).into()
}

#[cfg(test)]
mod tests;
