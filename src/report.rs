//! What is said about a run once it is over: for a failure what happened, to which vCPU, its
//! registers, and the last exits of every vCPU.

use std::fmt;
use std::time::Duration;

use crate::console::OutputReport;
use crate::devices::post_code::PostCode;
use crate::outcome::VmOutcome;
use crate::trace::record::{Record, Source};
use crate::trace::summary::Summary;
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
    /// The last POST code that the guest has written.
    pub post_code: Option<PostCode>,
    /// What became of the guest's output.
    pub output: OutputReport,
    /// How many records the trace has lost, by the thread that they are about.
    pub lost_records: Vec<(Source, u64)>,
    /// The statistics, if they were kept.
    pub stats: Option<Box<Summary>>,
}

/// What is known of one vCPU at the end.
#[derive(Debug)]
pub struct VcpuReport {
    /// How many exits it had.
    pub count: u64,
    /// The last of them, oldest first.
    pub exits: Vec<Record>,
    /// Its registers when it was stopped.
    pub registers: Option<Box<Registers>>,
}

impl VmReport {
    /// The details of a failure, for standard error: many lines.
    pub fn details(&self) -> Details<'_> {
        Details::new(&self.outcome, &self.vcpus, self.post_code)
    }
}

/// See [`VmReport::details`].
#[derive(Debug)]
pub struct Details<'a> {
    outcome: &'a VmOutcome,
    vcpus: &'a [VcpuReport],
    post_code: Option<PostCode>,
}

impl<'a> Details<'a> {
    /// What is known of a failure, by vCPU.
    pub fn new(
        outcome: &'a VmOutcome,
        vcpus: &'a [VcpuReport],
        post_code: Option<PostCode>,
    ) -> Self {
        Self { outcome, vcpus, post_code }
    }
}

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registers = match self.outcome {
            VmOutcome::Fault { vcpu, registers, .. }
            | VmOutcome::Assertion { vcpu, registers, .. } => Some((vcpu, registers.as_ref())),
            VmOutcome::VcpuFailed { vcpu, .. } => {
                let report = self.vcpus.get(vcpu.index());
                Some((vcpu, report.and_then(|report| report.registers.as_ref())))
            }
            _ => None,
        };
        if let Some((vcpu, Some(registers))) = registers {
            writeln!(f, "{vcpu} registers:\n{registers}")?;
        }
        if let Some(code) = self.post_code {
            writeln!(f, "last {code}")?;
        }
        // A start that failed has many vCPUs of which there is nothing to tell.
        let silent = |vcpu: &VcpuReport| vcpu.count == 0 && vcpu.registers.is_none();
        let mut first = 0;
        for run in self.vcpus.chunk_by(|a, b| silent(a) && silent(b)) {
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

/// A number of exits, in words.
pub fn count_of(exits: u64) -> String {
    match exits {
        0 => "no exits".into(),
        1 => "1 exit".into(),
        count => format!("{count} exits"),
    }
}

/// One line an exit, with the time since the trace's epoch; equal ones in a row are one line with
/// their number.
pub fn write_exits(f: &mut dyn fmt::Write, exits: &[Record]) -> fmt::Result {
    let what = |record: &Record| {
        record.exit().map(|exit| (exit.exit, exit.data, exit.rip, exit.handling.name()))
    };
    for run in exits.chunk_by(|a, b| what(a) == what(b)) {
        let Some((first, exit)) = run.first().and_then(|first| Some((first, first.exit()?))) else {
            continue;
        };
        let (us, ns) = (first.time / 1000, first.time % 1000);
        write!(f, "  #{:<6} {us:>8}.{ns:03}us {exit}", exit.sequence)?;
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
    use crate::exit::VcpuId;
    use crate::exit::{Direction, PioAddr, PioExit, VmExit};
    use crate::trace::record::{Event, ExitEvent, Handling};

    #[test]
    fn equal_exits_in_a_row_are_one_line() {
        let out = |sequence, data| {
            let pio =
                PioExit { port: PioAddr(0x3f8), direction: Direction::Write, size: 1, count: 1 };
            let (rip, guest, handling) = (None, 0, Handling::Posted { enqueue: 0 });
            let exit = ExitEvent { sequence, exit: VmExit::Pio(pio), data, rip, guest, handling };
            let source = Source::Vcpu(VcpuId(0));
            Record { time: 1_000 * sequence + 5, source, event: Event::Exit(exit) }
        };
        let report = VmReport {
            outcome: VmOutcome::AllHalted,
            post_code: Some(PostCode(0x4e)),
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
            stats: None,
            lost_records: vec![],
        };
        assert_eq!(
            report.details().to_string(),
            "last POST code 0x4e\nvCPU 0: 103 exits\n  \
             #100         100.005us io-out port=0x3f8 size=1 count=1 data=0x61 handler=posted  (2 times)\n  \
             #102         102.005us io-out port=0x3f8 size=1 count=1 data=0x62 handler=posted\n\
             vCPU 1 to 2: no exits\n"
        );
    }
}
