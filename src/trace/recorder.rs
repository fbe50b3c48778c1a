//! What one thread records: exits on a vCPU's thread, services wherever they happen, writes on
//! the device thread. A [`Recorder`] belongs to its thread; without one nothing is recorded but
//! the flight recorder's ring.
//!
//! Records of services come about with the devices held. Handing them on may have to wait for a
//! slow disk, so they are staged and handed on after letting go ([`Recorder::flush`]).

use std::fmt;
use std::sync::Arc;

use crate::devices::watch::{Posted, Ticket, Watch, WatchOutput};
use crate::exit::VcpuId;
use crate::trace::record::{Event, MarkerName, Record, ServiceEvent, Source, Totals, saturate};
use crate::trace::shared::{Collected, Shared};
use crate::trace::summary::Summary;

/// See the module's text.
pub struct Recorder {
    source: Source,
    shared: Arc<Shared>,
    /// Its index in the streams; none if there are only statistics.
    stream: Option<usize>,
    staged: Vec<Record>,
    summary: Option<Box<Summary>>,
    exits: Totals,
    others: Totals,
    /// The exits that the filter's other terms let through, for its `every`.
    matched: u64,
    /// The exit that is being handled.
    ticket: Ticket,
    /// When the thread began to serve its own access.
    serving: u64,
    /// When it had done so.
    served: u64,
    /// How long it did so for this exit.
    service: u64,
    marker: Vec<u8>,
    /// The instruction that was completed at the exit that is being handled.
    completed: Option<MarkerName>,
    kernel: Vec<(String, u64)>,
    ended: bool,
}

impl Recorder {
    pub(super) fn new(source: Source, shared: Arc<Shared>, summary: bool) -> Self {
        let stream = shared.stream_of(source);
        if let Some(stream) = stream {
            shared.streams[stream].adopt();
        }
        Self {
            source,
            shared,
            stream,
            staged: Vec::new(),
            summary: summary.then(Box::default),
            exits: Totals::default(),
            others: Totals::default(),
            matched: 0,
            ticket: Ticket::default(),
            serving: 0,
            served: 0,
            service: 0,
            marker: Vec::new(),
            completed: None,
            kernel: Vec::new(),
            ended: false,
        }
    }

    /// Whether statistics are kept.
    pub fn keeps_stats(&self) -> bool {
        self.summary.is_some()
    }

    /// What the kernel has counted about this thread's vCPU.
    pub fn note_kernel_stats(&mut self, counters: Vec<(String, u64)>) {
        self.kernel = counters;
    }

    /// At the exit that is being handled this instruction was completed. It is kept if the exit is.
    pub fn completed(&mut self, mnemonic: MarkerName) {
        self.completed = Some(mnemonic);
    }

    /// The vCPU begins to handle its exit number `sequence`, which happened at `time`.
    pub fn begin(&mut self, sequence: u64, time: u64) {
        self.ticket = Ticket { sequence, entered: time };
        self.service = 0;
    }

    /// When the thread had served its last own access, and how long it has served such for the
    /// exit that is being handled.
    pub fn service(&self) -> (u64, u64) {
        (self.served, self.service)
    }

    /// Records an exit that has been handled.
    pub fn exit(&mut self, record: &Record) {
        if let Some(summary) = &mut self.summary {
            summary.add(record);
        }
        self.exits.seen += 1;
        let keep = self.keeps(record);
        if let Some(name) = self.completed.take() {
            self.stage(Record { event: Event::Completed(name), ..*record }, keep);
        }
        if keep {
            let result = self.push(record);
            *(if result { &mut self.exits.kept } else { &mut self.exits.dropped }) += 1;
        } else {
            self.exits.filtered += 1;
        }
        self.flush();
    }

    fn keeps(&mut self, record: &Record) -> bool {
        let (Some(exit), Source::Vcpu(id)) = (record.exit(), self.source) else { return false };
        self.stream.is_some()
            && self.shared.is_recording()
            && self.shared.filter.keeps(record.time, id, exit, &mut self.matched)
    }

    /// Records something that is rare, and that no filter leaves out. The devices are not held.
    pub fn note(&mut self, event: Event) {
        self.ended |= matches!(event, Event::Halt | Event::Stop);
        let time = self.shared.clock.now();
        self.stage(Record { time, source: self.source, event }, true);
        self.flush();
    }

