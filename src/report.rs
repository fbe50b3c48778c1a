//! What is said about a run once it is over: for a failure what happened, to which vCPU, its
//! registers, and the last exits of every vCPU.

use std::fmt;
use std::time::Duration;

use crate::console::OutputReport;
use crate::outcome::VmOutcome;
use crate::trace::ring::ExitRecord;
use crate::vcpu::registers::Registers;

/// A finished run.
#[derive(Debug)]
pub struct VmReport {
    /// How it came out.
    pub outcome: VmOutcome,
    /// From the start of the guest to the event that decided its end.
    pub ran: Duration,
    /// What is known of each vCPU, by index.
    pub vcpus: Vec<VcpuReport>,
    /// What became of the guest's output.
    pub output: OutputReport,
}

/// What is known of one vCPU at the end.
#[derive(Debug)]
pub struct VcpuReport {
    /// How many exits it had.
    pub count: u64,
    /// The last of them, oldest first.
    pub exits: Vec<ExitRecord>,
    /// Its registers when it was stopped.
    pub registers: Option<Box<Registers>>,
}

impl VmReport {
    /// The details of a failure, for standard error: many lines.
    pub fn details(&self) -> Details<'_> {
        Details(self)
    }
}

/// See [`VmReport::details`].
#[derive(Debug)]
pub struct Details<'a>(&'a VmReport);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = match &self.0.outcome {
            VmOutcome::Fault { vcpu, registers, .. } => Some((vcpu, registers.as_ref())),
            VmOutcome::VcpuFailed { vcpu, .. } => {
                let report = self.0.vcpus.get(vcpu.index());
                Some((vcpu, report.and_then(|report| report.registers.as_ref())))
            }
            _ => None,
        };
        if let Some((vcpu, Some(registers))) = registers {
            writeln!(f, "{vcpu} registers:\n{registers}")?;
        }
        // A start that failed has many vCPUs of which there is nothing to tell.
        let silent = |vcpu: &VcpuReport| vcpu.count == 0 && vcpu.registers.is_none();
        let mut first = 0;
        for run in self.0.vcpus.chunk_by(|a, b| silent(a) && silent(b)) {
            let last = first + run.len() - 1;
            match run {
                [vcpu] => write_vcpu(f, first, vcpu)?,
                _ => writeln!(f, "vCPU {first} to {last}: no exits")?,
            }
            first = last + 1;
        }
        Ok(())
    }
}

fn write_vcpu(f: &mut fmt::Formatter<'_>, index: usize, vcpu: &VcpuReport) -> fmt::Result {
    write!(f, "vCPU {index}: {}", count_of(vcpu.count))?;
    if let Some(registers) = &vcpu.registers {
        let (cs, rip) = (registers.segments[0].selector, registers.rip);
        write!(f, ", stopped at cs:rip {cs:#x}:{rip:#x}")?;
    }
    writeln!(f)?;
    write_exits(f, &vcpu.exits)
}

fn count_of(exits: u64) -> String {
    match exits {
        0 => "no exits".into(),
        1 => "1 exit".into(),
        count => format!("{count} exits"),
    }
}

/// One line an exit; equal ones in a row are one line with their number.
fn write_exits(f: &mut fmt::Formatter<'_>, exits: &[ExitRecord]) -> fmt::Result {
    let same =
        |a: &ExitRecord, b: &ExitRecord| (a.exit, a.data, a.handler) == (b.exit, b.data, b.handler);
    for run in exits.chunk_by(same) {
        let Some(first) = run.first() else { continue };
        write!(f, "  #{:<6} {first}", first.sequence)?;
        if run.len() > 1 {
            write!(f, "  ({} times)", run.len())?;
        }
        writeln!(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Direction, PioAddr, PioExit, VmExit};
    use crate::trace::ring::Handler;

    #[test]
    fn equal_exits_in_a_row_are_one_line() {
        let out = |sequence, data| {
            let pio =
                PioExit { port: PioAddr(0x3f8), direction: Direction::Write, size: 1, count: 1 };
            ExitRecord { sequence, exit: VmExit::Pio(pio), data, handler: Handler::Posted }
        };
        let report = VmReport {
            outcome: VmOutcome::AllHalted,
            ran: Duration::ZERO,
            vcpus: vec![
                VcpuReport {
                    count: 103,
                    exits: vec![out(100, 0x61), out(101, 0x61), out(102, 0x62)],
                    registers: None,
                },
                VcpuReport { count: 0, exits: vec![], registers: None },
                VcpuReport { count: 0, exits: vec![], registers: None },
            ],
            output: OutputReport::default(),
        };
        assert_eq!(
            report.details().to_string(),
            "vCPU 0: 103 exits\n  \
             #100    io-out port=0x3f8 size=1 count=1 data=0x61 handler=posted  (2 times)\n  \
             #102    io-out port=0x3f8 size=1 count=1 data=0x62 handler=posted\n\
             vCPU 1 to 2: no exits\n"
        );
    }
}
