//! How a VM comes to its end: its vCPUs are stopped, its last output and its trace are written,
//! its threads joined. Each step waits for threads or the host no longer than it may.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::{Vcpu, Vmm};
use crate::exit::VcpuId;
use crate::host::{Host, Wake};
use crate::kvm::kick;
use crate::outcome::VmOutcome;
use crate::report::{VcpuReport, VmReport, count_of, write_exits};
use crate::trace::record::Record;
use crate::vcpu::BuildVcpu;
use crate::vmm::verdict::Verdict;

/// How long the host has to take the last output once the VM was ended from outside.
const OUTPUT_GRACE: Duration = Duration::from_millis(300);
/// How often it is looked whether a vCPU waits for the trace's writer.
const TRACE_LOOK: Duration = Duration::from_millis(20);
/// The distance of the signals that get a thread out of a write that does not end.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(2);

impl<B: BuildVcpu + 'static> Vmm<B> {
    /// Stops all vCPUs: every one is told before any is waited for.
    pub(super) fn stop_vcpus(
        &mut self,
        host: &mut Host,
        limit: Option<Duration>,
        verdict: &mut Verdict,
    ) {
        self.shared.rounds.close();
        self.shared.queue.close();
        for (id, vcpu) in (0..).map(VcpuId).zip(&self.vcpus) {
            if vcpu.is_running() {
                self.tracer.note_kick(id);
            }
            vcpu.control.stop();
        }
        verdict.decided = verdict.outcome.is_some();
        self.stop_requested |= !waits_for_reader(verdict);
        if self.tracer.is_writing() {
            self.wait_for_traced_vcpus(host, limit, verdict);
        }
        // With hundreds of vCPUs on a busy host the last may take long, but not each.
        while self.running > 0 {
            match self.events.events().recv_timeout(self.stop_limit) {
                Ok(event) => self.note(event, verdict),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    verdict.outcome = Some(VmOutcome::Stuck(self.stuck_vcpus()));
                    return;
                }
            }
        }
    }

    /// Waits until every vCPU has stopped. One may have to wait for the trace's writer first, and
    /// that for a disk or a reader: for as long as these take, unless somebody outside wants an
    /// end. Returns early if one does not stop although it waits for nobody.
    fn wait_for_traced_vcpus(
        &mut self,
        host: &mut Host,
        limit: Option<Duration>,
        verdict: &mut Verdict,
    ) {
        let mut give_up = None;
        let mut progress = Instant::now();
        while self.running > 0 && progress.elapsed() < self.stop_limit {
            let now = Instant::now();
            if self.stop_requested || self.deadline(limit).is_some_and(|deadline| now >= deadline) {
                give_up.get_or_insert_with(grace);
            }
            if give_up.is_some_and(|time| now >= time) {
                self.tracer.abandon_streams();
            } else if self.tracer.is_waited_for() {
                progress = now;
            }
            match host.wait(&self.events, &self.shared.queue, Some(now + TRACE_LOOK)) {
                Ok(Wake::Events) => self.note_queued(verdict),
                Ok(Wake::Look) => self.show_flight_recorders(),
                Ok(Wake::Deadline) => {}
                Ok(Wake::Signal(_) | Wake::Quit) => self.stop_requested = true,
                Err(_) => return,
            }
        }
    }

    fn stuck_vcpus(&self) -> Vec<String> {
        let stuck = |(id, vcpu): (u32, &Vcpu)| {
            let exits = vcpu.control.exits.last();
            let last = exits.last().and_then(Record::exit);
            let last = last.map_or("none".into(), ToString::to_string);
            vcpu.is_running().then(|| format!("{} (last exit: {last})", VcpuId(id)))
        };
        (0..).zip(&self.vcpus).filter_map(stuck).collect()
    }

    /// Lets the device thread write the last output and end. It waits for the reader as long as
    /// the outcome allows, and for a short grace from when somebody outside wants an end.
    pub(super) fn finish_output(
        &mut self,
        host: &mut Host,
        limit: Option<Duration>,
        verdict: &mut Verdict,
    ) {
        if self.device_thread.is_none() {
            return;
        }
        self.device_control.drain();
        self.shared.queue.rouse();
        self.stop_requested |= !waits_for_reader(verdict);
        self.note_queued(verdict);
        let until = self.deadline(limit).map(|deadline| deadline.max(grace()));
        let cut_short = self.wait_for_host(host, until, verdict, |vmm| vmm.output.is_some());
        self.device_control.abandon();
        let interrupt = |vmm: &Self| {
            vmm.shared.queue.rouse();
            vmm.tracer.abandon_streams();
            vmm.device_thread.as_ref().map(kick::interrupt);
        };
        self.interrupt_until(verdict, interrupt, |vmm| vmm.output.is_some());
        if let Some(outcome) = cut_short
            && self.output.is_some_and(|output| output.lost > 0)
        {
            verdict.consider_output(outcome);
        }
    }

    /// Lets the trace's writer complete the trace, now that all who record have ended. It waits
    /// for a slow disk, or a reader, like the output.
    pub(super) fn finish_trace(
        &mut self,
        host: &mut Host,
        limit: Option<Duration>,
        verdict: &mut Verdict,
    ) {
        if !self.tracer.is_writing() {
            return;
        }
        self.tracer.finish();
        let until = self.deadline(limit).map(|deadline| deadline.max(grace()));
        let cut_short = self.wait_for_host(host, until, verdict, |vmm| vmm.trace_end.is_some());
        if self.trace_end.is_none() {
            // Somebody's wish to end comes before what becomes of the trace then.
            if let Some(outcome @ (VmOutcome::Signal(_) | VmOutcome::Quit)) = cut_short {
                verdict.consider_output(outcome);
            }
            self.tracer.abandon();
            let interrupt = |vmm: &Self| {
                vmm.tracer.writer().map(kick::interrupt);
            };
            self.interrupt_until(verdict, interrupt, |vmm| vmm.trace_end.is_some());
        }
        match self.trace_end.take() {
            Some(Ok(())) => self.tracer.join_writer(),
            Some(Err(error)) => {
                self.tracer.join_writer();
                self.note_trace_failure(error, verdict);
            }
            None => verdict.outcome = Some(VmOutcome::Stuck(vec!["the trace's writer".into()])),
        }
    }

    /// The trace ends before its end. If that is not how the run comes out, it is said here.
    pub(super) fn note_trace_failure(&self, error: io::Error, verdict: &mut Verdict) {
        let said = error.to_string();
        verdict.consider_output(VmOutcome::TraceFailed(error));
        if !matches!(verdict.outcome, Some(VmOutcome::TraceFailed(_))) {
            log::error!(target: "minivmm::trace", "the trace is cut off: {said}");
        }
    }

    /// Waits, until `done`, for something that waits for the host: for as long as the host takes,
    /// but at most to `until`, and for a short grace from when somebody outside wants an end.
    /// Returns what cut it short.
    fn wait_for_host(
        &mut self,
        host: &mut Host,
        mut until: Option<Instant>,
        verdict: &mut Verdict,
        done: impl Fn(&Self) -> bool,
    ) -> Option<VmOutcome> {
        let mut hurry = false;
        let mut cut_short = None;
        while !done(self) {
            if self.stop_requested && !hurry {
                hurry = true;
                until = Some(grace());
            }
            match host.wait(&self.events, &self.shared.queue, until) {
                Ok(Wake::Events) => self.note_queued(verdict),
                Ok(Wake::Look) => self.show_flight_recorders(),
                Ok(wake) => {
                    cut_short = cut_short.or(cutting_short(wake));
                    if hurry || wake == Wake::Deadline {
                        break;
                    }
                    self.stop_requested = true;
                }
                Err(_) => break,
            }
        }
        cut_short
    }

    /// Gets a thread out of a write that the host does not take, until it is `done`.
    fn interrupt_until(
        &mut self,
        verdict: &mut Verdict,
        interrupt: impl Fn(&Self),
        done: impl Fn(&Self) -> bool,
    ) {
        let give_up = Instant::now() + self.stop_limit;
        while !done(self) && Instant::now() < give_up {
            // A signal that comes just before the thread enters write(2) is missed, so it is
            // sent again until the thread has reported.
            interrupt(self);
            if let Ok(event) = self.events.events().recv_timeout(INTERRUPT_PERIOD) {
                self.note(event, verdict);
            }
        }
    }

    /// Shows the last exits of every vCPU, of a VM that runs.
    pub(super) fn show_flight_recorders(&mut self) {
        let mut text = String::from("minivmm: the last exits of every vCPU\n");
        for (id, vcpu) in (0..).map(VcpuId).zip(&self.vcpus) {
            let exits = &vcpu.control.exits;
            // Writing to a String does not fail.
            let _ = writeln!(text, "{id}: {}", count_of(exits.count()));
            let _ = write_exits(&mut text, &exits.last());
        }
        // On a thread of its own: whoever reads standard error may take his time, or not read at
        // all, and the VM has to be supervised meanwhile. One at a time is enough.
        if self.showing.as_ref().is_none_or(JoinHandle::is_finished) {
            let write = move || {
                let _ = io::stderr().write_all(text.as_bytes());
            };
            self.showing = thread::Builder::new().name("show".into()).spawn(write).ok();
        }
    }

    /// Counts the output of a device thread that has died before it was all out. There is nothing
    /// left of one that came to its end.
    fn give_up_rest(&self) {
        let give_up = || self.device_control.give_up_rest(&self.shared.queue);
        // It may have died in a device, which may then be in no state to be served.
        if panic::catch_unwind(AssertUnwindSafe(give_up)).is_err() {
            log::error!(target: "minivmm::devices", "the output that is lost cannot be counted");
        }
    }

    /// Joins every thread that has reported its end, and reports.
    pub(super) fn join(mut self, verdict: Verdict, ran: Duration) -> VmReport {
        let mut outcome = verdict.outcome.unwrap_or(VmOutcome::Stopped);
        self.shared.exit.open(());
        match self.device_thread.take() {
            Some(_) if self.output.is_none() => {
                outcome = VmOutcome::Stuck(vec!["the device thread".into()]);
            }
            thread => {
                let _ = thread.map(JoinHandle::join);
                self.give_up_rest();
            }
        }
        let output = self.device_control.report();
        let vcpus = self.vcpus.into_iter().map(Vcpu::finish).collect();
        let counts = self.shared.queue.counts();
        let stats = self.tracer.take_summary(counts, || self.shared.builder.kernel_stats());
        let post_code = self.shared.queue.visit(|devices| devices.post_code());
        let lost_records = self.tracer.lost();
        VmReport { outcome, ran, vcpus, post_code, output, stats, lost_records }
    }
}

impl Vcpu {
    /// Whether it has a thread that has not reported its end.
    fn is_running(&self) -> bool {
        self.thread.is_some() && !self.ended
    }

    fn finish(self) -> VcpuReport {
        if let Some(thread) = self.thread
            && self.ended
        {
            // Its panic, if any, is in the verdict already.
            let _ = thread.join();
        }
        let exits = self.control.exits.last();
        VcpuReport { count: self.control.exits.count(), exits, registers: self.registers }
    }
}

/// What became of a run whose output was not waited for to its end, because of `wake`.
fn cutting_short(wake: Wake) -> Option<VmOutcome> {
    match wake {
        Wake::Events | Wake::Look => None,
        Wake::Signal(signal) => Some(VmOutcome::Signal(signal)),
        Wake::Quit => Some(VmOutcome::Quit),
        Wake::Deadline => {
            let why = "its reader did not take it within the time-out";
            Some(VmOutcome::OutputFailed(io::Error::new(io::ErrorKind::TimedOut, why)))
        }
    }
}

fn grace() -> Instant {
    Instant::now() + OUTPUT_GRACE
}

fn waits_for_reader(verdict: &Verdict) -> bool {
    verdict.outcome.as_ref().is_some_and(VmOutcome::waits_for_reader)
}
