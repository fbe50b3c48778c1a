//! From a [`Row`] to the record that it was made of.

use thiserror::Error;

use super::{Handler, Kind, Row, Thread};
use crate::exit::{
    Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit,
};
use crate::trace::record::{
    Event, ExitEvent, Handling, Reason, Record, ServiceEvent, Source, Totals,
};

/// Why a row is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    /// A field that a record of this kind has is not there.
    #[error("a record of this kind has a field '{0}', which is missing")]
    Missing(&'static str),
    /// A field has a value that it cannot have in a record of this kind.
    #[error("the field '{0}' has a value that it cannot have in a record of this kind")]
    Value(&'static str),
}

/// A field that has to be there.
fn need<T: Copy>(field: Option<T>, name: &'static str) -> Result<T, RowError> {
    field.ok_or(RowError::Missing(name))
}

impl Row<'_> {
    /// The record. Fields that follow from others (`dir`), that only tell more (`symbol`) and that
    /// a record of this kind does not have are ignored.
    ///
    /// # Errors
    ///
    /// Fields that are missing, or that contradict the kind or the reason.
    pub fn record(&self) -> Result<Record, RowError> {
        let event = match self.kind {
            Kind::Info => return Err(RowError::Value("kind")),
            Kind::Exit => Event::Exit(self.exit_event()?),
            Kind::Service => Event::Service(self.service_event()?),
            Kind::Output => Event::Output {
                offset: need(self.offset, "offset")?,
                len: need(self.len, "len")?,
                took: need(self.took_ns, "took_ns")?,
            },
            Kind::Kick => Event::Kick { target: self.vcpu()? },
            Kind::Start => Event::Start,
            Kind::Halt => Event::Halt,
            Kind::Stop => Event::Stop,
            Kind::Interrupt => {
                Event::Interrupt { irq: need(self.irq, "irq")?, high: need(self.on, "on")? }
            }
            // CSV cannot tell a name without characters from none.
            Kind::Marker => Event::Marker(self.name.map(|name| name.0).unwrap_or_default()),
            Kind::Completed => Event::Completed(need(self.name, "name")?.0),
            Kind::Recording => Event::Recording { on: need(self.on, "on")? },
            Kind::Totals => Event::Totals(Totals {
                seen: need(self.seen, "seen")?,
                kept: need(self.kept, "kept")?,
                filtered: need(self.filtered, "filtered")?,
                dropped: need(self.dropped, "dropped")?,
            }),
            Kind::End => Event::End,
        };
        Ok(Record { time: self.time_ns, source: self.source.0, event })
    }

    fn vcpu(&self) -> Result<VcpuId, RowError> {
        match need(self.vcpu, "vcpu")? {
            Thread(Source::Vcpu(id)) => Ok(id),
            Thread(Source::Devices | Source::Supervisor) => Err(RowError::Value("vcpu")),
        }
    }

    fn exit_event(&self) -> Result<ExitEvent, RowError> {
        let handling = match need(self.handler, "handler")? {
            Handler::Pending => Handling::Pending,
            Handler::RunLoop => Handling::RunLoop,
            Handler::Posted => Handling::Posted { enqueue: need(self.enqueue_ns, "enqueue_ns")? },
            Handler::Vcpu => Handling::Served {
                wait: need(self.wait_ns, "wait_ns")?,
                service: need(self.service_ns, "service_ns")?,
            },
        };
        Ok(ExitEvent {
            sequence: need(self.seq, "seq")?,
            exit: self.exit()?,
            data: self.data.map_or(0, |data| data.0),
            rip: self.rip.map(|rip| rip.0),
            guest: need(self.guest_ns, "guest_ns")?,
            handling,
        })
    }

    fn exit(&self) -> Result<VmExit, RowError> {
        let code = || need(self.code, "code").map(|code| code.0);
        let short = || u32::try_from(code()?).map_err(|_| RowError::Value("code"));
        Ok(match need(self.reason, "reason")?.0 {
            Reason::IoOut => VmExit::Pio(self.pio(Direction::Write)?),
            Reason::IoIn => VmExit::Pio(self.pio(Direction::Read)?),
            Reason::MmioWrite => VmExit::Mmio(self.mmio(Direction::Write)?),
            Reason::MmioRead => VmExit::Mmio(self.mmio(Direction::Read)?),
            Reason::Hlt => VmExit::Hlt,
            Reason::Shutdown => VmExit::Shutdown,
            Reason::FailEntry => VmExit::FailEntry { reason: code()?, cpu: need(self.cpu, "cpu")? },
            Reason::InternalError => VmExit::InternalError { suberror: short()?, insn: None },
            Reason::SystemEvent => VmExit::SystemEvent { kind: short()? },
            Reason::Interrupted => VmExit::Interrupted,
            Reason::SetTpr => VmExit::SetTpr,
            Reason::IrqWindowOpen => VmExit::IrqWindowOpen,
            Reason::Debug => VmExit::Debug,
            Reason::IoapicEoi => {
                let vector = u8::try_from(short()?).map_err(|_| RowError::Value("code"))?;
                VmExit::IoapicEoi { vector }
            }
            Reason::Unhandled => VmExit::Unhandled { reason: short()? },
        })
    }

    fn pio(&self, direction: Direction) -> Result<PioExit, RowError> {
        let port = need(self.port, "port")?.0;
        Ok(PioExit {
            port: PioAddr(u16::try_from(port).map_err(|_| RowError::Value("port"))?),
            direction,
            size: need(self.size, "size")?,
            count: need(self.count, "count")?,
        })
    }

    fn mmio(&self, direction: Direction) -> Result<MmioExit, RowError> {
        let (gpa, size) = (Gpa(need(self.gpa, "gpa")?.0), need(self.size, "size")?);
        Ok(MmioExit { gpa, direction, size })
    }

    fn service_event(&self) -> Result<ServiceEvent, RowError> {
        let (space, direction, addr) = match need(self.reason, "reason")?.0 {
            Reason::IoOut => (AddressSpace::Pio, Direction::Write, need(self.port, "port")?),
            Reason::IoIn => (AddressSpace::Pio, Direction::Read, need(self.port, "port")?),
            Reason::MmioWrite => (AddressSpace::Mmio, Direction::Write, need(self.gpa, "gpa")?),
            Reason::MmioRead => (AddressSpace::Mmio, Direction::Read, need(self.gpa, "gpa")?),
            _ => return Err(RowError::Value("reason")),
        };
        Ok(ServiceEvent {
            vcpu: self.vcpu()?,
            sequence: need(self.seq, "seq")?,
            access: Access {
                space,
                addr: addr.0,
                direction,
                size: need(self.size, "size")?,
                data: need(self.data, "data")?.0,
            },
            wait: need(self.wait_ns, "wait_ns")?,
            service: need(self.service_ns, "service_ns")?,
        })
    }
}
