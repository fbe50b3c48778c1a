//! What a trace is made of: one record of 64 bytes for each thing that happened, most of all for
//! each VM exit. Everything that writes, reads or counts traces works on these values; nothing
//! here knows where they come from or go to.
//!
//! All times are nanoseconds. [`Record::time`] counts from the trace's epoch, shortly before the
//! guest starts; durations that are stored in 32 bits end at 4.29 s and mean "at least" there.

mod encode;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use crate::exit::{Access, MmioExit, PioExit, VcpuId, VmExit};
pub use crate::trace::reason::Reason;

/// The size of an encoded record, in bytes.
pub const RECORD_LEN: usize = 64;

/// The thread that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The thread of a vCPU.
    Vcpu(VcpuId),
    /// The device thread.
    Devices,
    /// The main thread, or the outside.
    Supervisor,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When: for an exit the moment at which KVM_RUN returned, for everything that lasts its
    /// beginning. Nanoseconds since the trace's epoch.
    pub time: u64,
    /// Whose record it is: for an exit its vCPU, for a service the thread that served.
    pub source: Source,
    /// What.
    pub event: Event,
}

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A VM exit, and what was done about it on the vCPU's own thread.
    Exit(ExitEvent),
    /// A posted access was served, by the device thread or by a vCPU that helped.
    Service(ServiceEvent),
    /// One write of guest output to the host: the device thread was in write(2).
    Output {
        /// The number of bytes that had been written before.
        offset: u64,
        /// The bytes that the host took.
        len: u32,
        /// How long it lasted.
        took: u32,
    },
    /// A vCPU was kicked.
    Kick {
        /// Who is to leave the guest.
        target: VcpuId,
    },
    /// A vCPU enters the guest for the first time.
    Start,
    /// A vCPU has halted for good.
    Halt,
    /// A vCPU's thread has left its loop for another reason: told to stop, a fault, a panic.
    Stop,
    /// The level of an interrupt line changed.
    Interrupt {
        /// The line.
        irq: u32,
        /// Its new level.
        high: bool,
    },
    /// The guest put a name into the timeline through the marker port.
    Marker(MarkerName),
    /// An instruction that the host cannot emulate was completed, at the exit before: its mnemonic.
    Completed(MarkerName),
    /// The guest switched recording on or off through the trace control port.
    Recording {
        /// Whether it is on from here.
        on: bool,
    },
    /// The counts of one source's records, written once at the end of a trace.
    Totals(Totals),
    /// The end of a complete trace: nothing follows.
    End,
}

/// A VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitEvent {
    /// The number of this exit among all of its vCPU, from 0; below 2^48.
    pub sequence: u64,
    /// The exit. The instruction bytes of an internal error are not kept.
    pub exit: VmExit,
    /// The first 8 bytes of what was written or read, little-endian, zero-extended.
    pub data: u64,
    /// RIP at the exit, if it was asked for, as KVM has it then.
    pub rip: Option<u64>,
    /// From the entry into the guest to this exit.
    pub guest: u64,
    /// What was done about it.
    pub handling: Handling,
}

/// How the vCPU's thread handled an exit, and how long each part took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It is being handled, or was when the vCPU ended.
    Pending,
    /// The run loop dealt with it.
    RunLoop,
    /// Its accesses were posted: they are in the channel, and somebody serves them later
    /// ([`ServiceEvent`]).
    Posted {
        /// Putting them into the channel, with whatever had to be done to make room.
        enqueue: u32,
    },
    /// The vCPU served its accesses itself.
    Served {
        /// Taking the devices, serving what came before, and all else but its own accesses.
        wait: u32,
        /// Its own accesses in the devices.
        service: u32,
    },
}

/// A posted access that was served. Its record's source says who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    /// Whose access it was.
    pub vcpu: VcpuId,
    /// The exit that it came from.
    pub sequence: u64,
    /// The access. A `rep outs` of n elements is one exit and n services.
    pub access: Access,
    /// From its exit to the beginning of its service, the way into the channel included.
    pub wait: u32,
    /// In the devices.
    pub service: u32,
}

