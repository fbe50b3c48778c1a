//! What the threads of a VM report to its supervisor, and the bell that wakes the supervisor
//! out of poll(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::console::OutputReport;
use crate::exit::VcpuId;
use crate::trace::tracer::TraceEvent;
use crate::vcpu::VcpuEnd;

/// One report. The channel needs no bound: each thread sends a fixed number of them, what is asked
/// for from outside is as rare as signals, and
/// `InputRoom` is sent only after the supervisor has asked for it.
#[derive(Debug)]
pub enum Event {
    /// All vCPUs were ready and the guest has started, at this time.
    Started(Instant),
    /// A vCPU's thread has come to its end.
    VcpuEnded(VcpuId, VcpuEnd),
    /// The guest's output can no longer be written.
    OutputFailed(io::Error),
    /// The device thread has come to its end; an error is the message of its panic.
    DevicesEnded(Result<OutputReport, String>),
    /// What the writer of the trace reports.
    Trace(TraceEvent),
    /// Somebody outside wants the VM to stop.
    StopRequested,
    /// Somebody outside wants to see the flight recorders.
    LookRequested,
    /// The guest has made room for input.
    InputRoom,
}

/// The sending side, one for each thread.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: Sender<Event>,
    bell: Arc<EventFd>,
}

/// The supervisor's side.
#[derive(Debug)]
pub struct EventReceiver {
    events: Receiver<Event>,
    bell: Arc<EventFd>,
}

/// A channel for events.
///
/// # Errors
///
/// No file descriptor is left for the bell.
pub fn channel() -> io::Result<(EventSender, EventReceiver)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let (sender, receiver) = unbounded();
    let sender = EventSender { events: sender, bell: Arc::clone(&bell) };
    Ok((sender, EventReceiver { events: receiver, bell }))
}

impl EventSender {
    /// Reports `event` and rings the bell.
    pub fn send(&self, event: Event) {
        // Without a supervisor there is nobody to tell; and a bell that cannot be rung is one
        // that rings already.
        let _ = self.events.send(event);
        let _ = self.bell.write(1);
    }
}

impl EventReceiver {
    /// What poll(2) waits for.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Silences the bell; events sent from now on ring it again.
    pub fn silence(&self) {
        let _ = self.bell.read();
    }

    /// The events themselves.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }
}