    fn output(&mut self, began: u64, offset: u64, len: usize) {
        let took = saturate(self.shared.clock.now().saturating_sub(began));
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let event = Event::Output { offset, len, took };
        self.stage(Record { time: began, source: self.source, event }, true);
        self.flush();
    }

    /// The guest wrote `byte` to the trace control port.
    pub fn control(&mut self, byte: u8) {
        let on = byte & 1 != 0;
        self.shared.set_recording(on);
        self.note(Event::Recording { on });
    }

    /// An iteration begins: nothing is left of a marker's name.
    pub fn begin_iteration(&mut self) {
        self.marker.clear();
    }

    /// No vCPU runs, and the next iteration is to be recorded, whatever the last one switched.
    pub fn record_again(&self) {
        self.shared.set_recording(true);
    }

    /// What the trace control port reads: 1 while exits are recorded in a trace.
    pub fn status(&self) -> u8 {
        u8::from(self.stream.is_some() && self.shared.is_recording())
    }

    /// The guest wrote `byte` to the marker port: NUL or a line feed ends a name.
    pub fn marker(&mut self, byte: u8) {
        match byte {
            0 | b'\n' => {
                let name = MarkerName::new(&self.marker);
                self.marker.clear();
                self.note(Event::Marker(name));
            }
            _ if self.marker.len() < MarkerName::MAX => self.marker.push(byte),
            _ => {}
        }
    }

    /// Counts a record and, if it is to be kept, has it wait for [`flush`](Self::flush).
    fn stage(&mut self, record: Record, keep: bool) {
        if let Some(summary) = &mut self.summary {
            summary.add(&record);
        }
        self.others.seen += 1;
        if keep && self.stream.is_some() {
            self.staged.push(record);
        } else {
            self.others.filtered += 1;
        }
    }

    /// Hands on what is staged. To be called without the devices: it may wait for the writer.
    pub fn flush(&mut self) {
        for index in 0..self.staged.len() {
            let record = self.staged[index];
            let result = self.push(&record);
            *(if result { &mut self.others.kept } else { &mut self.others.dropped }) += 1;
        }
        self.staged.clear();
    }

    fn push(&self, record: &Record) -> bool {
        let stream = self.stream.and_then(|stream| self.shared.streams.get(stream));
        stream.is_some_and(|stream| stream.push(record.to_words(), &self.shared.writer).is_ok())
    }
}

impl Watch for Recorder {
    fn now(&self) -> u64 {
        self.shared.clock.now()
    }

    fn ticket(&self) -> Ticket {
        self.ticket
    }

    fn served(&mut self, posted: &Posted, began: u64) {
        let service = ServiceEvent {
            vcpu: posted.vcpu,
            sequence: posted.ticket.sequence,
            access: posted.access,
            wait: saturate(began.saturating_sub(posted.ticket.entered)),
            service: saturate(self.now().saturating_sub(began)),
        };
        let record = Record { time: began, source: self.source, event: Event::Service(service) };
        let keep = self.shared.is_recording() && self.shared.filter.keeps_service(began, &service);
        self.stage(record, keep);
    }

    fn serving(&mut self) {
        self.serving = self.now();
    }

    fn served_own(&mut self) {
        self.served = self.now();
        self.service += self.served.saturating_sub(self.serving);
    }
}

impl WatchOutput for Option<Box<Recorder>> {
    fn let_go(&mut self) {
        if let Some(recorder) = self {
            recorder.flush();
        }
    }

    fn wrote(&mut self, began: u64, offset: u64, len: usize) {
        if let Some(recorder) = self {
            recorder.output(began, offset, len);
        }
    }
}

impl Drop for Recorder {
    /// Its thread has ended, be it by a panic.
    fn drop(&mut self) {
        if !self.ended && matches!(self.source, Source::Vcpu(VcpuId(_))) {
            self.note(Event::Stop);
        }
        self.flush();
        self.shared.collect(Collected {
            source: self.source,
            exits: self.exits,
            others: self.others,
            summary: self.summary.take(),
            kernel: std::mem::take(&mut self.kernel),
        });
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("source", &self.source).finish_non_exhaustive()
    }
}