/// A marker's name, or a mnemonic: at most 24 bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkerName {
    bytes: [u8; 24],
}

/// What became of a source's records: of a vCPU's its exits, of the device thread's all others
/// of the VM. `seen` = `kept` + `filtered` + `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many there were.
    pub seen: u64,
    /// Those in the trace.
    pub kept: u64,
    /// Those that a filter, or the guest's switch, left out.
    pub filtered: u64,
    /// Those lost because the trace could not be written fast enough.
    pub dropped: u64,
}

impl Totals {
    /// Adds the counts of another source.
    pub fn add(&mut self, other: &Self) {
        self.seen = self.seen.saturating_add(other.seen);
        self.kept = self.kept.saturating_add(other.kept);
        self.filtered = self.filtered.saturating_add(other.filtered);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}

impl MarkerName {
    /// The most bytes of a name.
    pub const MAX: usize = 24;

    /// The first 24 bytes of `name`; a NUL ends it.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let len = name.len().min(Self::MAX);
        bytes[..len].copy_from_slice(&name[..len]);
        Self { bytes }
    }

    /// The bytes, as the guest wrote them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl fmt::Display for MarkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu(id) => write!(f, "vcpu{}", id.0),
            Self::Devices => f.write_str("devices"),
            Self::Supervisor => f.write_str("supervisor"),
        }
    }
}

impl Record {
    /// The exit, if it is one.
    pub fn exit(&self) -> Option<&ExitEvent> {
        match &self.event {
            Event::Exit(exit) => Some(exit),
            _ => None,
        }
    }
}

impl fmt::Display for ExitEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, data) = (Reason::of(&self.exit), self.data);
        write!(f, "{reason}")?;
        match self.exit {
            VmExit::Pio(PioExit { port, size, count, .. }) => {
                write!(f, " port={port} size={size} count={count} data={data:#x}")?;
            }
            VmExit::Mmio(MmioExit { gpa, size, .. }) => {
                write!(f, " gpa={gpa} size={size} count=1 data={data:#x}")?;
            }
            VmExit::FailEntry { reason, cpu } => write!(f, " reason={reason:#x} cpu={cpu}")?,
            VmExit::InternalError { suberror, .. } => write!(f, " suberror={suberror}")?,
            VmExit::SystemEvent { kind } => write!(f, " type={kind}")?,
            VmExit::Unhandled { reason } => write!(f, " reason={reason}")?,
            VmExit::IoapicEoi { vector } => write!(f, " vector={vector:#x}")?,
            VmExit::Hlt
            | VmExit::Shutdown
            | VmExit::Interrupted
            | VmExit::IrqWindowOpen
            | VmExit::Debug
            | VmExit::SetTpr => {}
        }
        if let Some(rip) = self.rip {
            write!(f, " rip={rip:#x}")?;
        }
        write!(f, " handler={}", self.handling.name())
    }
}

impl Handling {
    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::RunLoop => "run-loop",
            Self::Posted { .. } => "posted",
            Self::Served { .. } => "vcpu",
        }
    }
}

impl ExitEvent {
    /// How long the vCPU's thread was busy with it, as far as it was measured.
    pub fn handling_time(&self) -> u64 {
        match self.handling {
            Handling::Pending | Handling::RunLoop => 0,
            Handling::Posted { enqueue } => u64::from(enqueue),
            Handling::Served { wait, service } => u64::from(wait) + u64::from(service),
        }
    }
}

/// A duration as a record stores it.
pub fn saturate(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_shows_what_is_no_text() {
        let name = MarkerName::new(b"a\"b\n\xff\0rest");
        assert_eq!(name.to_string(), r#"a\"b\n\xff"#);
        assert_eq!(name.as_bytes(), b"a\"b\n\xff");
    }
}
