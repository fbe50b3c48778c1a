//! Trace Event Format JSON, for ui.perfetto.dev and chrome://tracing.
//!
//! It is the array form, an event a line: readers take an array without its `]`, so a trace that
//! was cut shows what it has. There is a track for each thread: on a vCPU's the time in the guest
//! and the handling of each exit are slices, on the device thread's what it serves and writes. An
//! arrow leads from an exit whose accesses were posted to each of its services.
//!
//! Slices of a track must not overlap unless one is within the other. The times of a thread are
//! so, but for a nanosecond here and there, as each is rounded by itself; [`Track`] sees to it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::digits::{push_decimal, push_hex, push_micros};
use super::row::Row;
use super::{Sink, Symbols, TraceInfo};
use crate::exit::{VcpuId, VmExit};
use crate::trace::record::{Event, ExitEvent, Handling, Reason, Record, ServiceEvent, Source};

/// The one process that all tracks belong to.
const PID: u64 = 1;

// Track numbers. The supervisor is the main thread, which has the number of its process. The
// vCPUs' are apart from the others, so that a reader sees at once which is which.
const SUPERVISOR_TID: u64 = PID;
const DEVICES_TID: u64 = 2;
const FIRST_VCPU_TID: u64 = 100;

/// Writes a Trace Event trace.
pub(super) struct PerfettoSink {
    out: Box<dyn Write + Send>,
    symbols: Symbols,
    events: Events,
    tracks: BTreeMap<u64, Track>,
    /// Accesses in the channel, by the records so far. Below 0 while the service of an access has
    /// been seen and its exit has not.
    depth: i64,
}

/// The slices of a track so far.
#[derive(Clone, Copy, Default)]
struct Track {
    /// When the last exit was dealt with.
    exit_end: u64,
    /// When the last service or write ended, which may be within an exit.
    inner_end: u64,
}

impl Track {
    /// When an exit's time in the guest and its handling begin and end, without an overlap.
    fn exit(&mut self, time: u64, exit: &ExitEvent) -> (u64, u64) {
        let entry = time.saturating_sub(exit.guest).max(self.exit_end).min(time);
        let mut end = time.saturating_add(exit.handling_time());
        if self.inner_end > time {
            // What the vCPU served for others is part of the handling.
            end = end.max(self.inner_end);
        }
        self.exit_end = end;
        (entry, end)
    }

    /// When a service or a write begins and ends, without an overlap.
    fn inner(&mut self, time: u64, took: u32) -> (u64, u64) {
        let start = time.max(self.inner_end);
        let mut end = time.saturating_add(took.into()).max(start);
        if start < self.exit_end {
            end = end.min(self.exit_end);
        }
        self.inner_end = end;
        (start, end)
    }
}

/// Events that are to be written, as text.
#[derive(Default)]
struct Events {
    text: Vec<u8>,
    /// Whether the array has begun.
    begun: bool,
}

impl Events {
    /// Begins an event, up to and with its thread.
    fn begin(&mut self, name: &str, phase: &str, time: u64, tid: u64) -> io::Result<()> {
        self.text.extend_from_slice(if self.begun { b",\n{" } else { b"[{" });
        self.begun = true;
        self.text.extend_from_slice(b"\"name\":");
        serde_json::to_writer(&mut self.text, name)?;
        self.field("ph");
        self.string(phase);
        self.micros("ts", time);
        self.field("pid");
        push_decimal(&mut self.text, PID);
        self.field("tid");
        push_decimal(&mut self.text, tid);
        Ok(())
    }

    fn field(&mut self, name: &str) {
        self.text.push(b',');
        self.string(name);
        self.text.push(b':');
    }

    /// A text without characters that JSON would escape.
    fn string(&mut self, text: &str) {
        self.text.push(b'"');
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(b'"');
    }

    /// A time, which the format has in microseconds.
    fn micros(&mut self, name: &str, nanoseconds: u64) {
        self.field(name);
        push_micros(&mut self.text, nanoseconds);
    }

    /// Ends an event with its arguments.
    fn end(&mut self, args: &impl serde::Serialize) -> io::Result<()> {
        self.field("args");
        serde_json::to_writer(&mut self.text, args)?;
        self.text.push(b'}');
        Ok(())
    }

    /// A slice.
    fn slice(
        &mut self,
        name: &str,
        tid: u64,
        (start, end): (u64, u64),
        args: &impl serde::Serialize,
    ) -> io::Result<()> {
        self.begin(name, "X", start, tid)?;
        self.micros("dur", end - start);
        self.end(args)
    }

    /// One end of an arrow. It binds to the slice of the track that is open at that time, so it
    /// comes after that slice.
    fn flow(
        &mut self,
        phase: &str,
        time: u64,
        tid: u64,
        vcpu: VcpuId,
        sequence: u64,
    ) -> io::Result<()> {
        self.begin("posted", phase, time, tid)?;
        self.field("cat");
        self.string("flow");
        if phase == "f" {
            self.field("bp");
            self.string("e");
        }
        // A text, since it may need more than the 53 bits of a double.
        self.field("id");
        self.text.push(b'"');
        push_hex(&mut self.text, u64::from(vcpu.0) << 48 | sequence);
        self.text.extend_from_slice(b"\"}");
        Ok(())
    }

    /// A point in time on a track.
    fn instant(&mut self, name: &str, time: u64, tid: u64, row: &Row<'_>) -> io::Result<()> {
        self.begin(name, "i", time, tid)?;
        self.field("s");
        self.string("t");
        self.end(row)
    }

    /// What a track, or the process, is called.
    fn metadata(&mut self, name: &str, tid: u64, args: &serde_json::Value) -> io::Result<()> {
        self.begin(name, "M", 0, tid)?;
        self.end(args)
    }
}

impl PerfettoSink {
    /// Writes what is known of the trace.
    pub fn new(out: Box<dyn Write + Send>, info: &TraceInfo, symbols: Symbols) -> io::Result<Self> {
        let (events, tracks) = (Events::default(), BTreeMap::new());
        let mut sink = Self { out, symbols, events, tracks, depth: 0 };
        let name = format!("minivmm {}", info.guest);
        sink.events.metadata("process_name", SUPERVISOR_TID, &json!({ "name": name }))?;
        let labels = format!(
            "{} vCPUs, epoch_unix_ns {}, filter {:?}",
            info.vcpus, info.epoch_unix_ns, info.filter
        );
        sink.events.metadata("process_labels", SUPERVISOR_TID, &json!({ "labels": labels }))?;
        sink.name_track(SUPERVISOR_TID, Source::Supervisor)?;
        sink.name_track(DEVICES_TID, Source::Devices)?;
        sink.write_events()?;
        Ok(sink)
    }

    fn write_events(&mut self) -> io::Result<()> {
        self.out.write_all(&self.events.text)?;
        self.events.text.clear();
        self.out.flush()
    }

    /// The number of a thread's track, which gets its name when it is first seen.
    fn track(&mut self, source: Source) -> io::Result<u64> {
        let tid = match source {
            Source::Vcpu(id) => FIRST_VCPU_TID + u64::from(id.0),
            Source::Devices => DEVICES_TID,
            Source::Supervisor => SUPERVISOR_TID,
        };
        if !self.tracks.contains_key(&tid) {
            self.name_track(tid, source)?;
        }
        Ok(tid)
    }

    fn name_track(&mut self, tid: u64, source: Source) -> io::Result<()> {
        self.tracks.insert(tid, Track::default());
        // The vCPUs first: they are what one looks at.
        let order = match source {
            Source::Vcpu(id) => i64::from(id.0),
            Source::Devices => i64::from(i32::MAX) - 1,
            Source::Supervisor => i64::from(i32::MAX),
        };
        let name = source.to_string();
        self.events.metadata("thread_name", tid, &json!({ "name": name }))?;
        self.events.metadata("thread_sort_index", tid, &json!({ "sort_index": order }))
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let symbol = self.symbols.of(record);
        let tid = self.track(record.source)?;
        let row = Row::of(record, symbol.as_deref());
        match &record.event {
            Event::Exit(exit) => self.exit(record, exit, tid, &row),
            Event::Service(service) => self.service(record.time, service, tid, &row),
            Event::Output { took, .. } => {
                let times = self.inner(tid, record.time, *took);
                self.events.slice("output", tid, times, &row)
            }
            Event::Marker(name) => self.events.instant(&name.to_string(), record.time, tid, &row),
            Event::Completed(name) => {
                self.events.instant(&format!("completed {name}"), record.time, tid, &row)
            }
            _ => self.events.instant(row.kind.name(), record.time, tid, &row),
        }
    }

    fn exit(&mut self, record: &Record, exit: &ExitEvent, tid: u64, row: &Row) -> io::Result<()> {
        let time = record.time;
        let (entry, end) = self.tracks.entry(tid).or_default().exit(time, exit);
        self.events.slice("guest", tid, (entry, time), &json!({ "seq": exit.sequence }))?;
        self.events.slice(Reason::of(&exit.exit).name(), tid, (time, end), row)?;
        let (Handling::Posted { .. }, Source::Vcpu(vcpu)) = (exit.handling, record.source) else {
            return Ok(());
        };
        self.events.flow("s", time, tid, vcpu, exit.sequence)?;
        let accesses = if let VmExit::Pio(pio) = exit.exit { pio.count.into() } else { 1 };
        self.count(time, accesses)
    }

    fn service(
        &mut self,
        time: u64,
        service: &ServiceEvent,
        tid: u64,
        row: &Row,
    ) -> io::Result<()> {
        let times = self.inner(tid, time, service.service);
        self.events.slice("service", tid, times, row)?;
        self.events.flow("f", times.0, tid, service.vcpu, service.sequence)?;
        self.count(time, -1)
    }

    fn inner(&mut self, tid: u64, time: u64, took: u32) -> (u64, u64) {
        self.tracks.entry(tid).or_default().inner(time, took)
    }

    /// Changes the counter of accesses in the channel.
    fn count(&mut self, time: u64, change: i64) -> io::Result<()> {
        self.depth = self.depth.saturating_add(change);
        self.events.begin("queue depth", "C", time, DEVICES_TID)?;
        self.events.end(&json!({ "accesses": self.depth.max(0) }))
    }
}

impl Sink for PerfettoSink {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        for record in records {
            self.record(record)?;
        }
        self.write_events()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.events.text.extend_from_slice(b"\n]\n");
        self.write_events()
    }
}

#[cfg(test)]
mod tests;
